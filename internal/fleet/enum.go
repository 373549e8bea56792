package fleet

import (
	"fmt"
	"strings"
)

// Severity says how bad something is, in the order of OCSF. The zero value is
// unknown.
type Severity string

// The severities, mildest first.
const (
	Informational Severity = "informational"
	Low           Severity = "low"
	Medium        Severity = "medium"
	High          Severity = "high"
	Critical      Severity = "critical"
)

// Severities lists every severity, mildest first.
var Severities = []Severity{Informational, Low, Medium, High, Critical}

// Rank is 1 for informational to 5 for critical and 0 for an unknown severity.
func (s Severity) Rank() int {
	for i, known := range Severities {
		if s == known {
			return i + 1
		}
	}
	return 0
}

// Worse returns the worse of two severities.
func (s Severity) Worse(other Severity) Severity {
	if other.Rank() > s.Rank() {
		return other
	}
	return s
}

// Mode says what a rule may do. Each mode includes the ones before it.
type Mode string

// The modes: off → shadow (findings only) → alert (incidents and
// notifications) → armed (may quarantine).
const (
	Off    Mode = "off"
	Shadow Mode = "shadow"
	Alert  Mode = "alert"
	Armed  Mode = "armed"
)

// Modes lists every mode, weakest first.
var Modes = []Mode{Off, Shadow, Alert, Armed}

// Evidence says whose behaviour a rule judges. Only evidence of the device's
// own compromise may quarantine it: otherwise anybody on the Internet could
// switch the fleet off by failing to log in.
type Evidence string

// The two kinds of evidence.
const (
	Own     Evidence = "own"
	Outside Evidence = "outside"
)

// Level is how tightly a device is quarantined.
type Level string

// The levels: observe only marks; restrict leaves fleet.quarantine.<device>;
// isolate allows no connection.
const (
	Observe  Level = "observe"
	Restrict Level = "restrict"
	Isolate  Level = "isolate"
)

// Levels lists every level, mildest first.
var Levels = []Level{Observe, Restrict, Isolate}

// QuarantineState is where a quarantine stands.
type QuarantineState string

// The states: requested → applied → confirmed → released | expired. Failed
// keeps denying.
const (
	Requested QuarantineState = "requested"
	Applied   QuarantineState = "applied"
	Confirmed QuarantineState = "confirmed"
	Released  QuarantineState = "released"
	Expired   QuarantineState = "expired"
	Failed    QuarantineState = "failed"
)

// IncidentState is where an incident stands.
type IncidentState string

// The states of an incident.
const (
	Open         IncidentState = "open"
	Acknowledged IncidentState = "acknowledged"
	Resolved     IncidentState = "resolved"
)

// Verdict is what a person concluded about an incident.
type Verdict string

// The verdicts.
const (
	TruePositive  Verdict = "true_positive"
	Benign        Verdict = "benign"
	FalsePositive Verdict = "false_positive"
	Undetermined  Verdict = "unknown"
)

// Verdicts lists every verdict.
var Verdicts = []Verdict{TruePositive, Benign, FalsePositive, Undetermined}

// Parse finds value among the allowed ones; the error lists them.
func Parse[T ~string](what string, value string, allowed []T) (T, error) {
	names := make([]string, len(allowed))
	for i, a := range allowed {
		if string(a) == value {
			return a, nil
		}
		names[i] = string(a)
	}
	return "", fmt.Errorf("%s %q is not one of %s", what, value, strings.Join(names, ", "))
}
