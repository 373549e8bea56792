// Package gatetest starts a real broker with NATS and MQTT listeners, a
// certificate authority, a registry and a gate, for tests that connect devices.
package gatetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate"
	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

// World is a running broker with its gate.
type World struct {
	Bus      *bus.Bus
	Server   *bus.Server
	Keys     bus.Keys
	CA       *identity.CA
	Registry *identity.Registry
	Gate     *gate.Gate
	Metrics  *prometheus.Registry // of the newest gate
	Config   gate.Config          // of the next gate that StartGate starts
	// Lookup reads devices for the next gate; the registry's leader by default.
	Lookup func(context.Context, string) (fleet.Device, error)

	current  atomic.Pointer[gate.Gate]
	stopGate func()
	decision int
}

// Start starts everything and stops it with the test.
func Start(t testing.TB) *World {
	t.Helper()
	w := &World{Config: gate.DefaultConfig()}
	var err error
	w.CA, err = identity.LoadOrCreateCA(filepath.Join(t.TempDir(), "ca"), time.Now)
	require.NoError(t, err)
	w.Keys, err = bus.NewKeys()
	require.NoError(t, err)
	tlsConfig, err := w.CA.BrokerTLS()
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	cfg := bus.ServerConfig{
		Name: "test", Dir: t.TempDir(), NATS: "127.0.0.1:0", MQTT: "127.0.0.1:0", WebSocket: "127.0.0.1:0", TLS: tlsConfig, Keys: w.Keys, Limits: bustest.Limits(),
	}
	w.Server, err = bus.StartServer(cfg, log, func(message string) {
		if g := w.current.Load(); g != nil {
			g.BrokerRefused(message)
		}
	})
	require.NoError(t, err)
	t.Cleanup(w.Server.Shutdown)
	w.Bus, err = bus.Connect("nats://in-process", w.Keys, log, w.Server.Option())
	require.NoError(t, err)
	t.Cleanup(w.Bus.Close)
	require.NoError(t, w.Bus.Provision(t.Context(), cfg.Limits))
	w.Serve(t)
	return w
}

// Serve starts registry and gate on the world's bus.
func (w *World) Serve(t testing.TB) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	w.Registry = identity.NewRegistry(identity.DefaultConfig(), identity.Deps{Bus: w.Bus, CA: w.CA, Clock: time.Now, Log: log})
	run(t, w.Registry.Run)
	<-w.Registry.Ready()
	w.Lookup = w.Registry.Lookup
	w.StartGate(t)
}

// run runs a component until the returned function is called or the test ends.
func run(t testing.TB, component func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- component(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(t, <-done)
	}
	t.Cleanup(stop)
	return stop
}

// StartGate starts a gate and waits until it is ready.
func (w *World) StartGate(t testing.TB) {
	t.Helper()
	w.Metrics = prometheus.NewRegistry()
	w.Gate = gate.New(w.Config, gate.Deps{
		Bus: w.Bus, Keys: w.Keys, Clock: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: w.Metrics,
		Device:   func(ctx context.Context, id string) (fleet.Device, error) { return w.Lookup(ctx, id) },
		Registry: w.Registry,
	})
	w.current.Store(w.Gate)
	w.stopGate = run(t, w.Gate.Run)
	select {
	case <-w.Gate.Ready():
	case <-time.After(10 * time.Second):
		require.FailNow(t, "gate is not ready")
	}
}

// StopGate stops the gate; connected devices stay connected.
func (w *World) StopGate() { w.stopGate() }

// Device enrols a device, with a certificate, and returns its TLS
// configuration.
func (w *World) Device(t testing.TB, id string) *tls.Config {
	t.Helper()
	return w.Enroll(t, identity.Enrolment{ID: id, Actor: "test"})
}

// Enroll is Device with attributes.
func (w *World) Enroll(t testing.TB, e identity.Enrolment) *tls.Config {
	t.Helper()
	_, token, err := w.Registry.Enroll(t.Context(), e)
	require.NoError(t, err)
	key, csr := Request(t)
	_, certPEM, err := w.Registry.Redeem(t.Context(), token, csr)
	require.NoError(t, err)
	return w.TLS(t, key, certPEM)
}

// Request makes a key and a certificate request.
func Request(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// TLS is a device's TLS configuration for a key and its certificate.
func (w *World) TLS(t testing.TB, key *ecdsa.PrivateKey, certPEM []byte) *tls.Config {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	require.NotNil(t, block)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: w.CA.Pool(),
		Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}},
	}
}

