package incident

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/fleet"
)

// view is what memory holds: every incident without timeline and finding
// ids, which are read from the bucket one at a time.
type view struct {
	mu       sync.RWMutex
	byID     map[string]*entry
	byDevice map[string]*entry // the newest of each device
	open     map[string]*entry // the unresolved one of each device
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
}

func newView() view {
	return view{
		byID: map[string]*entry{}, byDevice: map[string]*entry{}, open: map[string]*entry{},
		told: map[string]string{}, waiting: map[string]bool{}, ready: make(chan struct{}),
	}
}

// put takes a record unless a newer revision is known.
func (v *view) put(r *record, revision uint64) {
	e := &entry{Incident: r.Incident, quarantines: slices.Clone(r.Quarantines), revision: revision}
	e.Rules, e.Techniques, e.Actors = slices.Clone(r.Rules), slices.Clone(r.Techniques), slices.Clone(r.Actors)
	e.Timeline, e.FindingIDs = []fleet.TimelineEntry{}, []string{}
	e.text = strings.ToLower(strings.Join([]string{
		e.ID, e.Device, e.Cohort, e.Title, e.Assignee,
		strings.Join(e.Rules, " "), strings.Join(e.Techniques, " "), strings.Join(e.Actors, " "),
	}, "\n"))
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.byID[e.ID]; old != nil && old.revision >= revision {
		return
	}
	v.byID[e.ID] = e
	v.top = max(v.top, e.Number)
	if newest := v.byDevice[e.Device]; newest == nil || newest.Number <= e.Number {
		v.byDevice[e.Device] = e
	}
	switch current := v.open[e.Device]; {
	case e.State != fleet.Resolved:
		v.open[e.Device] = e
	case current != nil && current.ID == e.ID:
		delete(v.open, e.Device)
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
	if e := v.byID[q.Incident]; e != nil && e.Device == q.Device {
		return e.ID, ""
	}
	if e := v.open[q.Device]; e != nil && q.Active() {
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

// OpenOf returns the unresolved incident of a device as lists show it.
func (s *Service) OpenOf(device string) (fleet.Incident, bool) {
	s.view.mu.RLock()
	defer s.view.mu.RUnlock()
	if e := s.view.open[device]; e != nil {
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
