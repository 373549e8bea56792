package gate_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate/gatetest"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

func TestGate_isolateCutsNATS(t *testing.T) {
	w := gatetest.Start(t)
	cfg := w.Device(t, "d1")
	conn, err := w.NATS(t, "d1", cfg)
	require.NoError(t, err)
	bystander, err := w.NATS(t, "d2", w.Device(t, "d2"))
	require.NoError(t, err)

	w.Quarantine(t, "d1", fleet.Isolate)
	q := w.Await(t, "d1", fleet.Confirmed)
	t.Logf("request to confirmed: %s", q.ConfirmedAt.Sub(q.RequestedAt))
	require.Len(t, q.Proof.Kicked, 1)
	require.Equal(t, "nats", q.Proof.Kicked[0].Protocol)
	require.Len(t, q.Proof.Brokers, 1)
	require.Equal(t, fleet.BrokerProof{
		ServerID: w.Server.ID(), ServerName: "test", Answered: true, At: q.Proof.Brokers[0].At,
	}, q.Proof.Brokers[0])
	require.False(t, q.AppliedAt.IsZero())

	_, err = w.NATS(t, "d1", cfg, nats.NoReconnect())
	require.Error(t, err)
	require.Eventually(t, func() bool { return w.Refused(t, "quarantined") >= 3 }, patience, poll, "the device keeps trying")
	require.False(t, conn.IsConnected())
	require.True(t, bystander.IsConnected())
	require.NoError(t, bystander.Flush())

	w.Release(t, "d1")
	require.Eventually(t, conn.IsConnected, patience, poll)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "fleet.telemetry.d1", []byte("{}"))
	require.NoError(t, err)

	stream, err := w.Bus.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		msg, err := stream.GetLastMsgForSubject(t.Context(), "fleet.control.quarantine.d1")
		return err == nil && string(msg.Data) == `{"quarantine":{"device":"d1","id":"d1.1","active":false,"level":"isolate","state":"released"}}`
	}, patience, poll)
	require.EqualValues(t, 3, w.Stored(t, "fleet.control.quarantine.d1"), "requested, confirmed, released")
}

// The will of a kicked MQTT client must not reach the stream, whatever its
// quality of service, retained or not.
func TestGate_isolateCutsMQTTWithoutWill(t *testing.T) {
	w := gatetest.Start(t)
	for i, clean := range []bool{true, false} {
		device := fmt.Sprintf("d%d", i)
		cfg := w.Device(t, device)
		lost := make(chan error, 1)
		with := func(o *mqtt.ClientOptions) {
			o.SetCleanSession(clean)
			o.SetWill("fleet/telemetry/"+device, `{"will":true}`, byte(1-i), clean)
			o.SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost <- err })
		}
		_, err := w.MQTT(t, device, cfg, with)
		require.NoError(t, err)
		w.Quarantine(t, device, fleet.Isolate)
		q := w.Await(t, device, fleet.Confirmed)
		t.Logf("request to confirmed: %s", q.ConfirmedAt.Sub(q.RequestedAt))
		require.Len(t, q.Proof.Kicked, 1)
		require.Equal(t, "mqtt", q.Proof.Kicked[0].Protocol)
		select {
		case <-lost:
		case <-time.After(patience):
			require.FailNow(t, "the device is still connected")
		}
		_, err = w.MQTT(t, device, cfg, with)
		require.Error(t, err)
		w.Release(t, device)
		// The broker holds a session that changed hands back for a second.
		require.Eventually(t, func() bool {
			client, err := w.MQTT(t, device, cfg, with)
			return err == nil && client.IsConnectionOpen()
		}, patience, 100*time.Millisecond)
	}
	require.Zero(t, w.Stored(t, "fleet.telemetry.>"), "a will was stored")
}

// An ordinary lost connection still publishes its will: the test above would
// pass if wills never worked.
func TestGate_willOfLostConnectionIsStored(t *testing.T) {
	w := gatetest.Start(t)
	_, err := w.MQTT(t, "d1", w.Device(t, "d1"), func(o *mqtt.ClientOptions) { o.SetWill("fleet/telemetry/d1", `{"will":true}`, 1, false) })
	require.NoError(t, err)
	live, _, err := w.Bus.Connections(t.Context(), "d1")
	require.NoError(t, err)
	require.Len(t, live, 1)
	require.NoError(t, w.Bus.Kick(t.Context(), live[0].ServerID, live[0].CID))
	require.Eventually(t, func() bool { return w.Stored(t, "fleet.telemetry.d1") == 1 }, patience, poll)
	require.ErrorIs(t, w.Bus.Kick(t.Context(), live[0].ServerID, live[0].CID), bus.ErrGone)
}

