package gate_test

import (
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate"
	"cordon/ingest/gate/gatetest"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// A gate that is killed between any two steps leaves a state from which the
// next one goes on to confirmed, and nothing of the device gets through
// meanwhile.
func TestGate_killedBetweenSteps(t *testing.T) {
	w := gatetest.Start(t)
	for _, point := range []string{gate.FaultCut, gate.FaultApplied, gate.FaultProven, gate.FaultFenced} {
		device := "k-" + point
		cfg := w.Device(t, device)
		conn, err := w.NATS(t, device, cfg)
		require.NoError(t, err)
		w.StopGate()
		var reached atomic.Bool
		dead := make(chan struct{})
		w.Config.Fault = func(p string) error {
			if p != point {
				return nil
			}
			if reached.CompareAndSwap(false, true) {
				close(dead)
			}
			return errors.New("killed")
		}
		w.StartGate(t)
		require.Eventually(t, conn.IsConnected, patience, poll)
		w.Quarantine(t, device, fleet.Isolate)
		<-dead
		w.StopGate()
		require.NotEqual(t, fleet.Confirmed, w.Current(t, device).State, point)
		w.Config.Fault = nil
		w.StartGate(t)
		q := w.Await(t, device, fleet.Confirmed)
		require.NotEmpty(t, q.Proof.Steps)
		require.False(t, conn.IsConnected())
		conn.Close()
	}
}

// A fence that comes on the log behind the end of its own decision is void, and
// what a released device sends comes behind the end of its fence.
func TestGate_releasedDeviceSpeaksBehindItsFence(t *testing.T) {
	w := gatetest.Start(t)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	for range 10 {
		w.Quarantine(t, "d1", fleet.Isolate)
		w.Await(t, "d1", fleet.Confirmed)
		w.Release(t, "d1")
		require.Eventually(t, conn.IsConnected, patience, poll)
		require.NoError(t, conn.Publish("fleet.telemetry.d1", []byte("{}")))
		require.NoError(t, conn.Flush())
	}
	require.Eventually(t, func() bool { return w.Stored(t, "fleet.telemetry.d1") == 10 }, patience, poll)
	fences := fleet.NewFences()
	stream, err := w.Bus.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		require.NoError(t, err)
		require.False(t, fences.Void(msg.Subject), "message %d of a released device is behind its fence", seq)
		var c fleet.Control
		if json.Unmarshal(msg.Data, &c) == nil && c.Quarantine != nil {
			fences.Apply(*c.Quarantine)
		}
	}
}

// Lowering a restriction to observe gives the device its permissions back.
func TestGate_lowerToObserve(t *testing.T) {
	w := gatetest.Start(t)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	w.Quarantine(t, "d1", fleet.Restrict)
	w.Await(t, "d1", fleet.Confirmed)
	require.Eventually(t, conn.IsConnected, patience, poll)
	q := w.Current(t, "d1")
	q.Level, q.State, q.ID, q.Follows = fleet.Observe, fleet.Requested, "d1.2", q.ID
	w.Put(t, q)
	w.Await(t, "d1", fleet.Confirmed)
	require.Eventually(t, func() bool {
		return conn.IsConnected() && conn.Publish("fleet.telemetry.d1", []byte("{}")) == nil && conn.Flush() == nil && w.Stored(t, "fleet.telemetry.d1") > 0
	}, patience, poll)
}
