package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"cordon/internal/fleet"
	"cordon/internal/store"
)

// worker moves one stream.
type worker struct {
	cfg     Config
	deps    Deps
	js      jetstream.JetStream
	stream  string
	history store.History // "" for FLEET
	metrics *metrics
	log     *slog.Logger

	received prometheus.Counter

	reader   reader
	filter   *fleet.SeenFilter // FLEET only; belongs to fill
	fences   *fleet.Fences     // the same
	saved    *checkpoint       // FLEET only
	position *position
	source   *source

	full chan *block // fill → commit
	free chan *block // commit → fill

	idle         atomic.Bool // commit waits for a block
	checkpointed time.Time   // fill: when the filter's state was last attached to a block

	committed  atomic.Uint64 // last sequence stored
	trimmable  atomic.Uint64 // last sequence that this worker will never read again
	oldest     atomic.Int64  // received_at of the oldest message not stored, Unix ns; 0: none
	read       atomic.Uint64 // last sequence read
	streamLast atomic.Uint64 // last sequence of the stream, as last seen
	rate       fleet.Rate
	storing    trouble
	reading    trouble
}

func (w *worker) isFleet() bool { return w.history == "" }

// run moves the stream until the context ends or another mover takes over.
func (w *worker) run(ctx context.Context) error {
	for {
		err := w.move(ctx)
		switch {
		case errors.Is(err, errTail): // start says what is left of it
			w.log.Warn("starting again", "stream", w.stream, "error", err)
		case errors.Is(err, ErrFenced):
			return fmt.Errorf("move stream %s: %w", w.stream, err)
		case ctx.Err() != nil:
			return nil //nolint:nilerr // whatever ended with the context ended as asked
		default:
			return err
		}
	}
}

func (w *worker) move(ctx context.Context) error {
	redo, err := w.start(ctx)
	if err != nil {
		return err
	}
	defer w.source.close()
	w.full, w.free = make(chan *block), make(chan *block, 3)
	for range cap(w.free) {
		w.free <- newBlock()
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.fill(ctx, redo) })
	group.Go(func() error { return w.commitAll(ctx) })
	return group.Wait()
}

// start claims the position, restores the filter and says where to read on.
// It returns the intent whose block must be built again, or nil.
func (w *worker) start(ctx context.Context) (*intent, error) {
	stream, err := w.js.Stream(ctx, w.stream)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", w.stream, err)
	}
	info := stream.CachedInfo()
	if err := w.position.claim(ctx, info.Created); err != nil {
		return nil, err
	}
	from := uint64(0) // last sequence that need not be read
	if w.isFleet() {
		w.filter.Reset()
		w.fences.Reset()
		if from, err = w.saved.load(ctx, info.Created, w.filter, w.fences); err != nil {
			return nil, err
		}
	}
	if from, err = w.checkTail(ctx, stream, from); err != nil {
		return nil, err
	}
	at := w.position.current
	if !w.isFleet() && at.First > 0 {
		from = at.First - 1
	}
	if w.isFleet() && at.First > 0 && from+1 < info.State.FirstSeq && from+1 < at.First {
		w.log.Warn("messages behind the filter's checkpoint are gone: copies of them would not be recognised",
			"stream", w.stream, "checkpoint", from, "first", info.State.FirstSeq)
	}
	w.source.last, w.source.lastAt = from, 0
	w.trimmable.Store(from)
	w.read.Store(max(from, at.Last))
	w.committed.Store(max(from, at.Last))
	w.streamLast.Store(info.State.LastSeq)
	if at.First == 0 || from >= at.Last {
		return nil, nil
	}
	w.log.Info("storing the last block again", "stream", w.stream, "token", at.Token)
	if at.First > 0 {
		w.committed.Store(at.First - 1)
	}
	return &at, nil
}

