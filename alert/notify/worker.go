package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	workAckWait = 15 * time.Second
	heartbeat   = 5 * time.Second
	stopGrace   = 3 * time.Second
)

// worker delivers to one receiver and shares nothing with the others.
type worker struct {
	service  *Service
	receiver Receiver
	sender   *sender
	log      *slog.Logger

	held     []*job                     // in order of arrival; only the run loop touches it
	flushed  map[string]time.Time       // when a group's last message went out
	began    time.Time                  // of this run
	owed     map[string]map[uint64]bool // see Service.owed
	inFlight int
	pausedTo time.Time // the whole receiver is left alone until then

	mu        sync.Mutex // guards what state shows
	waiting   uint64
	streak    int // failures in a row
	refused   int // permanent refusals in a row
	lastError string
	lastAt    time.Time
	retryAt   time.Time
	delivered uint64
	failed    uint64
}

// job is an item in hand.
type job struct {
	msg      jetstream.Msg
	item     item
	delivery fleet.Delivery
	due      time.Time
	sending  bool
	done     bool
}

func (w *worker) state() ReceiverState {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.receiver
	state := ReceiverState{
		Name: r.Name, Kind: r.Kind, Host: host(r.URL), Signed: len(r.keys()) > 0, Severity: r.Severity,
		Changes: slices.Clone(r.Changes), AllowPrivate: r.AllowPrivate,
		Healthy: max(w.streak, w.refused) < w.service.cfg.BreakAfter, Pending: w.waiting, Failing: max(w.streak, w.refused),
		LastError: w.lastError, LastAt: w.lastAt, RetryAt: w.retryAt, Delivered: w.delivered, Failed: w.failed,
		Keys: len(r.keys()), Source: "api", Breaker: "closed",
	}
	if r.Kind == KindPager {
		state.Keys, state.Signed = 0, false
	}
	if slices.ContainsFunc(w.service.cfg.Receivers, func(o Receiver) bool { return o.Name == r.Name }) {
		state.Source = "file"
	}
	if w.streak >= w.service.cfg.BreakAfter {
		state.Breaker = "half-open"
		if w.service.now().Before(w.retryAt) {
			state.Breaker = "open"
		}
	}
	if m, ok := w.service.disabled(r.Name); ok {
		state.Healthy, state.DisabledAt, state.Disabled = false, m.DisabledAt, m.Reason
	}
	return state
}

func (w *worker) backlog() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting
}

func (w *worker) queued() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting++
}

// ended counts the end of a delivery.
func (w *worker) ended(state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state == stateDelivered {
		w.delivered++
	} else {
		w.failed++
	}
	w.service.metrics.final.WithLabelValues(w.receiver.Name, state).Inc()
}

// run delivers until ctx ends; attempts that are under way then get a moment
// to end.
func (w *worker) run(ctx context.Context) error {
	js := w.service.deps.Bus.Core
	consumer, err := js.CreateOrUpdateConsumer(ctx, bus.StreamDeliveries, jetstream.ConsumerConfig{
		Durable: workerPrefix + w.receiver.Name, FilterSubject: bus.SubjectDelivery + "." + w.receiver.Name,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: workAckWait, MaxAckPending: w.service.cfg.Window, MaxDeliver: -1,
	})
	if err != nil {
		return fmt.Errorf("create consumer of receiver %s: %w", w.receiver.Name, err)
	}
	w.recount(consumer.CachedInfo())
	iter, err := consumer.Messages(jetstream.PullMaxMessages(w.service.cfg.Window))
	if err != nil {
		return fmt.Errorf("consume for receiver %s: %w", w.receiver.Name, err)
	}
	defer iter.Stop()
	stop := context.AfterFunc(ctx, iter.Drain)
	defer stop()
	arrivals := make(chan jetstream.Msg)
	go w.receive(ctx, iter, arrivals)
	return w.loop(ctx, consumer, arrivals)
}

func (w *worker) recount(info *jetstream.ConsumerInfo) {
	if info == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = info.NumPending + uint64(max(info.NumAckPending, 0))
}

