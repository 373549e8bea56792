package gate_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate/gatetest"
	"cordon/internal/fleet"
)

// BenchmarkGate_isolate measures from the decision to the device's loss of its
// connection and to the confirmation.
func BenchmarkGate_isolate(b *testing.B) {
	b.Run("nats", func(b *testing.B) {
		benchmarkIsolate(b, func(w *gatetest.World, device string, lost func()) {
			_, err := w.NATS(b, device, w.Device(b, device), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { lost() }))
			require.NoError(b, err)
		})
	})
	b.Run("mqtt", func(b *testing.B) {
		benchmarkIsolate(b, func(w *gatetest.World, device string, lost func()) {
			_, err := w.MQTT(b, device, w.Device(b, device), func(o *mqtt.ClientOptions) {
				o.SetConnectionLostHandler(func(mqtt.Client, error) { lost() })
			})
			require.NoError(b, err)
		})
	})
}

func benchmarkIsolate(b *testing.B, connect func(w *gatetest.World, device string, lost func())) {
	w := gatetest.Start(b)
	losses := make([]chan time.Time, b.N)
	for i := range losses {
		losses[i] = make(chan time.Time, 1)
		connect(w, fmt.Sprintf("d%d", i), func() { losses[i] <- time.Now() })
	}
	b.ResetTimer()
	var cut, confirmed []time.Duration
	for i := range losses {
		start := time.Now()
		device := fmt.Sprintf("d%d", i)
		w.Quarantine(b, device, fleet.Isolate)
		cut = append(cut, (<-losses[i]).Sub(start))
		q := w.Await(b, device, fleet.Confirmed)
		confirmed = append(confirmed, q.ConfirmedAt.Sub(q.RequestedAt))
	}
	for name, list := range map[string][]time.Duration{"cut": cut, "confirmed": confirmed} {
		slices.Sort(list)
		for p, at := range map[string]int{"p50": len(list) / 2, "p99": len(list) * 99 / 100, "worst": len(list) - 1} {
			b.ReportMetric(float64(list[at].Microseconds())/1000, name+"-"+p+"-ms")
		}
	}
}
