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
	// stateSuppressed is a notification that a silence or another incident
	// keeps back.
	stateSuppressed = "suppressed"
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
	told  map[string]map[string]time.Time // incident → receiver → when it was first told
	once  sync.Once
	ready chan struct{}
}

func newRecords(limit int) records {
	return records{limit: limit, byID: map[string]fleet.Delivery{}, told: map[string]map[string]time.Time{}, ready: make(chan struct{})}
}

func (r *records) put(d fleet.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.byID[d.ID]; ok && (d.UpdatedAt.Before(old.UpdatedAt) || d.Replays < old.Replays ||
		ended(old) && d.State == statePending && d.Replays == old.Replays) {
		return // an older revision
	}
	r.byID[d.ID] = d
	if d.State != statePending && d.State != stateDelivered || followUps[d.Change] || strings.HasPrefix(d.ID, "test-") {
		return
	}
	receivers := r.told[d.Incident]
	if receivers == nil {
		receivers = map[string]time.Time{}
		r.told[d.Incident] = receivers
	}
	if at, ok := receivers[d.Receiver]; !ok || d.CreatedAt.Before(at) {
		receivers[d.Receiver] = d.CreatedAt
	}
}

func ended(d fleet.Delivery) bool { return d.State == stateDelivered || d.State == stateFailed }

func (r *records) get(id string) (fleet.Delivery, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	d, ok := r.byID[id]
	return d, ok
}

// toldOf says whether a receiver was told of an incident, or is about to be.
func (r *records) toldOf(incident, receiver string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.told[incident][receiver]
	return ok
}

// firstTold is when somebody was first told of an incident.
func (r *records) firstTold(incident string) (at time.Time, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, t := range r.told[incident] {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	return at, ok
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
	b, err := s.open(ctx)
	if err != nil {
		return d, false, err
	}
	entry, err := b.delivery.Get(ctx, id)
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
	b, err := s.open(ctx)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode delivery %s: %w", d.ID, err)
	}
	if _, err := b.delivery.Put(ctx, d.ID, raw); err != nil {
		return fmt.Errorf("write delivery %s: %w", d.ID, err)
	}
	s.records.put(d)
	return nil
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
	b, err := s.open(ctx)
	if err != nil {
		return err
	}
	all := s.records.all()
	for i := len(all) - 1; i >= s.records.limit; i-- {
		if all[i].State == statePending {
			continue
		}
		if _, open := s.incidents.get(all[i].Incident); open && i < 2*s.records.limit {
			continue // who was told of it must hear its end
		}
		if err := b.delivery.Purge(ctx, all[i].ID, jetstream.PurgeTTL(time.Hour)); err != nil {
			return fmt.Errorf("purge delivery %s: %w", all[i].ID, err)
		}
		if all[i].State == stateFailed {
			if err := b.receiver.Purge(ctx, deadKey(all[i].ID), jetstream.PurgeTTL(time.Hour)); err != nil {
				return fmt.Errorf("purge message of delivery %s: %w", all[i].ID, err)
			}
		}
		s.records.remove(all[i].ID)
	}
	return nil
}
