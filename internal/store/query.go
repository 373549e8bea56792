package store

import (
	"time"

	"cordon/internal/fleet"
)

// Limits of queries. Larger requests are cut down to them.
const (
	MaxPoints    = 5000 // points of a series
	MaxPage      = 1000 // items of a page
	DefaultPage  = 100  // items of a page when the caller names no number
	MaxMetrics   = 10_000
	MaxRateSteps = 5000
)

// SeriesQuery asks for one metric of one device between two instants of its
// own clock (observed_at), From included, To not.
type SeriesQuery struct {
	Device, Metric string
	From, To       time.Time
	Points         int // 2 to MaxPoints; 0 means 500
}

// Series is a metric over time.
type Series struct {
	Resolution string        `json:"resolution"` // raw: every reading; 1m: from one-minute roll-ups; else the width of a bucket, such as 5m or 10s
	Points     []SeriesPoint `json:"points"`
}

// SeriesPoint sums up the readings from At until the next point.
type SeriesPoint struct {
	At    time.Time `json:"at"`
	Mean  float64   `json:"mean"`
	Min   float64   `json:"min"`
	Max   float64   `json:"max"`
	Count uint64    `json:"count"`
}

// MetricLast is the newest reading of a metric and how many are stored.
type MetricLast struct {
	Metric string    `json:"metric"`
	At     time.Time `json:"at"` // observed_at
	Value  float64   `json:"value"`
	Count  uint64    `json:"count"`
}

// DeviceCounts says what is stored of a device, counted row by row.
type DeviceCounts struct {
	Readings       uint64    `json:"readings_stored"`
	AuditEvents    uint64    `json:"audit_events_stored"`
	DeadLetters    uint64    `json:"dead_letters"`
	LastReceivedAt time.Time `json:"last_received_at,omitzero"`
}

// AuditQuery asks for audit events, newest first. Zero fields do not restrict;
// From and To are about observed_at.
type AuditQuery struct {
	Device   string
	From, To time.Time
	Text     string // a part of the message, the actor or the user, whatever the case
	Before   Cursor
	Limit    int
}

// FindingQuery asks for findings, newest first. Zero fields do not restrict;
// From and To are about the findings' windows (event time): what overlaps
// [From, To) is returned.
type FindingQuery struct {
	Device, Rule string
	IDs          []string // at most 1,000
	From, To     time.Time
	Before       Cursor
	Limit        int
}

// DeadLetterQuery asks for dead letters, newest first. Zero fields do not
// restrict; From and To are about received_at.
type DeadLetterQuery struct {
	Device   string
	Reason   string
	From, To time.Time
	Before   Cursor
	Limit    int
}

// HourCount counts the incidents of one severity opened within an hour.
type HourCount struct {
	Hour     time.Time      `json:"hour"`
	Severity fleet.Severity `json:"severity"`
	Count    uint64         `json:"count"`
}

// RatePoint counts what was stored of the messages received from At until the
// next point.
type RatePoint struct {
	At       time.Time `json:"at"`
	Readings uint64    `json:"readings"`
	Messages uint64    `json:"messages"`
}

// ScanQuery asks for stored records in stream order.
type ScanQuery struct {
	Device   string    // empty: every device
	Metric   string    // empty: every metric, and audit events too
	From, To time.Time // observed_at; zero: unbounded
}

// TableSize is the size of a table.
type TableSize struct {
	Table string `json:"table"`
	Rows  uint64 `json:"rows"`
	Bytes uint64 `json:"bytes"` // on disk, compressed
}
