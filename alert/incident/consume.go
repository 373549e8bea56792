package incident

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	consumerName = "incident"
	fetchWait    = 2 * time.Second
	maxTries     = 20
)

// consume takes findings in order, batch by batch, until ctx ends.
func (s *Service) consume(ctx context.Context) error {
	consumer, err := s.deps.Bus.Core.CreateOrUpdateConsumer(ctx, bus.StreamFindings, jetstream.ConsumerConfig{
		Durable: consumerName, AckPolicy: jetstream.AckExplicitPolicy, AckWait: s.cfg.AckWait,
		MaxAckPending: 4 * s.cfg.Batch, MaxDeliver: -1,
	})
	if err != nil {
		return fmt.Errorf("create consumer %s of %s: %w", consumerName, bus.StreamFindings, err)
	}
	for ctx.Err() == nil {
		msgs, err := s.fetch(ctx, consumer)
		if err != nil {
			s.fail(err)
			s.wait(ctx, 0)
			continue
		}
		s.observe(msgs)
		if len(msgs) == 0 {
			continue
		}
		if !s.handle(ctx, msgs) {
			return nil
		}
	}
	return nil
}

// fetch takes one finding, waiting for it, and then what else is there.
func (s *Service) fetch(ctx context.Context, consumer jetstream.Consumer) ([]jetstream.Msg, error) {
	var out []jetstream.Msg
	take := func(batch jetstream.MessageBatch, err error) error {
		if err != nil {
			return err
		}
		for msg := range batch.Messages() {
			out = append(out, msg)
		}
		return batch.Error()
	}
	within, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	err := take(consumer.Fetch(1, jetstream.FetchContext(within)))
	if err == nil && len(out) > 0 {
		err = take(consumer.FetchNoWait(s.cfg.Batch - 1))
	}
	if err != nil && len(out) == 0 && ctx.Err() == nil && !quiet(err) {
		return nil, fmt.Errorf("fetch findings: %w", err)
	}
	return out, nil
}

func quiet(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, jetstream.ErrNoMessages)
}

// observe keeps the lag that Status shows.
func (s *Service) observe(msgs []jetstream.Msg) {
	if len(msgs) == 0 {
		s.pending.Store(0)
		s.failure.Store(nil)
		return
	}
	if meta, err := msgs[len(msgs)-1].Metadata(); err == nil {
		s.pending.Store(meta.NumPending + uint64(len(msgs)))
	}
}

// handle applies a batch and acknowledges it; false means that ctx ended
// first and the findings will come again.
func (s *Service) handle(ctx context.Context, msgs []jetstream.Msg) bool {
	beat := time.Now()
	for try, left := 0, s.decodeAll(msgs); len(left) > 0; try++ {
		var err error
		if left, err = s.applyAll(ctx, msgs, left, &beat); err == nil {
			s.failure.Store(nil)
			break
		}
		if ctx.Err() != nil {
			for _, msg := range msgs {
				_ = msg.Nak() // whoever runs next gets them at once
			}
			return false
		}
		s.fail(err)
		s.metrics.retries.Inc()
		hold(msgs)
		s.wait(ctx, try)
	}
	for _, msg := range msgs {
		if err := msg.Ack(); err != nil {
			s.log.Debug("finding not acknowledged; it will come again", "error", err)
		}
	}
	s.rate.Add(s.now(), uint64(len(msgs)))
	return true
}

func (s *Service) decodeAll(msgs []jetstream.Msg) []arrival {
	out := make([]arrival, 0, len(msgs))
	for _, msg := range msgs {
		if a, ok := s.decode(msg); ok {
			out = append(out, a)
		}
	}
	return out
}

