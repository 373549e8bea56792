package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	// controlKey holds, in bucket "position", the revision of bucket
	// "quarantine" up to which changes are on the FLEET log.
	controlKey    = "control_quarantine"
	expiryEvery   = time.Second
	refusalsEvery = time.Minute
	retryFirst    = 200 * time.Millisecond
	retryLast     = 10 * time.Second
)

// entry is a quarantine as the bucket has it.
type entry struct {
	q        fleet.Quarantine
	revision uint64
}

// enforcer takes every quarantine from requested to confirmed and keeps it
// there. Its memory is the bucket: after a restart it goes on from whatever
// state it finds.
type enforcer struct {
	g      *Gate
	loaded chan struct{}
	once   sync.Once
	group  sync.WaitGroup

	mu       sync.Mutex
	entries  map[string]entry
	working  map[string]bool
	refusals map[string]uint64                 // not in the bucket yet
	onLog    map[string]fleet.QuarantineChange // what the journal took last; only the watch touches it
	journal  *bus.Journal
}

func newEnforcer(g *Gate) *enforcer {
	return &enforcer{
		g: g, loaded: make(chan struct{}),
		entries: map[string]entry{}, working: map[string]bool{}, refusals: map[string]uint64{},
		onLog: map[string]fleet.QuarantineChange{}, journal: g.deps.Bus.NewJournal(controlKey, g.deps.Log),
	}
}

func (e *enforcer) run(ctx context.Context) error {
	defer e.group.Wait()
	for ctx.Err() == nil {
		if err := e.watch(ctx); ctx.Err() == nil {
			e.g.again(ctx, "quarantine", err)
		}
	}
	return nil
}

// again waits before a watch that ended is started over.
func (g *Gate) again(ctx context.Context, watch string, err error) {
	g.healthy.Store(false)
	g.deps.Log.Warn("watch ended, starting it again", "watch", watch, "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(retryFirst):
	}
}

func (e *enforcer) watch(ctx context.Context) error {
	watcher, err := e.g.quarantines.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", bus.BucketQuarantine, err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for update := range watcher.Updates() {
		if update == nil {
			e.once.Do(func() { close(e.loaded) })
			continue
		}
		if err := e.observe(ctx, update); err != nil {
			return err
		}
	}
	return errors.New("watch closed by the broker")
}

// keepTime ends quarantines whose time is over and writes refusals down.
func (e *enforcer) keepTime(ctx context.Context) error {
	expiry := time.NewTicker(expiryEvery)
	defer expiry.Stop()
	refusals := time.NewTicker(refusalsEvery)
	defer refusals.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-refusals.C:
			e.saveRefusals(ctx)
		case <-expiry.C:
			e.expire(ctx)
		}
	}
}

// observe takes over an entry of the bucket, starts what must be done about it
// and puts the change on the FLEET log.
func (e *enforcer) observe(ctx context.Context, update jetstream.KeyValueEntry) error {
	q, ok := decode(update)
	if !ok {
		// Callouts of the device fail on it too, and so are refused.
		e.g.deps.Log.Error("quarantine entry can't be read, leaving it", "device", update.Key())
		return nil
	}
	e.store(ctx, entry{q, update.Revision()})
	return e.record(q, update.Revision())
}

func decode(update jetstream.KeyValueEntry) (q fleet.Quarantine, ok bool) {
	if update.Operation() != jetstream.KeyValuePut {
		return q, false
	}
	err := json.Unmarshal(update.Value(), &q)
	return q, err == nil && q.Device == update.Key()
}

// store keeps an entry unless a newer one is known, and starts work on it.
func (e *enforcer) store(ctx context.Context, ent entry) {
	device := ent.q.Device
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.entries[device]
	if old.revision >= ent.revision {
		return
	}
	e.entries[device] = ent
	e.count(old.q, -1)
	e.count(ent.q, 1)
	switch {
	case pending(ent.q) && !e.working[device]:
		e.working[device] = true
		e.group.Go(func() { e.work(ctx, device) })
	case old.q.Active() && !ent.q.Active():
		delete(e.refusals, device)
		e.group.Go(func() { e.unrestrict(ctx, device) })
	}
}

func (e *enforcer) count(q fleet.Quarantine, n int64) {
	if q.Active() {
		e.g.active.Add(n)
	}
	if q.State == fleet.Failed {
		e.g.failed.Add(n)
	}
}

func pending(q fleet.Quarantine) bool {
	return q.State == fleet.Requested || q.State == fleet.Applied || q.State == fleet.Failed
}

func (e *enforcer) current(device string) entry {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.entries[device]
}

