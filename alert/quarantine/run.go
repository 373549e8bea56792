package quarantine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	consumerName = "quarantine"
	ackWait      = 30 * time.Second
	retryDelay   = time.Second
)

// Run keeps memory and decides on findings until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { s.follow(ctx) })
	group.Go(func() { s.followGuards(ctx) })
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil
	}
	consumer, err := s.deps.Bus.Core.CreateOrUpdateConsumer(ctx, bus.StreamFindings, jetstream.ConsumerConfig{
		Durable: consumerName, Description: "automatic quarantine decisions",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
		FilterSubject: bus.SubjectFinding + ".>",
		// One at a time over all processes, or two could pass a cap together.
		MaxAckPending: 1,
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", consumerName, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(64))
	if err != nil {
		return fmt.Errorf("consume findings: %w", err)
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	for {
		msg, err := messages.Next()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return fmt.Errorf("consume findings: %w", err)
		}
		if err != nil {
			s.deps.Log.Warn("findings are not delivered", "error", err)
			continue
		}
		s.handle(ctx, msg)
	}
}

func (s *Service) handle(ctx context.Context, msg jetstream.Msg) {
	var f fleet.Finding
	if err := json.Unmarshal(msg.Data(), &f); err != nil {
		s.deps.Log.Error("finding can't be read, leaving it", "subject", msg.Subject(), "error", err)
		if err := msg.Term(); err != nil {
			s.deps.Log.Warn("finding was not terminated", "error", err)
		}
		return
	}
	s.mu.Lock()
	s.seen++
	s.mu.Unlock()
	err := s.Consider(ctx, f)
	if err == nil {
		err = s.block(ctx, f)
	}
	if err == nil {
		err = msg.Ack()
	} else {
		s.deps.Log.Warn("finding decides nothing yet, trying again", "finding", f.ID, "device", f.Device, "error", err)
		err = msg.NakWithDelay(retryDelay)
	}
	if err != nil && ctx.Err() == nil {
		s.deps.Log.Warn("finding was not acknowledged", "finding", f.ID, "error", err)
	}
}

// Watch keeps the view current without deciding anything by itself, for a
// process that only acts for people. It returns when ctx ends.
func (s *Service) Watch(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { s.followGuards(ctx) })
	s.follow(ctx)
	return nil
}

// follow watches the bucket. History is read too, because caps count decisions
// that were released meanwhile.
func (s *Service) follow(ctx context.Context) {
	for {
		err := s.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		s.deps.Log.Warn("quarantine watch ended, starting it again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}

func (s *Service) watch(ctx context.Context) error {
	kv, err := s.bucket(ctx)
	if err != nil {
		return err
	}
	watcher, err := kv.WatchAll(ctx, jetstream.IncludeHistory())
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", bus.BucketQuarantine, err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for update := range watcher.Updates() {
		if update == nil {
			s.once.Do(s.loaded)
			continue
		}
		var q fleet.Quarantine
		if update.Operation() != jetstream.KeyValuePut || json.Unmarshal(update.Value(), &q) != nil || q.Device != update.Key() {
			s.deps.Log.Error("quarantine entry can't be read, leaving it", "device", update.Key())
			continue
		}
		s.store(held{q, update.Revision()})
	}
	return errors.New("watch closed by the broker")
}

// Status says how the service stands.
func (s *Service) Status() fleet.StageStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := fleet.StageStatus{Stage: "quarantine", Counters: map[string]float64{
		"findings": float64(s.seen), "stopped": float64(len(s.stopped)),
	}}
	select {
	case <-s.ready:
	default:
		status.Detail = "Quarantines are being read."
		return status
	}
	active := 0
	for _, h := range s.entries {
		if h.q.Active() {
			active++
		}
	}
	status.Healthy = true
	breakers := 0
	for _, b := range s.breakers {
		if b.Open {
			breakers++
		}
	}
	status.Counters["breakers_open"] = float64(breakers)
	status.Counters["active"] = float64(active)
	status.Detail = fmt.Sprintf("%d devices are held; guards stopped %d decisions.", active, len(s.stopped))
	if breakers > 0 {
		status.Detail += fmt.Sprintf(" %d circuit breakers are open: automatic quarantines wait for approval.", breakers)
	}
	return status
}
