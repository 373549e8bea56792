// Package bustest starts a real broker for tests.
package bustest

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
)

// Start runs an embedded broker with streams and buckets, reachable in
// process only, and stops it with the test.
func Start(t testing.TB) *bus.Bus {
	t.Helper()
	keys, err := bus.NewKeys()
	require.NoError(t, err)
	b, _ := Server(t, bus.ServerConfig{Name: "test", Dir: t.TempDir(), Keys: keys, Limits: Limits()})
	return b
}

// Server runs a broker of the caller's configuration and connects to it.
func Server(t testing.TB, cfg bus.ServerConfig) (*bus.Bus, *bus.Server) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	srv, err := bus.StartServer(cfg, log, nil)
	require.NoError(t, err)
	t.Cleanup(srv.Shutdown)
	b, err := bus.Connect("nats://in-process", cfg.Keys, log, srv.Option())
	require.NoError(t, err)
	t.Cleanup(b.Close)
	require.NoError(t, b.Provision(t.Context(), cfg.Limits))
	return b, srv
}

// Limits are small limits for tests.
func Limits() bus.Limits {
	l := bus.DefaultLimits()
	l.FleetBytes, l.FindingBytes, l.StoreBytes = 256<<20, 64<<20, 2<<30
	return l
}
