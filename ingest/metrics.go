package ingest

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	received      *prometheus.CounterVec
	decoded       *prometheus.CounterVec
	readings      prometheus.Counter // of decoded
	events        prometheus.Counter
	stored        *prometheus.CounterVec
	dead          *prometheus.CounterVec
	duplicates    prometheus.Counter
	receipts      prometheus.Counter
	redone        prometheus.Counter
	retries       *prometheus.CounterVec
	lag           *prometheus.GaugeVec
	blockRows     prometheus.Histogram
	insertSeconds *prometheus.HistogramVec
	trimmed       prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "cordon_ingest_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cordon_ingest_" + name, Help: help}, labels)
	}
	m := &metrics{
		received:   counters("messages_received_total", "Messages read from a stream.", "stream"),
		decoded:    counters("records_decoded_total", "Readings and audit events decoded, copies left out.", "kind"),
		stored:     counters("rows_stored_total", "Rows that ClickHouse took; a block that is repeated counts again.", "table"),
		dead:       counters("dead_letters_total", "Messages that could not be accepted.", "reason"),
		duplicates: counter("duplicate_messages_dropped_total", "Resent messages that were dropped."),
		receipts:   counter("receipts_sent_total", "Receipts sent to MQTT devices."),
		redone:     counter("blocks_redone_total", "Blocks stored again after a restart."),
		retries:    counters("retries_total", "Inserts and position writes that had to be repeated.", "stream"),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cordon_ingest_lag_messages", Help: "Messages in a stream that are not stored yet.",
		}, []string{"stream"}),
		blockRows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cordon_ingest_block_rows", Help: "Rows of a stored block.", Buckets: prometheus.ExponentialBuckets(1, 8, 7),
		}),
		insertSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cordon_ingest_insert_seconds", Help: "Time of one insert.", Buckets: prometheus.ExponentialBuckets(0.002, 2.5, 9),
		}, []string{"table"}),
		trimmed: counter("stream_trims_total", "Times that FLEET was trimmed."),
	}
	m.readings, m.events = m.decoded.WithLabelValues("reading"), m.decoded.WithLabelValues("event")
	if registry != nil {
		registry.MustRegister(m.received, m.decoded, m.stored, m.dead, m.duplicates, m.receipts, m.redone, m.retries,
			m.lag, m.blockRows, m.insertSeconds, m.trimmed)
	}
	return m
}
