package fleet

import "time"

// Approval is what a guard made of automatic quarantines that it did not
// allow: one request to an operator for all devices that one rule wanted held
// and one guard stopped. An entry of bucket "guard" (key approval.<id>).
type Approval struct {
	ID        string           `json:"id"` // <rule>.<number>
	Rule      string           `json:"rule"`
	Level     Level            `json:"level"`
	Guard     string           `json:"guard"`  // that stopped it
	Detail    string           `json:"detail"` // one sentence
	State     ApprovalState    `json:"state"`
	Devices   []ApprovalDevice `json:"devices"` // the first ones, at most 500
	More      int              `json:"more"`    // about so many further devices
	CreatedAt time.Time        `json:"created_at"`
	UpdatedAt time.Time        `json:"updated_at"`
	ExpiresAt time.Time        `json:"expires_at"`
	DecidedAt time.Time        `json:"decided_at,omitzero"`
	DecidedBy string           `json:"decided_by,omitempty"`
	Reason    string           `json:"reason,omitempty"` // of the decision
}

// ApprovalDevice is one device of an approval request.
type ApprovalDevice struct {
	Device     string    `json:"device"`
	Finding    string    `json:"finding"`
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"`
	Quarantine string    `json:"quarantine,omitempty"` // the decision, once approved
	Error      string    `json:"error,omitempty"`      // why approving it changed nothing
}

// ApprovalState is where an approval request stands.
type ApprovalState string

// The states of an approval request.
const (
	ApprovalPending  ApprovalState = "pending"
	ApprovalApproved ApprovalState = "approved"
	ApprovalRejected ApprovalState = "rejected"
	ApprovalExpired  ApprovalState = "expired"
)

// Breaker is a circuit breaker: once a cap stopped an automatic quarantine,
// every further one of its scope becomes an approval request until an operator
// resumes it. An entry of bucket "guard".
type Breaker struct {
	Scope     string    `json:"scope"` // fleet, rule:<id> or cohort:<name>
	Open      bool      `json:"open"`
	Guard     string    `json:"guard"`  // the cap that opened it
	Detail    string    `json:"detail"` // one sentence
	Rule      string    `json:"rule"`   // whose action opened it
	OpenedAt  time.Time `json:"opened_at"`
	Alarmed   bool      `json:"alarmed"` // the finding about the fleet is published
	ResumedAt time.Time `json:"resumed_at,omitzero"`
	ResumedBy string    `json:"resumed_by,omitempty"`
	Reason    string    `json:"reason,omitempty"` // of the resumption
}

// GuardCap is a cap on automatic quarantines and how much of it is used.
type GuardCap struct {
	Scope    string  `json:"scope"` // fleet, rule:<id> or cohort:<name>
	Used     int     `json:"used"`  // devices within the window
	Limit    int     `json:"limit"`
	Reserved int     `json:"reserved"` // of the limit, for critical findings only
	Share    float64 `json:"share"`    // of the devices in scope, when that is more than the count
}

// Guards is the state of all guards of automatic quarantines.
type Guards struct {
	Window      time.Duration `json:"window_ns"`
	Caps        []GuardCap    `json:"caps"`     // the fleet's, and those in use
	Breakers    []Breaker     `json:"breakers"` // open ones first
	Pending     int           `json:"pending_approvals"`
	Protected   []string      `json:"protected"` // devices and tag:<tag>
	FirstHold   time.Duration `json:"first_hold_ns"`
	HoldFactor  float64       `json:"hold_factor"`
	MaxHold     time.Duration `json:"max_hold_ns"`
	ResetAfter  time.Duration `json:"reset_after_ns"`
	StoppedLast []Stopped     `json:"stopped"` // newest first
}

// Stopped is a decision that a guard did not allow. It travels on
// cordon.quarantine.<device>.
type Stopped struct {
	Device   string    `json:"device"`
	Stopped  string    `json:"stopped"` // the guard
	Detail   string    `json:"detail"`  // one sentence
	Rule     string    `json:"rule"`
	Level    Level     `json:"level,omitempty"`
	Finding  string    `json:"finding"`
	Approval string    `json:"approval,omitempty"` // the request that it became
	At       time.Time `json:"at"`
}

// GuardAnswer is what one guard says about one action.
type GuardAnswer struct {
	Guard  string `json:"guard"`
	Pass   bool   `json:"pass"`
	Detail string `json:"detail,omitempty"` // one sentence, when it does not pass
}

// Planned is what an action would do to one device.
type Planned struct {
	Device  string        `json:"device"`
	Outcome string        `json:"outcome"` // quarantine, already (held as tightly), approval, stopped
	Current Level         `json:"current,omitempty"`
	Until   time.Time     `json:"until,omitzero"`
	Guards  []GuardAnswer `json:"guards"`
}

// Plan is a dry run: nothing was changed.
type Plan struct {
	Level      Level     `json:"level"`
	Rule       string    `json:"rule,omitempty"` // empty: an operator's action
	Quarantine int       `json:"quarantine"`     // devices that would be held
	Already    int       `json:"already"`
	Approval   int       `json:"approval"`
	Stopped    int       `json:"stopped"`
	Breaker    string    `json:"breaker,omitempty"` // scope that would open
	Devices    []Planned `json:"devices"`
}

// PlanRequest asks what an action would do. With a rule it is judged as the
// rule's finding would be, by every guard and in this order; without one as an
// operator's.
type PlanRequest struct {
	Devices  []string
	Level    Level
	Rule     string
	Severity Severity
}

// Block is an address for firewalls to block: an outside actor that findings
// named, or where a quarantined device last spoke from.
type Block struct {
	Address string    `json:"address"`
	Why     string    `json:"why"` // a rule id, or quarantine
	Device  string    `json:"device"`
	Devices int       `json:"devices"` // that the actor was found at, about
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"`
	Until   time.Time `json:"until,omitzero"`
}
