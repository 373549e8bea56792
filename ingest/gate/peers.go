package gate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// peersKey holds, in bucket "position", when each broker answered last.
const peersKey = "brokers"

// peers remembers the brokers of the cluster by name. One that is cut off from
// the others is on nobody's list any more, but devices may still be connected
// to it: until it answers or is forgotten, no quarantine is confirmed.
type peers struct {
	g *Gate

	mu   sync.Mutex
	seen map[string]time.Time
}

// expect adds to the proofs every broker that should have answered too.
func (p *peers) expect(proofs []fleet.BrokerProof) []fleet.BrokerProof {
	now := p.g.deps.Clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	listed := map[string]bool{}
	for _, b := range proofs {
		listed[b.ServerName] = true
		if b.Answered {
			p.seen[b.ServerName] = now
		}
	}
	for name, at := range p.seen {
		switch {
		case now.Sub(at) >= p.g.cfg.BrokerMemory:
			delete(p.seen, name)
		case !listed[name]:
			proofs = append(proofs, fleet.BrokerProof{ServerName: name})
		}
	}
	slices.SortStableFunc(proofs, func(a, b fleet.BrokerProof) int { return cmp.Compare(a.ServerName, b.ServerName) })
	return proofs
}

func (p *peers) load(ctx context.Context) error {
	kv, err := p.g.deps.Bus.Bucket(ctx, bus.BucketPosition)
	if err != nil {
		return err
	}
	entry, err := kv.Get(ctx, peersKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read brokers: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := json.Unmarshal(entry.Value(), &p.seen); err != nil {
		return fmt.Errorf("decode brokers: %w", err)
	}
	return nil
}

// save writes what is known, for the next gate.
func (p *peers) save(ctx context.Context) {
	p.mu.Lock()
	data, err := json.Marshal(p.seen)
	p.mu.Unlock()
	if err == nil {
		var kv jetstream.KeyValue
		if kv, err = p.g.deps.Bus.Bucket(ctx, bus.BucketPosition); err == nil {
			_, err = kv.Put(ctx, peersKey, data)
		}
	}
	if err != nil && ctx.Err() == nil {
		p.g.deps.Log.Warn("brokers were not written", "error", err)
	}
}
