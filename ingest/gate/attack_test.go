package gate_test

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate"
	"cordon/ingest/gate/gatetest"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

// WebSocket is one more door to the same broker: the same certificates, the
// same permissions, the same cut.
func TestGate_webSocket(t *testing.T) {
	w := gatetest.Start(t)
	cfg, other := w.Device(t, "d1"), w.Device(t, "d2")
	dial := func(device string, options ...nats.Option) (*nats.Conn, error) {
		tlsConfig := cfg
		if device != "d1" {
			tlsConfig = other
		}
		conn, err := nats.Connect("wss://"+w.Server.WebSocketAddress(), append([]nats.Option{
			nats.Secure(tlsConfig), nats.CustomInboxPrefix(bus.Inbox(device)), nats.Timeout(5 * time.Second), nats.NoReconnect(),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
		}, options...)...)
		if err == nil {
			t.Cleanup(conn.Close)
		}
		return conn, err
	}
	conn, err := dial("d1")
	require.NoError(t, err)
	require.NoError(t, conn.Publish("fleet.telemetry.d1", []byte("{}")))
	require.NoError(t, conn.Publish("fleet.telemetry.d2", []byte("{}")))
	require.NoError(t, conn.Flush())
	require.Eventually(t, func() bool { return w.Stored(t, "fleet.telemetry.d1") == 1 }, patience, poll)
	require.Zero(t, w.Stored(t, "fleet.telemetry.d2"))
	live, _, err := w.Bus.Connections(t.Context(), "d1")
	require.NoError(t, err)
	require.Len(t, live, 1)
	require.Equal(t, "websocket", live[0].Protocol)

	w.Quarantine(t, "d1", fleet.Isolate)
	q := w.Await(t, "d1", fleet.Confirmed)
	require.Len(t, q.Proof.Kicked, 1)
	require.Equal(t, "websocket", q.Proof.Kicked[0].Protocol)
	require.Eventually(t, func() bool { return !conn.IsConnected() }, patience, poll)
	_, err = dial("d1")
	require.Error(t, err)

	none := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: w.CA.Pool()}
	_, err = nats.Connect("wss://"+w.Server.WebSocketAddress(), nats.Secure(none), nats.NoReconnect())
	require.Error(t, err, "no certificate")
}

// Whoever is refused, cut or throttled by an attack, the rest of the fleet is
// not: one device attacks with all that it has while another works.
func TestGate_attackerDoesNotDisturbOthers(t *testing.T) {
	w := gatetest.Start(t)
	w.StopGate()
	w.Config.FloodEvery, w.Config.FloodMessages, w.Config.Clones = time.Second, 1000, gate.ClonesNewest
	w.StartGate(t)
	good, err := w.NATS(t, "good", w.Device(t, "good"), nats.NoReconnect())
	require.NoError(t, err)
	token := ""
	_, token, err = w.Registry.Enroll(t.Context(), identity.Enrolment{ID: "evil", Actor: "test"})
	require.NoError(t, err)
	key, csr := gatetest.Request(t)
	_, certificate, err := w.Registry.Redeem(t.Context(), token, csr)
	require.NoError(t, err)
	_, again := gatetest.Request(t)
	_, _, err = w.Registry.Redeem(t.Context(), token, again)
	require.Error(t, err, "a replayed enrolment token")
	evil := w.TLS(t, key, certificate)
	deadline := time.Now().Add(3 * time.Second)
	for time.Now().Before(deadline) {
		conn, err := w.NATS(t, "evil", evil, nats.NoReconnect())
		if err != nil {
			continue
		}
		for range 2000 {
			_ = conn.PublishRequest("fleet.telemetry.evil", "fleet.telemetry.good", []byte("{}")) // it may be cut
			_ = conn.Publish("fleet.command.good", []byte(`{"kind":"release"}`))                  // denied
		}
		_, _ = conn.SubscribeSync("fleet.>") // denied
		_ = conn.Flush()                     // it may be cut
		require.NoError(t, good.Publish("fleet.audit.good", []byte("{}")))
	}
	require.NoError(t, good.Flush())
	require.True(t, good.IsConnected())
	require.Positive(t, w.Stored(t, "fleet.audit.good"))
	w.Quarantine(t, "evil", fleet.Isolate)
	w.Await(t, "evil", fleet.Confirmed)
}
