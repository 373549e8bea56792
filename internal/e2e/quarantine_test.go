package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

const webhookSecret = "whsec_Q29yZG9uIGUyZSB0ZXN0IHNlY3JldCAwMTIzNDU2Nzg5"

// chat is a receiver that checks signatures and counts what it got by id.
type chat struct {
	t        *testing.T
	verifier *webhooks.Webhook
	mu       sync.Mutex
	ids      map[string]int
	kinds    map[string]int
	bad      int
}

func newChat(t *testing.T) (*chat, string) {
	t.Helper()
	verifier, err := webhooks.NewWebhook(webhookSecret)
	require.NoError(t, err)
	c := &chat{t: t, verifier: verifier, ids: map[string]int{}, kinds: map[string]int{}}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return c, server.URL
}

func (c *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	var event struct {
		Type string `json:"type"`
	}
	if err != nil || c.verifier.Verify(body, r.Header) != nil || json.Unmarshal(body, &event) != nil {
		c.bad++
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.ids[r.Header.Get("webhook-id")]++
	c.kinds[event.Type]++
}

func (c *chat) got(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kinds[kind]
}

// enrol gives a new device its identity and its connection.
func (c *cordon) enrol(id string) *nats.Conn {
	c.t.Helper()
	var enrolled struct {
		Token string `json:"token"`
	}
	c.runJSON(&enrolled, "device", "enroll", id, "--cohort", "sensors")
	identity, err := agent.Enroll(c.t.Context(), c.ready.URL, c.pool(), enrolled.Token, filepath.Join(c.t.TempDir(), id))
	require.NoError(c.t, err)
	conn, err := agent.Dial(identity, slog.New(slog.DiscardHandler), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	require.NoError(c.t, err)
	c.t.Cleanup(conn.Close)
	require.Eventually(c.t, conn.IsConnected, 10*time.Second, 10*time.Millisecond)
	return conn
}

func telemetry(seq uint64, value float64) []byte {
	return fleet.EncodeTelemetry(nil, "b1", seq, []fleet.Reading{{ObservedAt: time.Now(), Metric: "cpu_temp_celsius", Value: value}})
}

func TestArmedRule_cutsConfirmsTellsAndReleases(t *testing.T) {
	receiver, address := newChat(t)
	dir := t.TempDir()
	settings := filepath.Join(dir, "cordon.yaml")
	require.NoError(t, os.WriteFile(settings, []byte(fmt.Sprintf(
		"receivers:\n  - name: chat\n    kind: webhook\n    url: %s\n    secret: %s\n    allow_private: true\n", address, webhookSecret)), 0o600))
	rules := filepath.Join(dir, "rules")
	require.NoError(t, os.Mkdir(rules, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(rules, "hot.yaml"), []byte(`id: e2e-hot
title: Processor is too hot
description: A test rule.
kind: threshold
metric: cpu_temp_celsius
unit: Cel
when: value > 95.0
raise_after: 2
clear_after: 2
mode: alert
evidence: own
severity: high
technique: T1496
level: isolate
runbook: Look at it.
false_positives: ["none"]
`), 0o600))
	c := up(t, "--config", settings, "--rules", rules)
	conn := c.enrol("sensor-1")
	bystander := c.enrol("sensor-2")

	require.Equal(t, 200, c.call("PUT", "/rules/e2e-hot/mode", map[string]string{"mode": "armed", "reason": "test"}, nil))
	var seq uint64
	require.Eventually(t, func() bool {
		seq++
		_ = conn.Publish("fleet.telemetry.sensor-1", telemetry(seq, 99))
		_ = bystander.Publish("fleet.telemetry.sensor-2", telemetry(seq, 40))
		return !conn.IsConnected()
	}, 30*time.Second, 100*time.Millisecond, "the device is cut")

	var device deviceDetail
	require.Eventually(t, func() bool {
		require.Equal(t, 200, c.call("GET", "/devices/sensor-1", nil, &device))
		return device.Quarantine != nil && device.Quarantine.State == fleet.Confirmed
	}, 10*time.Second, 20*time.Millisecond, "the cut is confirmed")
	require.Equal(t, "rule:e2e-hot", device.Quarantine.Actor)
	require.NotEmpty(t, device.Quarantine.Proof.Brokers)
	require.True(t, bystander.IsConnected(), "another device is left alone")
	require.Never(t, conn.IsConnected, 2*time.Second, 20*time.Millisecond, "it cannot reconnect")

	require.Equal(t, 200, c.call("POST", "/devices/sensor-1/release", map[string]string{"reason": "mended"}, nil))
	require.Eventually(t, conn.IsConnected, 15*time.Second, 20*time.Millisecond, "it comes back")

	for _, kind := range []string{"cordon.incident.opened", "cordon.incident.quarantined", "cordon.incident.released"} {
		require.Eventually(t, func() bool { return receiver.got(kind) == 1 }, 15*time.Second, 50*time.Millisecond, "%s is told", kind)
	}
	receiver.mu.Lock()
	defer receiver.mu.Unlock()
	require.Zero(t, receiver.bad, "every signature is valid")
	for id, n := range receiver.ids {
		require.Equal(t, 1, n, "notification %s came once", id)
	}
}
