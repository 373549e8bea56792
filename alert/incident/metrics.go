package incident

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	findings *prometheus.CounterVec
	changes  *prometheus.CounterVec
	opened   *prometheus.CounterVec
	flood    prometheus.Counter
	retries  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_incident_findings_total", Help: "Findings by result: opened, attached, known, late, ignored, malformed.",
		}, []string{"result"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_incident_changes_total", Help: "Published incident changes by kind.",
		}, []string{"change"}),
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_incident_opened_total", Help: "Opened incidents by severity.",
		}, []string{"severity"}),
		flood: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cordon_incident_flood_opened_total", Help: "Incidents opened while more than the configured number a minute opened.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cordon_incident_retries_total", Help: "Batches tried again because the broker did not take them.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.findings, m.changes, m.opened, m.flood, m.retries)
	}
	return m
}
