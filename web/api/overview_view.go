package api

import (
	"time"

	"cordon/internal/fleet"
)

// Overview answers in one glance: is the fleet all right, what is wrong, what
// did Cordon do, what is there to do?
type Overview struct {
	At               time.Time           `json:"at"`
	Fleet            FleetHealth         `json:"fleet"`
	Incidents        IncidentHealth      `json:"incidents"`
	Quarantine       QuarantineHealth    `json:"quarantine"`
	Ingest           IngestHealth        `json:"ingest"`
	IncidentsPerHour []IncidentsInHour   `json:"incidents_per_hour" doc:"The last 24 hours; hours without incidents are left out."`
	Cells            []Cell              `json:"cells" doc:"Health by cohort and site, the worst first; at most 500."`
	Changes          []Change            `json:"changes" doc:"What changed lately, newest first; at most 30."`
	Todo             []Todo              `json:"todo" doc:"What a person should do next, the most urgent first; at most 10."`
	Stages           []fleet.StageStatus `json:"stages"`
}

// FleetHealth counts devices. Retired, revoked and historic devices are in
// total only.
type FleetHealth struct {
	Total       int `json:"total"`
	Reporting   int `json:"reporting"`
	Silent      int `json:"silent"`
	Learning    int `json:"learning" doc:"Active for less than a day, so that baselines still learn."`
	Quarantined int `json:"quarantined"`
	NeverSeen   int `json:"never_seen"`
	Historic    int `json:"historic"`
	Retired     int `json:"retired"`
}

// SeverityCounts counts by severity.
type SeverityCounts struct {
	Informational int `json:"informational"`
	Low           int `json:"low"`
	Medium        int `json:"medium"`
	High          int `json:"high"`
	Critical      int `json:"critical"`
}

func (c *SeverityCounts) add(s fleet.Severity) {
	switch s {
	case fleet.Informational:
		c.Informational++
	case fleet.Low:
		c.Low++
	case fleet.Medium:
		c.Medium++
	case fleet.High:
		c.High++
	case fleet.Critical:
		c.Critical++
	}
}

// IncidentHealth counts incidents that are not resolved.
type IncidentHealth struct {
	Open         int            `json:"open" doc:"Open or acknowledged."`
	Acknowledged int            `json:"acknowledged"`
	BySeverity   SeverityCounts `json:"by_severity"`
	Unassigned   int            `json:"unassigned"`
	OldestAt     time.Time      `json:"oldest_at,omitzero" doc:"When the oldest unresolved one opened."`
}

// QuarantineHealth counts active quarantines.
type QuarantineHealth struct {
	Active    int     `json:"active"`
	Confirmed int     `json:"confirmed"`
	Failed    int     `json:"failed"`
	SlowestMS float64 `json:"slowest_ms" doc:"The longest time from decision to proof among the active ones."`
}

// IngestHealth says how the pipe runs.
type IngestHealth struct {
	ReadingsPerSecond float64     `json:"readings_per_second"`
	LagSeconds        float64     `json:"lag_seconds"`
	DeadLetters24h    uint64      `json:"dead_letters_24h"`
	Series            []RatePoint `json:"series" doc:"The last hour, one point a minute."`
}

// RatePoint is how many readings were stored in one step.
type RatePoint struct {
	At       time.Time `json:"at"`
	Readings uint64    `json:"readings"`
}

// IncidentsInHour counts incidents that opened in one hour.
type IncidentsInHour struct {
	Hour     time.Time      `json:"hour"`
	Severity fleet.Severity `json:"severity"`
	Count    uint64         `json:"count"`
}

// Cell is one cohort at one site.
type Cell struct {
	Cohort      string         `json:"cohort"`
	Site        string         `json:"site"`
	Total       int            `json:"total"`
	Silent      int            `json:"silent"`
	Quarantined int            `json:"quarantined"`
	Incidents   int            `json:"incidents"`
	Worst       fleet.Severity `json:"worst,omitempty" doc:"The worst severity of an unresolved incident."`
}

// Change is one thing that happened.
type Change struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
	Link string    `json:"link" doc:"Path in the dashboard."`
}

// Todo is one thing that a person should do.
type Todo struct {
	Text     string         `json:"text"`
	Detail   string         `json:"detail"`
	Link     string         `json:"link" doc:"Path in the dashboard."`
	Severity fleet.Severity `json:"severity"`
}

// System is how Cordon itself is doing.
type System struct {
	Version string              `json:"version"`
	Healthy bool                `json:"healthy"`
	Stages  []fleet.StageStatus `json:"stages"`
	Storage []TableSize         `json:"storage"`
	Advice  []string            `json:"advice" doc:"In words: what is wrong and what to do."`
}

// TableSize is the size of one table on disk.
type TableSize struct {
	Table string `json:"table"`
	Rows  uint64 `json:"rows"`
	Bytes uint64 `json:"bytes"`
}
