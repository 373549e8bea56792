package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

	held     []*job // in order of arrival; only the run loop touches it
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
	return ReceiverState{
		Name: r.Name, Kind: r.Kind, Host: host(r.URL), Signed: r.Secret != "", Severity: r.Severity,
		Changes: slices.Clone(r.Changes), AllowPrivate: r.AllowPrivate,
		Healthy: max(w.streak, w.refused) < w.service.cfg.BreakAfter, Pending: w.waiting, Failing: max(w.streak, w.refused),
		LastError: w.lastError, LastAt: w.lastAt, RetryAt: w.retryAt, Delivered: w.delivered, Failed: w.failed,
	}
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
	results := make(chan *job)
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
		case j := <-results:
			w.settle(j)
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
func (w *worker) stop(cancel func(), results <-chan *job) {
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
	if err := json.Unmarshal(msg.Data(), &j.item); err != nil || j.item.ID == "" {
		w.log.Error("notification can't be read; it is left out", "error", err)
		_ = msg.Term()
		return
	}
	if slices.ContainsFunc(w.held, func(other *job) bool { return other.item.ID == j.item.ID }) {
		i := slices.IndexFunc(w.held, func(other *job) bool { return other.item.ID == j.item.ID })
		w.held[i].msg = msg // delivered again because an acknowledgement was late
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
	if d.State != statePending {
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

// start begins every attempt that is due and says how long until the next.
// Of one incident only the oldest item is tried; a receiver that keeps
// failing gets one attempt at a time.
func (w *worker) start(ctx context.Context, results chan<- *job) time.Duration {
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
	for _, j := range w.held {
		incident := j.item.Change.Incident.ID
		if busy[incident] {
			continue
		}
		busy[incident] = true
		switch {
		case j.sending || j.done:
		case now.Before(j.due):
			wait = min(wait, j.due.Sub(now))
		case w.inFlight < room:
			j.sending = true
			w.inFlight++
			go w.attempt(ctx, j, results)
		}
	}
	return wait
}

func (w *worker) failing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.streak >= w.service.cfg.BreakAfter
}

// settle takes a finished attempt back into the run loop.
func (w *worker) settle(j *job) {
	w.inFlight--
	j.sending = false
	if j.done {
		w.held = slices.DeleteFunc(w.held, func(other *job) bool { return other == j })
	}
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
