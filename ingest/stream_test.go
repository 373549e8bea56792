package ingest_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
)

func TestMover_consumerDeletedUnderneath(t *testing.T) {
	r := newRig(t)
	m := r.start()
	for round := range uint64(3) {
		r.telemetry("c1", "b", round*100+1, round*100+100, 2)
		r.settled("c1", (round+1)*200, 0, 0)
		require.NoError(t, r.bus.Fleet.DeleteConsumer(t.Context(), bus.StreamFleet, "ingest"))
	}
	r.telemetry("c1", "b", 301, 400, 2)
	r.settled("c1", 800, 0, 0)
	m.stop()
	require.NoError(t, m.err)
}

// A stream that is made anew counts from 1 again: its blocks are no copies of
// the old ones.
func TestMover_streamMadeAnew(t *testing.T) {
	r := newRig(t)
	r.cfg.CheckpointEvery = 0
	m := r.start()
	r.telemetry("n1", "b", 1, 100, 2)
	r.settled("n1", 200, 0, 0)
	require.NoError(t, r.bus.Fleet.DeleteStream(t.Context(), bus.StreamFleet))
	require.NoError(t, r.bus.Provision(t.Context(), bustest.Limits()))
	r.telemetry("n1", "b2", 1, 50, 2)
	r.settled("n1", 300, 0, 0)
	m.stop()
	require.NoError(t, m.err)
	r.telemetry("n1", "b2", 51, 100, 2)
	r.start()
	r.settled("n1", 400, 0, 0)
}

// A broker that lost the tail of the stream gives its numbers to other
// messages: the position is ahead of the stream.
func TestMover_streamLostItsTail(t *testing.T) {
	for name, every := range map[string]time.Duration{"checkpoint": 0, "no checkpoint": time.Hour} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.cfg.CheckpointEvery = every
			r.telemetry("l1", "b", 1, 100, 2)
			m := r.start()
			r.settled("l1", 200, 0, 0)
			m.stop()
			kv, err := r.bus.Bucket(t.Context(), bus.BucketPosition)
			require.NoError(t, err)
			entry, err := kv.Get(t.Context(), "ingest-FLEET")
			require.NoError(t, err)
			var position map[string]any
			require.NoError(t, json.Unmarshal(entry.Value(), &position))
			position["first"], position["last"], position["last_at"] = 150, 180, time.Now().UnixNano()
			raw, err := json.Marshal(position)
			require.NoError(t, err)
			_, err = kv.Put(t.Context(), "ingest-FLEET", raw)
			require.NoError(t, err)
			for range 2 {
				m = r.start()
				r.telemetry("l1", "b", 101, 200, 2)
				r.settled("l1", 400, 0, 0)
				m.stop()
				require.NoError(t, m.err)
			}
		})
	}
}
