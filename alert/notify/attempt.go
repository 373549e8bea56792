package notify

import (
	"context"
	"fmt"
	"time"
)

// attempt sends an item once, records how it went, and only then
// acknowledges what has ended.
func (w *worker) attempt(ctx context.Context, j *job, results chan<- *job) {
	defer func() { results <- j }()
	s := w.service
	now := s.now()
	if age := now.Sub(j.item.CreatedAt); age > s.cfg.GiveUpAfter {
		j.delivery.State, j.delivery.UpdatedAt, j.delivery.NextAt = stateFailed, now, time.Time{}
		j.delivery.Error = cut(fmt.Sprintf("given up: not delivered within %s; %s", s.cfg.GiveUpAfter, j.delivery.Error), maxError)
		w.conclude(ctx, j)
		return
	}
	out := w.sender.send(ctx, j.item)
	if ctx.Err() != nil && !out.delivered {
		return // stopped in the middle: the attempt does not count
	}
	if s.fault("sent") != nil {
		return
	}
	now = s.now()
	out.apply(&j.delivery, now)
	j.delivery.NextAt = time.Time{}
	s.metrics.latency.WithLabelValues(w.receiver.Name).Observe(out.latency.Seconds())
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
	w.judge(out, now)
	w.conclude(ctx, j)
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
	for {
		err := s.store(ctx, j.delivery)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("delivery can't be recorded", "delivery", j.item.ID, "error", err)
		_ = j.msg.InProgress()
		pause(ctx, retryWait)
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
