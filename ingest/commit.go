package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// commitAll stores blocks one after the other.
func (w *worker) commitAll(ctx context.Context) error {
	// A block in flight may finish when the mover is told to stop.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(w.cfg.StopGrace, cancel)
		context.AfterFunc(work, func() { timer.Stop() })
	})()
	for {
		w.idle.Store(true)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-w.full:
			w.idle.Store(false)
			if !b.empty() {
				if err := w.commit(ctx, work, b); err != nil {
					return err
				}
			}
			b.reset()
			w.free <- b
		}
	}
}

func (w *worker) fault(point string) error {
	if w.cfg.Fault == nil {
		return nil
	}
	return w.cfg.Fault(w.stream, point)
}

// commit stores one block: intent, inserts, receipts, checkpoint. ctx says whether to go on trying, work ends what is under way.
func (w *worker) commit(ctx, work context.Context, b *block) error {
	w.oldest.Store(b.oldest.UnixNano())
	if err := w.fault(FaultBlock); err != nil {
		return err
	}
	if b.redo == nil {
		at := w.position.current
		next := intent{
			Stream: at.Stream, Created: at.Created, Generation: at.Generation, First: b.first, Last: b.last, LastAt: b.newest.UnixNano(),
			Dropped: b.dropped, Historic: slices.Sorted(maps.Keys(b.historic)), Version: codec.Version,
		}
		next.Token = token(next)
		if err := w.writeIntent(ctx, work, next); err != nil {
			return err
		}
	} else {
		w.metrics.redone.Inc()
	}
	if err := w.fault(FaultIntent); err != nil {
		return err
	}
	for _, t := range tables {
		if err := w.insert(ctx, work, b, t); err != nil {
			return err
		}
		if t.fault != "" {
			if err := w.fault(t.fault); err != nil {
				return err
			}
		}
	}
	return w.finish(work, b)
}

// finish tells devices about a block that is stored.
func (w *worker) finish(work context.Context, b *block) error {
	w.sendReceipts(b)
	if err := w.fault(FaultAcked); err != nil {
		return err
	}
	w.committed.Store(b.last)
	w.oldest.Store(0)
	now := w.deps.Clock()
	w.rate.Add(now, uint64(len(b.messages)))
	w.metrics.blockRows.Observe(float64(b.rows()))
	for i := range b.dead.Rows {
		w.metrics.dead.WithLabelValues(b.dead.Rows[i].Reason).Inc()
	}
	if b.filter != nil {
		if err := w.saved.save(work, w.position.current.Created, b.last, b.filter); err != nil {
			w.log.Warn("cannot write the filter of resent messages, trying again with a later block", "error", err)
		} else {
			w.trimmable.Store(b.last)
		}
		return w.fault(FaultCheckpoint)
	}
	return nil
}

func (w *worker) writeIntent(ctx, work context.Context, next intent) error {
	fenced := func(err error) bool { return errors.Is(err, ErrFenced) }
	return w.retry(ctx, work, "the broker does not take the position", fenced, func(ctx context.Context) error {
		return w.position.write(ctx, next)
	})
}

// retry repeats what fails until it succeeds, fails for good or the mover is
// told to stop.
func (w *worker) retry(ctx, work context.Context, what string, final func(error) bool, do func(context.Context) error) error {
	pause := w.cfg.RetryMin
	for {
		once, cancel := context.WithTimeout(work, w.cfg.InsertTimeout)
		err := do(once)
		cancel()
		if err == nil {
			w.say("")
			return nil
		}
		if final(err) || ctx.Err() != nil {
			return err
		}
		w.metrics.retries.WithLabelValues(w.stream).Inc()
		w.say(what)
		w.log.Warn(what+", trying again", "stream", w.stream, "pause", pause, "error", err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, w.cfg.RetryMax)
	}
}

// table is one destination of a block's rows.
type table struct {
	name   string
	fault  string
	rows   func(b *block) int
	insert func(ctx context.Context, w *worker, token string, b *block) error
}

// The tables, in the order of insertion. Dead letters come last: rows that a
// table refuses become dead letters.
var tables = []table{
	{"telemetry", FaultTelemetry, func(b *block) int { return b.telemetry.Len() }, func(ctx context.Context, w *worker, token string, b *block) error {
		return w.deps.Store.InsertTelemetry(ctx, token, &b.telemetry)
	}},
	{"audit", FaultAudit, func(b *block) int { return b.audit.Len() }, func(ctx context.Context, w *worker, token string, b *block) error {
		return w.deps.Store.InsertAudit(ctx, token, &b.audit)
	}},
	{"history", "", func(b *block) int { return len(b.history) }, func(ctx context.Context, w *worker, token string, b *block) error {
		return w.deps.Store.InsertHistory(ctx, w.history, token, b.history)
	}},
	{deadLetters, FaultInserted, func(b *block) int { return b.dead.Len() }, func(ctx context.Context, w *worker, token string, b *block) error {
		return w.deps.Store.InsertDeadLetters(ctx, token, &b.dead)
	}},
}

