package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/fleet"
)

// Sealer encrypts secrets at rest (seal.Ring).
type Sealer interface {
	Seal(name string, value []byte) (string, error)
	Open(name, sealed string) ([]byte, error)
}

// storedReceiver is a receiver that was added while Cordon ran: what anybody
// may see, and the rest sealed.
type storedReceiver struct {
	Receiver
	Sealed    string    `json:"sealed"`
	UpdatedAt time.Time `json:"updated_at"`
	UpdatedBy string    `json:"updated_by"`
}

// secrets are the parts of a receiver that are sealed.
type secrets struct {
	URL      string   `json:"url"`
	Secret   string   `json:"secret"`
	Secrets  []string `json:"secrets"`
	Password string   `json:"password"`
}

// mark is what is known of a receiver beyond its settings.
type mark struct {
	Name       string    `json:"name"`
	DisabledAt time.Time `json:"disabled_at,omitzero"`
	Reason     string    `json:"reason,omitempty"`
	By         string    `json:"by,omitempty"`
}

func sealName(receiver string) string { return "receiver " + receiver }

// SetReceiver adds or changes a receiver. Secrets that are empty stay as they
// are. CodeInvalid says what is wrong, CodeConflict that the settings file has
// a receiver of that name, CodeUnavailable that there is no key to seal with.
func (s *Service) SetReceiver(ctx context.Context, r Receiver, actor string) (ReceiverState, error) {
	var none ReceiverState
	if s.deps.Seal == nil {
		return none, fleet.Errorf(fleet.CodeUnavailable, "there is no key to encrypt secrets with; put receivers into the settings file")
	}
	if slices.ContainsFunc(s.cfg.Receivers, func(other Receiver) bool { return other.Name == r.Name }) {
		return none, fleet.Errorf(fleet.CodeConflict, "receiver %q is in the settings file; change it there", r.Name).On("name")
	}
	if before, ok := s.stored.get("receiver." + r.Name); ok {
		if old, err := s.unseal(before); err == nil && old.Kind == r.Kind {
			fill(&r, old)
		}
	}
	if err := (Config{Receivers: []Receiver{r}}).Validate(); err != nil {
		return none, fleet.Errorf(fleet.CodeInvalid, "%s", err.Error())
	}
	raw, err := json.Marshal(secrets{r.URL, r.Secret, r.Secrets, r.Password}) //nolint:gosec // sealed in the next line
	if err != nil {
		return none, fmt.Errorf("encode secrets of receiver %s: %w", r.Name, err)
	}
	sealed, err := s.deps.Seal.Seal(sealName(r.Name), raw)
	if err != nil {
		return none, fmt.Errorf("seal secrets of receiver %s: %w", r.Name, err)
	}
	entry := storedReceiver{Receiver: r, Sealed: sealed, UpdatedAt: s.now(), UpdatedBy: actor}
	if err := s.putReceiver(ctx, "receiver."+r.Name, entry); err != nil {
		return none, err
	}
	s.stored.put("receiver."+r.Name, entry)
	s.staff()
	if w := s.worker(r.Name); w != nil {
		return w.state(), nil
	}
	return none, nil
}

// fill keeps the secrets that a change does not name.
func fill(r *Receiver, old Receiver) {
	if r.URL == "" {
		r.URL = old.URL
	}
	if r.Secret == "" && len(r.Secrets) == 0 {
		r.Secret, r.Secrets = old.Secret, old.Secrets
	}
	if r.Password == "" {
		r.Password = old.Password
	}
}

// RemoveReceiver takes a receiver away; what waits for it is given up.
// CodeNotFound if there is none, CodeConflict if the settings file has it.
func (s *Service) RemoveReceiver(ctx context.Context, name string) error {
	if slices.ContainsFunc(s.cfg.Receivers, func(other Receiver) bool { return other.Name == name }) {
		return fleet.Errorf(fleet.CodeConflict, "receiver %q is in the settings file; take it out there", cut(name, 40))
	}
	if _, ok := s.stored.get("receiver." + name); !ok {
		return noReceiver(name)
	}
	b, err := s.open(ctx)
	if err != nil {
		return err
	}
	if err := b.receiver.Purge(ctx, "receiver."+name); err != nil {
		return fmt.Errorf("remove receiver %s: %w", name, err)
	}
	s.stored.remove("receiver." + name)
	s.staff()
	return nil
}