// work enforces a device's quarantine until there is nothing left to do.
func (e *enforcer) work(ctx context.Context, device string) {
	wait := retryFirst
	for {
		e.mu.Lock()
		ent := e.entries[device]
		if !pending(ent.q) || ctx.Err() != nil {
			delete(e.working, device)
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		err := e.enforce(ctx, ent)
		if err == nil {
			wait = retryFirst
			continue
		}
		if ctx.Err() == nil {
			e.g.deps.Log.Warn("quarantine is not confirmed yet", "device", device, "error", err, "retry_in", wait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, retryLast)
	}
}

// enforce takes one quarantine a state further. It returns nil when the state
// moved, by its own hand or another's.
func (e *enforcer) enforce(ctx context.Context, ent entry) error {
	start := time.Now()
	watch := stopwatch{last: start, steps: []fleet.Step{{Name: "noticed", TookMS: milliseconds(e.g.deps.Clock().Sub(ent.q.RequestedAt))}}}
	kicked, err := e.cut(ctx, ent.q)
	if err != nil {
		return e.fail(ctx, ent, kicked, err)
	}
	watch.lap("cut")
	if err := e.g.fault(FaultCut); err != nil {
		return err
	}
	// The state is written while the brokers settle.
	applied := e.apply(ctx, ent, kicked)
	proofs, more, err := e.confirm(ctx, ent.q, start, &watch)
	kicked = merge(kicked, more)
	saved := <-applied
	if saved.err != nil {
		return ignoreMoved(saved.err)
	}
	ent = saved.entry
	if err := e.g.fault(FaultApplied); err != nil {
		return err
	}
	if errors.Is(err, errMoved) {
		return nil
	}
	if err != nil {
		return e.fail(ctx, ent, kicked, err)
	}
	watch.lap("proven")
	if err := e.g.fault(FaultProven); err != nil {
		return err
	}
	e.fence(ctx, ent.q)
	watch.lap("fenced")
	if err := e.g.fault(FaultFenced); err != nil {
		return err
	}
	ent, err = e.save(ctx, ent, func(q *fleet.Quarantine) {
		q.State, q.ConfirmedAt, q.Failure = fleet.Confirmed, e.g.deps.Clock().UTC(), ""
		q.Proof.Kicked, q.Proof.Brokers, q.Proof.Steps = merge(q.Proof.Kicked, kicked), proofs, watch.steps
	})
	if err != nil {
		return ignoreMoved(err)
	}
	if ent.q.Level == fleet.Observe && ent.q.Follows != "" {
		e.unrestrict(ctx, ent.q.Device) // it was held at restrict before
	}
	q := ent.q
	e.g.metrics.confirm.Observe(q.ConfirmedAt.Sub(q.RequestedAt).Seconds())
	e.g.deps.Log.Info("quarantine confirmed", "device", q.Device, "level", string(q.Level), "id", q.ID,
		"kicked", len(q.Proof.Kicked), "took", q.ConfirmedAt.Sub(q.RequestedAt))
	return nil
}

type saved struct {
	entry
	err error
}

// apply writes that the connections were cut, unless that is written.
func (e *enforcer) apply(ctx context.Context, ent entry, kicked []fleet.Connection) <-chan saved {
	done := make(chan saved, 1)
	if ent.q.State != fleet.Requested {
		done <- saved{entry: ent}
		return done
	}
	at, kicked := e.g.deps.Clock().UTC(), slices.Clone(kicked)
	go func() {
		ent, err := e.save(ctx, ent, func(q *fleet.Quarantine) {
			q.State, q.AppliedAt = fleet.Applied, at
			q.Proof.Kicked = merge(q.Proof.Kicked, kicked)
		})
		done <- saved{ent, err}
	}()
	return done
}

// Points at which a test may break off (Config.Fault): the steps from
// requested to confirmed.
const (
	FaultCut     = "cut"
	FaultApplied = "applied"
	FaultProven  = "proven"
	FaultFenced  = "fenced"
)

func (g *Gate) fault(point string) error {
	if g.cfg.Fault == nil {
		return nil
	}
	return g.cfg.Fault(point)
}

// stopwatch tells how long each step took.
type stopwatch struct {
	last  time.Time
	steps []fleet.Step
}

func (s *stopwatch) lap(name string) {
	now := time.Now()
	s.steps = append(s.steps, fleet.Step{Name: name, TookMS: milliseconds(now.Sub(s.last))})
	s.last = now
}

func milliseconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e3 }

// fail writes why a quarantine is not confirmed. It keeps denying, and the
// caller tries again.
func (e *enforcer) fail(ctx context.Context, ent entry, kicked []fleet.Connection, why error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if ent.q.State == fleet.Failed && ent.q.Failure == why.Error() {
		return why
	}
	_, err := e.save(ctx, ent, func(q *fleet.Quarantine) {
		q.State, q.Failure = fleet.Failed, why.Error()
		q.Proof.Kicked = merge(q.Proof.Kicked, kicked)
	})
	if err != nil && !errors.Is(err, errMoved) {
		return errors.Join(why, err)
	}
	return why
}

// errMoved says that somebody else changed the decision meanwhile.
var errMoved = errors.New("decision changed meanwhile")

func ignoreMoved(err error) error {
	if errors.Is(err, errMoved) {
		return nil
	}
	return err
}

// save writes a change of the decision by compare-and-set. When the entry
// changed but still holds the same decision in force, the change is made to
// the newer entry; else errMoved.
func (e *enforcer) save(ctx context.Context, ent entry, change func(*fleet.Quarantine)) (entry, error) {
	id := ent.q.ID
	for {
		change(&ent.q)
		data, err := json.Marshal(ent.q)
		if err != nil {
			return ent, fmt.Errorf("encode quarantine of %s: %w", ent.q.Device, err)
		}
		revision, err := e.g.quarantines.Update(ctx, ent.q.Device, data, ent.revision)
		if err == nil {
			ent.revision = revision
			e.g.metrics.states.WithLabelValues(string(ent.q.State)).Inc()
			e.store(ctx, ent)
			if err := e.g.deps.Bus.Cordon.Publish(bus.SubjectDecision+"."+ent.q.Device, data); err != nil {
				e.g.deps.Log.Warn("quarantine event was not published", "device", ent.q.Device, "error", err)
			}
			return ent, nil
		}
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return ent, fmt.Errorf("write quarantine of %s: %w", ent.q.Device, err)
		}
		newer, err := e.g.quarantines.Get(ctx, ent.q.Device)
		if err != nil {
			return ent, fmt.Errorf("read quarantine of %s: %w", ent.q.Device, err)
		}
		ent = entry{revision: newer.Revision()}
		if err := json.Unmarshal(newer.Value(), &ent.q); err != nil {
			return ent, fmt.Errorf("decode quarantine of %s: %w", newer.Key(), err)
		}
		e.store(ctx, ent)
		if ent.q.ID != id || !ent.q.Active() {
			return ent, errMoved
		}
	}
}

