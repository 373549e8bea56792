package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	routerName   = "notify"
	workerPrefix = "notify-"
	retryWait    = 200 * time.Millisecond
	routeAckWait = 10 * time.Second
)

// route makes work items of incident changes, in order, until ctx ends.
func (s *Service) route(ctx context.Context) error {
	consumer, err := s.deps.Bus.Core.CreateOrUpdateConsumer(ctx, bus.StreamIncidents, jetstream.ConsumerConfig{
		Durable: routerName, AckPolicy: jetstream.AckExplicitPolicy, AckWait: routeAckWait, MaxAckPending: 256, MaxDeliver: -1,
	})
	if err != nil {
		return fmt.Errorf("create consumer %s of %s: %w", routerName, bus.StreamIncidents, err)
	}
	iter, err := consumer.Messages(jetstream.PullMaxMessages(64))
	if err != nil {
		return fmt.Errorf("consume %s: %w", bus.StreamIncidents, err)
	}
	stop := context.AfterFunc(ctx, iter.Drain)
	defer stop()
	defer iter.Stop()
	for {
		msg, err := iter.Next()
		switch {
		case errors.Is(err, jetstream.ErrMsgIteratorClosed):
			if ctx.Err() == nil {
				return fmt.Errorf("consume %s: %w", bus.StreamIncidents, err)
			}
			return nil
		case err != nil:
			s.log.Debug("waiting for incident changes", "error", err)
			pause(ctx, retryWait)
		case ctx.Err() != nil:
			_ = msg.Nak() // whoever runs next gets it at once
		default:
			s.routeMessage(ctx, msg)
		}
	}
}

// routeMessage repeats until the change is on every queue, or ctx ends and
// the change comes again.
func (s *Service) routeMessage(ctx context.Context, msg jetstream.Msg) {
	if meta, err := msg.Metadata(); err == nil {
		s.mu.Lock()
		s.lag = meta.NumPending
		s.mu.Unlock()
	}
	var change fleet.IncidentChange
	if err := json.Unmarshal(msg.Data(), &change); err != nil || !routable(change) {
		s.metrics.routed.WithLabelValues("malformed").Inc()
		s.log.Error("incident change can't be read; nobody is told of it", "subject", msg.Subject(), "error", err)
		_ = msg.Term()
		return
	}
	for ctx.Err() == nil {
		err := s.routeChange(ctx, change)
		s.setFailure(err)
		if err == nil {
			_ = msg.Ack()
			return
		}
		if ctx.Err() == nil {
			s.log.Warn("incident change waits", "change", change.ID, "error", err)
			_ = msg.InProgress()
			pause(ctx, retryWait)
		}
	}
	_ = msg.Nak()
}