func TestGate_restrict(t *testing.T) {
	w := gatetest.Start(t)
	var errs denied
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"), errs.option())
	require.NoError(t, err)
	command, err := conn.SubscribeSync("fleet.command.d1")
	require.NoError(t, err)
	repair, err := conn.SubscribeSync("fleet.quarantine.d1")
	require.NoError(t, err)
	said, err := w.Bus.Devices.SubscribeSync("fleet.quarantine.d1")
	require.NoError(t, err)
	require.NoError(t, w.Bus.Devices.Flush())

	w.Quarantine(t, "d1", fleet.Restrict)
	q := w.Await(t, "d1", fleet.Confirmed)
	require.Len(t, q.Proof.Kicked, 1)
	require.Zero(t, q.Proof.Brokers[0].Connections)
	require.Eventually(t, conn.IsConnected, patience, poll, "a restricted device may connect")
	require.NoError(t, conn.Publish("fleet.telemetry.d1", []byte("{}")))
	require.NoError(t, conn.Publish("fleet.quarantine.d1", []byte("log")))
	require.NoError(t, conn.Flush())
	require.Zero(t, w.Stored(t, "fleet.telemetry.d1"))
	msg, err := said.NextMsg(patience)
	require.NoError(t, err)
	require.Equal(t, "log", string(msg.Data))
	require.NoError(t, w.Bus.Devices.Publish("fleet.command.d1", []byte("x")))
	require.NoError(t, w.Bus.Devices.Publish("fleet.quarantine.d1", []byte("fix")))
	for range 2 { // its own log comes back too
		msg, err = repair.NextMsg(patience)
		require.NoError(t, err)
	}
	require.Equal(t, "fix", string(msg.Data))
	_, err = command.NextMsg(50 * time.Millisecond)
	require.Error(t, err, "a restricted device hears commands")
	require.Positive(t, errs.count())

	w.Release(t, "d1")
	require.Eventually(t, func() bool {
		if !conn.IsConnected() {
			return false
		}
		return conn.Publish("fleet.telemetry.d1", []byte("{}")) == nil && conn.Flush() == nil && w.Stored(t, "fleet.telemetry.d1") > 0
	}, patience, 20*time.Millisecond, "after the release the device has its own permissions again")
}

func TestGate_restrictHidesQueuedMQTTCommands(t *testing.T) {
	w := gatetest.Start(t)
	cfg := w.Device(t, "d1")
	heard := make(chan string, 16)
	persistent := func(o *mqtt.ClientOptions) {
		o.SetCleanSession(false)
		o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { heard <- m.Topic() })
	}
	client, err := w.MQTT(t, "d1", cfg, persistent)
	require.NoError(t, err)
	token := client.Subscribe("fleet/command/d1", 1, nil)
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
	w.Quarantine(t, "d1", fleet.Restrict)
	w.Await(t, "d1", fleet.Confirmed)
	require.NoError(t, w.Bus.Devices.Publish("fleet.command.d1", []byte("x")))
	require.Eventually(t, func() bool {
		client, err = w.MQTT(t, "d1", cfg, persistent)
		return err == nil
	}, patience, 200*time.Millisecond)
	require.NoError(t, w.Bus.Devices.Publish("fleet.command.d1", []byte("y")))
	require.NoError(t, w.Bus.Devices.Flush())
	token = client.Publish("fleet/telemetry/d1", 1, false, "{}")
	require.True(t, token.WaitTimeout(patience))
	require.Zero(t, w.Stored(t, "fleet.telemetry.d1"))
	require.Empty(t, heard)
}

func TestGate_observeOnlyMarks(t *testing.T) {
	w := gatetest.Start(t)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"), nats.NoReconnect())
	require.NoError(t, err)
	w.Quarantine(t, "d1", fleet.Observe)
	q := w.Await(t, "d1", fleet.Confirmed)
	require.Empty(t, q.Proof.Kicked)
	require.True(t, conn.IsConnected())
}

func TestGate_expires(t *testing.T) {
	w := gatetest.Start(t)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	q := fleet.Quarantine{
		ID: "d1.1", Device: "d1", Level: fleet.Isolate, State: fleet.Requested, Reason: "test", Actor: "test",
		RequestedAt: time.Now().UTC(), Until: time.Now().Add(300 * time.Millisecond).UTC(),
	}
	w.Put(t, q)
	w.Await(t, "d1", fleet.Confirmed)
	q = w.Await(t, "d1", fleet.Expired)
	require.Equal(t, "cordon", q.ReleasedBy)
	require.Eventually(t, conn.IsConnected, patience, poll)
}

