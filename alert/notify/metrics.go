package notify

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	routed   *prometheus.CounterVec
	attempts *prometheus.CounterVec
	final    *prometheus.CounterVec
	latency  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		routed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_notify_changes_total", Help: "Incident changes by what became of them: routed, unwanted, malformed, overflow.",
		}, []string{"result"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_notify_attempts_total", Help: "Attempts by receiver and result: delivered, retry, failed.",
		}, []string{"receiver", "result"}),
		final: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_notify_deliveries_total", Help: "Ended deliveries by receiver and state.",
		}, []string{"receiver", "state"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cordon_notify_attempt_seconds", Help: "How long receivers take to answer.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2.5, 9),
		}, []string{"receiver"}),
	}
	if reg != nil {
		reg.MustRegister(m.routed, m.attempts, m.final, m.latency)
	}
	return m
}
