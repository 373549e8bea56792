// Package storetest runs a real ClickHouse engine for tests: the test binary
// runs itself once more as the engine process. A missing library fails the
// test; nothing is skipped.
package storetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/internal/store"
)

// The first argument of a test binary that is to be the engine.
const (
	keepArg   = "cordon-test-engine"        // its directory belongs to a test
	removeArg = "cordon-test-engine-remove" // its directory goes when it ends
)

func init() {
	if len(os.Args) < 2 || os.Args[1] != keepArg && os.Args[1] != removeArg {
		return
	}
	var cfg store.ChildConfig
	flags := flag.NewFlagSet("engine", flag.ExitOnError)
	flags.StringVar(&cfg.Library, "library", "", "")
	flags.StringVar(&cfg.Dir, "dir", "", "")
	flags.IntVar(&cfg.Port, "port", 0, "")
	_ = flags.Parse(os.Args[2:]) // exits on errors
	code := store.RunEngine(cfg)
	if os.Args[1] == removeArg {
		_ = os.RemoveAll(cfg.Dir) // a leftover in the temporary directory harms nobody
	}
	os.Exit(code)
}

// shared is the engine that the tests of one binary share.
var shared struct {
	once   sync.Once
	engine *store.Engine
	err    error
}

func engine() (*store.Engine, error) {
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "cordon-engine-")
		if err != nil {
			shared.err = fmt.Errorf("make engine directory: %w", err)
			return
		}
		shared.engine, shared.err = store.StartEngine(context.Background(), config(dir, removeArg), slog.New(slog.DiscardHandler))
	})
	return shared.engine, shared.err
}

func config(dir, arg string) store.EngineConfig {
	return store.EngineConfig{Dir: dir, Args: []string{arg}}
}

// Main runs the tests and then stops the shared engine at once, instead of
// when the process ends: func TestMain(m *testing.M) { storetest.Main(m) }.
// Packages need it only when something checks for leaked goroutines.
func Main(m *testing.M) {
	code := m.Run()
	if shared.engine != nil {
		if err := shared.engine.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// Start returns a migrated store with a database of its own, on the engine
// that the tests of this binary share.
func Start(t testing.TB) *store.Store {
	t.Helper()
	s := Open(t, DSN(t))
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

// Open opens a store, with the same key for dead letters every time, and
// closes it with the test.
func Open(t testing.TB, dsn string) *store.Store {
	t.Helper()
	key := []byte("0123456789abcdef0123456789abcdef")
	s, err := store.Open(t.Context(), dsn, slog.New(slog.DiscardHandler), store.Options{RawKey: key})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// DSN returns the address of a database that does not exist yet, on the shared
// engine.
func DSN(t testing.TB) string {
	t.Helper()
	e, err := engine()
	require.NoError(t, err)
	return fresh(t, e.DSN())
}

func fresh(t testing.TB, dsn string) string {
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	name := make([]byte, 6)
	_, err = rand.Read(name)
	require.NoError(t, err)
	u.Path = "/test_" + hex.EncodeToString(name)
	return u.String()
}

// Engine starts an engine of its own in dir, for tests that kill it, and stops
// it with the test.
func Engine(t testing.TB, dir string) *store.Engine {
	t.Helper()
	e, err := store.StartEngine(t.Context(), config(dir, keepArg), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Stop() })
	return e
}

// EngineConfig is the configuration with which Engine starts one.
func EngineConfig(dir string) store.EngineConfig { return config(dir, keepArg) }
