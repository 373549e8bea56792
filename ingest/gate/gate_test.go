package gate_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate"
	"cordon/ingest/gate/gatetest"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

const (
	patience = 10 * time.Second
	poll     = 2 * time.Millisecond
)

// denied collects the permission errors that the broker sends to a client.
type denied struct {
	mu   sync.Mutex
	errs []string
}

func (d *denied) option() nats.Option {
	return nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.errs = append(d.errs, err.Error())
	})
}

func (d *denied) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.errs)
}

func TestGate_natsPermissions(t *testing.T) {
	w := gatetest.Start(t)
	w.Device(t, "other")
	var errs denied
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"), errs.option())
	require.NoError(t, err)

	js, err := jetstream.New(conn)
	require.NoError(t, err)
	for _, subject := range []string{"fleet.telemetry.d1", "fleet.audit.d1", "fleet.posture.d1"} {
		_, err := js.Publish(t.Context(), subject, []byte("{}"))
		require.NoError(t, err, subject)
	}
	for _, subject := range []string{
		"fleet.receipt.d1", "fleet.receipt.d1.>", "fleet.command.d1", "fleet.command.d1.>", "fleet.quarantine.d1", "_INBOX.d1.>",
	} {
		_, err := conn.SubscribeSync(subject)
		require.NoError(t, err, subject)
		require.NoError(t, conn.Flush())
	}
	require.NoError(t, conn.Publish("fleet.quarantine.d1", nil))
	require.NoError(t, conn.Flush())
	require.Zero(t, errs.count(), errs.errs)

	forbidden := 0
	for _, subject := range []string{
		"fleet.telemetry.other", "fleet.audit.other", "fleet.telemetry.d1.child", "fleet.control.rule.x", "fleet.tick",
		"fleet.command.d1", "fleet.command.other", "fleet.receipt.d1", "fleet.receipt.other", "fleet.quarantine.other",
		"$JS.API.STREAM.PURGE.FLEET", "$JS.API.STREAM.INFO.FLEET", "$KV.quarantine.d1", "cordon.finding.d1", "_INBOX.other.x",
		"$SYS.REQ.SERVER.PING", "$MQTT.sess.x",
	} {
		require.NoError(t, conn.Publish(subject, []byte("{}")))
		forbidden++
		require.NoError(t, conn.Flush())
		require.Eventually(t, func() bool { return errs.count() == forbidden }, patience, poll, "publish %s is allowed", subject)
	}
	for _, subject := range []string{
		"fleet.telemetry.d1", "fleet.telemetry.other", "fleet.command.other", "fleet.command.*", "fleet.command.>", "fleet.*.d1", "fleet.>", ">", "*",
		"fleet.receipt.*", "fleet.quarantine.other", "_INBOX.>", "_INBOX.other.>", "$SYS.>", "$KV.>", "$JS.>", "cordon.>", "fleet.control.>",
	} {
		_, err := conn.SubscribeSync(subject)
		require.NoError(t, err)
		forbidden++
		require.NoError(t, conn.Flush())
		require.Eventually(t, func() bool { return errs.count() == forbidden }, patience, poll, "subscribe %s is allowed", subject)
	}
	require.EqualValues(t, 3, w.Stored(t, "fleet.telemetry.>")+w.Stored(t, "fleet.audit.>")+w.Stored(t, "fleet.posture.>"))
	require.Zero(t, w.Stored(t, "fleet.control.rule.>"))
}

func TestGate_mqttPermissions(t *testing.T) {
	w := gatetest.Start(t)
	client, err := w.MQTT(t, "d1", w.Device(t, "d1"), nil)
	require.NoError(t, err)
	got := make(chan string, 16)
	handler := func(_ mqtt.Client, m mqtt.Message) { got <- m.Topic() }
	for _, topic := range []string{"fleet/command/d1", "fleet/command/d1/#", "fleet/receipt/d1", "fleet/quarantine/d1"} {
		token := client.Subscribe(topic, 1, handler)
		require.True(t, token.WaitTimeout(patience))
		require.NoError(t, token.Error(), topic)
		require.Equal(t, byte(1), token.(*mqtt.SubscribeToken).Result()[topic], topic)
	}
	for _, topic := range []string{"fleet/command/other", "fleet/#", "#", "fleet/+/d1", "fleet/command/+", "fleet/telemetry/d1"} {
		token := client.Subscribe(topic, 1, handler)
		require.True(t, token.WaitTimeout(patience))
		require.Equal(t, byte(0x80), token.(*mqtt.SubscribeToken).Result()[topic], topic)
	}
	for _, topic := range []string{"fleet/telemetry/other", "fleet/control/rule/x", "fleet/tick", "fleet/telemetry/d1", "fleet/audit/d1"} {
		token := client.Publish(topic, 1, false, "{}")
		require.True(t, token.WaitTimeout(patience), topic)
	}
	require.Eventually(t, func() bool { return w.Stored(t, "fleet.audit.d1") == 1 }, patience, poll)
	require.EqualValues(t, 1, w.Stored(t, "fleet.telemetry.d1"))
	require.Zero(t, w.Stored(t, "fleet.telemetry.other"))
	require.Zero(t, w.Stored(t, "fleet.control.rule.>"))

	require.NoError(t, w.Bus.Devices.Publish("fleet.command.d1", []byte("x")))
	select {
	case topic := <-got:
		require.Equal(t, "fleet/command/d1", topic)
	case <-time.After(patience):
		require.FailNow(t, "own command did not arrive")
	}
}

