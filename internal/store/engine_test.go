package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/store"
	"cordon/internal/store/storetest"
)

func TestEngine_survivesKill(t *testing.T) {
	dir := t.TempDir()
	e := storetest.Engine(t, dir)
	s := storetest.Open(t, e.DSN())
	ctx := t.Context()
	require.NoError(t, s.Migrate(ctx))
	b := telemetry("d1", 1, 1000, t0, time.Second)
	require.NoError(t, s.InsertTelemetry(ctx, "FLEET:1-1000", b))

	pid, dsn := e.PID(), e.DSN()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool { return e.Restarts() == 1 }, time.Minute, 10*time.Millisecond)
	require.NotEqual(t, pid, e.PID())
	require.Equal(t, dsn, e.DSN())
	require.True(t, e.Status().Healthy)

	// The same store finds it again; the token still holds, in the roll-ups too.
	require.NoError(t, s.InsertTelemetry(ctx, "FLEET:1-1000", b))
	requireReadings(t, s, "d1", 2000)

	// Killed in mid-insert, then repeated until it works: counts once.
	for i := range 3 {
		b := telemetry("d2", 5000, 100_000, t0, 10*time.Millisecond)
		token := "FLEET:5000-104999." + string(rune('a'+i))
		killed := make(chan error, 1)
		go func() {
			<-time.After(time.Duration(20+60*i) * time.Millisecond) // somewhere within the insert
			killed <- syscall.Kill(e.PID(), syscall.SIGKILL)
		}()
		require.Eventually(t, func() bool {
			err := s.InsertTelemetry(ctx, token, b)
			require.False(t, store.Permanent(err), "%v", err)
			return err == nil
		}, time.Minute, 20*time.Millisecond)
		require.NoError(t, <-killed)
		require.Eventually(t, func() bool { return e.Restarts() == uint64(2+i) }, time.Minute, 10*time.Millisecond)
		n, err := s.Counts(ctx, "d2")
		require.NoError(t, err)
		require.EqualValues(t, 200_000*(i+1), n.Readings)
	}

	start := time.Now()
	require.NoError(t, e.Stop())
	require.Less(t, time.Since(start), 5*time.Second)
	require.Zero(t, e.PID())

	// Started again on the same data: same port, same password, same rows.
	again := storetest.Engine(t, dir)
	require.Equal(t, dsn, again.DSN())
	n, err := storetest.Open(t, again.DSN()).Counts(ctx, "d2")
	require.NoError(t, err)
	require.EqualValues(t, 600_000, n.Readings)
}

func TestEngine_secondOnSameDirectoryRefused(t *testing.T) {
	dir := t.TempDir()
	storetest.Engine(t, dir)
	_, err := store.StartEngine(t.Context(), storetest.EngineConfig(dir), discard)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	require.ErrorContains(t, err, "another Cordon is using the data in "+dir)
}

func TestEngine_portInUse(t *testing.T) {
	e := storetest.Engine(t, t.TempDir())
	cfg := storetest.EngineConfig(t.TempDir())
	cfg.Port = port(t, e)
	_, err := store.StartEngine(t.Context(), cfg, discard)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	require.ErrorContains(t, err, "in use")
}

func port(t *testing.T, e *store.Engine) int {
	t.Helper()
	opts, err := clickhouse.ParseDSN(e.DSN())
	require.NoError(t, err)
	var n int
	for _, c := range opts.Addr[0][strings.LastIndexByte(opts.Addr[0], ':')+1:] {
		n = n*10 + int(c-'0')
	}
	return n
}

func TestEngine_terminatedChildEndsCleanlyAndComesBack(t *testing.T) {
	e := storetest.Engine(t, t.TempDir())
	require.NoError(t, syscall.Kill(e.PID(), syscall.SIGTERM))
	require.Eventually(t, func() bool { return e.Restarts() == 1 }, time.Minute, 10*time.Millisecond)
}

