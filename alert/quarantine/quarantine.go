package quarantine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	casAttempts = 16
	maxReason   = 1000 // bytes
	rulePrefix  = "rule:"
	watchRetry  = 200 * time.Millisecond
)

// Config holds the guards of automatic decisions.
type Config struct {
	Window     time.Duration // over which the caps count
	PerRule    int           // devices that one rule may quarantine in a window
	PerFleet   int           // devices that all rules together may quarantine in a window …
	FleetShare float64       // … or this share of the fleet, whichever is more
	Protected  string        // tag of devices that no rule may quarantine
	MaxDelay   time.Duration // a finding whose record was received longer ago decides nothing
	Stopped    int           // stopped decisions kept for Stopped

	RuleShare        float64                  // of the fleet, for PerRule
	PerCohort        int                      // devices of one cohort in a window …
	CohortShare      float64                  // … or this share of the cohort, whichever is more
	CriticalShare    float64                  // of the cohort's and the fleet's limit, kept for critical findings
	ProtectedDevices []string                 // ids that no rule may quarantine
	FirstHold        time.Duration            // how long the first automatic quarantine lasts; 0: until released
	HoldFactor       float64                  // every further one in a row lasts so many times as long …
	MaxHold          time.Duration            // … but no longer than this
	ResetAfter       time.Duration            // a device free for so long begins with FirstHold again
	ApprovalLife     time.Duration            // an approval request not decided by then expires
	BlockFor         time.Duration            // how long an outside actor stays on the block list after it was last seen
	NeverBlock       []netip.Prefix           // addresses that never come on the block list
	Fault            func(point string) error // for tests: an error breaks off at the point
}

// DefaultConfig allows in 10 minutes a rule 10 devices, all rules the larger of
// 3 devices and a quarter of a cohort and the larger of 5 devices and 2 % of
// the fleet, a fifth of which is kept for critical findings. Automatic
// quarantines last 4 hours, then 16, 64 and at most 7 days.
func DefaultConfig() Config {
	return Config{
		Window: 10 * time.Minute, PerRule: 10, PerFleet: 5, FleetShare: 0.02,
		Protected: "protected", MaxDelay: time.Hour, Stopped: 200,
		PerCohort: 3, CohortShare: 0.25, CriticalShare: 0.2,
		FirstHold: 4 * time.Hour, HoldFactor: 4, MaxHold: 7 * 24 * time.Hour, ResetAfter: 7 * 24 * time.Hour,
		ApprovalLife: 24 * time.Hour, BlockFor: 24 * time.Hour,
	}
}

// Deps are what the service needs.
type Deps struct {
	Bus     *bus.Bus
	Log     *slog.Logger
	Clock   func() time.Time
	Device  func(id string) (fleet.Device, bool)
	Fleet   func() int            // size of the fleet, for the share; may be nil
	Cohort  func(name string) int // size of a cohort; nil: cohorts have no cap
	Metrics prometheus.Registerer // may be nil
}

// Service decides on quarantines. Reads come from memory, which Run keeps.
type Service struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	ready   chan struct{}
	once    sync.Once

	kvMu sync.Mutex
	kv   jetstream.KeyValue

	mu        sync.Mutex
	entries   map[string]held
	decisions map[string]decision // automatic ones, by id, of the last window
	findings  map[string]string   // finding → decision id, as far as the bucket remembers
	changed   chan struct{}       // closed at every change
	stopped   []fleet.Stopped
	seen      uint64 // findings handled
	breakers  map[string]fleet.Breaker
	approvals map[string]fleet.Approval
	blocks    map[string]fleet.Block // outside actors, by address
	more      int                    // devices that the full approval request does not name; only Run touches it

	parts      atomic.Int32 // buckets that are in memory
	guardsOnce sync.Once
}

type held struct {
	q        fleet.Quarantine
	revision uint64
}

type decision struct {
	device, rule, cohort string
	at                   time.Time
}

// New makes an inert service.
func New(cfg Config, deps Deps) *Service {
	if deps.Metrics == nil {
		deps.Metrics = prometheus.NewRegistry()
	}
	return &Service{
		cfg: cfg, deps: deps, metrics: newMetrics(deps.Metrics), ready: make(chan struct{}),
		entries: map[string]held{}, decisions: map[string]decision{}, findings: map[string]string{},
		changed: make(chan struct{}), breakers: map[string]fleet.Breaker{}, approvals: map[string]fleet.Approval{}, blocks: map[string]fleet.Block{},
	}
}

