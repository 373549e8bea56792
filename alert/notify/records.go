package notify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/fleet"
)

// States of a delivery.
const (
	statePending   = "pending"
	stateDelivered = "delivered"
	stateFailed    = "failed"
)

// MaxPage is the longest page of the delivery log.
const MaxPage = 500

const defaultPage = 50

func newDelivery(it item, r Receiver) fleet.Delivery {
	return fleet.Delivery{
		ID: it.ID, Receiver: r.Name, Kind: r.Kind, Incident: it.Change.Incident.ID, Change: it.Change.Change,
		State: statePending, CreatedAt: it.CreatedAt, UpdatedAt: it.CreatedAt,
	}
}

// records is the delivery log in memory, by watch of its bucket.
type records struct {
	limit int
	mu    sync.RWMutex
	byID  map[string]fleet.Delivery
	once  sync.Once
	ready chan struct{}
}

func newRecords(limit int) records {
	return records{limit: limit, byID: map[string]fleet.Delivery{}, ready: make(chan struct{})}
}

func (r *records) put(d fleet.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.byID[d.ID]; ok && (d.UpdatedAt.Before(old.UpdatedAt) || old.State != statePending && d.State == statePending) {
		return // an older revision
	}
	r.byID[d.ID] = d
}

func (r *records) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, id)
}

// all returns the log, newest first.
func (r *records) all() []fleet.Delivery {
	r.mu.RLock()
	out := make([]fleet.Delivery, 0, len(r.byID))
	for _, d := range r.byID {
		out = append(out, d)
	}
	r.mu.RUnlock()
	slices.SortFunc(out, newestFirst)
	return out
}

func newestFirst(a, b fleet.Delivery) int {
	if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
		return c
	}
	return strings.Compare(b.ID, a.ID)
}

// Deliveries returns a page of the delivery log, newest first. CodeInvalid
// for a cursor that is none.
func (s *Service) Deliveries(cursor string, limit int) (fleet.Page[fleet.Delivery], error) {
	page := fleet.Page[fleet.Delivery]{Items: []fleet.Delivery{}}
	var after *fleet.Delivery
	if cursor != "" {
		raw, err := base64.RawURLEncoding.DecodeString(cursor)
		nanos, id, ok := strings.Cut(string(raw), " ")
		at, convErr := strconv.ParseInt(nanos, 10, 64)
		if err != nil || convErr != nil || !ok {
			return page, fleet.Errorf(fleet.CodeInvalid, "the cursor is not one of this list; start again without it").On("cursor")
		}
		after = &fleet.Delivery{ID: id, CreatedAt: time.Unix(0, at).UTC()}
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, MaxPage)
	all := s.records.all()
	page.Total = uint64(len(all))
	for _, d := range all {
		if after != nil && newestFirst(d, *after) <= 0 {
			continue
		}
		if len(page.Items) == limit {
			last := page.Items[limit-1]
			page.Next = base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(last.CreatedAt.UnixNano(), 10) + " " + last.ID))
			break
		}
		page.Items = append(page.Items, d)
	}
	return page, nil
}

// lookup reads a record from the bucket, which memory may lag behind.
func (s *Service) lookup(ctx context.Context, id string) (d fleet.Delivery, found bool, err error) {
	entry, err := s.bucket.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return d, false, nil
	}
	if err != nil {
		return d, false, fmt.Errorf("read delivery %s: %w", id, err)
	}
	if err := json.Unmarshal(entry.Value(), &d); err != nil {
		return d, false, fmt.Errorf("decode delivery %s: %w", id, err)
	}
	return d, true, nil
}

// store writes a record. A delivery has one writer: the worker that holds
// its item, or before that the router.
func (s *Service) store(ctx context.Context, d fleet.Delivery) error {
	kv, err := s.open(ctx)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode delivery %s: %w", d.ID, err)
	}
	if _, err := kv.Put(ctx, d.ID, raw); err != nil {
		return fmt.Errorf("write delivery %s: %w", d.ID, err)
	}
	s.records.put(d)
	return nil
}

// Watch keeps the delivery log in memory up to date until ctx ends.
func (s *Service) Watch(ctx context.Context) error {
	kv, err := s.open(ctx)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		watcher, err := kv.WatchAll(ctx)
		if err != nil {
			s.log.Warn("deliveries can't be watched", "error", err)
			pause(ctx, time.Second)
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
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return
			case entry == nil:
				s.records.once.Do(func() { close(s.records.ready) })
			case entry.Operation() != jetstream.KeyValuePut:
				s.records.remove(entry.Key())
			default:
				var d fleet.Delivery
				if err := json.Unmarshal(entry.Value(), &d); err != nil {
					s.log.Error("delivery can't be read", "delivery", entry.Key(), "error", err)
					continue
				}
				s.records.put(d)
			}
		}
	}
}

// pruneLoop keeps the log within its bound; ClickHouse keeps what goes.
func (s *Service) pruneLoop(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.prune(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("delivery log can't be pruned", "error", err)
		}
		pause(ctx, time.Minute)
	}
	return nil
}

func (s *Service) prune(ctx context.Context) error {
	all := s.records.all()
	for i := len(all) - 1; i >= s.records.limit; i-- {
		if all[i].State == statePending {
			continue
		}
		if err := s.bucket.Purge(ctx, all[i].ID, jetstream.PurgeTTL(time.Hour)); err != nil {
			return fmt.Errorf("purge delivery %s: %w", all[i].ID, err)
		}
		s.records.remove(all[i].ID)
	}
	return nil
}