// expire ends quarantines whose time is over.
func (e *enforcer) expire(ctx context.Context) {
	now := e.g.deps.Clock()
	e.mu.Lock()
	var due []entry
	for _, ent := range e.entries {
		if ent.q.Active() && !ent.q.Until.IsZero() && !now.Before(ent.q.Until) {
			due = append(due, ent)
		}
	}
	e.mu.Unlock()
	for _, ent := range due {
		ent, err := e.save(ctx, ent, func(q *fleet.Quarantine) {
			if q.Until.IsZero() || now.Before(q.Until) {
				return // extended meanwhile
			}
			q.State, q.ReleasedAt, q.ReleasedBy = fleet.Expired, now.UTC(), "cordon"
		})
		switch {
		case errors.Is(err, errMoved):
		case err != nil:
			e.g.deps.Log.Warn("quarantine did not expire yet", "device", ent.q.Device, "error", err)
		case ent.q.State == fleet.Expired:
			e.g.deps.Log.Info("quarantine expired", "device", ent.q.Device, "id", ent.q.ID)
		}
	}
}

// refused counts a connect that a quarantine refused.
func (e *enforcer) refused(device string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refusals[device]++
}

// saveRefusals adds the counted refusals to the proofs, seldom, because every
// write is a revision of the entry.
func (e *enforcer) saveRefusals(ctx context.Context) {
	e.mu.Lock()
	counts := e.refusals
	e.refusals = map[string]uint64{}
	e.mu.Unlock()
	for device, n := range counts {
		ent := e.current(device)
		if !ent.q.Active() {
			continue
		}
		if _, err := e.save(ctx, ent, func(q *fleet.Quarantine) { q.Proof.Refused += n }); err != nil && !errors.Is(err, errMoved) {
			e.g.deps.Log.Warn("refusals were not written", "device", device, "error", err)
		}
	}
}

// record puts a change on the FLEET log.
func (e *enforcer) record(q fleet.Quarantine, revision uint64) error {
	change := fleet.QuarantineChange{Device: q.Device, ID: q.ID, Active: q.Active(), Level: q.Level, State: q.State}
	if change.Active {
		change.State = fleet.Requested // the fence says that it is confirmed
	}
	if e.onLog[q.Device] == change {
		e.journal.Add(revision, "", nil)
		return nil
	}
	data, err := json.Marshal(fleet.Control{Quarantine: &change})
	if err != nil {
		return fmt.Errorf("encode control record: %w", err)
	}
	e.onLog[q.Device] = change
	e.journal.Add(revision, bus.SubjectControl+".quarantine."+q.Device, data)
	return nil
}
