package notify

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

// mirror is a bucket in memory, by watch.
type mirror[T any] struct {
	mu    sync.RWMutex
	byKey map[string]T
	once  sync.Once
	ready chan struct{}
	keep  func(T) bool // nil keeps everything
}

func newMirror[T any](keep func(T) bool) *mirror[T] {
	return &mirror[T]{byKey: map[string]T{}, ready: make(chan struct{}), keep: keep}
}

func (m *mirror[T]) put(key string, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keep != nil && !m.keep(v) {
		delete(m.byKey, key)
		return
	}
	m.byKey[key] = v
}

func (m *mirror[T]) remove(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byKey, key)
}

func (m *mirror[T]) get(key string) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.byKey[key]
	return v, ok
}

func (m *mirror[T]) all() []T {
	m.mu.RLock()
	defer m.mu.RUnlock()
	keys := make([]string, 0, len(m.byKey))
	for k := range m.byKey {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]T, len(keys))
	for i, k := range keys {
		out[i] = m.byKey[k]
	}
	return out
}

// follow keeps a bucket's keys (those that match pattern) in memory until ctx
// ends.
func follow(ctx context.Context, s *Service, kv jetstream.KeyValue, pattern string, put func(key string, raw []byte), remove func(key string), ready func()) {
	for ctx.Err() == nil {
		watcher, err := kv.Watch(ctx, pattern)
		if err != nil {
			s.log.Warn("bucket can't be watched", "bucket", kv.Bucket(), "error", err)
			pause(ctx, time.Second)
			continue
		}
		drain(ctx, watcher, put, remove, ready)
		_ = watcher.Stop()
	}
}

func drain(ctx context.Context, watcher jetstream.KeyWatcher, put func(string, []byte), remove func(string), ready func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return
			case entry == nil:
				ready()
			case entry.Operation() != jetstream.KeyValuePut:
				remove(entry.Key())
			default:
				put(entry.Key(), entry.Value())
			}
		}
	}
}

func mirrorOf[T any](ctx context.Context, s *Service, kv jetstream.KeyValue, pattern string, m *mirror[T], changed func()) {
	follow(ctx, s, kv, pattern, func(key string, raw []byte) {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			s.log.Error("entry can't be read", "bucket", kv.Bucket(), "key", key, "error", err)
			return
		}
		m.put(key, v)
		changed()
	}, func(key string) {
		m.remove(key)
		changed()
	}, func() { m.once.Do(func() { close(m.ready) }) })
}

// slim is what routing needs of an incident: no history.
func slim(inc fleet.Incident) fleet.Incident {
	inc.Timeline, inc.FindingIDs, inc.Children = nil, nil, nil
	return inc
}

// openIncidents are those that are not resolved, oldest first.
func (s *Service) openIncidents() []fleet.Incident {
	list := s.incidents.all()
	slices.SortFunc(list, func(a, b fleet.Incident) int {
		switch {
		case a.Number < b.Number:
			return -1
		case a.Number > b.Number:
			return 1
		}
		return 0
	})
	return list
}

// Watch keeps what Deliveries, Silences, Receivers and Route answer from up
// to date until ctx ends.
func (s *Service) Watch(ctx context.Context) error {
	b, err := s.open(ctx)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	none := func() {}
	group.Go(func() {
		follow(ctx, s, b.delivery, ">", func(key string, raw []byte) {
			var d fleet.Delivery
			if err := json.Unmarshal(raw, &d); err != nil {
				s.log.Error("delivery can't be read", "delivery", key, "error", err)
				return
			}
			s.records.put(d)
		}, s.records.remove, func() { s.records.once.Do(func() { close(s.records.ready) }) })
	})
	group.Go(func() { mirrorOf(ctx, s, b.silence, ">", s.silences, none) })
	group.Go(func() {
		follow(ctx, s, b.incident, ">", func(key string, raw []byte) {
			var inc fleet.Incident
			if err := json.Unmarshal(raw, &inc); err == nil {
				s.incidents.put(key, slim(inc))
			}
		}, s.incidents.remove, func() { s.incidents.once.Do(func() { close(s.incidents.ready) }) })
	})
	group.Go(func() { mirrorOf(ctx, s, b.receiver, "receiver.*", s.stored, s.poke) })
	group.Go(func() { mirrorOf(ctx, s, b.receiver, "state.*", s.marks, s.poke) })
	group.Go(func() {
		for _, ready := range []<-chan struct{}{s.records.ready, s.silences.ready, s.incidents.ready, s.stored.ready, s.marks.ready} {
			select {
			case <-ctx.Done():
				return
			case <-ready:
			}
		}
		s.staff()
		s.readyOnce.Do(func() { close(s.ready) })
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-s.poked:
				s.staff()
			}
		}
	})
	group.Wait()
	return nil
}

// poke says that receivers changed.
func (s *Service) poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// deadKey is where the message of a failed delivery waits to be replayed.
func deadKey(id string) string { return "dead." + strings.Trim(id, ".") }
