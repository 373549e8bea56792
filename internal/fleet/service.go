package fleet

import "time"

// QuarantineRequest asks for a quarantine of one device.
type QuarantineRequest struct {
	Device   string
	Level    Level
	Reason   string
	Actor    string // operator name or rule:<id>
	Rule     string
	Incident string
	Finding  string
	Until    time.Time // zero: until released
	Lower    bool      // a lower level than the one in force is meant
	Offence  int       // automatic only
}

// Rule is a rule as the catalogue shows it.
type Rule struct {
	ID             string    `json:"id"`
	Title          string    `json:"title"`
	Description    string    `json:"description"`
	Version        string    `json:"version"`
	Kind           string    `json:"kind"` // threshold, baseline, count, absence
	Mode           Mode      `json:"mode"`
	Evidence       Evidence  `json:"evidence"`
	Severity       Severity  `json:"severity"`
	Technique      string    `json:"technique,omitempty"`
	Level          Level     `json:"level,omitempty"`
	Runbook        string    `json:"runbook"`
	FalsePositives []string  `json:"false_positives"`
	Source         string    `json:"source"` // its YAML
	ChangedBy      string    `json:"changed_by,omitempty"`
	ChangedAt      time.Time `json:"changed_at,omitzero"`
	Reason         string    `json:"reason,omitempty"`
}

// BaselineState says how far the expectation of one metric of one device has
// been learned.
type BaselineState struct {
	Metric  string    `json:"metric"`
	State   string    `json:"state"`  // learning, ready
	Detail  string    `json:"detail"` // in words: what is known, what is still missing
	Samples uint64    `json:"samples"`
	Needed  uint64    `json:"needed"`
	Since   time.Time `json:"since,omitzero"`
	Low     float64   `json:"low"` // expected now
	High    float64   `json:"high"`
}

// StageStatus is what a stage says about itself.
type StageStatus struct {
	Stage      string             `json:"stage"` // gate, stream, ingest, detect, incident, notify, quarantine, engine, web
	Healthy    bool               `json:"healthy"`
	Detail     string             `json:"detail"` // one sentence; when unhealthy, what to do
	Lag        uint64             `json:"lag"`    // messages not yet handled
	LagSeconds float64            `json:"lag_seconds"`
	PerSecond  float64            `json:"per_second"` // handled, over the last ten seconds
	Counters   map[string]float64 `json:"counters,omitempty"`
}

// Page is one page of a list.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next"` // cursor of the next page; empty at the end
	Total uint64 `json:"total"`
}