// insist shows the certificate although the broker does not ask for one of its
// authority.
func insist(cfg *tls.Config) *tls.Config {
	cert := cfg.Certificates[0]
	cfg.Certificates = nil
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return cfg
}

func TestGate_refusals(t *testing.T) {
	w := gatetest.Start(t)
	cert := w.Device(t, "good")

	superseded := w.Device(t, "twice")
	w.Enroll(t, identity.Enrolment{ID: "twice", Reissue: true})
	revoked := w.Device(t, "revoked")
	require.NoError(t, w.Registry.Revoke(t.Context(), "revoked", "ada", "stolen"))
	retired := w.Device(t, "retired")
	require.NoError(t, w.Registry.Retire(t.Context(), "retired", "ada", "scrapped"))
	quarantined := w.Device(t, "held")
	w.Quarantine(t, "held", fleet.Isolate)
	w.Await(t, "held", fleet.Confirmed)

	key, csr := gatetest.Request(t)
	never, _, err := w.CA.SignDevice(csr, "never-enrolled", time.Hour)
	require.NoError(t, err)
	unknown := w.TLS(t, key, never)
	old, err := identity.LoadOrCreateCA(filepath.Join(t.TempDir(), "ca"), time.Now)
	require.NoError(t, err)
	forged, _, err := old.SignDevice(csr, "good", time.Hour)
	require.NoError(t, err)
	foreign := insist(w.TLS(t, key, forged))
	ended, _, err := w.CA.SignDevice(csr, "good", -time.Minute)
	require.NoError(t, err)
	expired := w.TLS(t, key, ended)
	none := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: w.CA.Pool()}
	server, err := w.CA.Server()
	require.NoError(t, err)
	asServer := insist(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: w.CA.Pool(), Certificates: []tls.Certificate{server}})
	for _, c := range []struct {
		reason, id string
		cfg        *tls.Config
	}{
		{"superseded", "twice", superseded},
		{"revoked", "revoked", revoked},
		{"retired", "retired", retired},
		{"quarantined", "held", quarantined},
		{"unknown", "never-enrolled", unknown},
		{"foreign", "good", foreign},
		{"expired", "good", expired},
		{"no_certificate", "good", none},
		{"foreign", "good", asServer},
	} {
		before := w.Refused(t, c.reason)
		_, err := w.NATS(t, c.id, c.cfg, nats.RetryOnFailedConnect(false), nats.NoReconnect())
		require.Error(t, err, c.reason)
		require.Eventually(t, func() bool { return w.Refused(t, c.reason) == before+1 }, patience, poll, "nats %s is not counted", c.reason)
		_, err = w.MQTT(t, c.id, c.cfg, nil)
		require.Error(t, err, c.reason)
		require.Eventually(t, func() bool { return w.Refused(t, c.reason) == before+2 }, patience, poll, "mqtt %s is not counted", c.reason)
	}
	for _, id := range []string{"other", "good2", "Good", "", "good "} {
		_, err := w.MQTT(t, id, cert, nil)
		require.Error(t, err, "client id %q", id)
	}
	require.GreaterOrEqual(t, w.Refused(t, "client_id"), 4.0)
	conn, err := w.NATS(t, "good", cert)
	require.NoError(t, err)
	require.NoError(t, conn.Flush())
}

