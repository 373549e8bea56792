package ingest_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest"
	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/store"
)

func (r *rig) quarantine(device, id string, active bool, state fleet.QuarantineState) {
	r.t.Helper()
	data, err := json.Marshal(fleet.Control{Quarantine: &fleet.QuarantineChange{Device: device, ID: id, Active: active, Level: fleet.Isolate, State: state}})
	require.NoError(r.t, err)
	r.publish(bus.SubjectControl+".quarantine."+device, data, nil)
}

func (r *rig) reading(device string, seq uint64) {
	r.t.Helper()
	r.publish(bus.SubjectTelemetry+"."+device, codec.EncodeTelemetry("b", seq, []fleet.Reading{{ObservedAt: time.Now(), Metric: "m", Value: float64(seq)}}), nil)
}

// What a device has on the log behind its fence is a dead letter, before and
// after a restart; what a released device sends again is new.
func TestMover_fenceOfQuarantine(t *testing.T) {
	r := newRig(t)
	r.cfg.CheckpointEvery = time.Millisecond
	m := r.start()
	r.reading("f1", 1)
	r.quarantine("f1", "f1.1", true, fleet.Requested)
	r.reading("f1", 2) // cut is not confirmed
	r.quarantine("f1", "f1.1", true, fleet.Confirmed)
	r.reading("f1", 3)
	r.publish(bus.SubjectAudit+".f1", []byte("{}"), nil)
	r.reading("f2", 1)
	count := func(device string) store.DeviceCounts {
		counts, err := r.store.Counts(t.Context(), device)
		require.NoError(t, err)
		return counts
	}
	await := func(readings, dead uint64) {
		t.Helper()
		require.Eventually(t, func() bool {
			c := count("f1")
			return c.Readings == readings && c.DeadLetters == dead
		}, 20*time.Second, 10*time.Millisecond)
	}
	await(2, 2)
	require.Eventually(t, func() bool { return count("f2").Readings == 1 }, 20*time.Second, 10*time.Millisecond)
	m.stop()

	// Killed between intent and insert: the block is built again, with the same
	// dead letters.
	r.cfg.Fault = func(stream, point string) error {
		if stream == bus.StreamFleet && point == ingest.FaultIntent {
			return errCrash
		}
		return nil
	}
	m = r.start()
	r.reading("f1", 4)
	require.ErrorIs(t, m.wait(), errCrash)
	r.cfg.Fault = nil
	m = r.start()
	await(2, 3)
	r.quarantine("f1", "f1.1", false, fleet.Released)
	r.reading("f1", 3)
	r.reading("f1", 4)
	await(4, 3)
	m.stop()

	// Without a checkpoint the fences come from the log.
	r.quarantine("f1", "f1.2", true, fleet.Confirmed)
	r.reading("f1", 5)
	objects, err := r.bus.Core.ObjectStore(t.Context(), bus.ObjectsCheckpoint)
	require.NoError(t, err)
	require.NoError(t, objects.Delete(t.Context(), "ingest-seen"))
	r.start()
	await(4, 4)
	page, err := r.store.DeadLetters(t.Context(), store.DeadLetterQuery{Device: "f1", From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour), Limit: 10})
	require.NoError(t, err)
	for _, letter := range page.Items {
		require.Equal(t, "quarantined", letter.Reason)
	}
}