// Ready is closed once memory holds every quarantine, breaker, approval and
// block.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// loaded counts the buckets that are in memory: decisions need both.
func (s *Service) loaded() {
	if s.parts.Add(1) == 2 {
		close(s.ready)
	}
}

func (s *Service) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	s.kvMu.Lock()
	defer s.kvMu.Unlock()
	if s.kv == nil {
		kv, err := s.deps.Bus.Bucket(ctx, bus.BucketQuarantine)
		if err != nil {
			return nil, err
		}
		s.kv = kv
	}
	return s.kv, nil
}

// Request decides that a device is held back and returns once the decision is
// in the bucket; Wait follows it from there. A device that is held at the same
// level keeps its decision, which is returned. A lower level replaces a higher
// one only when Lower is set. Codes: invalid, not_found, conflict (held more
// tightly).
func (s *Service) Request(ctx context.Context, r fleet.QuarantineRequest) (fleet.Quarantine, error) {
	if err := s.check(r); err != nil {
		return fleet.Quarantine{}, err
	}
	q, created, err := s.modify(ctx, r.Device, func(old fleet.Quarantine) (fleet.Quarantine, bool, error) {
		if old.Active() {
			switch have, want := rank(old.Level), rank(r.Level); {
			case have == want:
				return old, false, nil
			case have > want && !r.Lower:
				return old, false, fleet.Errorf(fleet.CodeConflict, "device %s is held at %s by %s: release it first", r.Device, old.Level, old.Actor).On("level")
			}
		}
		q := fleet.Quarantine{
			ID: nextID(old, r.Device), Device: r.Device, Level: r.Level, State: fleet.Requested,
			Reason: r.Reason, Actor: r.Actor, Rule: r.Rule, Incident: r.Incident, Finding: r.Finding,
			Until: r.Until.UTC(), RequestedAt: s.deps.Clock().UTC(), Offence: r.Offence,
		}
		if q.Offence == 0 {
			q.Offence = old.Offence // an operator's decision neither counts nor forgives
		}
		if old.Active() {
			q.Follows = old.ID
		}
		return q, true, nil
	})
	if err != nil {
		return fleet.Quarantine{}, err
	}
	if err := s.fault(FaultRequested); err != nil {
		return q, err
	}
	if created {
		s.metrics.decisions.WithLabelValues(string(q.Level), origin(q)).Inc()
		s.deps.Log.Info("quarantine requested", "device", q.Device, "level", string(q.Level), "id", q.ID, "actor", q.Actor, "reason", q.Reason)
	}
	return q, nil
}

func (s *Service) check(r fleet.QuarantineRequest) error {
	if err := fleet.CheckDeviceID(r.Device); err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "%w", err).On("device")
	}
	if _, err := fleet.Parse("level", string(r.Level), fleet.Levels); err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "%w", err).On("level")
	}
	if strings.TrimSpace(r.Reason) == "" {
		return fleet.Errorf(fleet.CodeInvalid, "a quarantine needs a reason").On("reason")
	}
	if len(r.Reason) > maxReason {
		return fleet.Errorf(fleet.CodeInvalid, "reason has %d bytes, the limit is %d", len(r.Reason), maxReason).On("reason")
	}
	if r.Actor == "" {
		return fleet.Errorf(fleet.CodeInvalid, "a quarantine needs an actor").On("actor")
	}
	if !r.Until.IsZero() && !r.Until.After(s.deps.Clock()) {
		return fleet.Errorf(fleet.CodeInvalid, "until is %s, which is over", r.Until.UTC().Format(time.RFC3339)).On("until")
	}
	if _, ok := s.deps.Device(r.Device); !ok {
		return fleet.Errorf(fleet.CodeNotFound, "no device %s in the registry", r.Device)
	}
	return nil
}

// Release ends a quarantine: the gate lets the device in again at once. Codes:
// not_found, conflict (not held).
func (s *Service) Release(ctx context.Context, device, actor, reason string) (fleet.Quarantine, error) {
	return s.release(ctx, device, actor, reason, time.Time{})
}

// Probation restricts an isolated device until a time, and then it is free.
// Codes: not_found, conflict (not held, or not isolated), invalid.
func (s *Service) Probation(ctx context.Context, device, actor, reason string, until time.Time) (fleet.Quarantine, error) {
	if !until.After(s.deps.Clock()) {
		return fleet.Quarantine{}, fleet.Errorf(fleet.CodeInvalid, "probation ends at %s, which is over", until.UTC().Format(time.RFC3339)).On("probation_until")
	}
	return s.release(ctx, device, actor, reason, until)
}

