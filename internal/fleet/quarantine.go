package fleet

import "time"

// Quarantine is the decision about one device and its proof: an entry of the
// key-value bucket "quarantine" (key = device). A release is written as a
// state, never as a deletion.
type Quarantine struct {
	ID          string          `json:"id"` // <device>.<decision number>
	Device      string          `json:"device"`
	Level       Level           `json:"level"`
	State       QuarantineState `json:"state"`
	Reason      string          `json:"reason"`
	Actor       string          `json:"actor"` // operator name or rule:<id>
	Rule        string          `json:"rule,omitempty"`
	Incident    string          `json:"incident,omitempty"`
	Finding     string          `json:"finding,omitempty"`     // that made a rule decide
	Until       time.Time       `json:"until,omitzero"`        // zero: until released
	Offence     int             `json:"offence,omitempty"`     // how many automatic quarantines in a row, this one included
	Probation   bool            `json:"probation,omitempty"`   // on its way to freedom: restricted until then
	Follows     string          `json:"follows,omitempty"`     // the decision that this one replaced while in force
	ExtendedBy  string          `json:"extended_by,omitempty"` // who changed until last
	ExtendedAt  time.Time       `json:"extended_at,omitzero"`
	RequestedAt time.Time       `json:"requested_at"`
	AppliedAt   time.Time       `json:"applied_at,omitzero"`
	ConfirmedAt time.Time       `json:"confirmed_at,omitzero"`
	ReleasedAt  time.Time       `json:"released_at,omitzero"`
	ReleasedBy  string          `json:"released_by,omitempty"`
	ReleaseNote string          `json:"release_note,omitempty"` // why it was released
	Failure     string          `json:"failure,omitempty"`      // why it is not confirmed
	Proof       Proof           `json:"proof"`
}

// Active says whether the device is held back now.
func (q Quarantine) Active() bool {
	switch q.State {
	case Requested, Applied, Confirmed, Failed:
		return true
	}
	return false
}

// Proof is what the brokers answered.
type Proof struct {
	Brokers []BrokerProof `json:"brokers,omitempty"` // every expected broker
	Kicked  []Connection  `json:"kicked,omitempty"`  // connections that were cut
	Refused uint64        `json:"refused"`           // connects refused since
	Steps   []Step        `json:"steps,omitempty"`   // how long each step took, in order
}

// Step is one step on the way to confirmed.
type Step struct {
	Name   string  `json:"name"` // noticed, cut, settled, proven, fenced
	TookMS float64 `json:"took_ms"`
}

// BrokerProof is the answer of one broker.
type BrokerProof struct {
	ServerID    string    `json:"server_id"`
	ServerName  string    `json:"server_name"`
	Answered    bool      `json:"answered"`
	Connections int       `json:"connections"` // of the device that may still speak
	At          time.Time `json:"at,omitzero"`
}

// Connection is one connection of a device to a broker.
type Connection struct {
	ServerID  string    `json:"server_id"`
	CID       uint64    `json:"cid"`
	Protocol  string    `json:"protocol"` // nats, mqtt, websocket
	Address   string    `json:"address"`
	StartedAt time.Time `json:"started_at"`
}

// Delivery is one notification to one receiver: an entry of the delivery log.
type Delivery struct {
	ID        string    `json:"id"` // <incident change id>.<receiver>
	Receiver  string    `json:"receiver"`
	Kind      string    `json:"kind"` // webhook, slack, …
	Incident  string    `json:"incident"`
	Change    string    `json:"change"`
	State     string    `json:"state"` // pending, delivered, failed, suppressed
	Attempts  int       `json:"attempts"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Status    int       `json:"status,omitempty"` // last HTTP status
	Error     string    `json:"error,omitempty"`  // last error, without secrets
	LatencyMS float64   `json:"latency_ms"`       // of the last attempt
	NextAt    time.Time `json:"next_at,omitzero"` // of the next attempt, while pending

	Route    string `json:"route,omitempty"`     // the route that chose the receiver
	Why      string `json:"why,omitempty"`       // why it was chosen, or what keeps it back
	HeldBy   string `json:"held_by,omitempty"`   // the silence or incident that keeps it back, while suppressed
	Batch    string `json:"batch,omitempty"`     // the message that carried it together with others
	Replays  int    `json:"replays,omitempty"`   // how often it was tried again by hand
	Request  string `json:"request,omitempty"`   // what was sent last, without secrets, at most 4 KiB
	Answer   string `json:"answer,omitempty"`    // what came back, without secrets, at most 1 KiB
	ActionBy string `json:"action_by,omitempty"` // who tested or replayed it
}

// Silence keeps notifications back while it lasts. It is an entry of the
// key-value bucket "silence" (key = ID).
type Silence struct {
	ID          string    `json:"id" yaml:"id,omitempty"`
	Maintenance bool      `json:"maintenance,omitempty" yaml:"maintenance,omitempty"` // planned work on what it matches
	Match       Match     `json:"match" yaml:"match"`
	StartsAt    time.Time `json:"starts_at,omitzero" yaml:"starts_at,omitempty"` // zero: at once
	EndsAt      time.Time `json:"ends_at" yaml:"ends_at"`
	Owner       string    `json:"owner" yaml:"owner"`
	Reason      string    `json:"reason" yaml:"reason"`
	CreatedAt   time.Time `json:"created_at,omitzero" yaml:"-"`
	EndedBy     string    `json:"ended_by,omitempty" yaml:"-"` // who ended it before its time
}

// ActiveAt says whether the silence is in force.
func (s Silence) ActiveAt(now time.Time) bool {
	return !now.Before(s.StartsAt) && now.Before(s.EndsAt)
}

// Match selects incidents: every list that is not empty must hold the
// incident's value, or one of its values.
type Match struct {
	Severities []Severity `json:"severities,omitempty" yaml:"severities,omitempty"`
	Cohorts    []string   `json:"cohorts,omitempty" yaml:"cohorts,omitempty"`
	Sites      []string   `json:"sites,omitempty" yaml:"sites,omitempty"`
	Tags       []string   `json:"tags,omitempty" yaml:"tags,omitempty"`
	Rules      []string   `json:"rules,omitempty" yaml:"rules,omitempty"`
	Devices    []string   `json:"devices,omitempty" yaml:"devices,omitempty"`
	Scopes     []string   `json:"scopes,omitempty" yaml:"scopes,omitempty"`
}

// DeadLetter is a message that could not be accepted.
type DeadLetter struct {
	StreamSeq  uint64    `json:"stream_seq"`
	Device     string    `json:"device"`
	Subject    string    `json:"subject"`
	ReceivedAt time.Time `json:"received_at"`
	Reason     string    `json:"reason"` // a code: malformed, oversized, mistyped, not_finite, too_old, too_new, too_many, rejected, quarantined
	Detail     string    `json:"detail"` // one sentence: what and where
	Raw        []byte    `json:"raw"`
}
