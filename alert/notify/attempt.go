package notify

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// attempt sends items in one message, records how it went, and only then
// acknowledges what has ended.
func (w *worker) attempt(ctx context.Context, list []*job, results chan<- []*job) {
	defer func() { results <- list }()
	s := w.service
	live := w.giveUp(ctx, list)
	if len(live) == 0 {
		return
	}
	id := live[0].item.webhookID()
	if len(live) > 1 || live[0].delivery.Batch != "" {
		if id = w.seal(ctx, live); id == "" {
			return
		}
	}
	items := make([]item, len(live))
	for i, j := range live {
		items[i] = j.item
	}
	out := w.sender.send(ctx, items, id)
	if ctx.Err() != nil && !out.delivered {
		return // stopped in the middle: the attempt does not count
	}
	if s.fault("sent") != nil {
		return
	}
	now := s.now()
	s.metrics.latency.WithLabelValues(w.receiver.Name).Observe(out.latency.Seconds())
	if out.status == http.StatusGone {
		w.disable(ctx, "it answered 410 Gone")
	}
	w.judge(out, now)
	for _, j := range live {
		w.enter(j, out, now)
		w.conclude(ctx, j)
	}
}

// enter writes how an attempt went into a delivery.
func (w *worker) enter(j *job, out outcome, now time.Time) {
	s := w.service
	out.apply(&j.delivery, now)
	j.delivery.NextAt = time.Time{}
	result := "delivered"
	switch {
	case out.delivered:
	case out.permanent:
		result, j.delivery.State = "failed", stateFailed
	case j.delivery.Attempts >= s.cfg.MaxAttempts:
		result, j.delivery.State = "failed", stateFailed
		j.delivery.Error = cut(fmt.Sprintf("given up after %d attempts: %s", j.delivery.Attempts, j.delivery.Error), maxError)
	default:
		result = "retry"
		j.due = now.Add(max(s.cfg.Backoff(j.delivery.Attempts), min(out.retryAfter, s.cfg.MaxWait)))
		j.delivery.NextAt = j.due
	}
	s.metrics.attempts.WithLabelValues(w.receiver.Name, result).Inc()
}

// giveUp ends what is too old to be news or has no receiver any more, and
// returns the rest.
func (w *worker) giveUp(ctx context.Context, list []*job) []*job {
	s := w.service
	now := s.now()
	var live []*job
	for _, j := range list {
		reason := ""
		if m, off := s.disabled(w.receiver.Name); off {
			reason = "the receiver is disabled: " + m.Reason
		} else if now.Sub(j.item.CreatedAt) > s.cfg.GiveUpAfter {
			reason = fmt.Sprintf("given up: not delivered within %s; %s", s.cfg.GiveUpAfter, j.delivery.Error)
		}
		if reason == "" {
			live = append(live, j)
			continue
		}
		j.delivery.State, j.delivery.UpdatedAt, j.delivery.NextAt = stateFailed, now, time.Time{}
		j.delivery.Error = cut(reason, maxError)
		w.conclude(ctx, j)
	}
	return live
}

// seal writes down which items go out together before they do: whoever
// repeats the message after a crash repeats the same one, with the same id.
func (w *worker) seal(ctx context.Context, live []*job) string {
	id := live[0].delivery.Batch
	if id == "" {
		id = webhookID(live[0].item.ID) + "_and_" + strconv.Itoa(len(live)-1)
	}
	for _, j := range live {
		if j.delivery.Batch == id {
			continue
		}
		j.delivery.Batch, j.delivery.UpdatedAt = id, w.service.now()
		if !w.record(ctx, j) {
			return ""
		}
	}
	return id
}

// disable sends nothing to the receiver any more until a person says so.
func (w *worker) disable(ctx context.Context, reason string) {
	w.log.Error("receiver is disabled; fix it and enable it again", "reason", reason)
	m := mark{Name: w.receiver.Name, DisabledAt: w.service.now(), Reason: reason}
	if err := w.service.setMark(ctx, m); err != nil {
		w.log.Warn("receiver can't be disabled for good", "error", err)
		w.service.marks.put("state."+m.Name, m)
	}
}

// judge learns from an attempt how the receiver does. An item that is wrong
// by itself says nothing about the receiver's health.
func (w *worker) judge(out outcome, now time.Time) {
	cfg := w.service.cfg
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case out.delivered:
		w.streak, w.refused, w.lastError, w.lastAt, w.retryAt = 0, 0, "", now, time.Time{}
		return
	case out.permanent:
		w.refused++
		w.lastError = out.err
		return
	}
	w.streak++
	w.lastError = out.err
	wait := min(out.retryAfter, cfg.MaxWait)
	if w.streak >= cfg.BreakAfter {
		wait = max(wait, cfg.Backoff(w.streak-cfg.BreakAfter+1))
	}
	if wait > 0 {
		w.retryAt = now.Add(wait)
	}
	if w.streak == cfg.BreakAfter {
		w.log.Warn("receiver keeps failing; it is tried with one notification at a time", "error", out.err)
	}
}

// conclude writes the record, however long the broker takes, and then
// acknowledges what has ended: never the other way round.
func (w *worker) conclude(ctx context.Context, j *job) {
	s := w.service
	if j.delivery.State == stateFailed {
		s.keepDead(ctx, j.item)
	}
	if !w.record(ctx, j) {
		return
	}
	if s.fault("stored") != nil || j.delivery.State == statePending {
		return
	}
	if j.delivery.State == stateFailed {
		w.log.Error("notification failed", "delivery", j.item.ID, "attempts", j.delivery.Attempts, "error", j.delivery.Error)
	}
	w.ended(j.delivery.State)
	w.finish(j)
	j.done = true
}

// record writes the delivery, however long the broker takes; false means that
// ctx ended first.
func (w *worker) record(ctx context.Context, j *job) bool {
	for {
		err := w.service.store(ctx, j.delivery)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		w.log.Warn("delivery can't be recorded", "delivery", j.item.ID, "error", err)
		_ = j.msg.InProgress()
		pause(ctx, retryWait)
	}
}
