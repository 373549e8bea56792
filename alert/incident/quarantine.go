package incident

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

var noTime time.Time

// lead is how long before an incident opened a quarantine may have been
// requested and still belong to its story: decision and incident come from
// the same finding at about the same time.
const lead = 5 * time.Second

// watchQuarantines brings quarantine states into incidents until ctx ends.
// At start the broker repeats every current state; what a timeline already
// tells changes nothing.
func (s *Service) watchQuarantines(ctx context.Context) error {
	for try := 0; ctx.Err() == nil; try++ {
		watcher, err := s.buckets.quarantine.WatchAll(ctx)
		if err != nil {
			s.log.Warn("quarantines can't be watched", "error", err)
			s.wait(ctx, try)
			continue
		}
		s.followQuarantines(ctx, watcher)
		_ = watcher.Stop()
	}
	return nil
}

func (s *Service) followQuarantines(ctx context.Context, watcher jetstream.KeyWatcher) {
	for {
		select {
		case <-ctx.Done():
			return
		case entry, ok := <-watcher.Updates():
			if !ok {
				return
			}
			if entry == nil || entry.Operation() != jetstream.KeyValuePut {
				continue
			}
			var q fleet.Quarantine
			if err := json.Unmarshal(entry.Value(), &q); err != nil {
				s.log.Error("quarantine can't be read", "device", entry.Key(), "error", err)
				continue
			}
			for try := 0; ctx.Err() == nil; try++ {
				err := s.noteQuarantine(ctx, q)
				if err == nil {
					break
				}
				s.log.Warn("quarantine waits to be noted", "device", q.Device, "error", err)
				s.wait(ctx, try)
			}
		}
	}
}

// noteQuarantine tells the state of a quarantine in the incident it belongs
// to: the one that tells of it already, the one it names, or the device's
// unresolved one. Without any there is nothing to tell.
func (s *Service) noteQuarantine(ctx context.Context, q fleet.Quarantine) error {
	id, _ := s.view.quarantineOf(q)
	if id == "" {
		return nil
	}
	key := q.Device
	s.view.mu.RLock()
	if e := s.view.byID[id]; e != nil {
		key = keyOf(&e.Incident)
	}
	s.view.mu.RUnlock()
	lock := s.lock(key)
	lock.Lock()
	defer lock.Unlock()
	return s.noteLocked(ctx, q)
}

func (s *Service) noteLocked(ctx context.Context, q fleet.Quarantine) error {
	id, state := s.view.quarantineOf(q)
	if id == "" || state == q.State {
		return nil
	}
	_, err := s.mutateLocked(ctx, id, func(r *record) error {
		if r.Device != q.Device && !slices.Contains(r.Devices, q.Device) || !r.noteQuarantine(q, s.now()) {
			return errUnchanged
		}
		return nil
	})
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return nil
	}
	return err
}

// noteQuarantineOf looks after an incident opened whether its device was
// quarantined before the incident was there: both follow from one finding.
func (s *Service) noteQuarantineOf(ctx context.Context, r *record) error {
	if r.grouped() {
		return nil // the watch tells of later ones; those before belong to the devices' own incidents
	}
	entry, err := s.buckets.quarantine.Get(ctx, r.Device)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read quarantine of %s: %w", r.Device, err)
	}
	var q fleet.Quarantine
	if err := json.Unmarshal(entry.Value(), &q); err != nil || !q.Active() {
		return nil //nolint:nilerr // the watch reports an unreadable entry
	}
	return s.noteLocked(ctx, q)
}

// noteQuarantine enters a state once and says whether it was new. People are
// told when the device is confirmed cut, or when that failed, and when it is
// free again.
func (r *record) noteQuarantine(q fleet.Quarantine, now time.Time) bool {
	i := slices.IndexFunc(r.Quarantines, func(n noted) bool { return n.ID == q.ID })
	if i < 0 {
		if !q.Active() {
			return false // it came and went before this incident
		}
		r.Quarantines = append(r.Quarantines, noted{ID: q.ID})
		if over := len(r.Quarantines) - maxQuarantines; over > 0 {
			r.Quarantines = slices.Delete(r.Quarantines, 0, over)
		}
		i = len(r.Quarantines) - 1
	}
	n := &r.Quarantines[i]
	if n.State == q.State {
		return false
	}
	n.State = q.State
	at, kind, actor, text := describe(q)
	if at.IsZero() {
		at = now
	}
	r.UpdatedAt = now
	switch q.State {
	case fleet.Requested, fleet.Confirmed, fleet.Failed, fleet.Released, fleet.Expired:
		r.note(at, kind, actor, text)
	}
	recent := !q.RequestedAt.Before(r.OpenedAt.Add(-lead))
	switch {
	case (q.State == fleet.Confirmed || q.State == fleet.Failed) && !n.Told && recent:
		n.Told = true
		r.tell(ChangeQuarantined, actor, nil)
	case q.State == fleet.Released || q.State == fleet.Expired:
		r.tell(ChangeReleased, actor, nil)
	}
	return true
}

func describe(q fleet.Quarantine) (at time.Time, kind, actor, text string) {
	kind, actor = "quarantine", clip(q.Actor, maxActor)
	switch q.State {
	case fleet.Confirmed:
		at, text = q.ConfirmedAt, "confirmed: "+proof(q)
	case fleet.Failed:
		text = "NOT confirmed, new connections stay refused: " + q.Failure
	case fleet.Released:
		at, kind, actor, text = q.ReleasedAt, ChangeReleased, clip(q.ReleasedBy, maxActor), "released from "+string(q.Level)
	case fleet.Expired:
		at, kind, text = q.ReleasedAt, ChangeReleased, "quarantine ended at its time"
		actor = Actor
	default:
		at, text = q.RequestedAt, fmt.Sprintf("%s requested: %s", q.Level, q.Reason)
	}
	if actor == "" {
		actor = Actor
	}
	return at, kind, actor, clip(text, maxText)
}

func proof(q fleet.Quarantine) string {
	names := make([]string, 0, len(q.Proof.Brokers))
	for _, b := range q.Proof.Brokers {
		names = append(names, b.ServerName)
	}
	took := q.ConfirmedAt.Sub(q.RequestedAt).Round(time.Millisecond)
	where := ""
	if len(names) > 0 {
		where = " at " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s%s after %s, %d connections cut", q.Level, where, took, len(q.Proof.Kicked))
}
