package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"cordon/internal/bench"
)

// BenchChaosCmd kills and cuts and counts what is stored.
type BenchChaosCmd struct {
	Seed    uint64  `help:"Seed of what is broken when; 0 picks one, which is printed." default:"0"`
	Minutes float64 `help:"How long things are broken." default:"2"`
	NATS    int     `help:"Devices that send over NATS." name:"nats-devices" default:"3"`
	MQTT    int     `help:"Devices that send over MQTT." name:"mqtt-devices" default:"2"`
}

// Run breaks, counts and prints. It fails when anything was lost, stored twice
// or counted wrong.
func (c *BenchChaosCmd) Run(ctx context.Context, g *Globals) error {
	seed := c.Seed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32) //nolint:gosec // no secret
	}
	result, err := bench.Chaos(ctx, bench.ChaosConfig{
		Seed: seed, Duration: time.Duration(c.Minutes * float64(time.Minute)), NATS: max(c.NATS, 1), MQTT: c.MQTT, Log: g.Log, Progress: g.Err,
	})
	if err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	if g.JSON {
		if err := json.NewEncoder(g.Out).Encode(result); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	} else {
		fmt.Fprintf(g.Out, "seed %d: %d messages sent, %d receipted, %d stored; %d lost, %d stored twice; %d dead letters of %d; %d old messages sent again; %d kills; faults %v\n",
			result.Seed, result.Sent, result.Receipted, result.Stored, result.Lost, result.Duplicates, result.DeadLettered, result.DeadExpected, result.Resent, result.Kills, result.Faults)
	}
	if err := result.Err(); err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	return nil
}