func TestGate_revocationCutsAtOnce(t *testing.T) {
	w := gatetest.Start(t)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	client, err := w.MQTT(t, "d2", w.Device(t, "d2"), func(o *mqtt.ClientOptions) { o.SetWill("fleet/telemetry/d2", "x", 0, false) })
	require.NoError(t, err)
	cloned, err := w.NATS(t, "d3", w.Device(t, "d3"))
	require.NoError(t, err)
	require.NoError(t, w.Registry.Revoke(t.Context(), "d1", "ada", "stolen"))
	require.NoError(t, w.Registry.Retire(t.Context(), "d2", "ada", "scrapped"))
	w.Enroll(t, identity.Enrolment{ID: "d3", Reissue: true})
	require.Eventually(t, func() bool {
		return !conn.IsConnected() && !client.IsConnectionOpen() && !cloned.IsConnected()
	}, patience, poll)
	require.Eventually(t, func() bool { return w.Refused(t, "superseded") > 0 }, patience, poll)
	require.Eventually(t, func() bool { return w.Refused(t, "revoked") > 0 }, patience, poll)
	require.Zero(t, w.Stored(t, "fleet.telemetry.d2"))
}

// A restarted gate drops nobody who may stay, goes on with what it finds, and
// cuts what changed while it was away.
func TestGate_restart(t *testing.T) {
	w := gatetest.Start(t)
	good, err := w.NATS(t, "good", w.Device(t, "good"), nats.NoReconnect())
	require.NoError(t, err)
	var conns []*nats.Conn
	states := []fleet.QuarantineState{fleet.Requested, fleet.Applied, fleet.Failed, fleet.Confirmed}
	for _, state := range states {
		conn, err := w.NATS(t, string(state), w.Device(t, string(state)))
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	w.StopGate()
	_, err = w.NATS(t, "good", w.Device(t, "late"), nats.NoReconnect(), nats.Timeout(time.Second))
	require.Error(t, err, "without a gate nobody comes in")
	for _, state := range states {
		w.Put(t, fleet.Quarantine{
			ID: string(state) + ".1", Device: string(state), Level: fleet.Isolate, State: state, Reason: "test", Actor: "test", RequestedAt: time.Now().UTC(),
		})
	}
	w.StartGate(t)
	for i, state := range states {
		q := w.Await(t, string(state), fleet.Confirmed)
		require.Empty(t, q.Failure)
		require.Eventually(t, func() bool { return !conns[i].IsConnected() }, patience, poll, state)
	}
	require.True(t, good.IsConnected())
	require.NoError(t, good.Flush())
	require.Eventually(t, func() bool { return w.Gate.Status().Counters["connections"] == 1 }, patience, poll)
}

// Whatever moment a device chooses to connect, nothing of it reaches the
// stream after the confirmation.
func TestGate_raceOfConnectAndQuarantine(t *testing.T) {
	w := gatetest.Start(t)
	rounds := 100
	switch {
	case os.Getenv("CORDON_SOAK") != "":
		rounds = 1000
	case testing.Short():
		rounds = 20
	}
	var slowed atomic.Int64
	inner := w.Lookup
	w.StopGate()
	w.Lookup = func(ctx context.Context, id string) (fleet.Device, error) {
		if n := slowed.Add(1); n%3 == 0 {
			<-time.After(time.Duration(n%7) * 100 * time.Microsecond)
		}
		return inner(ctx, id)
	}
	w.StartGate(t)
	cfg := w.Device(t, "d1")
	var worst, sum time.Duration
	for round := range rounds {
		stop, done := make(chan struct{}), make(chan struct{})
		ready := make(chan struct{})
		go func() {
			defer close(done)
			close(ready)
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := nats.Connect("tls://"+w.Server.NATSAddress(), nats.Secure(cfg), nats.NoReconnect())
				if err != nil {
					continue
				}
				for conn.IsConnected() {
					conn.Publish("fleet.telemetry.d1", []byte("{}")) //nolint:errcheck // until it is cut
					conn.Flush()                                     //nolint:errcheck // until it is cut
				}
				conn.Close()
			}
		}()
		<-ready
		<-time.After(time.Duration(round) * 137 * time.Microsecond)
		w.Quarantine(t, "d1", fleet.Isolate)
		q := w.Await(t, "d1", fleet.Confirmed)
		took := q.ConfirmedAt.Sub(q.RequestedAt)
		worst, sum = max(worst, took), sum+took
		after := w.Stored(t, "fleet.telemetry.d1")
		for range 5 {
			<-time.After(4 * time.Millisecond)
			require.Equal(t, after, w.Stored(t, "fleet.telemetry.d1"), "round %d leaked", round)
		}
		close(stop)
		<-done
		w.Release(t, "d1")
	}
	t.Logf("request to confirmed over %d rounds: mean %s, worst %s", rounds, sum/time.Duration(rounds), worst)
}

