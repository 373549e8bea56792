package ingest_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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

// Messages that were delivered and got lost on the way, with none behind them
// to show it: another reader of the same consumer takes them.
func TestMover_lastMessageLostOnTheWay(t *testing.T) {
	r := newRig(t)
	r.start()
	r.telemetry("s1", "b", 1, 10, 1)
	r.settled("s1", 10, 0, 0)
	consumer, err := r.bus.Fleet.Consumer(t.Context(), bus.StreamFleet, "ingest")
	require.NoError(t, err)
	stolen := make(chan uint64, 1)
	go func() {
		defer close(stolen)
		batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(20*time.Second))
		if err != nil {
			return
		}
		for msg := range batch.Messages() {
			if meta, err := msg.Metadata(); err == nil {
				stolen <- meta.Sequence.Stream
			}
		}
	}()
	next := uint64(11)
	require.Eventually(t, func() bool {
		select {
		case _, ok := <-stolen:
			return ok
		default:
			r.telemetry("s1", "b", next, next, 1)
			next++
			return false
		}
	}, 20*time.Second, 100*time.Millisecond, "the other reader took a message")
	r.settled("s1", next-1, 0, 0)
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
