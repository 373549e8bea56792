package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

func TestMQTT_receiptsQuarantineAndRelease(t *testing.T) {
	c := up(t)
	var enrolled struct {
		Token string `json:"token"`
	}
	c.runJSON(&enrolled, "device", "enroll", "meter-1")
	identity, err := agent.Enroll(t.Context(), c.ready.URL, c.pool(), enrolled.Token, filepath.Join(t.TempDir(), "meter-1"))
	require.NoError(t, err)
	options := mqtt.NewClientOptions().AddBroker(c.ready.MQTT).SetClientID("meter-1").SetTLSConfig(identity.TLS()).
		SetAutoReconnect(false).SetConnectTimeout(5 * time.Second)
	client := mqtt.NewClient(options)
	require.NoError(t, answer(client.Connect()))
	var receipts atomic.Uint64
	require.NoError(t, answer(client.Subscribe("fleet/receipt/meter-1", 1, func(_ mqtt.Client, m mqtt.Message) {
		var r struct {
			Boot string `json:"boot"`
			Seq  uint64 `json:"seq"`
		}
		if json.Unmarshal(m.Payload(), &r) == nil && r.Boot == "b1" {
			receipts.Add(1)
		}
	})))
	for seq := range uint64(5) {
		require.NoError(t, answer(client.Publish("fleet/telemetry/meter-1", 1, false, telemetry(seq+1, 40))))
	}
	require.Eventually(t, func() bool { return receipts.Load() == 5 }, 15*time.Second, 20*time.Millisecond, "every stored message has a receipt")

	var q fleet.Quarantine
	require.Equal(t, 200, c.call("POST", "/devices/meter-1/quarantine", map[string]string{"level": "isolate", "reason": "test"}, &q))
	require.Equal(t, fleet.Confirmed, q.State, "%+v", q)
	require.Eventually(t, func() bool { return !client.IsConnected() }, 5*time.Second, 10*time.Millisecond)
	require.Error(t, answer(mqtt.NewClient(options).Connect()), "it cannot reconnect")

	c.run("device", "release", "meter-1", "--reason", "mended")
	again := mqtt.NewClient(options)
	require.Eventually(t, func() bool { return answer(again.Connect()) == nil }, 15*time.Second, 100*time.Millisecond, "it comes back")
	again.Disconnect(100)
}

func answer(token mqtt.Token) error {
	if !token.WaitTimeout(10 * time.Second) {
		return fmt.Errorf("no answer within 10 s")
	}
	return token.Error()
}
