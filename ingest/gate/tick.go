package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// tickLoop publishes a tick at every multiple of TickEvery. Every gate tries;
// the first wins, because all name the tick alike and the broker drops
// duplicates. A tick is healthy when since the last one the gate could answer
// whoever asked, so the first after a start never is.
func (g *Gate) tickLoop(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-g.ready:
	}
	g.healthy.Store(false)
	for {
		now := g.deps.Clock()
		at := now.Truncate(g.cfg.TickEvery).Add(g.cfg.TickEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(at.Sub(now)):
		}
		healthy := g.healthy.Swap(true)
		if err := g.probe(ctx); err != nil {
			healthy = false
			if ctx.Err() == nil {
				g.deps.Log.Warn("gate is not healthy", "error", err)
			}
		}
		if err := g.tick(ctx, fleet.Tick{At: at.UTC(), Healthy: healthy}); err != nil {
			g.healthy.Store(false)
			if ctx.Err() == nil {
				g.deps.Log.Warn("tick was not published", "error", err)
			}
			continue
		}
		g.metrics.ticks.Inc()
	}
}

// probe checks what answering a callout needs.
func (g *Gate) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	for _, conn := range []*nats.Conn{g.deps.Bus.Auth, g.deps.Bus.System} {
		if !conn.IsConnected() {
			return errors.New("no connection to the broker")
		}
	}
	if _, err := g.quarantines.Get(ctx, "probe"); err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return fmt.Errorf("read bucket %s: %w", bus.BucketQuarantine, err)
	}
	return nil
}

func (g *Gate) tick(ctx context.Context, t fleet.Tick) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode tick: %w", err)
	}
	_, err = g.deps.Bus.Fleet.Publish(ctx, bus.SubjectTick, data, jetstream.WithMsgID(g.deps.Bus.MsgID("tick."+strconv.FormatInt(t.At.UnixMilli(), 10))))
	if err != nil {
		return fmt.Errorf("publish tick: %w", err)
	}
	return nil
}