// receive hands items to the loop. What is left when ctx ends goes back to
// the queue at once instead of waiting for its time to run out.
func (w *worker) receive(ctx context.Context, iter jetstream.MessagesContext, out chan<- jetstream.Msg) {
	defer close(out)
	for {
		msg, err := iter.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return
		}
		if err != nil {
			w.log.Debug("waiting for notifications", "error", err)
			pause(ctx, retryWait)
			continue
		}
		select {
		case <-ctx.Done():
			_ = msg.Nak()
		case out <- msg:
		}
	}
}

func (w *worker) loop(ctx context.Context, consumer jetstream.Consumer, arrivals <-chan jetstream.Msg) error {
	sendCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	results := make(chan []*job)
	w.flushed = map[string]time.Time{}
	w.began, w.owed = w.service.now(), w.service.owed(w.receiver.Name)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := w.start(sendCtx, results)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			w.stop(cancel, results)
			for msg := range arrivals { // what came last goes back to the queue
				_ = msg.Nak()
			}
			return nil
		case msg, ok := <-arrivals:
			if !ok {
				w.stop(cancel, results)
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("consume for receiver %s: the queue was closed", w.receiver.Name)
			}
			w.accept(ctx, msg)
		case list := <-results:
			w.settle(list)
		case <-timer.C:
		case <-beat.C:
			for _, j := range w.held {
				_ = j.msg.InProgress()
			}
			if info, err := consumer.Info(ctx); err == nil {
				w.recount(info)
			}
		}
	}
}

// stop waits a moment for attempts under way, then breaks them off.
func (w *worker) stop(cancel func(), results <-chan []*job) {
	grace := time.AfterFunc(stopGrace, cancel)
	defer grace.Stop()
	for ; w.inFlight > 0; w.inFlight-- {
		<-results
	}
	for _, j := range w.held {
		if !j.done {
			_ = j.msg.Nak() // whoever runs next gets it at once
		}
	}
}

// accept takes an item in hand, unless its delivery has ended before.
func (w *worker) accept(ctx context.Context, msg jetstream.Msg) {
	j := &job{msg: msg}
	defer func() { delete(w.owed[j.item.Change.Incident.ID], changeNumber(j.item.Change.ID)) }()
	if err := json.Unmarshal(msg.Data(), &j.item); err != nil || j.item.ID == "" {
		w.log.Error("notification can't be read; it is left out", "error", err)
		_ = msg.Term()
		return
	}
	if slices.ContainsFunc(w.held, func(other *job) bool { return other.item.ID == j.item.ID }) {
		i := slices.IndexFunc(w.held, func(other *job) bool { return other.item.ID == j.item.ID })
		if !w.held[i].sending {
			w.held[i].msg = msg // delivered again because an acknowledgement was late
		}
		return
	}
	d, found, err := w.service.lookup(ctx, j.item.ID)
	if err != nil {
		_ = msg.NakWithDelay(retryWait)
		return
	}
	if !found {
		d = newDelivery(j.item, w.receiver)
	}
	if d.State != statePending || j.item.CreatedAt.Before(d.CreatedAt) && d.Replays > 0 {
		w.finish(j)
		return
	}
	j.delivery, j.due = d, d.NextAt
	w.held = append(w.held, j)
	slices.SortStableFunc(w.held, func(a, b *job) int { return sequence(a.msg).compare(sequence(b.msg)) })
}

type streamSeq uint64

func (s streamSeq) compare(o streamSeq) int {
	switch {
	case s < o:
		return -1
	case s > o:
		return 1
	}
	return 0
}

func sequence(msg jetstream.Msg) streamSeq {
	meta, err := msg.Metadata()
	if err != nil {
		return 0
	}
	return streamSeq(meta.Sequence.Stream)
}

// maxTogether is how many items one message carries.
const maxTogether = 50

