package gate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate"
	"cordon/ingest/gate/gatetest"
	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

// Three brokers, one gate: a quarantine is confirmed only when each of them
// answered. While one does not, it is failed, keeps denying and is retried.
func TestGate_severalBrokers(t *testing.T) {
	w := &gatetest.World{Config: gate.DefaultConfig()}
	w.Config.ConfirmWithin = 300 * time.Millisecond
	var err error
	w.CA, err = identity.LoadOrCreateCA(filepath.Join(t.TempDir(), "ca"), time.Now)
	require.NoError(t, err)
	w.Keys, err = bus.NewKeys()
	require.NoError(t, err)
	tlsConfig, err := w.CA.BrokerTLS("127.0.0.1")
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	ports := make([]string, 3)
	for i := range ports {
		probe, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ports[i] = probe.Addr().String()
		require.NoError(t, probe.Close())
	}
	servers := make([]*bus.Server, 3)
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	limits := bustest.Limits()
	limits.Replicas = 3
	run := func(i int) error {
		cfg := bus.ServerConfig{
			Name: fmt.Sprintf("broker-%d", i), Dir: dirs[i], NATS: "127.0.0.1:0", TLS: tlsConfig, Keys: w.Keys, Limits: limits, Cluster: ports[i],
		}
		for j := range ports {
			if j != i {
				cfg.Routes = append(cfg.Routes, "nats-route://"+ports[j])
			}
		}
		server, err := bus.StartServer(cfg, log, nil)
		servers[i] = server
		return err
	}
	starting := make(chan error, 3)
	for i := range servers {
		go func() { starting <- run(i) }()
	}
	for range servers {
		require.NoError(t, <-starting)
	}
	t.Cleanup(func() {
		for _, s := range servers {
			s.Shutdown()
		}
	})
	w.Server = servers[0]
	w.Bus, err = bus.Connect("nats://in-process", w.Keys, log, servers[0].Option())
	require.NoError(t, err)
	t.Cleanup(w.Bus.Close)
	require.Eventually(t, func() bool {
		brokers, err := w.Bus.Brokers(t.Context())
		return err == nil && len(brokers) == 3
	}, 20*time.Second, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return w.Bus.Provision(ctx, limits) == nil
	}, 30*time.Second, 100*time.Millisecond)
	w.Serve(t)

	cfg := w.Device(t, "d1")
	far, err := nats.Connect("tls://"+servers[2].NATSAddress(), nats.Secure(cfg), nats.CustomInboxPrefix(bus.Inbox("d1")), nats.NoReconnect(), nats.Timeout(5*time.Second))
	require.NoError(t, err)
	defer far.Close()
	w.Quarantine(t, "d1", fleet.Isolate)
	q := w.Await(t, "d1", fleet.Confirmed)
	require.Len(t, q.Proof.Brokers, 3)
	require.Len(t, q.Proof.Kicked, 1)
	require.Equal(t, servers[2].ID(), q.Proof.Kicked[0].ServerID)
	require.Eventually(t, func() bool { return !far.IsConnected() }, patience, poll)
	w.Release(t, "d1")

	// A broker that is gone, or cut off, may still have connections.
	servers[1].Shutdown()
	w.Quarantine(t, "d1", fleet.Isolate)
	// The buckets choose new leaders, which takes a while.
	in := func(state fleet.QuarantineState) func() bool {
		return func() bool {
			kv, err := w.Bus.Bucket(t.Context(), bus.BucketQuarantine)
			if err != nil {
				return false
			}
			q = fleet.Quarantine{}
			entry, err := kv.Get(t.Context(), "d1")
			return err == nil && json.Unmarshal(entry.Value(), &q) == nil && q.State == state
		}
	}
	require.Eventually(t, in(fleet.Failed), time.Minute, 50*time.Millisecond)
	require.Contains(t, q.Failure, "broker-1")
	_, err = w.NATS(t, "d1", cfg, nats.NoReconnect())
	require.Error(t, err, "failed keeps denying")
	w.StopGate() // nor does a new gate forget it
	w.StartGate(t)
	require.Never(t, func() bool { return w.Current(t, "d1").State == fleet.Confirmed }, time.Second, 50*time.Millisecond)
	require.NoError(t, run(1))
	require.Eventually(t, in(fleet.Confirmed), time.Minute, 50*time.Millisecond)
	require.Len(t, q.Proof.Brokers, 3)
	for _, b := range q.Proof.Brokers {
		require.True(t, b.Answered)
	}
}
