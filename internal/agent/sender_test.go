package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
)

var quiet = slog.New(slog.DiscardHandler)

func reading(n int) []fleet.Reading {
	return []fleet.Reading{{ObservedAt: time.Unix(int64(n), 0).UTC(), Metric: "m", Value: float64(n)}}
}

// run runs a sender and returns how to stop it and wait.
func run(t *testing.T, s *Sender) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

type stored struct {
	subject string
	boot    string
	seq     uint64
	data    []byte
	header  map[string][]string
}

func fleetStream(t *testing.T, b *bus.Bus) []stored {
	t.Helper()
	stream, err := b.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	var all []stored
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		require.NoError(t, err)
		s := stored{subject: msg.Subject, data: msg.Data, header: msg.Header}
		var body struct {
			Boot string `json:"boot"`
			Seq  uint64 `json:"seq"`
		}
		if json.Unmarshal(msg.Data, &body) == nil {
			s.boot, s.seq = body.Boot, body.Seq
		}
		all = append(all, s)
	}
	return all
}

func TestSender_sendsInOrder(t *testing.T) {
	b := bustest.Start(t)
	s, err := NewSender(DefaultSenderConfig(), "d1", b.Devices, quiet)
	require.NoError(t, err)
	stop := run(t, s)
	for n := 1; n <= 1000; n++ {
		require.NoError(t, s.Telemetry(t.Context(), reading(n)))
	}
	require.NoError(t, s.Syslog(t.Context(), []byte("Dec 10 06:55:46 host sshd[1]: x\n"), 2016))
	require.NoError(t, s.Audit(t.Context(), []fleet.AuditEvent{{ObservedAt: time.Unix(1, 0).UTC(), Class: "integrity", Message: "m"}}))
	require.NoError(t, s.Wait(t.Context()))
	stop()

	got := fleetStream(t, b)
	require.Len(t, got, 1002)
	for i, m := range got[:1000] {
		require.Equal(t, "fleet.telemetry.d1", m.subject)
		require.Equal(t, s.Boot(), m.boot)
		require.Equal(t, uint64(i+1), m.seq)
	}
	syslog := got[1000]
	require.Equal(t, "fleet.audit.d1", syslog.subject)
	require.Equal(t, []string{"2016"}, syslog.header[fleet.HeaderYear])
	require.Equal(t, []string{"1001"}, syslog.header[fleet.HeaderSeq])
	require.Equal(t, []string{s.Boot()}, syslog.header[fleet.HeaderBoot])
	require.Equal(t, []string{fleet.ContentSyslog}, syslog.header[fleet.HeaderContentType])
	require.Equal(t, uint64(1002), got[1001].seq)
	require.Equal(t, uint64(1002), s.Status().Acked)
}

func TestSender_restartSendsTheRestWithItsOldBoot(t *testing.T) {
	b := bustest.Start(t)
	cfg := DefaultSenderConfig()
	cfg.Dir = t.TempDir()
	first, err := NewSender(cfg, "d1", b.Devices, quiet)
	require.NoError(t, err)
	for n := 1; n <= 20; n++ { // it never runs: no network
		require.NoError(t, first.Telemetry(t.Context(), reading(n)))
	}
	second, err := NewSender(cfg, "d1", b.Devices, quiet) // as after kill -9
	require.NoError(t, err)
	require.Equal(t, 20, second.Status().Buffered)
	require.NoError(t, second.Telemetry(t.Context(), reading(21)))
	stop := run(t, second)
	require.NoError(t, second.Wait(t.Context()))
	stop()

	got := fleetStream(t, b)
	require.Len(t, got, 21)
	for i, m := range got[:20] {
		require.Equal(t, first.Boot(), m.boot)
		require.Equal(t, uint64(i+1), m.seq)
	}
	require.Equal(t, second.Boot(), got[20].boot)
	require.Equal(t, uint64(1), got[20].seq)
}

func TestSender_fullStreamHoldsBackAndResumes(t *testing.T) {
	b := bustest.Start(t)
	stream, err := b.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs = 5
	_, err = b.Fleet.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)

	s, err := NewSender(DefaultSenderConfig(), "d1", b.Devices, quiet)
	require.NoError(t, err)
	stop := run(t, s)
	for n := 1; n <= 12; n++ {
		require.NoError(t, s.Telemetry(t.Context(), reading(n)))
	}
	require.Eventually(t, func() bool { return s.Status().Failure != "" }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, 7, s.Status().Buffered, "what was not acknowledged is kept")
	cfg.MaxMsgs = -1
	_, err = b.Fleet.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, s.Wait(t.Context()))
	stop()
	require.Empty(t, s.Status().Failure)
	seen := map[uint64]bool{}
	for _, m := range fleetStream(t, b) {
		seen[m.seq] = true
	}
	require.Len(t, seen, 12)
}

func TestSender_blockingBufferIsBounded(t *testing.T) {
	b := bustest.Start(t)
	cfg := DefaultSenderConfig()
	cfg.Bytes, cfg.Block = 1000, true
	s, err := NewSender(cfg, "d1", b.Devices, quiet)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for err == nil {
		err = s.Telemetry(ctx, reading(1))
	}
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.LessOrEqual(t, s.Status().Bytes, int64(1000))
	s.Block(false)
	require.NoError(t, s.Telemetry(t.Context(), reading(2)))
	require.Equal(t, uint64(1), s.Status().Dropped)
}

func TestSender_refusesOversized(t *testing.T) {
	b := bustest.Start(t)
	s, err := NewSender(DefaultSenderConfig(), "d1", b.Devices, quiet)
	require.NoError(t, err)
	err = s.Syslog(t.Context(), make([]byte, 1<<20), 0)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	require.Zero(t, s.Status().Buffered)
}
