package gate

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	admitted *prometheus.CounterVec // by protocol
	refused  *prometheus.CounterVec // by reason
	kicked   prometheus.Counter
	clones   prometheus.Counter
	floods   prometheus.Counter
	callout  prometheus.Histogram
	confirm  prometheus.Histogram
	ticks    prometheus.Counter
	states   *prometheus.CounterVec // quarantine states written

	admittedN, refusedN, kickedN atomic.Uint64
}

func newMetrics(reg prometheus.Registerer, g *Gate) *metrics {
	m := &metrics{
		admitted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_gate_admitted_total", Help: "Connections admitted, by protocol.",
		}, []string{"protocol"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_gate_refused_total", Help: "Connections refused, by reason.",
		}, []string{"reason"}),
		kicked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cordon_gate_kicked_total", Help: "Connections cut.",
		}),
		clones: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cordon_gate_clones_total", Help: "Live connections cut because their identity came again elsewhere.",
		}),
		floods: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cordon_gate_floods_total", Help: "Connections cut because they sent too much.",
		}),
		callout: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cordon_gate_callout_seconds", Help: "Time to answer an authorization request.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 2, 14),
		}),
		confirm: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cordon_gate_quarantine_confirm_seconds", Help: "Time from the decision to its confirmation.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
		ticks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cordon_gate_ticks_total", Help: "Ticks published on the log.",
		}),
		states: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_gate_quarantine_states_total", Help: "Quarantine states written, by state.",
		}, []string{"state"}),
	}
	connections := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "cordon_gate_connections", Help: "Connections admitted and not gone.",
	}, func() float64 { return float64(g.table.len()) })
	reg.MustRegister(m.admitted, m.refused, m.kicked, m.clones, m.floods, m.callout, m.confirm, m.ticks, m.states, connections)
	for _, reason := range reasons {
		m.refused.WithLabelValues(string(reason))
	}
	return m
}

func (m *metrics) admit(protocol string) {
	m.admitted.WithLabelValues(protocol).Inc()
	m.admittedN.Add(1)
}

func (m *metrics) refuse(reason reason) {
	m.refused.WithLabelValues(string(reason)).Inc()
	m.refusedN.Add(1)
}

func (m *metrics) kick() {
	m.kicked.Inc()
	m.kickedN.Add(1)
}

func (m *metrics) answered(took time.Duration) { m.callout.Observe(took.Seconds()) }

func (m *metrics) admittedTotal() float64 { return float64(m.admittedN.Load()) }
func (m *metrics) refusedTotal() float64  { return float64(m.refusedN.Load()) }
func (m *metrics) kickedTotal() float64   { return float64(m.kickedN.Load()) }
