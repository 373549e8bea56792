package detect

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"cordon/internal/fleet"
)

type metrics struct {
	records    *prometheus.CounterVec
	readings   prometheus.Counter
	events     prometheus.Counter
	findings   *prometheus.CounterVec
	skipped    *prometheus.CounterVec
	seconds    prometheus.Histogram
	checkpoint prometheus.Histogram
	lag        prometheus.Gauge
}

var kindNames = map[fleet.Kind]string{
	fleet.TelemetryKind: "telemetry", fleet.AuditKind: "audit", fleet.TickKind: "tick", fleet.ControlKind: "control",
}

func newMetrics(registry prometheus.Registerer) *metrics {
	name := func(n, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "cordon_detect_" + n, Help: help}
	}
	buckets := prometheus.ExponentialBuckets(1e-5, 4, 10)
	m := &metrics{
		records:  prometheus.NewCounterVec(name("records_total", "Records applied."), []string{"kind"}),
		readings: prometheus.NewCounter(name("readings_total", "Readings judged.")),
		events:   prometheus.NewCounter(name("audit_events_total", "Audit events judged.")),
		findings: prometheus.NewCounterVec(name("findings_total", "Findings raised or cleared."), []string{"rule", "mode"}),
		skipped:  prometheus.NewCounterVec(name("skipped_total", "Messages that were not judged."), []string{"reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cordon_detect_batch_seconds", Help: "Time to judge one batch.", Buckets: buckets,
		}),
		checkpoint: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cordon_detect_checkpoint_pause_seconds", Help: "Time that a checkpoint held detection up.", Buckets: buckets,
		}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "cordon_detect_lag_messages", Help: "Messages not yet judged."}),
	}
	if registry != nil {
		registry.MustRegister(m.records, m.readings, m.events, m.findings, m.skipped, m.seconds, m.checkpoint, m.lag)
	}
	return m
}

func (m *metrics) count(r *fleet.Record) {
	m.records.WithLabelValues(kindNames[r.Kind]).Inc()
	m.readings.Add(float64(len(r.Readings)))
	m.events.Add(float64(len(r.Audit)))
}

// Status says how the stage is doing.
func (d *Detector) Status() fleet.StageStatus {
	d.mu.Lock()
	devices, streams := d.engine.Size()
	rules := len(d.engine.Rules())
	rejected, learning := d.engine.Rejected(), d.engine.Learning()
	d.mu.Unlock()
	d.state.Lock()
	told := d.told
	d.state.Unlock()
	now := d.deps.Clock()
	s := fleet.StageStatus{
		Stage: "detect", Healthy: told.running && told.problem == "", Lag: told.pending, PerSecond: d.rate.PerSecond(now),
		Counters: map[string]float64{
			"devices": float64(devices), "devices_learning": float64(learning), "streams": float64(streams), "rules": float64(rules), "messages": float64(told.messages),
			"findings": float64(told.findings), "rules_rejected": float64(rejected), "checkpoint_bytes": float64(told.snapshot),
			"checkpoint_pause_ms": float64(told.pause.Microseconds()) / 1000,
		},
	}
	if told.pending > 0 && !told.received.IsZero() {
		s.LagSeconds = max(now.Sub(told.received).Seconds(), 0)
	}
	switch {
	case !told.running:
		s.Detail = "The detector is not running here."
	case told.problem != "":
		s.Detail = "Detection is held up: " + told.problem + "; it tries again."
	default:
		s.Detail = fmt.Sprintf("%d rules judge %d streams of %d devices.", rules, streams, devices)
	}
	return s
}
