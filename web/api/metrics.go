package api

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what the web stage does.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  prometheus.Gauge
	dropped  prometheus.Counter
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_web_requests_total", Help: "Requests by route, method and status.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cordon_web_request_seconds", Help: "Time to answer, by route.", Buckets: prometheus.DefBuckets,
		}, []string{"route"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "cordon_web_streams", Help: "Open event streams."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cordon_web_events_dropped_total", Help: "Times that a slow event stream was told to reload.",
		}),
	}
	if registry != nil {
		registry.MustRegister(m.requests, m.seconds, m.streams, m.dropped)
	}
	return m
}

func (m *metrics) request(route, method string, status int, took time.Duration) {
	if route == "" {
		route = "dashboard"
	}
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE":
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	if route != Prefix+"/events" {
		m.seconds.WithLabelValues(route).Observe(took.Seconds())
	}
}
