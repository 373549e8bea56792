package ingest_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest"
	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
	"cordon/internal/store/storetest"
)

// BenchmarkMover moves a full stream of JSON messages, 20 readings each, of
// 200 devices into ClickHouse, exactly once, and counts there.
func BenchmarkMover(b *testing.B) {
	const devices, batch = 200, 20
	limits := bustest.Limits()
	limits.FleetBytes, limits.StoreBytes = 2<<30, 8<<30
	keys, err := bus.NewKeys()
	require.NoError(b, err)
	broker, _ := bustest.Server(b, bus.ServerConfig{Name: "bench", Dir: b.TempDir(), Keys: keys, Limits: limits})
	s := storetest.Start(b)
	r := &rig{t: b, bus: broker, store: s, into: s, cfg: ingest.DefaultConfig(), historic: map[string]bool{}}
	const messages = 200_000 // a run takes longer than benchtime, so there is one
	now := time.Now().UTC()
	readings := make([]fleet.Reading, batch)
	for i := range messages {
		for k := range readings {
			readings[k] = fleet.Reading{ObservedAt: now.Add(time.Duration(i/devices) * time.Millisecond), Metric: fmt.Sprintf("metric_%d", k), Value: float64(i) * 1.25}
		}
		payload := codec.EncodeTelemetry("b1", uint64(i/devices+1), readings)
		_, err := broker.Fleet.PublishAsync(fmt.Sprintf("%s.device-%d", bus.SubjectTelemetry, i%devices), payload)
		require.NoError(b, err)
	}
	<-broker.Fleet.PublishAsyncComplete()
	before := cpuSeconds(b)
	b.ResetTimer()
	m := r.start()
	require.Eventually(b, func() bool {
		status := m.Status()
		return status.Lag == 0 && status.PerSecond > 0
	}, 5*time.Minute, time.Millisecond)
	b.StopTimer()
	b.ReportMetric((cpuSeconds(b)-before)/(messages*batch)*1e6, "cpu-s/M") // mover and broker, without the engine
	b.ReportMetric(float64(messages*batch)/b.Elapsed().Seconds(), "readings/s")
	b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "messages/s")
	var stored uint64
	for i := range devices {
		stored += r.counts(fmt.Sprintf("device-%d", i)).Readings
	}
	require.EqualValues(b, messages*batch, stored)
}

// cpuSeconds is what this process used of the processors.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
