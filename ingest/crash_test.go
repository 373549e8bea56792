package ingest_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest"
	"cordon/internal/bus"
)

var errCrash = errors.New("crash")

func TestMover_crashAtEveryPoint(t *testing.T) {
	r := newRig(t)
	r.cfg.CheckpointEvery = 0
	for _, point := range []string{
		ingest.FaultBlock, ingest.FaultIntent, ingest.FaultTelemetry, ingest.FaultAudit, ingest.FaultInserted, ingest.FaultAcked, ingest.FaultCheckpoint,
	} {
		t.Run(point, func(t *testing.T) {
			device := "crash-" + point
			var next, events, dead uint64
			send := func(n uint64) {
				r.telemetry(device, "b", next+1, next+n, 7)
				if next > 20 {
					r.telemetry(device, "b", next-20, next+n/2, 7) // resent
				}
				r.publish("fleet.audit."+device, []byte("line one\nline two"), nil)
				r.publish("fleet.telemetry."+device, []byte(`{`), nil)
				next, events, dead = next+n, events+2, dead+1
			}
			for round := range 3 {
				send(300 + uint64(round)*17)
				r.cfg.MaxMessages = 97 + 50*round // other block borders every time
				hits := 0
				r.cfg.Fault = func(stream, at string) error {
					if stream != bus.StreamFleet || at != point {
						return nil
					}
					if hits++; hits <= round {
						return nil
					}
					return errCrash
				}
				require.ErrorIs(t, r.start().wait(), errCrash)
				send(50)
			}
			r.cfg.Fault = nil
			m := r.start()
			r.settled(device, next*7, events, dead)
			m.stop()
			r.settled(device, next*7, events, dead)
		})
	}
}

// Crashes at random points, with random block borders, resent messages and
// checkpoints; the seed is printed, CORDON_SEED repeats one.
func TestMover_randomCrashes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CORDON_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	rounds := 12
	if os.Getenv("CORDON_SOAK") != "" {
		rounds = 500
	}
	t.Logf("CORDON_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's choices
	r := newRig(t)
	points := []string{
		ingest.FaultBlock, ingest.FaultIntent, ingest.FaultTelemetry, ingest.FaultAudit, ingest.FaultInserted, ingest.FaultAcked, ingest.FaultCheckpoint,
	}
	var last, events, dead uint64
	for range rounds {
		r.cfg.MaxMessages = 1 + rng.IntN(200)
		r.cfg.CheckpointEvery = time.Duration(rng.IntN(2)) * time.Hour
		point, left := points[rng.IntN(len(points))], rng.IntN(8)
		r.cfg.Fault = func(stream, at string) error {
			if stream != bus.StreamFleet || at != point {
				return nil
			}
			if left--; left >= 0 {
				return nil
			}
			return errCrash
		}
		m := r.start()
		for range 1 + rng.IntN(4) {
			n := uint64(1 + rng.IntN(200))
			r.telemetry("x1", "b", last+1, last+n, 3)
			last += n
			if back := uint64(rng.IntN(400)); back < last {
				r.telemetry("x1", "b", last-back, last, 3)
			}
			r.publish("fleet.audit.x1", []byte("line"), nil)
			r.publish("fleet.telemetry.x1", []byte("{"), nil)
			events, dead = events+1, dead+1
		}
		select {
		case <-m.done:
		case <-time.After(300 * time.Millisecond):
		}
		m.stop()
	}
	r.cfg.Fault = nil
	r.start()
	r.settled("x1", last*3, events, dead)
}
