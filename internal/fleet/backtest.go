package fleet

import "time"

// BacktestRequest asks what a rule would have done over stored history.
type BacktestRequest struct {
	ID     string    `json:"id,omitempty"`     // a rule in force; with Source, the one that it is compared with
	Source string    `json:"source,omitempty"` // the rule to try; empty: the one in force
	Device string    `json:"device,omitempty"` // restricts the trial to one device
	From   time.Time `json:"from,omitzero"`    // zero: a day before To
	To     time.Time `json:"to,omitzero"`      // zero: now
}

// BacktestReport is what a rule would have done between two times.
type BacktestReport struct {
	Rule        string    `json:"rule"`
	Title       string    `json:"title"`
	Version     string    `json:"version"`
	LiveVersion string    `json:"live_version,omitempty"` // of the rule in force that it is compared with
	From        time.Time `json:"from"`
	To          time.Time `json:"to"`
	Taught      time.Time `json:"taught_from"` // history from here on was read, so that baselines had learned
	Records     uint64    `json:"records"`
	Readings    uint64    `json:"readings"`
	Events      uint64    `json:"audit_events"`
	Ticks       uint64    `json:"ticks"`     // reconstructed, see Notes
	Truncated   bool      `json:"truncated"` // limits ended the trial at To
	Seconds     float64   `json:"seconds"`

	Raised      int                  `json:"raised"`
	Cleared     int                  `json:"cleared"`
	Findings    []Finding            `json:"findings"` // the first 200
	Incidents   []BacktestIncident   `json:"incidents"`
	Quarantines []BacktestQuarantine `json:"quarantines"` // were the rule armed
	Difference  BacktestDifference   `json:"difference"`
	Notes       []string             `json:"notes"` // what a trial cannot know
}

// BacktestIncident is findings about one device that a person would have got
// as one incident.
type BacktestIncident struct {
	Device   string    `json:"device"`
	Severity Severity  `json:"severity"`
	OpenedAt time.Time `json:"opened_at"`
	LastAt   time.Time `json:"last_at"`
	Findings int       `json:"findings"`
	Sentence string    `json:"sentence"` // of the first finding
}

// BacktestQuarantine is a decision that an armed rule would have asked for.
type BacktestQuarantine struct {
	Device  string    `json:"device"`
	Level   Level     `json:"level"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Seconds float64   `json:"seconds"`
}

// BacktestDifference compares with the rule in force over the same history.
type BacktestDifference struct {
	Same    int       `json:"same"`
	Added   int       `json:"added"`   // only the rule tried raises them
	Removed int       `json:"removed"` // only the rule in force does
	Gained  []Finding `json:"gained"`  // the first 50 of those added
	Lost    []Finding `json:"lost"`    // the first 50 of those removed
}