// A callout that began before the decision holds the confirmation back: the
// quarantine is failed, keeps denying, and is confirmed once it is answered.
func TestGate_openCalloutIsNotConfirmed(t *testing.T) {
	w := gatetest.Start(t)
	cfg := w.Device(t, "d1")
	inner := w.Lookup
	w.StopGate()
	entered, leave := make(chan struct{}, 8), make(chan struct{})
	w.Lookup = func(ctx context.Context, id string) (fleet.Device, error) {
		device, err := inner(ctx, id)
		entered <- struct{}{}
		<-leave
		return device, err
	}
	w.Config.ConfirmWithin = 50 * time.Millisecond
	w.StartGate(t)
	result := make(chan error, 1)
	go func() {
		_, err := w.NATS(t, "d1", cfg, nats.NoReconnect())
		result <- err
	}()
	<-entered
	w.Quarantine(t, "d1", fleet.Isolate)
	q := w.Await(t, "d1", fleet.Failed)
	require.Contains(t, q.Failure, "still being admitted")
	require.False(t, w.Gate.Status().Healthy)
	close(leave)
	require.Error(t, <-result)
	q = w.Await(t, "d1", fleet.Confirmed)
	require.Empty(t, q.Failure)
	require.NotEmpty(t, q.Proof.Kicked)
	require.True(t, w.Gate.Status().Healthy)
}

// A callout that read the old state but is answered late must not let the
// device in: it was kicked meanwhile.
func TestGate_lateAnswerDoesNotAdmit(t *testing.T) {
	w := gatetest.Start(t)
	nats1, mqtt1 := w.Device(t, "n1"), w.Device(t, "m1")
	inner := w.Lookup
	w.StopGate()
	var hold atomic.Bool
	hold.Store(true)
	entered, leave := make(chan string, 8), make(chan struct{})
	w.Lookup = func(ctx context.Context, id string) (fleet.Device, error) {
		if hold.Load() {
			entered <- id
			<-leave
		}
		return inner(ctx, id)
	}
	w.StartGate(t)
	results := make(chan error, 2)
	go func() {
		_, err := w.NATS(t, "n1", nats1, nats.NoReconnect())
		results <- err
	}()
	go func() {
		_, err := w.MQTT(t, "m1", mqtt1, func(o *mqtt.ClientOptions) { o.SetWill("fleet/telemetry/m1", "will", 0, false) })
		results <- err
	}()
	for range 2 {
		<-entered
	}
	// The registry's answer is old news by now; so that the quarantine's is
	// too, the connections are kicked as a cut would.
	for _, id := range []string{"n1", "m1"} {
		w.Quarantine(t, id, fleet.Isolate)
	}
	require.Eventually(t, func() bool { return w.Gate.Status().Counters["kicked"] >= 2 }, patience, poll)
	hold.Store(false)
	close(leave)
	for range 2 {
		require.Error(t, <-results)
	}
	for _, id := range []string{"n1", "m1"} {
		w.Await(t, id, fleet.Confirmed)
		require.Zero(t, w.Stored(t, "fleet.telemetry."+id))
	}
}

func TestGate_failsClosed(t *testing.T) {
	w := gatetest.Start(t)
	cfg := w.Device(t, "d1")
	w.StopGate()
	inner := w.Lookup
	w.Lookup = func(context.Context, string) (fleet.Device, error) { return fleet.Device{}, context.DeadlineExceeded }
	w.StartGate(t)
	_, err := w.NATS(t, "d1", cfg, nats.NoReconnect())
	require.Error(t, err)
	require.EqualValues(t, 1, w.Refused(t, "unavailable"))
	w.Lookup = inner
	conn, err := w.NATS(t, "d1", cfg, nats.NoReconnect())
	require.NoError(t, err)
	require.NoError(t, conn.Flush())
}

// Another writer between the gate's read and its write must neither lose the
// release nor the proof.
func TestGate_releaseWhileEnforcing(t *testing.T) {
	w := gatetest.Start(t)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	for range 20 {
		w.Quarantine(t, "d1", fleet.Isolate)
		w.Release(t, "d1")
	}
	require.Eventually(t, conn.IsConnected, patience, poll)
	require.Equal(t, fleet.Released, w.Current(t, "d1").State)
	w.Quarantine(t, "d1", fleet.Isolate)
	w.Await(t, "d1", fleet.Confirmed)
	require.Eventually(t, func() bool { return !conn.IsConnected() }, patience, poll)
}