// checkTail notices that the position's last message is not in the stream any
// more, or another one has its number: the broker lost the tail of the stream,
// as a power cut may do. Numbers come again with other messages, so tokens
// must differ from then on. It returns the filter's position, which cannot be
// behind what is left of the old messages.
func (w *worker) checkTail(ctx context.Context, stream jetstream.Stream, from uint64) (uint64, error) {
	at := w.position.current
	same, err := holds(ctx, stream, at.Last, at.LastAt)
	if err != nil || same {
		return from, err
	}
	end, err := lastBefore(ctx, stream, at.LastAt)
	if err != nil {
		return 0, err
	}
	end = min(end, at.Last)
	w.log.Warn("the stream lost its tail", "stream", w.stream, "position", at.Last, "end", end)
	if from > end {
		state, err := marshalState(w.filter, w.fences)
		if err != nil {
			return 0, err
		}
		if err := w.saved.save(ctx, at.Created, end, state); err != nil {
			return 0, err
		}
		from = end
	}
	next := intent{Stream: at.Stream, Created: at.Created, Generation: at.Generation + 1, First: end + 1, Last: end}
	if msg, err := stream.GetMsg(ctx, end); err == nil {
		next.LastAt = msg.Time.UnixNano()
	}
	return from, w.position.write(ctx, next)
}

// fill reads messages into blocks.
func (w *worker) fill(ctx context.Context, redo *intent) error {
	w.checkpointed = w.deps.Clock()
	b, err := w.fresh(ctx, redo)
	if err != nil {
		return err
	}
	for {
		m, err := w.source.next(ctx, w.wait(b))
		switch {
		case errors.Is(err, errIdle):
			if b.redo != nil && !w.source.drained() {
				w.source.refresh(ctx)
				continue
			}
		case err != nil:
			return err
		case redo != nil && m.seq < redo.First:
			w.reader.skip(m)
			continue
		default:
			if b.redo != nil && m.seq > b.redo.Last {
				if b, err = w.pass(ctx, b); err != nil {
					return err
				}
			}
			b.take(m, time.Now())
			w.reader.add(b, m)
			w.read.Store(m.seq)
			w.received.Inc()
			w.oldest.CompareAndSwap(0, m.receivedAt.UnixNano())
		}
		if b, err = w.flush(ctx, b, err != nil); err != nil {
			return err
		}
	}
}

// flush passes the block on when it is due.
func (w *worker) flush(ctx context.Context, b *block, idle bool) (*block, error) {
	switch {
	case b.redo != nil:
		if b.last >= b.redo.Last || idle {
			return w.pass(ctx, b)
		}
		return b, nil
	case b.empty():
		return b, nil
	case b.rows() >= w.cfg.MaxRows, len(b.messages) >= w.cfg.MaxMessages, b.bytes >= w.cfg.MaxBytes:
		return w.pass(ctx, b)
	}
	limit := w.cfg.FlushBusy
	if w.source.drained() {
		limit = w.cfg.FlushIdle
	}
	if time.Since(b.opened) < limit {
		return b, nil
	}
	if !w.idle.Load() { // while a block is being stored this one grows instead of waiting in line
		return b, nil
	}
	return w.pass(ctx, b)
}

// wait is how long to wait for a message before looking at the block again.
func (w *worker) wait(b *block) time.Duration {
	if b.empty() && b.redo == nil {
		return time.Second
	}
	return min(max(w.cfg.FlushIdle-time.Since(b.opened), 10*time.Millisecond), w.cfg.FlushIdle)
}

// pass hands a block over for storing, and waits until it is taken.
func (w *worker) pass(ctx context.Context, b *block) (*block, error) {
	w.snapshot(b)
	select {
	case w.full <- b:
		return w.fresh(ctx, nil)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *worker) fresh(ctx context.Context, redo *intent) (*block, error) {
	select {
	case b := <-w.free:
		b.reset()
		if redo != nil {
			b.repeat(redo)
		}
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// snapshot completes a block: what only the reading side knows.
func (w *worker) snapshot(b *block) {
	b.filter = nil
	if !w.isFleet() || w.deps.Clock().Sub(w.checkpointed) < w.cfg.CheckpointEvery {
		return
	}
	state, err := marshalState(w.filter, w.fences)
	if err != nil {
		w.log.Error("cannot write the filter of resent messages", "error", err)
		return
	}
	b.filter, w.checkpointed = state, w.deps.Clock()
}

// trouble is why nothing moves, in words.
type trouble struct {
	mu    sync.Mutex
	text  string
	since time.Time
}

// set replaces the words; "" says that all is well.
func (t *trouble) set(text string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text == "" || t.text == "" {
		t.since = now
	}
	t.text = text
}

// get returns words that have been true for longer than a moment.
func (t *trouble) get(now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.since) < 2*time.Second {
		return ""
	}
	return t.text
}

func (w *worker) say(text string)     { w.storing.set(text, w.deps.Clock()) }
func (w *worker) sayRead(text string) { w.reading.set(text, w.deps.Clock()) }