// applyAll applies findings, those of one incident together, and returns what
// is left when one fails. Where a finding belongs depends on what came before
// it: a batch is cut where a group begins.
func (s *Service) applyAll(ctx context.Context, msgs []jetstream.Msg, list []arrival, beat *time.Time) ([]arrival, error) {
	for len(list) > 0 {
		var order []string
		groups := map[string]group{}
		byKey := map[string][]arrival{}
		n := 0
		for _, a := range list {
			key, g := s.target(a.finding)
			if g.key != "" && g.key != fleet.SystemDevice && byKey[key] == nil {
				held, err := s.ownKnows(ctx, a)
				if err != nil {
					return list, err
				}
				if held {
					key, g = a.finding.Device, group{}
				}
			}
			if g.key != "" && byKey[key] == nil && s.view.newestOpen(key) == "" && n > 0 {
				break // what came before must be written: it becomes part of the group
			}
			n++
			if byKey[key] == nil {
				order = append(order, key)
			}
			groups[key] = g
			byKey[key] = append(byKey[key], a)
		}
		for _, key := range order {
			if time.Since(*beat) > s.cfg.AckWait/4 {
				*beat = time.Now()
				hold(msgs)
			}
			if err := s.apply(ctx, key, groups[key], byKey[key]); err != nil {
				return list, err
			}
		}
		list = list[n:]
	}
	return nil, nil
}

// ownKnows says whether the finding was applied to its device's own incident
// before there was a group.
func (s *Service) ownKnows(ctx context.Context, a arrival) (bool, error) {
	id := s.view.newest(a.finding.Device)
	if id == "" {
		return false, nil
	}
	r, _, err := s.load(ctx, id)
	if err != nil || r == nil {
		return false, err
	}
	return !r.grouped() && r.knows(a), nil
}

// hold asks the broker for more time.
func hold(msgs []jetstream.Msg) {
	for _, msg := range msgs {
		_ = msg.InProgress()
	}
}

func (s *Service) fail(err error) {
	text := err.Error()
	s.failure.Store(&text)
	s.log.Warn("findings wait", "error", err)
}

