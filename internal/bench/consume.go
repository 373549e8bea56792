package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
)

// consumeOnly reads the whole FLEET stream as fast as a client can, and does
// nothing with it: pull requests of 10,000 on an inbox of its own, two under
// way, one acknowledgement for all.
func (r *rig) consumeOnly(ctx context.Context, messages int) (measured, error) {
	const name, batch = "limit", 10_000
	_, err := r.bus.Fleet.CreateOrUpdateConsumer(ctx, bus.StreamFleet, jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckAllPolicy, MaxAckPending: -1, AckWait: time.Hour,
	})
	if err != nil {
		return measured{}, fmt.Errorf("create consumer: %w", err)
	}
	defer func() { _ = r.bus.Fleet.DeleteConsumer(context.WithoutCancel(ctx), bus.StreamFleet, name) }()
	inbox := nats.NewInbox()
	arrived := make(chan *nats.Msg, 4*batch)
	sub, err := r.bus.Devices.ChanSubscribe(inbox, arrived)
	if err != nil {
		return measured{}, fmt.Errorf("subscribe: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	request, err := json.Marshal(map[string]any{"batch": batch, "expires": int64(time.Minute), "max_bytes": 0})
	if err != nil {
		return measured{}, fmt.Errorf("encode request: %w", err)
	}
	pull := func() error {
		return r.bus.Devices.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+bus.StreamFleet+"."+name, inbox, request)
	}
	m, err := startMeter(r.engine.PID())
	if err != nil {
		return measured{}, err
	}
	for range 2 {
		if err := pull(); err != nil {
			return measured{}, fmt.Errorf("pull: %w", err)
		}
	}
	for n := 1; n <= messages; n++ {
		select {
		case msg := <-arrived:
			if !strings.HasPrefix(msg.Reply, "$JS.ACK.") {
				return measured{}, fmt.Errorf("the broker answered %v", msg.Header)
			}
			if n%batch == 0 || n == messages {
				if err := msg.Respond([]byte("+ACK")); err != nil {
					return measured{}, fmt.Errorf("acknowledge: %w", err)
				}
				if err := pull(); err != nil {
					return measured{}, fmt.Errorf("pull: %w", err)
				}
			}
		case <-ctx.Done():
			return measured{}, ctx.Err()
		}
	}
	return m.stop()
}
