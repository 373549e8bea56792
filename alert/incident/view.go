package incident

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/fleet"
)

// view is what memory holds: every incident without timeline and finding
// ids, which are read from the bucket one at a time.
type view struct {
	mu       sync.RWMutex
	byID     map[string]*entry
	byDevice map[string]*entry // the newest of each device or group
	open     map[string]*entry // the unresolved one of each device or group
	absorb   map[string]bool   // groups with incidents to take in
	told     map[string]string // quarantine id → incident that tells of it
	waiting  map[string]bool   // incidents with an outbox
	top      uint64

	once  sync.Once
	ready chan struct{}
}

// entry is immutable once it is in the view.
type entry struct {
	fleet.Incident
	text        string // what Query searches, lower case
	quarantines []noted
	revision    uint64
	members     map[string]struct{} // devices of a group
}

// about says whether a device is in the incident.
func (e *entry) about(device string) bool {
	if e.Device == device {
		return true
	}
	_, ok := e.members[device]
	return ok
}

func newView() view {
	return view{
		byID: map[string]*entry{}, byDevice: map[string]*entry{}, open: map[string]*entry{},
		absorb: map[string]bool{}, told: map[string]string{}, waiting: map[string]bool{}, ready: make(chan struct{}),
	}
}

// put takes a record unless a newer revision is known.
func (v *view) put(r *record, revision uint64) {
	e := &entry{Incident: r.Incident, quarantines: slices.Clone(r.Quarantines), revision: revision}
	e.Rules, e.Techniques, e.Actors = slices.Clone(r.Rules), slices.Clone(r.Techniques), slices.Clone(r.Actors)
	e.Devices, e.Children, e.Tags = slices.Clone(r.Devices), slices.Clone(r.Children), slices.Clone(r.Tags)
	if len(e.Devices) > 0 {
		e.members = make(map[string]struct{}, len(e.Devices))
		for _, d := range e.Devices {
			e.members[d] = struct{}{}
		}
	}
	e.Timeline, e.FindingIDs = []fleet.TimelineEntry{}, []string{}
	e.text = strings.ToLower(strings.Join([]string{
		e.ID, e.Device, e.Cohort, e.Title, e.Assignee,
		strings.Join(e.Rules, " "), strings.Join(e.Techniques, " "), strings.Join(e.Actors, " "),
		strings.Join(e.Tags, " "), strings.Join(e.Devices, " "), e.Site, e.Ticket, e.Group,
	}, "\n"))
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.byID[e.ID]; old != nil && old.revision >= revision {
		return
	}
	v.byID[e.ID] = e
	v.top = max(v.top, e.Number)
	key := keyOf(&e.Incident)
	if newest := v.byDevice[key]; newest == nil || newest.Number <= e.Number {
		v.byDevice[key] = e
	}
	switch current := v.open[key]; {
	case e.State != fleet.Resolved:
		v.open[key] = e
	case current != nil && current.ID == e.ID:
		delete(v.open, key)
	}
	if len(r.Absorb) > 0 {
		v.absorb[e.ID] = true
	} else {
		delete(v.absorb, e.ID)
	}
	for _, n := range e.quarantines {
		v.told[n.ID] = e.ID
	}
	if len(r.Outbox) > 0 {
		v.waiting[e.ID] = true
	} else {
		delete(v.waiting, e.ID)
	}
}

func (v *view) counts() (total, unresolved int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.byID), len(v.open)
}

func (v *view) highest() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.top
}

func (v *view) newest(device string) string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if e := v.open[device]; e != nil {
		return e.ID
	}
	if e := v.byDevice[device]; e != nil {
		return e.ID
	}
	return ""
}

// active says whether an unresolved incident of this key took something
// within the window before at.
func (v *view) active(key string, at time.Time, window time.Duration) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e := v.open[key]
	return e != nil && (at.Sub(e.LastAt) <= window || at.Sub(e.RiskAt) <= window)
}