const deadLetters = "dead_letter"

const storeAway = "ClickHouse does not take rows; messages wait in the stream and are stored when it does: see the engine's log"

// insert stores a block's rows of one table. A block that is refused for good
// is halved down to the messages at fault.
func (w *worker) insert(ctx, work context.Context, b *block, t table) error {
	if t.rows(b) == 0 {
		return nil
	}
	if !slices.Contains(w.position.current.Halved, t.name) {
		err := w.try(ctx, work, b, t, w.position.current.Token)
		if err == nil || !w.deps.Permanent(err) {
			return err
		}
		w.log.Error("the store refuses a block, looking for the message at fault", "stream", w.stream, "table", t.name, "error", err)
		next := w.position.current
		next.Halved = append(slices.Clone(next.Halved), t.name)
		if err := w.writeIntent(ctx, work, next); err != nil {
			return err
		}
	}
	pause := w.cfg.RetryMin
	for {
		var poison []fleet.DeadLetter
		err := w.halve(ctx, work, b, t, b.messages, &poison)
		if err == nil {
			b.dead.Rows = append(b.dead.Rows, poison...)
			w.say("")
			return nil
		}
		if !errors.Is(err, errRefusesAll) || ctx.Err() != nil {
			return err
		}
		w.say("ClickHouse refuses message after message: is its schema the one of this version? Messages wait in the stream")
		w.log.Error("the store refuses message after message, trying again", "stream", w.stream, "table", t.name)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, w.cfg.RetryMax)
	}
}

var errRefusesAll = errors.New("the store refuses message after message")

// try inserts a block's rows of one table, for as long as that may help.
func (w *worker) try(ctx, work context.Context, b *block, t table, token string) error {
	final := w.deps.Permanent
	if t.name == deadLetters { // the last resort: there is no other place for them
		final = func(error) bool { return false }
	}
	err := w.retry(ctx, work, storeAway, final, func(ctx context.Context) error {
		start := time.Now()
		defer func() { w.metrics.insertSeconds.WithLabelValues(t.name).Observe(time.Since(start).Seconds()) }()
		return t.insert(ctx, w, token, b)
	})
	if err == nil {
		w.metrics.stored.WithLabelValues(t.name).Add(float64(t.rows(b)))
	}
	return err
}

// halve inserts the rows of some of a block's messages, and each half for
// itself when that is refused.
func (w *worker) halve(ctx, work context.Context, b *block, t table, messages []message, poison *[]fleet.DeadLetter) error {
	var part block
	for _, m := range messages {
		w.reader.again(b, &part, m)
	}
	if t.rows(&part) == 0 {
		return nil
	}
	token := fmt.Sprintf("%s/%d-%d", w.position.current.Token, messages[0].seq, messages[len(messages)-1].seq)
	err := w.try(ctx, work, &part, t, token)
	if err == nil || !w.deps.Permanent(err) {
		return err
	}
	if len(messages) > 1 {
		mid := len(messages) / 2
		if err := w.halve(ctx, work, b, t, messages[:mid], poison); err != nil {
			return err
		}
		return w.halve(ctx, work, b, t, messages[mid:], poison)
	}
	if len(*poison) >= w.cfg.MaxPoison {
		return errRefusesAll
	}
	m := messages[0]
	w.log.Error("the store refuses a message, it becomes a dead letter", "stream", w.stream, "seq", m.seq, "subject", m.subject, "error", err)
	device := ""
	if w.isFleet() {
		device = deviceOf(m.subject)
	}
	*poison = append(*poison, deadLetter(m, device, codec.Rejected, "the store refused it: "+err.Error()))
	return nil
}

// sendReceipts tells MQTT devices which of their messages are stored.
func (w *worker) sendReceipts(b *block) {
	for _, r := range b.receipts {
		raw, err := json.Marshal(struct {
			Boot   string `json:"boot"`
			Seq    uint64 `json:"seq"`
			Device string `json:"device,omitempty"` // the child, behind a gateway
		}{r.boot, r.seq, r.child})
		if err == nil {
			err = w.deps.Bus.Devices.Publish(bus.SubjectReceipt+"."+r.device, raw)
		}
		if err != nil {
			w.log.Warn("cannot send a receipt, the device will send again", "device", r.device, "error", err)
			continue
		}
		w.metrics.receipts.Inc()
	}
}
