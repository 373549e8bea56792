package agent_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest/gate/gatetest"
	"cordon/internal/agent"
	"cordon/internal/bus"
	"cordon/internal/identity"
)

type issuer struct{ world *gatetest.World }

func (i issuer) Register(ctx context.Context, r agent.Registration) (string, error) {
	_, token, err := i.world.Registry.Enroll(ctx, identity.Enrolment{ID: r.ID, Actor: "test"})
	return token, err
}

func (i issuer) Redeem(ctx context.Context, token string, csr []byte) (agent.Credentials, error) {
	device, certificate, err := i.world.Registry.Redeem(ctx, token, csr)
	return agent.Credentials{Device: device.ID, Certificate: certificate, CA: i.world.CA.PEM(), NATS: i.world.Server.NATSAddress()}, err
}

func TestAgent_enrolsStreamsAndComesBack(t *testing.T) {
	w := gatetest.Start(t)
	dir := t.TempDir()
	token, err := issuer{w}.Register(t.Context(), agent.Registration{ID: "host-1"})
	require.NoError(t, err)
	_, err = agent.Load(dir)
	require.ErrorIs(t, err, agent.ErrNoIdentity)
	_, err = agent.EnrollWith(t.Context(), issuer{w}, token, dir)
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(dir, "key.pem"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	id, err := agent.Load(dir)
	require.NoError(t, err)
	require.Equal(t, "host-1", id.Device)
	require.False(t, id.Expired(time.Now()))
	log := filepath.Join(t.TempDir(), "auth.log")
	require.NoError(t, os.WriteFile(log, nil, 0o600))
	cfg := agent.DefaultConfig()
	cfg.Dir, cfg.Interval, cfg.AuthLog = dir, 100*time.Millisecond, log
	run := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		a := agent.New(cfg, agent.Deps{Identity: id, Log: slog.New(slog.DiscardHandler)})
		go func() { done <- a.Run(ctx) }()
		return func() {
			cancel()
			require.NoError(t, <-done)
		}
	}
	stop := run()
	var metrics map[string]float64
	boots := map[string]bool{}
	see := func(subject, text string) func() bool {
		return func() bool {
			stream, err := w.Bus.Fleet.Stream(t.Context(), bus.StreamFleet)
			require.NoError(t, err)
			msg, err := stream.GetLastMsgForSubject(t.Context(), subject+".host-1")
			if err != nil {
				return false
			}
			var body struct {
				Boot    string             `json:"boot"`
				Metrics map[string]float64 `json:"metrics"`
			}
			_ = json.Unmarshal(msg.Data, &body) // syslog lines are no JSON
			metrics, boots[body.Boot] = body.Metrics, true
			return strings.Contains(string(msg.Data), text)
		}
	}
	require.Eventually(t, see(bus.SubjectTelemetry, agent.NetBytesOut), 15*time.Second, 20*time.Millisecond)
	for _, name := range []string{
		agent.CPUPercent, agent.MemoryPercent, agent.DiskPercent, agent.NetBytesOut, agent.NetBytesIn, agent.NetPacketsOut, agent.NetPacketsIn,
		agent.TCPListening, agent.UDPListening, agent.TCPEstablished, agent.DistinctAddresses, agent.Load1,
	} {
		require.Contains(t, metrics, name)
	}
	stop()

	// Without its gate the agent measures into the buffer; then all of it comes.
	w.StopGate()
	stop = run()
	require.Eventually(t, func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "buffer", "*.seg"))
		require.NoError(t, err)
		var bytes int64
		for _, file := range files {
			if info, err := os.Stat(file); err == nil {
				bytes += info.Size()
			}
		}
		return bytes > 1000
	}, 15*time.Second, 20*time.Millisecond)
	stop()
	before := len(boots)
	w.StartGate(t)
	stop = run()
	require.Eventually(t, func() bool { return see(bus.SubjectTelemetry, agent.NetBytesOut)() && len(boots) > before }, 20*time.Second, 20*time.Millisecond)
	stop()
}