// predated says whether the newest incident of this key is resolved and the
// finding belongs to its time.
func (v *view) predated(key string, f fleet.Finding) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e := v.byDevice[key]
	return e != nil && e.State == fleet.Resolved && e.about(f.Device) && !f.WindowEnd.After(e.ResolvedAt)
}

// has says whether the device's own unresolved incident tells of the finding's
// rule and actor, or may hold the finding itself.
func (v *view) has(device string, f fleet.Finding) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e := v.open[device]
	return e != nil && slices.Contains(e.Rules, f.RuleID) && (f.Actor == "" || slices.Contains(e.Actors, clip(f.Actor, maxActor)))
}

func (v *view) newestOpen(device string) string {
	if e := v.openEntry(device); e != nil {
		return e.ID
	}
	return ""
}

func (v *view) openEntry(key string) *entry {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.open[key]
}

func (v *view) absorbing() []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	ids := make([]string, 0, len(v.absorb))
	for id := range v.absorb {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// groupOf is the newest unresolved group that a device is in.
func (v *view) groupOf(device string) *entry {
	var found *entry
	for _, e := range v.open {
		if e.members == nil || found != nil && found.Number > e.Number {
			continue
		}
		if e.about(device) {
			found = e
		}
	}
	return found
}

func (v *view) unsent() []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	ids := make([]string, 0, len(v.waiting))
	for id := range v.waiting {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// quarantineOf finds the incident that tells, or should tell, of a
// quarantine, and the last state that it tells.
func (v *view) quarantineOf(q fleet.Quarantine) (string, fleet.QuarantineState) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if e := v.byID[v.told[q.ID]]; e != nil {
		for _, n := range e.quarantines {
			if n.ID == q.ID {
				return e.ID, n.State
			}
		}
	}
	if e := v.byID[q.Incident]; e != nil && e.about(q.Device) {
		return e.ID, ""
	}
	if !q.Active() {
		return "", ""
	}
	if e := v.open[q.Device]; e != nil {
		return e.ID, ""
	}
	if e := v.groupOf(q.Device); e != nil {
		return e.ID, ""
	}
	return "", ""
}

// snapshot returns the entries, in no order.
func (v *view) snapshot() []*entry {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]*entry, 0, len(v.byID))
	for _, e := range v.byID {
		out = append(out, e)
	}
	return out
}

// OpenOf returns the unresolved incident of a device as lists show it; without
// one of its own, the campaign or cause that it is in.
func (s *Service) OpenOf(device string) (fleet.Incident, bool) {
	s.view.mu.RLock()
	defer s.view.mu.RUnlock()
	if e := s.view.open[device]; e != nil {
		return e.Incident, true
	}
	if e := s.view.groupOf(device); e != nil {
		return e.Incident, true
	}
	return fleet.Incident{}, false
}

// Watch keeps the memory that List answers from up to date until ctx ends.
func (s *Service) Watch(ctx context.Context) error {
	b, err := s.open(ctx)
	if err != nil {
		return err
	}
	for try := 0; ctx.Err() == nil; try++ {
		watcher, err := b.incident.WatchAll(ctx)
		if err != nil {
			s.log.Warn("incidents can't be watched", "error", err)
			s.wait(ctx, try)
			continue
		}
		s.follow(ctx, watcher)
		_ = watcher.Stop()
	}
	return nil
}

func (s *Service) follow(ctx context.Context, watcher jetstream.KeyWatcher) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-watcher.Updates():
			if !ok {
				return
			}
			if e == nil {
				s.view.once.Do(func() { close(s.view.ready) })
				continue
			}
			if e.Operation() != jetstream.KeyValuePut {
				continue
			}
			r := &record{}
			if err := json.Unmarshal(e.Value(), r); err != nil {
				s.log.Error("incident can't be read", "incident", e.Key(), "error", err)
				continue
			}
			s.view.put(r, e.Revision())
		}
	}
}
