package fleet

import "time"

// Reading is one value of one metric.
type Reading struct {
	ObservedAt time.Time // device clock
	Metric     string
	Value      float64 // never NaN or infinite
}

// AuditEvent is one entry of a device's audit log, with OCSF-like names.
// Numbers that do not apply are zero, texts that do not apply are empty.
type AuditEvent struct {
	ObservedAt time.Time         `json:"ts"`
	Class      string            `json:"class"`             // authentication, account, process, file, network, system, integrity
	Activity   string            `json:"activity"`          // logon, logoff, preauth, create, delete, start, stop, change, …
	Outcome    string            `json:"outcome,omitempty"` // success, failure or empty
	Program    string            `json:"program,omitempty"` // sshd, sudo, …
	Actor      string            `json:"actor,omitempty"`   // who acted: an address or host name, else an account
	User       string            `json:"user,omitempty"`    // the account acted on
	Message    string            `json:"message"`           // the original text
	Fields     map[string]string `json:"fields,omitempty"`  // whatever else was said
	Repeat     int               `json:"repeat,omitempty"`  // how many equal events this one stands for; 0 means 1
}

// Count is how many events this one stands for.
func (e AuditEvent) Count() int { return max(e.Repeat, 1) }

// Kind says what a record on the FLEET log holds.
type Kind uint8

// The kinds of record.
const (
	UnknownKind Kind = iota
	TelemetryKind
	AuditKind
	TickKind
	ControlKind
)

// Record is one message of the FLEET log, decoded: what ingest stores and
// what the detector judges. Everything that a detector's answer depends on is
// in here; times of receipt come from the stream.
type Record struct {
	Kind       Kind
	StreamSeq  uint64
	ReceivedAt time.Time // stream timestamp
	Device     string    // empty for ticks and control records

	Boot string // with Seq identifies a message of a device; "" if the device sent none
	Seq  uint64 // 0 if the device sent none

	Readings []Reading    // TelemetryKind
	Audit    []AuditEvent // AuditKind
	Tick     Tick         // TickKind
	Control  Control      // ControlKind
}

// Tick is a clock on the log, so that absence can be judged without a wall
// clock. One elected publisher sends it.
type Tick struct {
	At      time.Time `json:"at"`
	Healthy bool      `json:"healthy"` // the gate accepted connections since the last tick
}

// Control is a change that a detector's answer depends on. Exactly one of its
// pointers is set.
type Control struct {
	Rule       *RuleChange       `json:"rule,omitempty"`
	Device     *DeviceChange     `json:"device,omitempty"`
	Quarantine *QuarantineChange `json:"quarantine,omitempty"`
	Verdict    *VerdictChange    `json:"verdict,omitempty"`
}

// RuleChange sets or (with an empty Source) removes a rule.
type RuleChange struct {
	ID     string `json:"id"`
	Source string `json:"source"` // the rule's YAML
	Mode   Mode   `json:"mode"`   // overrides the mode in Source
	Actor  string `json:"actor"`  // who changed it
	Reason string `json:"reason,omitempty"`
}

// DeviceChange is what the detector must know of a device.
type DeviceChange struct {
	ID       string   `json:"id"`
	Cohort   string   `json:"cohort"`
	Tags     []string `json:"tags,omitempty"`
	TimeZone string   `json:"time_zone,omitempty"`
	Historic bool     `json:"historic,omitempty"`
	Retired  bool     `json:"retired,omitempty"` // revoked or retired: no silence findings
	Erased   bool     `json:"erased,omitempty"`  // whatever is known of it must be forgotten
}

// QuarantineChange says that a device entered or left quarantine: its windows
// do not train baselines and its silence is expected.
type QuarantineChange struct {
	Device string          `json:"device"`
	ID     string          `json:"id,omitempty"` // of the decision
	Active bool            `json:"active"`
	Level  Level           `json:"level"`
	State  QuarantineState `json:"state,omitempty"` // requested, confirmed (what follows of the device is void), released or expired
}

// VerdictChange says what a person concluded about findings of a rule on a device.
type VerdictChange struct {
	Device  string  `json:"device"`
	Rule    string  `json:"rule"`
	Verdict Verdict `json:"verdict"`
}
