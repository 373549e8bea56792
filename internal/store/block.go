package store

import (
	"time"

	"cordon/internal/fleet"
)

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