// NATS connects a device and closes it with the test.
func (w *World) NATS(t testing.TB, device string, cfg *tls.Config, options ...nats.Option) (*nats.Conn, error) {
	t.Helper()
	all := append([]nats.Option{
		nats.Name(device), nats.Secure(cfg), nats.CustomInboxPrefix(bus.Inbox(device)), nats.Timeout(5 * time.Second),
		nats.IgnoreAuthErrorAbort(), nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, options...)
	conn, err := nats.Connect("tls://"+w.Server.NATSAddress(), all...)
	if err == nil {
		t.Cleanup(conn.Close)
	}
	return conn, err
}

// MQTT connects a device and closes it with the test. change may adapt the
// options.
func (w *World) MQTT(t testing.TB, clientID string, cfg *tls.Config, change func(*mqtt.ClientOptions)) (mqtt.Client, error) {
	t.Helper()
	options := mqtt.NewClientOptions().AddBroker("ssl://" + w.Server.MQTTAddress()).SetClientID(clientID).SetTLSConfig(cfg).
		SetProtocolVersion(4).SetConnectTimeout(5 * time.Second).SetAutoReconnect(false).SetConnectRetry(false)
	if change != nil {
		change(options)
	}
	client := mqtt.NewClient(options)
	token := client.Connect()
	if !token.WaitTimeout(10 * time.Second) {
		require.FailNow(t, "mqtt connect hangs")
	}
	if token.Error() == nil {
		t.Cleanup(func() { client.Disconnect(0) })
	}
	return client, token.Error()
}

// Quarantine writes a decision as alert/quarantine does.
func (w *World) Quarantine(t testing.TB, device string, level fleet.Level) fleet.Quarantine {
	t.Helper()
	w.decision++
	q := fleet.Quarantine{
		ID: device + "." + strconv.Itoa(w.decision), Device: device, Level: level, State: fleet.Requested,
		Reason: "test", Actor: "test", RequestedAt: time.Now().UTC(),
	}
	w.Put(t, q)
	return q
}

// Put writes a quarantine entry over whatever is there.
func (w *World) Put(t testing.TB, q fleet.Quarantine) {
	t.Helper()
	kv, err := w.Bus.Bucket(t.Context(), bus.BucketQuarantine)
	require.NoError(t, err)
	data, err := json.Marshal(q)
	require.NoError(t, err)
	_, err = kv.Put(t.Context(), q.Device, data)
	require.NoError(t, err)
}

// Release writes a release over the device's decision.
func (w *World) Release(t testing.TB, device string) {
	t.Helper()
	q := w.Current(t, device)
	q.State, q.ReleasedAt, q.ReleasedBy = fleet.Released, time.Now().UTC(), "test"
	w.Put(t, q)
}

// Current reads a device's quarantine.
func (w *World) Current(t testing.TB, device string) fleet.Quarantine {
	t.Helper()
	kv, err := w.Bus.Bucket(context.Background(), bus.BucketQuarantine)
	require.NoError(t, err)
	entry, err := kv.Get(context.Background(), device)
	require.NoError(t, err)
	var q fleet.Quarantine
	require.NoError(t, json.Unmarshal(entry.Value(), &q))
	return q
}

// Await waits until the device's quarantine is in a state.
func (w *World) Await(t testing.TB, device string, state fleet.QuarantineState) fleet.Quarantine {
	t.Helper()
	kv, err := w.Bus.Bucket(context.Background(), bus.BucketQuarantine)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	watcher, err := kv.Watch(ctx, device)
	require.NoError(t, err)
	defer watcher.Stop() //nolint:errcheck // the test ends
	var q fleet.Quarantine
	for update := range watcher.Updates() {
		if update == nil {
			continue
		}
		q = fleet.Quarantine{}
		require.NoError(t, json.Unmarshal(update.Value(), &q))
		if q.State == state {
			return q
		}
	}
	require.FailNow(t, "quarantine did not become "+string(state), "it is %s: %s", q.State, q.Failure)
	return q
}

// Stored counts the messages of a subject on the FLEET stream.
func (w *World) Stored(t testing.TB, subject string) uint64 {
	t.Helper()
	stream, err := w.Bus.Fleet.Stream(context.Background(), bus.StreamFleet)
	require.NoError(t, err)
	info, err := stream.Info(context.Background(), jetstream.WithSubjectFilter(subject))
	require.NoError(t, err)
	var n uint64
	for _, count := range info.State.Subjects {
		n += count
	}
	return n
}

// Refused is the gate's counter of refusals for a reason.
func (w *World) Refused(t testing.TB, reason string) float64 {
	t.Helper()
	families, err := w.Metrics.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != "cordon_gate_refused_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			if metric.GetLabel()[0].GetValue() == reason {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}
