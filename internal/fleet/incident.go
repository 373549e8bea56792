package fleet

import (
	"fmt"
	"math"
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

	// Scope says what the findings have in common: ScopeDevice (also when
	// empty), ScopeCampaign or ScopeCause. Device is then the first of Devices.
	Scope       string   `json:"scope,omitempty"`
	Group       string   `json:"group,omitempty"`        // what campaign or cause it is, e.g. actor:203.0.113.7
	Cause       string   `json:"cause,omitempty"`        // the same in words
	Devices     []string `json:"devices,omitempty"`      // of a campaign or cause, at most 1,000
	DeviceCount int      `json:"device_count,omitempty"` // all of them
	Site        string   `json:"site,omitempty"`
	Parent      string   `json:"parent,omitempty"`   // the incident that this one became part of
	Children    []string `json:"children,omitempty"` // the incidents that became part of this one

	Risk     float64   `json:"risk,omitempty"` // what the findings add up to, as of RiskAt; it halves every RiskHalfLife
	RiskAt   time.Time `json:"risk_at,omitzero"`
	Flapping bool      `json:"flapping,omitempty"` // its findings come and go
	Reopened int       `json:"reopened,omitempty"` // how often
	Tags     []string  `json:"tags,omitempty"`
	Ticket   string    `json:"ticket,omitempty"` // address of a ticket elsewhere

	Timeline []TimelineEntry `json:"timeline"` // oldest first, at most 200
	// AppliedSeq is the FINDINGS stream sequence of the last finding applied:
	// a redelivered finding changes nothing.
	AppliedSeq uint64 `json:"applied_seq"`
}

// Scopes of an incident.
const (
	ScopeDevice   = "device"   // findings of one device
	ScopeCampaign = "campaign" // one actor or technique on many devices
	ScopeCause    = "cause"    // one thing that many devices have in common
)

// RiskHalfLife is how fast risk fades.
const RiskHalfLife = 6 * time.Hour

// RiskNow is what is left of the risk at now.
func (i Incident) RiskNow(now time.Time) float64 {
	if age := now.Sub(i.RiskAt); age > 0 && i.Risk > 0 {
		return i.Risk * math.Exp2(-age.Hours()/RiskHalfLife.Hours())
	}
	return i.Risk
}

// On is where an incident is, in words.
func (i Incident) On() string {
	if i.Scope == "" || i.Scope == ScopeDevice || i.DeviceCount < 2 {
		return i.Device
	}
	return fmt.Sprintf("%d devices", i.DeviceCount)
}

// SystemDevice is the device that findings about Cordon itself name. It can't
// be enrolled.
const SystemDevice = "cordon"

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
	Change   string   `json:"change"` // opened, escalated, finding, acknowledged, assigned, comment, quarantined, released, resolved, reopened, merged, flapping, tagged
	Incident Incident `json:"incident"`
	Finding  *Finding `json:"finding,omitempty"` // the finding behind opened, escalated and finding
	Actor    string   `json:"actor"`
}
