package e2e

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

func TestKills_loseNothingAndStoreNothingTwice(t *testing.T) {
	c := up(t)
	conn := c.enrol("sensor-1")
	cfg := agent.DefaultSenderConfig()
	cfg.Dir = t.TempDir()
	sender, err := agent.NewSender(cfg, "sensor-1", conn, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sender.Run(ctx)
	}()
	defer func() { cancel(); <-done }()

	var sent uint64
	send := func(n int) {
		for range n {
			sent++
			readings := make([]fleet.Reading, 10)
			for i := range readings {
				readings[i] = fleet.Reading{ObservedAt: time.Now(), Metric: fmt.Sprintf("m%d", i), Value: float64(sent)}
			}
			require.NoError(t, sender.Telemetry(ctx, readings))
		}
	}
	for round := range 3 {
		send(700)
		require.NoError(t, syscall.Kill(c.enginePID(), syscall.SIGKILL), "round %d", round)
		send(700)
		c.kill()
		send(300)
		c.start()
		send(300)
	}
	wait, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	require.NoError(t, sender.Wait(wait))
	var device deviceDetail
	require.Eventually(t, func() bool {
		require.Equal(t, 200, c.call("GET", "/devices/sensor-1", nil, &device))
		return device.Readings >= sent*10
	}, 30*time.Second, 100*time.Millisecond)
	require.Never(t, func() bool {
		require.Equal(t, 200, c.call("GET", "/devices/sensor-1", nil, &device))
		return device.Readings != sent*10
	}, 2*time.Second, 200*time.Millisecond, "every reading is stored once")
	require.Zero(t, device.DeadLetters)
}

func TestBadInput_isDeadLetteredAndTheStreamGoesOn(t *testing.T) {
	c := up(t)
	conn := c.enrol("sensor-1")
	now := time.Now().UTC()
	bad := map[string]string{
		"malformed":  `{"boot":"b","seq":1,"metrics"`,
		"mistyped":   `{"boot":"b","seq":2,"ts":"` + now.Format(time.RFC3339) + `","metrics":{"a":"warm"}}`,
		"not_finite": `{"boot":"b","seq":3,"ts":"` + now.Format(time.RFC3339) + `","metrics":{"a":NaN}}`,
		"too_new":    `{"boot":"b","seq":4,"ts":"` + now.Add(48*time.Hour).Format(time.RFC3339) + `","metrics":{"a":1}}`,
		"too_old":    `{"boot":"b","seq":5,"ts":"` + now.Add(-30*24*time.Hour).Format(time.RFC3339) + `","metrics":{"a":1}}`,
	}
	for _, payload := range bad {
		require.NoError(t, conn.Publish("fleet.telemetry.sensor-1", []byte(payload)))
	}
	require.NoError(t, conn.Publish("fleet.telemetry.sensor-1", telemetry(6, 40)))
	require.NoError(t, conn.Flush())
	var page struct{ Items []fleet.DeadLetter }
	require.Eventually(t, func() bool {
		require.Equal(t, 200, c.call("GET", "/dead-letters?device=sensor-1", nil, &page))
		return len(page.Items) >= len(bad)
	}, 15*time.Second, 50*time.Millisecond)
	require.Len(t, page.Items, len(bad))
	for _, letter := range page.Items {
		require.Equal(t, bad[letter.Reason], string(letter.Raw), "%s keeps its bytes: %s", letter.Reason, letter.Detail)
		require.NotEmpty(t, letter.Detail)
	}
	var device deviceDetail
	require.Eventually(t, func() bool {
		require.Equal(t, 200, c.call("GET", "/devices/sensor-1", nil, &device))
		return device.Readings == 1 && device.DeadLetters == uint64(len(bad))
	}, 15*time.Second, 50*time.Millisecond, "the good message behind the bad ones is stored")
	require.ErrorIs(t, conn.Publish("fleet.telemetry.sensor-1", make([]byte, 2<<20)), nats.ErrMaxPayload, "an oversized message is refused before it is sent")
}

// fails runs cordon and returns what it said; it must end by itself, not well.
func fails(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	require.Error(t, cmd.Run(), "%s", &said)
	require.NoError(t, ctx.Err(), "cordon did not end by itself: %s", &said)
	return said.String()
}

func TestUp_refusesToStartAndSaysWhy(t *testing.T) {
	c := up(t)
	ports := []string{"--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"}
	fresh := func(args ...string) []string {
		return append(append([]string{"up", "--data", filepath.Join(t.TempDir(), "d")}, ports...), args...)
	}
	said := fails(t, append([]string{"up", "--data", c.dir}, ports...)...)
	require.Contains(t, said, "another Cordon")
	require.Contains(t, said, "--data")

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for _, flag := range []string{"--http", "--nats", "--mqtt"} {
		said = fails(t, fresh(flag, taken.Addr().String())...)
		require.Contains(t, said, "address already in use")
		require.Contains(t, said, flag)
	}

	settings := filepath.Join(t.TempDir(), "cordon.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("nats: 127.0.0.1:0\nnast: 1\n"), 0o600))
	require.Contains(t, fails(t, fresh("--config", settings)...), settings+":2")

	rules := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(rules, "broken.yaml"), []byte("id: broken\nkind: threshold\nmetrik: x\n"), 0o600))
	said = fails(t, fresh("--rules", rules)...)
	require.Contains(t, said, "broken.yaml:3")
	require.Contains(t, said, "metrik")

	require.Contains(t, fails(t, fresh("--engine-library", "/nowhere/libchdb.so")...), "/nowhere/libchdb.so")
	require.Contains(t, fails(t, "up", "--frobnicate"), "--frobnicate")
}
