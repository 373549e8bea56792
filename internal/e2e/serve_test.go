package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

// natsServer builds the broker of the module that Cordon embeds, as a program
// of its own.
func natsServer(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats-server")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/nats-io/nats-server/v2").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// background runs a program until the test ends.
func background(t *testing.T, name string, environment []string, program string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			lines := strings.Split(log.String(), "\n")
			t.Logf("the end of %s's log:\n%s", name, strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
}

func TestServe_oneProcessPerRoleOnExternalServers(t *testing.T) {
	// The engine of another Cordon stands in for a ClickHouse of one's own.
	other := up(t)
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	out, err := exec.CommandContext(t.Context(), binary(t), "init", "--keys", keys, "--host", "127.0.0.1").CombinedOutput()
	require.NoError(t, err, "%s", out)
	conf, err := os.ReadFile(filepath.Join(keys, "nats.conf"))
	require.NoError(t, err)
	nats, mqtt, monitor := freePort(t), freePort(t), freePort(t)
	local := strings.NewReplacer("0.0.0.0:4222", nats, "0.0.0.0:8883", mqtt, "127.0.0.1:8222", monitor, `"/data"`, fmt.Sprintf("%q", filepath.Join(dir, "broker"))).Replace(string(conf))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nats.conf"), []byte(local), 0o600))
	background(t, "nats-server", nil, natsServer(t), "-c", filepath.Join(dir, "nats.conf"))
	require.Eventually(t, func() bool {
		answer, err := exec.CommandContext(t.Context(), "curl", "-sf", "http://"+monitor+"/healthz").Output()
		return err == nil && bytes.Contains(answer, []byte("ok"))
	}, 20*time.Second, 50*time.Millisecond)

	web, data := freePort(t), filepath.Join(dir, "web")
	environment := []string{
		"CORDON_KEYS=" + keys, "CORDON_NATS_URL=tls://" + nats, "CORDON_CLICKHOUSE=" + strings.TrimSuffix(other.ready.ClickHouse, "/cordon") + "/served",
		"CORDON_HTTP=" + web, "CORDON_DATA=" + data, "CORDON_DEVICE_MQTT=mqtts://" + mqtt,
	}
	for _, role := range []string{"ingest", "detect", "alert", "web"} {
		status := freePort(t)
		background(t, role, append(environment, "CORDON_STATUS="+status), binary(t), "serve", "--role", role)
		require.Eventually(t, func() bool {
			return exec.CommandContext(t.Context(), binary(t), "health", "--status", status).Run() == nil
		}, 60*time.Second, 100*time.Millisecond, "role %s is well", role)
	}

	c := &cordon{t: t, dir: data, ready: ready{URL: "https://" + web, CA: filepath.Join(keys, "ca.crt"), CLITokenFile: filepath.Join(data, "run", "token")}}
	c.connect()
	conn := c.enrol("sensor-1")
	require.NoError(t, conn.Publish("fleet.telemetry.sensor-1", telemetry(1, 40)))
	var device deviceDetail
	require.Eventually(t, func() bool {
		require.Equal(t, 200, c.call("GET", "/devices/sensor-1", nil, &device))
		return device.Readings == 1
	}, 20*time.Second, 100*time.Millisecond)
	var q fleet.Quarantine
	require.Equal(t, 200, c.call("POST", "/devices/sensor-1/quarantine", map[string]string{"level": "isolate", "reason": "test"}, &q))
	require.Equal(t, fleet.Confirmed, q.State)
	require.Eventually(t, func() bool { return !conn.IsConnected() }, 5*time.Second, 10*time.Millisecond)
	var rules struct{ Items []fleet.Rule }
	require.Equal(t, 200, c.call("GET", "/rules", nil, &rules))
	require.NotEmpty(t, rules.Items, "the web role shows the detector's rules")
	var system struct{ Stages []fleet.StageStatus }
	require.Equal(t, 200, c.call("GET", "/system", nil, &system))
	seen := map[string]bool{}
	for _, s := range system.Stages {
		seen[s.Stage] = s.Healthy
	}
	for _, stage := range []string{"gate", "ingest", "detect", "incident", "quarantine", "notify", "web"} {
		require.True(t, seen[stage], "stage %s of another process is shown and well", stage)
	}
}
