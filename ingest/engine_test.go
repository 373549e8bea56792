package ingest_test

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest"
	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/store/storetest"
)

// The engine is killed between two steps and within them, several times.
func TestMover_engineKilledMidBlock(t *testing.T) {
	engine := storetest.Engine(t, t.TempDir())
	s := storetest.Open(t, engine.DSN())
	require.NoError(t, s.Migrate(t.Context()))
	cfg := ingest.DefaultConfig()
	cfg.FlushIdle, cfg.MaxMessages, cfg.RetryMin = 20*time.Millisecond, 150, 20*time.Millisecond
	r := &rig{t: t, bus: bustest.Start(t), store: s, into: s, cfg: cfg, historic: map[string]bool{}}
	kill := func() {
		// The engine may be down from the kill before.
		_ = syscall.Kill(engine.PID(), syscall.SIGKILL)
	}
	var steps atomic.Int64
	r.cfg.Fault = func(stream, point string) error {
		if stream != bus.StreamFleet {
			return nil
		}
		switch n := steps.Add(1); n {
		case 9, 31: // between two steps
			kill()
		case 18, 44: // within the insert that follows
			time.AfterFunc(time.Millisecond, kill)
		}
		return nil
	}
	for part := range uint64(10) {
		r.telemetry("k1", "b", part*200+1, part*200+200, 20)
		r.publish("fleet.audit.k1", []byte("one\ntwo"), nil)
		r.publish("fleet.telemetry.k1", []byte(`{"readings":7}`), nil)
	}
	m := r.start()
	require.Eventually(t, func() bool {
		c, err := s.Counts(t.Context(), "k1")
		return err == nil && c.Readings >= 2000*20 && c.AuditEvents >= 20 && c.DeadLetters >= 10
	}, 2*time.Minute, 100*time.Millisecond)
	r.settled("k1", 2000*20, 20, 10)
	require.GreaterOrEqual(t, steps.Load(), int64(44), "every kill happened")
	require.GreaterOrEqual(t, engine.Restarts(), uint64(3))
	m.stop()
	require.NoError(t, m.err)
}

// An engine that is there and does not answer: inserts time out, and may have
// happened.
func TestMover_saysThatTheEngineDoesNotAnswer(t *testing.T) {
	engine := storetest.Engine(t, t.TempDir())
	s := storetest.Open(t, engine.DSN())
	require.NoError(t, s.Migrate(t.Context()))
	r := &rig{t: t, bus: bustest.Start(t), store: s, into: s, cfg: ingest.DefaultConfig(), historic: map[string]bool{}}
	r.cfg.RetryMax, r.cfg.InsertTimeout = 200*time.Millisecond, time.Second
	m := r.start()
	r.telemetry("a1", "b", 1, 10, 1)
	r.settled("a1", 10, 0, 0)
	pid := engine.PID()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	r.telemetry("a1", "b", 11, 200, 1)
	require.Eventually(t, func() bool {
		status := m.Status()
		return !status.Healthy && status.Lag > 0 && status.LagSeconds > 1 && strings.Contains(status.Detail, "ClickHouse")
	}, 30*time.Second, 50*time.Millisecond)
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	r.settled("a1", 200, 0, 0)
	require.Eventually(t, func() bool { return m.Status().Healthy && m.Status().Lag == 0 }, 20*time.Second, 50*time.Millisecond)
}