// routable refuses what could not be a key of the delivery log.
func routable(change fleet.IncidentChange) bool {
	if change.ID == "" || len(change.ID) > 100 || change.Incident.ID == "" {
		return false
	}
	return !strings.ContainsFunc(change.ID, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// followUps end a story: they go to whoever was told its beginning, whatever
// the routes, silences and other incidents say now.
var followUps = map[string]bool{"resolved": true, "merged": true}

func (s *Service) routeChange(ctx context.Context, change fleet.IncidentChange) error {
	result := "unwanted"
	for _, c := range s.recipients(change) {
		w := s.worker(c.receiver)
		if w == nil {
			continue
		}
		result = "routed"
		if err := s.enqueue(ctx, w, change, c); err != nil {
			return err
		}
	}
	s.metrics.routed.WithLabelValues(result).Inc()
	s.rate.Add(s.now(), 1)
	return nil
}

// recipients are the receivers that hear of a change.
func (s *Service) recipients(change fleet.IncidentChange) []choice {
	inc := change.Incident
	var out []choice
	var names []string
	for _, w := range s.workers() {
		names = append(names, w.receiver.Name)
		if followUps[change.Change] && slices.Contains(w.receiver.Changes, change.Change) && s.records.toldOf(inc.ID, w.receiver.Name) {
			out = append(out, choice{receiver: w.receiver.Name, why: "it was told of the incident"})
		}
	}
	if followUps[change.Change] {
		return out
	}
	for _, c := range s.cfg.Policy.choose(inc, s.now(), names) {
		w := s.worker(c.receiver)
		if w == nil {
			continue
		}
		if ok, _ := w.receiver.hears(inc.Severity, change.Change); ok {
			out = append(out, c)
		}
	}
	return out
}

// enqueue records a delivery and puts its item on the queue. A delivery that
// is recorded as ended, or as kept back, is never queued again.
func (s *Service) enqueue(ctx context.Context, w *worker, change fleet.IncidentChange, c choice) error {
	it := newItem(change, w.receiver.Name, s.now())
	d, found, err := s.lookup(ctx, it.ID)
	if err != nil {
		return err
	}
	if found && d.State != statePending {
		return nil
	}
	if found {
		it.CreatedAt = d.CreatedAt
	} else {
		d = newDelivery(it, w.receiver)
		d.Why = c.why
		if c.route != nil {
			d.Route = c.route.Name
		}
		s.settle(&d, w, change)
		if err := s.store(ctx, d); err != nil {
			return err
		}
		if d.State == stateFailed {
			s.keepDead(ctx, it)
			w.ended(stateFailed)
		}
		if d.State != statePending {
			return nil
		}
	}
	if err := s.fault("recorded"); err != nil {
		return err
	}
	if key := c.route.groupKey(change.Incident); key != "" && w.receiver.Kind != KindPager && w.receiver.Kind != KindSyslog {
		it.Group, it.Wait, it.Interval = key, time.Duration(c.route.Group.Wait), time.Duration(c.route.Group.Interval)
	}
	if err := s.queue(ctx, w, it, it.ID); err != nil {
		return err
	}
	return s.fault("queued")
}

// settle decides what becomes of a new delivery.
func (s *Service) settle(d *fleet.Delivery, w *worker, change fleet.IncidentChange) {
	if !followUps[change.Change] {
		if by, why := s.held(change.Incident); by != "" {
			d.State, d.HeldBy, d.Why = stateSuppressed, by, d.Why+"; "+why
			s.metrics.routed.WithLabelValues("suppressed").Inc()
			return
		}
	}
	if w.backlog() >= s.cfg.QueueLimit {
		d.State, d.Error = stateFailed, fmt.Sprintf("%d notifications wait for this receiver already", s.cfg.QueueLimit)
		s.metrics.routed.WithLabelValues("overflow").Inc()
		s.log.Error("notification dropped: the receiver's queue is full", "receiver", w.receiver.Name, "delivery", d.ID)
	}
}

// queue puts an item on the receiver's queue, once for each msgID.
func (s *Service) queue(ctx context.Context, w *worker, it item, msgID string) error {
	raw, err := json.Marshal(it)
	if err != nil {
		return fmt.Errorf("encode notification %s: %w", it.ID, err)
	}
	msg := &nats.Msg{Subject: bus.SubjectDelivery + "." + w.receiver.Name, Data: raw, Header: nats.Header{}}
	msg.Header.Set(jetstream.MsgIDHeader, msgID)
	if _, err := s.deps.Bus.Core.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("queue notification %s: %w", it.ID, err)
	}
	w.queued()
	return nil
}

// dropRemoved ends what waits for receivers that are configured no more.
func (s *Service) dropRemoved(ctx context.Context) error {
	stream, err := s.deps.Bus.Core.Stream(ctx, bus.StreamDeliveries)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", bus.StreamDeliveries, err)
	}
	configured := map[string]bool{}
	for _, w := range s.workers() {
		configured[w.receiver.Name] = true
	}
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		receiver, ours := strings.CutPrefix(name, workerPrefix)
		if !ours || configured[receiver] {
			continue
		}
		s.log.Warn("receiver is configured no more; what waits for it is given up", "receiver", receiver)
		if err := stream.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("delete consumer %s: %w", name, err)
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(bus.SubjectDelivery+"."+receiver)); err != nil {
			return fmt.Errorf("purge queue of %s: %w", receiver, err)
		}
	}
	if err := names.Err(); err != nil {
		return fmt.Errorf("list consumers of %s: %w", bus.StreamDeliveries, err)
	}
	for _, d := range s.records.all() {
		if d.State != statePending || configured[d.Receiver] {
			continue
		}
		d.State, d.Error, d.UpdatedAt, d.NextAt = stateFailed, "the receiver is configured no more", s.now(), time.Time{}
		if err := s.store(ctx, d); err != nil {
			return err
		}
	}
	return nil
}
