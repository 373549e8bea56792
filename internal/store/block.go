package store

import (
	"time"

	"cordon/internal/fleet"
)

// TelemetryBlock is a block of readings in columns, one element per reading.
// Fill it with Append; a caller that fills columns directly keeps them equally
// long.
type TelemetryBlock struct {
	Device     []string
	Metric     []string
	ObservedAt []int64 // milliseconds since 1970
	ReceivedAt []int64
	Value      []float64
	Boot       []string
	Seq        []uint64
	StreamSeq  []uint64
	N          []uint32 // position of the reading in its message, from 0
}

// Append adds the readings of one telemetry record.
func (b *TelemetryBlock) Append(r fleet.Record) {
	received := r.ReceivedAt.UnixMilli()
	for i := range r.Readings {
		reading := &r.Readings[i]
		b.Device = append(b.Device, r.Device)
		b.Metric = append(b.Metric, reading.Metric)
		b.ObservedAt = append(b.ObservedAt, reading.ObservedAt.UnixMilli())
		b.ReceivedAt = append(b.ReceivedAt, received)
		b.Value = append(b.Value, reading.Value)
		b.Boot = append(b.Boot, r.Boot)
		b.Seq = append(b.Seq, r.Seq)
		b.StreamSeq = append(b.StreamSeq, r.StreamSeq)
		b.N = append(b.N, uint32(i))
	}
}

// Len is the number of rows.
func (b *TelemetryBlock) Len() int { return len(b.StreamSeq) }

// Reset empties the block and keeps its memory.
func (b *TelemetryBlock) Reset() {
	b.Device, b.Metric, b.Boot = b.Device[:0], b.Metric[:0], b.Boot[:0]
	b.ObservedAt, b.ReceivedAt, b.Value = b.ObservedAt[:0], b.ReceivedAt[:0], b.Value[:0]
	b.Seq, b.StreamSeq, b.N = b.Seq[:0], b.StreamSeq[:0], b.N[:0]
}

// AuditRow is one audit event as it is stored.
type AuditRow struct {
	Device     string    `json:"device"`
	ReceivedAt time.Time `json:"received_at"`
	StreamSeq  uint64    `json:"stream_seq"`
	N          uint32    `json:"n"` // position of the event in its message, from 0
	Boot       string    `json:"-"`
	Seq        uint64    `json:"-"`
	fleet.AuditEvent
}

// AuditBlock is a block of audit events.
type AuditBlock struct {
	Rows []AuditRow
}

// Append adds the events of one audit record.
func (b *AuditBlock) Append(r fleet.Record) {
	for i := range r.Audit {
		b.Rows = append(b.Rows, AuditRow{
			Device: r.Device, ReceivedAt: r.ReceivedAt, StreamSeq: r.StreamSeq, N: uint32(i),
			Boot: r.Boot, Seq: r.Seq, AuditEvent: r.Audit[i],
		})
	}
}

// Len is the number of rows.
func (b *AuditBlock) Len() int { return len(b.Rows) }

// Reset empties the block and keeps its memory.
func (b *AuditBlock) Reset() {
	clear(b.Rows)
	b.Rows = b.Rows[:0]
}

// DeadLetterBlock is a block of messages that could not be accepted.
type DeadLetterBlock struct {
	Rows []fleet.DeadLetter
}

// Append adds one dead letter.
func (b *DeadLetterBlock) Append(d fleet.DeadLetter) { b.Rows = append(b.Rows, d) }

// Len is the number of rows.
func (b *DeadLetterBlock) Len() int { return len(b.Rows) }

// Reset empties the block and keeps its memory.
func (b *DeadLetterBlock) Reset() {
	clear(b.Rows)
	b.Rows = b.Rows[:0]
}

// History says which history table an entry belongs to.
type History string

// The histories and the JSON that their entries hold.
const (
	HistoryFinding    History = "finding"    // fleet.Finding, from stream FINDINGS
	HistoryIncident   History = "incident"   // fleet.Incident, from bucket incident
	HistoryQuarantine History = "quarantine" // fleet.Quarantine, from bucket quarantine
	HistoryDevice     History = "device"     // fleet.Device, from bucket device; the token hash is left out
	HistoryRule       History = "rule"       // fleet.RuleChange, from bucket rule
	HistoryDelivery   History = "delivery"   // fleet.Delivery, from bucket delivery
)

// HistoryRow is one revision of an entry, as it came from its bucket or stream.
type HistoryRow struct {
	Key      string    // key in the bucket; for findings the device or empty
	Revision uint64    // stream sequence: later revisions win
	At       time.Time // stream timestamp
	Deleted  bool      // the key was deleted or purged; JSON is empty
	JSON     []byte
}
