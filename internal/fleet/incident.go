package fleet

import (
	"fmt"
	"time"
)

// Incident groups findings that a person handles together. It is an entry of
// the key-value bucket "incident" (key = ID).
type Incident struct {
	ID         string        `json:"id"` // INC-<number>
	Number     uint64        `json:"number"`
	Device     string        `json:"device"`
	Cohort     string        `json:"cohort,omitempty"`
	Severity   Severity      `json:"severity"`
	State      IncidentState `json:"state"`
	Title      string        `json:"title"` // the sentence of its worst finding
	Rules      []string      `json:"rules"`
	Techniques []string      `json:"techniques,omitempty"`
	Actors     []string      `json:"actors,omitempty"` // at most 100
	Findings   uint64        `json:"findings"`         // how many were attached
	FindingIDs []string      `json:"finding_ids"`      // the newest, at most 200
	FirstAt    time.Time     `json:"first_at"`         // earliest window start, event time
	LastAt     time.Time     `json:"last_at"`          // latest window end, event time
	OpenedAt   time.Time     `json:"opened_at"`        // received_at of the finding that opened it
	UpdatedAt  time.Time     `json:"updated_at"`
	Assignee   string        `json:"assignee,omitempty"`

	AcknowledgedAt time.Time `json:"acknowledged_at,omitzero"`
	AcknowledgedBy string    `json:"acknowledged_by,omitempty"`
	ResolvedAt     time.Time `json:"resolved_at,omitzero"`
	ResolvedBy     string    `json:"resolved_by,omitempty"`
	Verdict        Verdict   `json:"verdict,omitempty"`
	Reason         string    `json:"reason,omitempty"`

	Timeline []TimelineEntry `json:"timeline"` // oldest first, at most 200
	// AppliedSeq is the FINDINGS stream sequence of the last finding applied:
	// a redelivered finding changes nothing.
	AppliedSeq uint64 `json:"applied_seq"`
}

// IncidentID formats an incident's number.
func IncidentID(number uint64) string { return fmt.Sprintf("INC-%d", number) }

// TimelineEntry is one thing that happened to an incident.
type TimelineEntry struct {
	At    time.Time `json:"at"`
	Kind  string    `json:"kind"`  // opened, finding, severity, acknowledged, assigned, comment, quarantine, released, resolved, notified
	Actor string    `json:"actor"` // operator name, rule:<id> or cordon
	Text  string    `json:"text"`
}

// IncidentChange travels on cordon.incident.<id>, once per change.
type IncidentChange struct {
	ID       string   `json:"id"`     // <incident>.<revision>
	Change   string   `json:"change"` // opened, escalated, finding, acknowledged, assigned, comment, quarantined, released, resolved
	Incident Incident `json:"incident"`
	Finding  *Finding `json:"finding,omitempty"` // the finding behind opened, escalated and finding
	Actor    string   `json:"actor"`
}