// start begins every attempt that is due and says how long until the next.
// Of one incident only the oldest item is tried; a receiver that keeps
// failing gets one attempt at a time. Items of one group go out together.
func (w *worker) start(ctx context.Context, results chan<- []*job) time.Duration {
	now := w.service.now()
	if now.Before(w.pausedTo) {
		return w.pausedTo.Sub(now)
	}
	room := w.service.cfg.InFlight
	if w.failing() {
		room = 1
	}
	wait := time.Hour
	busy := map[string]bool{}
	for i, j := range w.held {
		incident := j.item.Change.Incident.ID
		if busy[incident] {
			continue
		}
		busy[incident] = true
		if j.sending || j.done { // an attempt's items are its own until it has ended
			continue
		}
		due := w.due(j)
		if w.owesOlder(j) {
			due = later(due, w.began.Add(owedFor))
		}
		switch {
		case now.Before(due):
			wait = min(wait, due.Sub(now))
		case w.inFlight < room:
			list := []*job{j}
			j.sending = true
			if j.item.Group != "" {
				list = w.gather(list, w.held[i+1:], busy)
				w.flushed[j.item.Group] = now
			}
			w.inFlight++
			go w.attempt(ctx, list, results)
		}
	}
	return wait
}

// due is when an item may be tried: not before its next attempt, and the
// first of a group not before others had time to come.
func (w *worker) due(j *job) time.Time {
	if j.item.Group == "" || j.delivery.Attempts > 0 || j.delivery.Batch != "" {
		return j.due
	}
	due := later(j.due, j.item.CreatedAt.Add(j.item.Wait))
	if last, ok := w.flushed[j.item.Group]; ok {
		due = later(due, last.Add(j.item.Interval))
	}
	return due
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// owedFor is how long after its start a worker waits for what an earlier one
// had in hand: it comes back at once after a clean stop, and after a crash
// when its time has run out.
const owedFor = 2 * workAckWait

// owed are the changes whose delivery to a receiver has not ended, by
// incident: after a restart they may come back behind newer ones.
func (s *Service) owed(receiver string) map[string]map[uint64]bool {
	out := map[string]map[uint64]bool{}
	for _, d := range s.records.all() {
		if d.Receiver != receiver || d.State != statePending {
			continue
		}
		if out[d.Incident] == nil {
			out[d.Incident] = map[uint64]bool{}
		}
		out[d.Incident][changeNumber(strings.TrimSuffix(d.ID, "."+receiver))] = true
	}
	return out
}

// owesOlder says whether something older about the same incident has still to
// come back.
func (w *worker) owesOlder(j *job) bool {
	if w.service.now().Sub(w.began) >= owedFor {
		return false
	}
	mine := changeNumber(j.item.Change.ID)
	for number := range w.owed[j.item.Change.Incident.ID] {
		if number < mine {
			return true
		}
	}
	return false
}

// changeNumber is n of a change's id <incident>.<n>; 0 where there is none.
func changeNumber(id string) uint64 {
	n, _ := strconv.ParseUint(id[strings.LastIndexByte(id, '.')+1:], 10, 64)
	return n
}

// gather adds what goes out together with the first item: what was in the
// same message before, else what waits in the same group. An incident that
// has something older waiting elsewhere is left for later.
func (w *worker) gather(list, rest []*job, busy map[string]bool) []*job {
	first := list[0]
	mine := map[string]bool{first.item.Change.Incident.ID: true}
	for _, j := range rest {
		if len(list) == maxTogether {
			break
		}
		incident := j.item.Change.Incident.ID
		fits := !j.sending && !j.done && j.item.Group == first.item.Group && j.delivery.Batch == first.delivery.Batch
		if fits && (mine[incident] || !busy[incident]) {
			j.sending = true
			list = append(list, j)
			mine[incident] = true
		}
		if !fits && mine[incident] {
			mine[incident] = false // nothing newer may pass it
		}
		busy[incident] = true
	}
	return list
}

func (w *worker) failing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.streak >= w.service.cfg.BreakAfter
}

// settle takes a finished attempt back into the run loop.
func (w *worker) settle(list []*job) {
	w.inFlight--
	for _, j := range list {
		j.sending = false
	}
	w.held = slices.DeleteFunc(w.held, func(j *job) bool { return !j.sending && j.done })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pausedTo = w.retryAt
}

func (w *worker) finish(j *job) {
	if err := j.msg.Ack(); err != nil {
		w.log.Debug("notification not acknowledged; its record says that it ended", "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting > 0 {
		w.waiting--
	}
}
