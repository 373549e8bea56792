package agent_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest/gate/gatetest"
	"cordon/internal/agent"
	"cordon/internal/bus"
	"cordon/internal/command"
	"cordon/internal/fleet"
)

// The agent obeys Cordon's signed commands and shows them, and nothing else
// that comes on its subjects.
func TestAgent_obeysSignedCommandsOnly(t *testing.T) {
	w := gatetest.Start(t)
	dir := t.TempDir()
	token, err := issuer{w}.Register(t.Context(), agent.Registration{ID: "host-1"})
	require.NoError(t, err)
	id, err := agent.EnrollWith(t.Context(), issuer{w}, token, dir)
	require.NoError(t, err)
	log := filepath.Join(t.TempDir(), "auth.log")
	require.NoError(t, os.WriteFile(log, nil, 0o600))
	cfg := agent.DefaultConfig()
	cfg.Dir, cfg.Interval, cfg.AuthLog = dir, 50*time.Millisecond, log
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- agent.New(cfg, agent.Deps{Identity: id, Log: slog.New(slog.DiscardHandler)}).Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	stored := func() uint64 { return w.Stored(t, "fleet.telemetry.host-1") }
	require.Eventually(t, func() bool { return stored() > 1 }, 20*time.Second, 10*time.Millisecond)

	cert, err := w.CA.Client(command.Name)
	require.NoError(t, err)
	signer, err := command.NewSigner(cert)
	require.NoError(t, err)
	send := func(data []byte) {
		require.NoError(t, w.Bus.Devices.Publish(bus.SubjectCommand+".host-1", data))
		require.NoError(t, w.Bus.Devices.Flush())
	}
	held := command.Command{Device: "host-1", Kind: "quarantine", ID: "host-1.1", Level: fleet.Restrict, Reason: "odd", IssuedAt: time.Now()}
	unsigned, err := json.Marshal(held)
	require.NoError(t, err)
	send(unsigned)
	before := stored()
	require.Eventually(t, func() bool { return stored() > before+2 }, 20*time.Second, 10*time.Millisecond, "an unsigned command is obeyed")
	require.NoFileExists(t, filepath.Join(dir, "quarantine.json"))

	signed, err := signer.Sign(held)
	require.NoError(t, err)
	send(signed)
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(filepath.Join(dir, "quarantine.json"))
		var shown command.Command
		return err == nil && json.Unmarshal(raw, &shown) == nil && shown.Reason == "odd"
	}, 20*time.Second, 10*time.Millisecond, "it is not shown")
	require.Eventually(t, func() bool {
		last := stored()
		<-time.After(200 * time.Millisecond)
		return stored() == last
	}, 20*time.Second, time.Millisecond, "it still sends")

	free := held
	free.Kind, free.IssuedAt = "release", time.Now()
	signed, err = signer.Sign(free)
	require.NoError(t, err)
	send(signed)
	before = stored()
	require.Eventually(t, func() bool { return stored() > before+2 }, 20*time.Second, 10*time.Millisecond, "it does not send again")
	require.NoFileExists(t, filepath.Join(dir, "quarantine.json"))
}
