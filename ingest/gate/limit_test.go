package gate_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate"
	"cordon/ingest/gate/gatetest"
)

// events collects what the gate says about a device.
func events(t *testing.T, w *gatetest.World, device, event string) func() int {
	t.Helper()
	sub, err := w.Bus.Cordon.SubscribeSync("cordon.gate." + device)
	require.NoError(t, err)
	require.NoError(t, w.Bus.Cordon.Flush())
	n := 0
	return func() int {
		for {
			msg, err := sub.NextMsg(time.Millisecond)
			if err != nil {
				return n
			}
			var e gate.Event
			require.NoError(t, json.Unmarshal(msg.Data, &e))
			if e.Event == event {
				n++
			}
		}
	}
}

// A stolen certificate used beside its owner is noticed and dealt with by
// policy.
func TestGate_stolenCertificateUsedTwice(t *testing.T) {
	for _, policy := range []gate.Clones{gate.ClonesNewest, gate.ClonesNone} {
		t.Run(string(policy), func(t *testing.T) {
			w := gatetest.Start(t)
			w.StopGate()
			w.Config.Clones, w.Config.CoolDown = policy, time.Hour
			w.StartGate(t)
			cfg := w.Device(t, "d1")
			seen := events(t, w, "d1", "clone")
			owner, err := w.NATS(t, "d1", cfg, nats.NoReconnect())
			require.NoError(t, err)
			thief, err := w.NATS(t, "d1", cfg, nats.NoReconnect())
			if policy == gate.ClonesNewest {
				require.NoError(t, err)
			}
			require.Eventually(t, func() bool { return !owner.IsConnected() }, patience, poll)
			require.Eventually(t, func() bool { return seen() == 1 }, patience, poll)
			if policy == gate.ClonesNewest {
				require.NoError(t, thief.Flush())
				return
			}
			require.Eventually(t, func() bool { return thief == nil || !thief.IsConnected() }, patience, poll)
			_, err = w.NATS(t, "d1", cfg, nats.NoReconnect())
			require.Error(t, err, "it cools down")
			require.EqualValues(t, 1, w.Refused(t, "flooding"))
		})
	}
}

// A device that comes back after it lost its connection is no clone.
func TestGate_reconnectIsNoClone(t *testing.T) {
	w := gatetest.Start(t)
	cfg := w.Device(t, "d1")
	seen := events(t, w, "d1", "clone")
	for range 5 {
		conn, err := w.NATS(t, "d1", cfg)
		require.NoError(t, err)
		require.NoError(t, conn.Flush())
		conn.Close()
		require.Eventually(t, func() bool {
			live, _, err := w.Bus.Connections(t.Context(), "d1")
			return err == nil && len(live) == 0
		}, patience, poll)
	}
	require.Zero(t, seen())
}

func TestGate_connectionLimits(t *testing.T) {
	w := gatetest.Start(t)
	w.StopGate()
	w.Config.Clones, w.Config.PerDevice, w.Config.PerAddress = gate.ClonesAllow, 2, 3
	w.StartGate(t)
	cfg := w.Device(t, "d1")
	for range 2 {
		_, err := w.NATS(t, "d1", cfg)
		require.NoError(t, err)
	}
	_, err := w.NATS(t, "d1", cfg, nats.NoReconnect())
	require.Error(t, err)
	_, err = w.NATS(t, "d2", w.Device(t, "d2"))
	require.NoError(t, err)
	_, err = w.NATS(t, "d3", w.Device(t, "d3"), nats.NoReconnect())
	require.Error(t, err, "three from this address")
	require.Eventually(t, func() bool { return w.Refused(t, "too_many") == 2 }, patience, poll)
}

// A flood is cut and cools down; the rest of the fleet stays.
func TestGate_flood(t *testing.T) {
	w := gatetest.Start(t)
	w.StopGate()
	w.Config.FloodEvery, w.Config.FloodMessages, w.Config.CoolDown = 1100*time.Millisecond, 500, 3*time.Second
	w.StartGate(t)
	seen := events(t, w, "d1", "flood")
	good, err := w.NATS(t, "d2", w.Device(t, "d2"))
	require.NoError(t, err)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		for range 100 {
			_ = conn.Publish("fleet.audit.d1", []byte("{}")) // it is being cut
		}
		return seen() > 0
	}, patience, 5*time.Millisecond)
	require.Eventually(t, func() bool { return w.Refused(t, "flooding") > 0 }, patience, poll)
	require.True(t, good.IsConnected())
	require.Eventually(t, conn.IsConnected, patience, poll, "after the cool-down it may come back")
}

// Failing again and again is answered without asking anybody, for this device
// from this address alone.
func TestGate_failuresAreThrottled(t *testing.T) {
	w := gatetest.Start(t)
	w.StopGate()
	w.Config.Failures = 3
	w.StartGate(t)
	cfg, good := w.Device(t, "d1"), w.Device(t, "d2")
	require.NoError(t, w.Registry.Revoke(t.Context(), "d1", "test", "test"))
	for range 6 {
		_, err := w.NATS(t, "d1", cfg, nats.NoReconnect())
		require.Error(t, err)
	}
	require.EqualValues(t, 3, w.Refused(t, "revoked"))
	require.EqualValues(t, 3, w.Refused(t, "throttled"))
	_, err := w.NATS(t, "d2", good)
	require.NoError(t, err)
}