func (s *Service) release(ctx context.Context, device, actor, reason string, probation time.Time) (fleet.Quarantine, error) {
	if err := fleet.CheckDeviceID(device); err != nil {
		return fleet.Quarantine{}, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("device")
	}
	if len(reason) > maxReason {
		return fleet.Quarantine{}, fleet.Errorf(fleet.CodeInvalid, "reason has %d bytes, the limit is %d", len(reason), maxReason).On("reason")
	}
	q, _, err := s.modify(ctx, device, func(q fleet.Quarantine) (fleet.Quarantine, bool, error) {
		switch {
		case q.ID == "":
			return q, false, fleet.Errorf(fleet.CodeNotFound, "device %s was never quarantined", device)
		case !q.Active():
			return q, false, fleet.Errorf(fleet.CodeConflict, "device %s is not quarantined: its last quarantine is %s", device, q.State)
		}
		if !probation.IsZero() {
			if q.Level != fleet.Isolate {
				return q, false, fleet.Errorf(fleet.CodeConflict, "device %s is held at %s: only an isolated device is released through probation", device, q.Level).On("probation_until")
			}
			return fleet.Quarantine{
				ID: nextID(q, device), Device: device, Level: fleet.Restrict, State: fleet.Requested, Probation: true, Follows: q.ID,
				Reason: "probation: " + reason, Actor: actor, Rule: q.Rule, Incident: q.Incident, Offence: q.Offence,
				Until: probation.UTC(), RequestedAt: s.deps.Clock().UTC(),
			}, true, nil
		}
		q.State, q.ReleasedAt, q.ReleasedBy, q.ReleaseNote = fleet.Released, s.deps.Clock().UTC(), actor, reason
		return q, true, nil
	})
	if err != nil {
		return fleet.Quarantine{}, err
	}
	s.deps.Log.Info("quarantine released", "device", device, "id", q.ID, "actor", actor, "reason", reason)
	return q, nil
}

// Extend changes when a quarantine ends by itself; zero: not before it is
// released. Codes: not_found, conflict (not held), invalid.
func (s *Service) Extend(ctx context.Context, device string, until time.Time, actor string) (fleet.Quarantine, error) {
	if err := fleet.CheckDeviceID(device); err != nil {
		return fleet.Quarantine{}, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("device")
	}
	if !until.IsZero() && !until.After(s.deps.Clock()) {
		return fleet.Quarantine{}, fleet.Errorf(fleet.CodeInvalid, "until is %s, which is over", until.UTC().Format(time.RFC3339)).On("until")
	}
	q, _, err := s.modify(ctx, device, func(q fleet.Quarantine) (fleet.Quarantine, bool, error) {
		switch {
		case q.ID == "":
			return q, false, fleet.Errorf(fleet.CodeNotFound, "device %s was never quarantined", device)
		case !q.Active():
			return q, false, fleet.Errorf(fleet.CodeConflict, "device %s is not quarantined: its last quarantine is %s", device, q.State)
		}
		q.Until, q.ExtendedBy, q.ExtendedAt = until.UTC(), actor, s.deps.Clock().UTC()
		if until.IsZero() {
			q.Until = time.Time{}
		}
		return q, true, nil
	})
	if err != nil {
		return fleet.Quarantine{}, err
	}
	s.deps.Log.Info("quarantine extended", "device", device, "id", q.ID, "actor", actor, "until", q.Until)
	return q, nil
}

// modify changes a device's entry by compare-and-set until no other writer was
// faster. change says whether there is something to write.
func (s *Service) modify(ctx context.Context, device string, change func(fleet.Quarantine) (fleet.Quarantine, bool, error)) (fleet.Quarantine, bool, error) {
	kv, err := s.bucket(ctx)
	if err != nil {
		return fleet.Quarantine{}, false, err
	}
	for range casAttempts {
		old, revision, err := read(ctx, kv, device)
		if err != nil {
			return fleet.Quarantine{}, false, err
		}
		q, write, err := change(old)
		if err != nil || !write {
			return q, false, err
		}
		data, err := json.Marshal(q)
		if err != nil {
			return q, false, fmt.Errorf("encode quarantine of %s: %w", device, err)
		}
		if revision == 0 {
			revision, err = kv.Create(ctx, device, data)
		} else {
			revision, err = kv.Update(ctx, device, data, revision)
		}
		if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			continue
		}
		if err != nil {
			return q, false, fmt.Errorf("write quarantine of %s: %w", device, err)
		}
		s.store(held{q, revision})
		if err := s.deps.Bus.Cordon.Publish(bus.SubjectDecision+"."+device, data); err != nil {
			s.deps.Log.Warn("quarantine event was not published", "device", device, "error", err)
		}
		return q, true, nil
	}
	return fleet.Quarantine{}, false, fleet.Errorf(fleet.CodeConflict, "the quarantine of device %s is being changed by others: try again", device)
}