// A device's publish may name any reply subject, and the broker's
// acknowledgement goes there.
func TestGate_replySubjectForgery(t *testing.T) {
	w := gatetest.Start(t)
	w.Device(t, "victim")
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	for _, reply := range []string{
		"$KV.quarantine.victim", "$KV.device.victim", "cordon.finding.victim",
		"$JS.API.STREAM.PURGE.FLEET", "$JS.API.STREAM.MSG.DELETE.FLEET", "$JS.API.STREAM.DELETE.FLEET",
		"fleet.telemetry.victim", "fleet.control.rule.x", "fleet.tick",
	} {
		require.NoError(t, conn.PublishRequest("fleet.telemetry.d1", reply, []byte(`{"rule":{"id":"x"}}`)))
	}
	require.NoError(t, conn.Flush())
	require.Eventually(t, func() bool { return w.Stored(t, "fleet.tick") == 1 }, patience, poll)
	for _, bucket := range []string{bus.BucketQuarantine, bus.BucketDevice} {
		kv, err := w.Bus.Bucket(t.Context(), bucket)
		require.NoError(t, err)
		entries, err := kv.History(t.Context(), "victim")
		if bucket == bus.BucketQuarantine {
			require.ErrorIs(t, err, jetstream.ErrKeyNotFound)
			continue
		}
		require.NoError(t, err)
		require.Len(t, entries, 2, "enrolled and redeemed")
	}
	stream, err := w.Bus.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	require.EqualValues(t, 1, stream.CachedInfo().State.FirstSeq, "purged")
	// Within DEVICES the acknowledgement does land where the device says, but
	// the device has no say in its text, and no reader takes it for a record.
	for _, subject := range []string{"fleet.telemetry.victim", "fleet.control.rule.x", "fleet.tick"} {
		msg, err := stream.GetLastMsgForSubject(t.Context(), subject)
		require.NoError(t, err)
		var ack jetstream.PubAck
		decoder := json.NewDecoder(bytes.NewReader(msg.Data))
		decoder.DisallowUnknownFields()
		require.NoError(t, decoder.Decode(&ack), string(msg.Data))
		require.Equal(t, bus.StreamFleet, ack.Stream)
	}
}

// Headers steer JetStream: a device must not be able to roll the stream up, to
// let its messages expire, or to take the place of a coming tick.
func TestGate_headersOfDevices(t *testing.T) {
	w := gatetest.Start(t)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	before := w.Stored(t, "fleet.>")
	for name, value := range map[string]string{
		"Nats-Rollup": "all", "Nats-TTL": "1s", "Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Batch-Id": "b1", "Nats-Incr": "+1",
	} {
		msg := nats.NewMsg("fleet.telemetry.d1")
		msg.Header.Set(name, value)
		_, err := conn.RequestMsg(msg, time.Second)
		if err == nil {
			continue // answered; what counts is the stream
		}
	}
	require.GreaterOrEqual(t, w.Stored(t, "fleet.>"), before)
	info, err := w.Bus.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	require.EqualValues(t, 1, info.CachedInfo().State.FirstSeq)

	w.StopGate()
	w.Config.TickEvery = 500 * time.Millisecond
	for at := time.Now().Truncate(w.Config.TickEvery); at.Before(time.Now().Add(5 * time.Second)); at = at.Add(w.Config.TickEvery) {
		msg := nats.NewMsg("fleet.telemetry.d1")
		msg.Header.Set(nats.MsgIdHdr, fmt.Sprintf("tick.%d", at.UnixMilli()))
		require.NoError(t, conn.PublishMsg(msg))
	}
	require.NoError(t, conn.Flush())
	w.StartGate(t)
	require.Eventually(t, func() bool { return w.Stored(t, "fleet.tick") > 0 }, 3*time.Second, poll)
}

func TestGate_events(t *testing.T) {
	w := gatetest.Start(t)
	sub, err := w.Bus.Cordon.SubscribeSync("cordon.gate.d1")
	require.NoError(t, err)
	require.NoError(t, w.Bus.Cordon.Flush())
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	next := func() gate.Event {
		msg, err := sub.NextMsg(patience)
		require.NoError(t, err)
		var e gate.Event
		require.NoError(t, json.Unmarshal(msg.Data, &e))
		return e
	}
	e := next()
	require.Equal(t, "connected", e.Event)
	require.Equal(t, "nats", e.Protocol)
	require.Equal(t, "d1", e.Device)
	require.Eventually(t, func() bool { return w.Gate.Status().Counters["connections"] == 1 }, patience, poll)
	conn.Close()
	require.Equal(t, "disconnected", next().Event)
	require.Eventually(t, func() bool { return w.Gate.Status().Counters["connections"] == 0 }, patience, poll)
	require.True(t, w.Gate.Status().Healthy)
}

func TestGate_ticksOnTheLog(t *testing.T) {
	w := gatetest.Start(t)
	w.StopGate()
	w.Config.TickEvery = 50 * time.Millisecond
	w.StartGate(t)
	stream, err := w.Bus.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return w.Stored(t, "fleet.tick") >= 3 }, patience, poll)
	first, err := stream.GetMsg(t.Context(), 1, jetstream.WithGetMsgSubject("fleet.tick"))
	require.NoError(t, err)
	require.Contains(t, string(first.Data), `"healthy":false`, "who was away before is not known")
	last, err := stream.GetLastMsgForSubject(t.Context(), "fleet.tick")
	require.NoError(t, err)
	require.Contains(t, string(last.Data), `"healthy":true`)
}
