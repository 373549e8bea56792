package gate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate/gatetest"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

func TestZZ(t *testing.T) {
	w := gatetest.Start(t)
	cfg := w.Device(t, "d1")
	stream, err := w.Bus.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	for round := range 150 {
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
				cid, _ := conn.GetClientID()
				for conn.IsConnected() {
					conn.Publish("fleet.telemetry.d1", []byte(fmt.Sprintf("cid %d at %s", cid, time.Now().UTC().Format("05.000000")))) //nolint:errcheck
					conn.Flush()                                                                                                       //nolint:errcheck
				}
				conn.Close()
			}
		}()
		<-ready
		<-time.After(time.Duration(round%30) * 437 * time.Microsecond)
		w.Quarantine(t, "d1", fleet.Isolate)
		q := w.Await(t, "d1", fleet.Confirmed)
		seen := time.Now()
		after := w.Stored(t, "fleet.telemetry.d1")
		time.Sleep(40 * time.Millisecond)
		if w.Stored(t, "fleet.telemetry.d1") != after {
			m, _ := stream.GetLastMsgForSubject(t.Context(), "fleet.telemetry.d1")
			fmt.Printf("LEAK round %d last %q seq %d ts %s; requested %s applied %s confirmed %s seen %s kicked %+v\n", round, m.Data, m.Sequence, m.Time.Format("05.000000"),
				q.RequestedAt.Format("05.000000"), q.AppliedAt.Format("05.000000"), q.ConfirmedAt.Format("05.000000"), seen.UTC().Format("05.000000"), q.Proof.Kicked)
		}
		close(stop)
		<-done
		w.Release(t, "d1")
	}
}