// EnableReceiver sends to a receiver again that was disabled because it
// answered 410 Gone.
func (s *Service) EnableReceiver(ctx context.Context, name, actor string) (ReceiverState, error) {
	w := s.worker(name)
	if w == nil {
		return ReceiverState{}, noReceiver(name)
	}
	if err := s.setMark(ctx, mark{Name: name, By: actor}); err != nil {
		return ReceiverState{}, err
	}
	return w.state(), nil
}

func (s *Service) setMark(ctx context.Context, m mark) error {
	if err := s.putReceiver(ctx, "state."+m.Name, m); err != nil {
		return err
	}
	s.marks.put("state."+m.Name, m)
	return nil
}

func (s *Service) putReceiver(ctx context.Context, key string, v any) error {
	b, err := s.open(ctx)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if _, err := b.receiver.Put(ctx, key, raw); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

func (s *Service) disabled(name string) (mark, bool) {
	m, ok := s.marks.get("state." + name)
	return m, ok && !m.DisabledAt.IsZero()
}

func noReceiver(name string) error {
	return fleet.Errorf(fleet.CodeNotFound, "there is no receiver %q", cut(name, 40)).On("receiver")
}

func (s *Service) unseal(e storedReceiver) (Receiver, error) {
	r := e.Receiver
	if s.deps.Seal == nil {
		return r, errors.New("there is no key to open its secrets with")
	}
	raw, err := s.deps.Seal.Open(sealName(r.Name), e.Sealed)
	if err != nil {
		return r, fmt.Errorf("open secrets: %w", err)
	}
	var sec secrets
	if err := json.Unmarshal(raw, &sec); err != nil {
		return r, errors.New("open secrets: they can't be read")
	}
	r.URL, r.Secret, r.Secrets, r.Password = sec.URL, sec.Secret, sec.Secrets, sec.Password
	return r, nil
}

// configured lists every receiver: those of the settings file first.
func (s *Service) configured() []Receiver {
	out := slices.Clone(s.cfg.Receivers)
	for _, e := range s.stored.all() {
		r, err := s.unseal(e)
		if err != nil {
			s.log.Error("receiver can't be used", "receiver", e.Name, "error", err)
			continue
		}
		if !slices.ContainsFunc(out, func(other Receiver) bool { return other.Name == r.Name }) {
			out = append(out, r.withDefaults())
		}
	}
	return out
}

// staff makes a worker of every receiver and takes those away that are not
// configured any more. Run starts and stops them.
func (s *Service) staff() {
	s.crewMu.Lock()
	defer s.crewMu.Unlock()
	var next []*worker
	for _, r := range s.configured() {
		i := slices.IndexFunc(s.crew, func(w *worker) bool { return w.receiver.Name == r.Name })
		if i >= 0 && same(s.crew[i].receiver, r) {
			next = append(next, s.crew[i])
			continue
		}
		send, err := newSender(r, s.cfg, s.deps.TLS, s.now)
		if err != nil {
			s.log.Error("receiver can't be used", "receiver", r.Name, "error", err)
			continue
		}
		next = append(next, &worker{service: s, receiver: r, sender: send, log: s.log.With("receiver", r.Name)})
	}
	s.crew = next
	select {
	case s.restaffed <- struct{}{}:
	default:
	}
}

func same(a, b Receiver) bool {
	return a.Kind == b.Kind && a.URL == b.URL && slices.Equal(a.keys(), b.keys()) && slices.Equal(a.To, b.To) && a.From == b.From &&
		a.Username == b.Username && a.Password == b.Password && a.Severity == b.Severity && slices.Equal(a.Changes, b.Changes) && a.AllowPrivate == b.AllowPrivate
}

// workers are the receivers as they are now.
func (s *Service) workers() []*worker {
	s.crewMu.Lock()
	defer s.crewMu.Unlock()
	return slices.Clone(s.crew)
}

func (s *Service) worker(name string) *worker {
	for _, w := range s.workers() {
		if w.receiver.Name == name {
			return w
		}
	}
	return nil
}

// supervise runs a worker for every receiver until ctx ends.
func (s *Service) supervise(ctx context.Context) error {
	type running struct {
		stop func()
		done chan error
	}
	now := map[*worker]running{}
	defer func() {
		for _, r := range now {
			r.stop()
			<-r.done //nolint:errcheck // it was told to stop
		}
	}()
	failed := make(chan error, 64)
	for {
		crew := s.workers()
		for w, r := range now {
			if slices.Contains(crew, w) {
				continue
			}
			r.stop()
			<-r.done //nolint:errcheck // it was told to stop
			delete(now, w)
		}
		if err := s.dropRemoved(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		for _, w := range crew {
			if _, ok := now[w]; ok {
				continue
			}
			each, cancel := context.WithCancel(ctx)
			r := running{cancel, make(chan error, 1)}
			now[w] = r
			go func() {
				err := w.run(each)
				r.done <- err
				if err != nil && each.Err() == nil {
					select {
					case failed <- err:
					default:
					}
				}
			}()
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-s.restaffed:
		}
	}
}

// keepDead stores the message of a failed delivery so that it can be
// replayed.
func (s *Service) keepDead(ctx context.Context, it item) {
	if err := s.putReceiver(ctx, deadKey(it.ID), it); err != nil {
		s.log.Error("failed notification can't be kept for a replay", "delivery", it.ID, "error", err)
	}
}

// Replay sends a failed delivery again, with the same id and fresh attempts.
// CodeConflict if it has not failed, CodeNotFound if there is none or its
// message is kept no longer.
func (s *Service) Replay(ctx context.Context, id, actor string) (fleet.Delivery, error) {
	b, err := s.open(ctx)
	if err != nil {
		return fleet.Delivery{}, err
	}
	d, found, err := s.lookup(ctx, id)
	if err != nil {
		return d, err
	}
	if !found {
		return d, fleet.Errorf(fleet.CodeNotFound, "there is no delivery %q", cut(id, 100)).On("id")
	}
	if d.State != stateFailed {
		return d, fleet.Errorf(fleet.CodeConflict, "delivery %s is %s; only a failed one can be sent again", d.ID, d.State)
	}
	w := s.worker(d.Receiver)
	if w == nil {
		return d, fleet.Errorf(fleet.CodeConflict, "receiver %s is configured no more", d.Receiver)
	}
	entry, err := b.receiver.Get(ctx, deadKey(id))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return d, fleet.Errorf(fleet.CodeNotFound, "the message of delivery %s is kept no longer", d.ID)
	}
	if err != nil {
		return d, fmt.Errorf("read message of delivery %s: %w", id, err)
	}
	var it item
	if err := json.Unmarshal(entry.Value(), &it); err != nil {
		return d, fmt.Errorf("read message of delivery %s: %w", id, err)
	}
	it.CreatedAt = s.now()
	d.State, d.Attempts, d.Error, d.NextAt, d.UpdatedAt = statePending, 0, "", time.Time{}, s.now()
	d.Replays++
	d.ActionBy = actor
	if err := s.store(ctx, d); err != nil {
		return d, err
	}
	return d, s.queue(ctx, w, it, fmt.Sprintf("%s.replay%d", it.ID, d.Replays))
}

// DeadLetters lists failed deliveries, newest first.
func (s *Service) DeadLetters() []fleet.Delivery {
	out := []fleet.Delivery{}
	for _, d := range s.records.all() {
		if d.State == stateFailed && !strings.HasPrefix(d.ID, "test-") {
			out = append(out, d)
		}
	}
	return out
}
