package bus_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
)

// TestServer_filesEncryptedAtRest: with a key nothing that was stored can be
// found in the broker's files, neither what was stored before the key was set;
// with another key the broker does not read them.
func TestServer_filesEncryptedAtRest(t *testing.T) {
	dir := t.TempDir()
	keys, err := bus.LoadOrCreateKeys(filepath.Join(dir, "keys.json"))
	require.NoError(t, err)
	store := filepath.Join(dir, "broker")
	log := slog.New(slog.DiscardHandler)
	with := func(key string, use func(b *bus.Bus)) {
		t.Helper()
		limits := bus.DefaultLimits()
		limits.FleetBytes, limits.FindingBytes, limits.StoreBytes = 16<<20, 4<<20, 256<<20
		srv, err := bus.StartServer(bus.ServerConfig{Name: "t", Dir: store, Keys: keys, Limits: limits, StoreKey: key}, log, nil)
		require.NoError(t, err)
		defer srv.Shutdown()
		b, err := bus.Connect("nats://in-process", keys, log, srv.Option())
		require.NoError(t, err)
		defer b.Close()
		require.NoError(t, b.Provision(t.Context(), limits))
		use(b)
	}
	put := func(name, value string) func(b *bus.Bus) {
		return func(b *bus.Bus) {
			kv, err := b.Bucket(t.Context(), bus.BucketDevice)
			require.NoError(t, err)
			_, err = kv.Put(t.Context(), name, []byte(value))
			require.NoError(t, err)
		}
	}
	found := func(text string) (hits int) {
		require.NoError(t, filepath.WalkDir(store, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			if bytes.Contains(raw, []byte(text)) {
				hits++
			}
			return err
		}))
		return hits
	}
	with("", put("before", "PLANTED-IN-THE-CLEAR"))
	require.NotZero(t, found("PLANTED-IN-THE-CLEAR"), "without a key the files are not encrypted")
	const key = "0123456789abcdef0123456789abcdef"
	with(key, put("after", "PLANTED-WITH-A-KEY"))
	with(key, func(b *bus.Bus) {
		kv, err := b.Bucket(context.Background(), bus.BucketDevice)
		require.NoError(t, err)
		for name, value := range map[string]string{"before": "PLANTED-IN-THE-CLEAR", "after": "PLANTED-WITH-A-KEY"} {
			entry, err := kv.Get(t.Context(), name)
			require.NoError(t, err)
			require.Equal(t, value, string(entry.Value()))
		}
	})
	require.Zero(t, found("PLANTED-WITH-A-KEY"))
	require.Zero(t, found("PLANTED-IN-THE-CLEAR"), "what was there before is encrypted too")
	require.Zero(t, found(key))
}