func (s *Service) wait(ctx context.Context, try int) {
	timer := time.NewTimer(s.cfg.RetryWait * time.Duration(min(try*try+1, 30)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// decode reads a finding; false means that there is nothing to apply.
func (s *Service) decode(msg jetstream.Msg) (arrival, bool) {
	var a arrival
	err := json.Unmarshal(msg.Data(), &a.finding)
	if err == nil {
		err = fleet.CheckDeviceID(a.finding.Device)
	}
	if err == nil && (a.finding.ID == "" || a.finding.RuleID == "" || a.finding.Severity.Rank() == 0) {
		err = errors.New("id, rule_id or severity is missing")
	}
	meta, metaErr := msg.Metadata()
	if err = errors.Join(err, metaErr); err != nil {
		s.metrics.findings.WithLabelValues("malformed").Inc()
		s.log.Error("finding can't be read; it is left out", "subject", msg.Subject(), "error", err)
		return a, false
	}
	if a.finding.Mode != fleet.Alert && a.finding.Mode != fleet.Armed {
		s.metrics.findings.WithLabelValues("ignored").Inc()
		return a, false
	}
	a.seq = meta.Sequence.Stream
	return a, true
}

// apply brings findings of one device or group into its incidents.
func (s *Service) apply(ctx context.Context, key string, g group, findings []arrival) error {
	if err := s.applyLocked(ctx, key, g, findings); err != nil || g.key == "" {
		return err
	}
	if e := s.view.openEntry(key); e != nil {
		return s.absorb(ctx, e.ID)
	}
	return nil
}

func (s *Service) applyLocked(ctx context.Context, key string, g group, findings []arrival) error {
	lock := s.lock(key)
	lock.Lock()
	defer lock.Unlock()
	for range maxTries {
		err := s.applyOnce(ctx, key, g, findings)
		if !errors.Is(err, errRaced) {
			return err
		}
	}
	return fmt.Errorf("apply findings of %s: %w", key, errRaced)
}

func (s *Service) applyOnce(ctx context.Context, device string, g group, findings []arrival) error {
	r, revision, reserved, pointerRevision, err := s.current(ctx, device)
	if err != nil {
		return err
	}
	historic := g.key == "" && s.device(device).Historic
	dirty, opened := false, false
	for i, a := range findings {
		switch {
		case r != nil && r.State != fleet.Resolved:
			if g.key != "" && r.Group == "" { // Cordon's own incident takes in what it explains
				r.widen(g)
			}
			changed := r.attach(a, s.now(), s.device(a.finding.Device))
			dirty = dirty || changed
			s.countFinding(changed, "attached")
		case r != nil && (a.finding.Cleared || r.predates(a, historic)):
			if !a.finding.Cleared && !r.knows(a) {
				r.count(a, s.now())
				dirty = true
			}
			s.countFinding(true, "late")
		case a.finding.Cleared:
			s.countFinding(true, "ignored")
		default:
			if r != nil { // resolved: write what it got, then start the next with a fresh look
				if dirty {
					if err := s.write(ctx, r, revision, false); err != nil {
						return err
					}
				}
			}
			if r != nil && reserved == 0 {
				if pointerRevision, err = s.repoint(ctx, device, r.ID); err != nil {
					return err
				}
			}
			if reserved == 0 {
				if reserved, err = s.reserve(ctx, device, pointerRevision); err != nil {
					return err
				}
			}
			before := r
			r, revision = newRecord(reserved, findings[i], s.now(), s.device(a.finding.Device), g), 0
			if err := s.begin(ctx, r, before, g, a); err != nil {
				return err
			}
			reserved, dirty, opened = 0, true, true
			s.countFinding(true, "opened")
		}
	}
	if r == nil || !dirty && len(r.Outbox) == 0 {
		return nil
	}
	if !dirty {
		return s.redrain(ctx, r, revision)
	}
	return s.write(ctx, r, revision, opened)
}

func (s *Service) countFinding(changed bool, result string) {
	if !changed {
		result = "known"
	}
	s.metrics.findings.WithLabelValues(result).Inc()
}

// repoint reads the pointer's revision, making the pointer if it was lost.
func (s *Service) repoint(ctx context.Context, device, id string) (uint64, error) {
	named, revision, err := s.pointer(ctx, device)
	if err != nil {
		return 0, err
	}
	if named != "" && named != id {
		return 0, errRaced
	}
	return revision, nil
}

// write saves a record and publishes what it has to tell.
func (s *Service) write(ctx context.Context, r *record, revision uint64, opened bool) error {
	if err := s.fault("apply"); err != nil {
		return err
	}
	sent := uint64(0)
	if len(r.Outbox) > 0 && revision != 0 && r.Outbox[0].Number <= r.told {
		var err error
		if sent, err = s.lastSent(ctx, r.ID); err != nil {
			return err
		}
	}
	revision, err := s.save(ctx, r, revision)
	if err != nil {
		return err
	}
	if opened {
		s.metrics.opened.WithLabelValues(string(r.Severity)).Inc()
		if s.opened.add(s.now()) > s.cfg.FloodPerMinute {
			s.metrics.flood.Inc()
		}
	}
	if err := s.fault("applied"); err != nil {
		return err
	}
	if err := s.drain(ctx, r, revision, sent); err != nil {
		return err
	}
	if opened {
		return s.noteQuarantineOf(ctx, r)
	}
	return nil
}

// redrain publishes what an interrupted writer left.
func (s *Service) redrain(ctx context.Context, r *record, revision uint64) error {
	sent, err := s.lastSent(ctx, r.ID)
	if err != nil {
		return err
	}
	if err := s.drain(ctx, r, revision, sent); err != nil || r.State == fleet.Resolved {
		return err
	}
	return s.noteQuarantineOf(ctx, r)
}

// sweepLoop publishes what interrupted writers left, at start and then every
// Sweep.
func (s *Service) sweepLoop(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.Sweep)
	defer ticker.Stop()
	for {
		for _, id := range s.view.unsent() {
			if err := s.sweep(ctx, id); err != nil && ctx.Err() == nil {
				s.log.Warn("changes wait", "incident", id, "error", err)
			}
		}
		for _, id := range s.view.absorbing() {
			if err := s.absorb(ctx, id); err != nil && ctx.Err() == nil {
				s.log.Warn("incidents wait to become part of another", "incident", id, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (s *Service) sweep(ctx context.Context, id string) error {
	r, _, err := s.load(ctx, id)
	if err != nil || r == nil {
		return err
	}
	lock := s.lock(r.key())
	lock.Lock()
	defer lock.Unlock()
	r, revision, err := s.load(ctx, id)
	if err != nil || r == nil || len(r.Outbox) == 0 {
		return err
	}
	return s.redrain(ctx, r, revision)
}