func read(ctx context.Context, kv jetstream.KeyValue, device string) (fleet.Quarantine, uint64, error) {
	entry, err := kv.Get(ctx, device)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return fleet.Quarantine{}, 0, nil
	}
	if err != nil {
		return fleet.Quarantine{}, 0, fmt.Errorf("read quarantine of %s: %w", device, err)
	}
	var q fleet.Quarantine
	if err := json.Unmarshal(entry.Value(), &q); err != nil {
		return fleet.Quarantine{}, 0, fmt.Errorf("decode quarantine of %s: %w", device, err)
	}
	return q, entry.Revision(), nil
}

// Get reads a device's newest quarantine from the bucket's leader. Code:
// not_found.
func (s *Service) Get(ctx context.Context, device string) (fleet.Quarantine, error) {
	if err := fleet.CheckDeviceID(device); err != nil {
		return fleet.Quarantine{}, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("device")
	}
	kv, err := s.bucket(ctx)
	if err != nil {
		return fleet.Quarantine{}, err
	}
	q, _, err := read(ctx, kv, device)
	if err == nil && q.ID == "" {
		err = fleet.Errorf(fleet.CodeNotFound, "device %s was never quarantined", device)
	}
	return q, err
}

// Current reads a device's newest quarantine from memory.
func (s *Service) Current(device string) (fleet.Quarantine, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.entries[device]
	return h.q, ok
}

// List returns every device's newest quarantine from memory: those in force
// first, then the newest first.
func (s *Service) List() []fleet.Quarantine {
	s.mu.Lock()
	list := make([]fleet.Quarantine, 0, len(s.entries))
	for _, h := range s.entries {
		list = append(list, h.q)
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b fleet.Quarantine) int {
		if a.Active() != b.Active() {
			if a.Active() {
				return -1
			}
			return 1
		}
		return cmp.Or(b.RequestedAt.Compare(a.RequestedAt), cmp.Compare(a.Device, b.Device))
	})
	return list
}

// Wait returns the decision once it is confirmed, failed, or over, or as it
// stands when ctx ends or another decision took its place. Code: not_found.
func (s *Service) Wait(ctx context.Context, device, id string) (fleet.Quarantine, error) {
	for {
		s.mu.Lock()
		h, ok := s.entries[device]
		changed := s.changed
		s.mu.Unlock()
		settled := h.q.State == fleet.Confirmed || h.q.State == fleet.Failed || !h.q.Active()
		if ok && (h.q.ID != id || settled) {
			return h.q, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if !ok {
				return fleet.Quarantine{}, fleet.Errorf(fleet.CodeNotFound, "device %s was never quarantined", device)
			}
			return h.q, nil
		}
	}
}

// store takes an entry into memory unless a newer one is there. Older
// revisions still count for the caps.
func (s *Service) store(h held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(h.q.Actor, rulePrefix) {
		s.decisions[h.q.ID] = decision{h.q.Device, h.q.Rule, s.cohortOf(h.q.Device), h.q.RequestedAt}
	}
	if h.q.Finding != "" {
		s.findings[h.q.Finding] = h.q.ID
	}
	if s.entries[h.q.Device].revision >= h.revision {
		return
	}
	s.entries[h.q.Device] = h
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Service) cohortOf(device string) string {
	d, ok := s.deps.Device(device)
	if !ok {
		return ""
	}
	return d.Cohort
}

func rank(l fleet.Level) int { return slices.Index(fleet.Levels, l) }

// nextID numbers a device's decisions.
func nextID(old fleet.Quarantine, device string) string {
	number := 0
	if _, text, ok := strings.Cut(old.ID, "."); ok {
		number, _ = strconv.Atoi(text) //nolint:errcheck // written by nextID
	}
	return device + "." + strconv.Itoa(number+1)
}

func origin(q fleet.Quarantine) string {
	if strings.HasPrefix(q.Actor, rulePrefix) {
		return "rule"
	}
	return "operator"
}