func TestEngine_libraryMissing(t *testing.T) {
	cfg := storetest.EngineConfig(t.TempDir())
	cfg.Library = "/nowhere/libchdb.so"
	_, err := store.StartEngine(t.Context(), cfg, discard)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	require.ErrorContains(t, err, "/nowhere/libchdb.so does not exist")

	t.Setenv(store.EnvLibrary, "")
	t.Chdir(t.TempDir())
	cfg.Library, cfg.Executable = "", filepath.Join(t.TempDir(), "cordon")
	_, err = store.StartEngine(t.Context(), cfg, discard)
	if err == nil {
		t.Skip("the library is installed in /usr/lib/cordon")
	}
	require.Equal(t, fleet.CodeUnavailable, fleet.CodeOf(err))
	require.ErrorContains(t, err, "make engine")
	require.ErrorContains(t, err, filepath.Dir(cfg.Executable))
	require.NotContains(t, err.Error(), "\n")

	// What is no library at all is said at the start.
	fake := filepath.Join(t.TempDir(), "libchdb.so")
	require.NoError(t, os.WriteFile(fake, []byte("not a library"), 0o600))
	cfg = storetest.EngineConfig(t.TempDir())
	cfg.Library = fake
	_, err = store.StartEngine(t.Context(), cfg, discard)
	require.ErrorContains(t, err, "load ClickHouse library")
}

// Other users of the host can reach the port: they can't read anything.
func TestEngine_closedToOthers(t *testing.T) {
	dir := t.TempDir()
	e := storetest.Engine(t, dir)
	s := storetest.Open(t, e.DSN())
	require.NoError(t, s.Migrate(t.Context()))
	require.NoError(t, s.InsertTelemetry(t.Context(), "t", telemetry("secret-device", 1, 1, t0, 0)))

	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir || filepath.Dir(path) != dir {
			return err
		}
		info, err := d.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "%s is open to others: %s", path, info.Mode())
		return nil
	}))

	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{e.Address()}, Auth: clickhouse.Auth{Username: "default"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	for _, q := range []string{
		"SELECT count() FROM cordon.telemetry",
		"SELECT count() FROM system.query_log",
		"SELECT count() FROM system.processes",
		"SELECT * FROM file('/etc/hostname', 'LineAsString', 'l String')",
		"SELECT * FROM file('-', 'LineAsString', 'l String')",
		"SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'l String')",
		"SELECT * FROM remote('127.0.0.1', 'cordon', 'telemetry')",
		"SELECT * FROM executable('id', 'LineAsString', 'l String')",
		"INSERT INTO FUNCTION file('" + dir + "/x', 'LineAsString', 'l String') VALUES ('x')",
		"CREATE TABLE default.x (a Int8) ENGINE = MergeTree ORDER BY a",
		"CREATE DATABASE x",
		"DROP TABLE cordon.telemetry",
		"KILL QUERY WHERE 1",
		"SYSTEM SHUTDOWN",
		"SHOW CREATE TABLE cordon.telemetry",
	} {
		err := conn.Exec(t.Context(), q)
		var exception *clickhouse.Exception
		require.True(t, errors.As(err, &exception), "%s: %v", q, err)
		require.Contains(t, []int32{497, 60, 81, 1}, exception.Code, "%s: %v", q, err) // denied, no such table or database, no such script
	}
	rows, err := conn.Query(t.Context(), "SELECT name FROM system.tables WHERE database = 'cordon'")
	if err == nil {
		require.False(t, rows.Next(), "default sees tables")
		require.NoError(t, rows.Close())
	}
	requireReadings(t, s, "secret-device", 2)
	require.Zero(t, e.Restarts())
}

// A refused login ends libchdb 26.7.3; the engine comes back by itself.
func TestEngine_comesBackAfterRefusedLogin(t *testing.T) {
	e := storetest.Engine(t, t.TempDir())
	s := storetest.Open(t, e.DSN())
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{e.Address()}, Auth: clickhouse.Auth{Username: "cordon", Password: "guess"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.ErrorContains(t, conn.Ping(t.Context()), "Authentication failed")
	require.Eventually(t, func() bool { return s.Ping(context.WithoutCancel(t.Context())) == nil && e.Status().Healthy }, time.Minute, 50*time.Millisecond)
}
