package api

import (
	"time"

	"cordon/internal/fleet"
)

// Device is a registry entry as the API shows it: everything but secrets.
type Device struct {
	ID                   string            `json:"id"`
	State                fleet.DeviceState `json:"state"`
	Cohort               string            `json:"cohort"`
	Site                 string            `json:"site"`
	Model                string            `json:"model"`
	Firmware             string            `json:"firmware"`
	Owner                string            `json:"owner"`
	Tags                 []string          `json:"tags"`
	TimeZone             string            `json:"time_zone" doc:"IANA name; empty is UTC."`
	Historic             bool              `json:"historic" doc:"Its data may be of any age (replays)."`
	EnrolledAt           time.Time         `json:"enrolled_at"`
	EnrolledBy           string            `json:"enrolled_by"`
	CertificateSerial    string            `json:"certificate_serial,omitempty"`
	CertificateNotBefore time.Time         `json:"certificate_not_before,omitzero"`
	CertificateNotAfter  time.Time         `json:"certificate_not_after,omitzero"`
	TokenExpiresAt       time.Time         `json:"token_expires_at,omitzero" doc:"When the unused enrolment token expires."`
}

func deviceView(d fleet.Device) Device {
	return Device{
		ID: d.ID, State: d.State, Cohort: d.Cohort, Site: d.Site, Model: d.Model, Firmware: d.Firmware, Owner: d.Owner,
		Tags: filled(d.Tags), TimeZone: d.TimeZone, Historic: d.Historic, EnrolledAt: d.EnrolledAt, EnrolledBy: d.EnrolledBy,
		CertificateSerial: d.CertificateSerial, CertificateNotBefore: d.CertificateNotBefore, CertificateNotAfter: d.CertificateNotAfter,
		TokenExpiresAt: d.TokenExpiresAt,
	}
}

// Device statuses: what can be said of a device now.
const (
	StatusReporting = "reporting"
	StatusSilent    = "silent"
	StatusNeverSeen = "never_seen"
	StatusRetired   = "retired"
	StatusHistoric  = "historic"
)

// QuarantineMark is what a list says about an active quarantine.
type QuarantineMark struct {
	Level fleet.Level           `json:"level"`
	State fleet.QuarantineState `json:"state"`
}

// IncidentMark is what a list says about an unresolved incident.
type IncidentMark struct {
	ID       string         `json:"id"`
	Severity fleet.Severity `json:"severity"`
}

// DeviceSummary is a line of the device list.
type DeviceSummary struct {
	Device
	Status       string          `json:"status" enum:"reporting,silent,never_seen,retired,historic"`
	LastSeenAt   time.Time       `json:"last_seen_at,omitzero"`
	Quarantine   *QuarantineMark `json:"quarantine,omitempty" doc:"The active quarantine."`
	OpenIncident *IncidentMark   `json:"open_incident,omitempty" doc:"The worst incident that is not resolved."`
}

// DeviceRule is a rule that applies to a device.
type DeviceRule struct {
	ID       string         `json:"id"`
	Title    string         `json:"title"`
	Kind     string         `json:"kind"`
	Mode     fleet.Mode     `json:"mode"`
	Severity fleet.Severity `json:"severity"`
}

// DeviceDetail is everything about one device. The counts are exact, from
// ClickHouse.
type DeviceDetail struct {
	Device
	Status             string                `json:"status" enum:"reporting,silent,never_seen,retired,historic"`
	LastSeenAt         time.Time             `json:"last_seen_at,omitzero"`
	OpenIncident       *IncidentMark         `json:"open_incident,omitempty"`
	ReadingsStored     uint64                `json:"readings_stored"`
	AuditEventsStored  uint64                `json:"audit_events_stored"`
	DeadLetters        uint64                `json:"dead_letters"`
	Connections        []fleet.Connection    `json:"connections" doc:"Its live connections at the broker."`
	Brokers            []fleet.BrokerProof   `json:"brokers" doc:"What each broker answered when asked for them."`
	ConnectionsUnknown string                `json:"connections_unknown,omitempty" doc:"Why the connections are not known."`
	Quarantine         *fleet.Quarantine     `json:"quarantine,omitempty" doc:"The newest quarantine, also when it was released."`
	Baselines          []fleet.BaselineState `json:"baselines"`
	BaselinesUnknown   string                `json:"baselines_unknown,omitempty" doc:"Why the baselines are not known."`
	Rules              []DeviceRule          `json:"rules" doc:"Rules that are not off."`
}

// MetricLast is the newest value of one metric.
type MetricLast struct {
	Metric string    `json:"metric"`
	Unit   string    `json:"unit" doc:"UCUM-like: Cel, By/s, %, 1."`
	Value  float64   `json:"value"`
	At     time.Time `json:"at"`
	Count  uint64    `json:"count" doc:"Readings stored."`
}

// Series is a metric over time in columns; t is in Unix milliseconds.
type Series struct {
	Metric     string    `json:"metric"`
	Unit       string    `json:"unit"`
	Resolution string    `json:"resolution" doc:"What the points were made from: raw or 1m."`
	T          []int64   `json:"t"`
	Mean       []float64 `json:"mean"`
	Min        []float64 `json:"min"`
	Max        []float64 `json:"max"`
	Expected   *Expected `json:"expected,omitempty" doc:"The band that the baseline expected; absent without a baseline."`
}

// Expected is the expected band over time, in columns.
type Expected struct {
	T             []int64   `json:"t"`
	Low           []float64 `json:"low"`
	High          []float64 `json:"high"`
	Center        []float64 `json:"center"`
	LearningUntil time.Time `json:"learning_until,omitzero" doc:"Before this the baseline was still learning."`
}

// AuditLine is a stored audit event.
type AuditLine struct {
	Device     string            `json:"device"`
	ReceivedAt time.Time         `json:"received_at"`
	StreamSeq  uint64            `json:"stream_seq"`
	At         time.Time         `json:"ts" doc:"The device's clock."`
	Class      string            `json:"class"`
	Activity   string            `json:"activity"`
	Outcome    string            `json:"outcome"`
	Program    string            `json:"program"`
	Actor      string            `json:"actor"`
	User       string            `json:"user"`
	Message    string            `json:"message"`
	Fields     map[string]string `json:"fields,omitempty"`
	Repeat     int               `json:"repeat" doc:"How many equal events this one stands for."`
}

// filled makes a nil slice an empty one, so that JSON has [] and never null.
func filled[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func page[T any](p fleet.Page[T]) fleet.Page[T] {
	p.Items = filled(p.Items)
	return p
}

// incidentView completes an incident for JSON.
func incidentView(i fleet.Incident) fleet.Incident {
	i.Rules, i.FindingIDs, i.Timeline = filled(i.Rules), filled(i.FindingIDs), filled(i.Timeline)
	return i
}

// incidentLine is an incident as a line of a list: without what only its own
// page shows.
func incidentLine(i fleet.Incident) fleet.Incident {
	i.FindingIDs, i.Timeline = nil, nil
	return incidentView(i)
}

func ruleView(r fleet.Rule) fleet.Rule {
	r.FalsePositives = filled(r.FalsePositives)
	return r
}
