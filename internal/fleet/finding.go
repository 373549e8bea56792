package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// Finding is one detection about one device. Its JSON is what travels on
// cordon.finding.<device>.
type Finding struct {
	ID          string    `json:"id"` // see FindingID
	Device      string    `json:"device"`
	Cohort      string    `json:"cohort,omitempty"`
	Actor       string    `json:"actor,omitempty"` // who did it to the device, for outside evidence
	RuleID      string    `json:"rule_id"`
	RuleVersion string    `json:"rule_version"` // first 12 hex digits of the SHA-256 of the rule's YAML
	RuleTitle   string    `json:"rule_title"`
	Mode        Mode      `json:"mode"` // the rule's mode when it spoke
	Evidence    Evidence  `json:"evidence"`
	Severity    Severity  `json:"severity"`
	Technique   string    `json:"technique,omitempty"` // MITRE ATT&CK id, e.g. T1110
	Level       Level     `json:"level,omitempty"`     // the quarantine that an armed rule asks for
	WindowStart time.Time `json:"window_start"`        // in event time
	WindowEnd   time.Time `json:"window_end"`
	ReceivedAt  time.Time `json:"received_at"` // stream time of the record that raised it
	DetectedAt  time.Time `json:"detected_at"` // the same instant: detection reads no clock
	StreamSeq   uint64    `json:"stream_seq"`  // of the record that raised it
	Cleared     bool      `json:"cleared,omitempty"`

	Explanation Explanation `json:"explanation"`
}

// Explanation lets a person disagree with a finding.
type Explanation struct {
	Sentence  string          `json:"sentence"`            // one plain sentence, at most 30 words
	Metric    string          `json:"metric,omitempty"`    // what was judged; empty for audit findings
	Unit      string          `json:"unit,omitempty"`      // UCUM-like: Cel, By/s, %, 1
	Value     float64         `json:"value"`               // what was seen
	Expected  *Range          `json:"expected,omitempty"`  // what was expected
	Threshold *float64        `json:"threshold,omitempty"` // the limit that was crossed
	Score     *float64        `json:"score,omitempty"`     // tail probability, 0 to 1: smaller is stranger
	ScoreText string          `json:"score_text,omitempty"`
	Samples   uint64          `json:"samples,omitempty"`      // how many readings taught the expectation
	Since     time.Time       `json:"learned_since,omitzero"` // when learning began
	Basis     string          `json:"basis,omitempty"`        // own, cohort, rule
	Readings  []EvidencePoint `json:"readings,omitempty"`     // the readings that led to it, newest last, at most 20
	Events    []AuditEvent    `json:"events,omitempty"`       // the audit events that led to it, newest last, at most 20
	Count     int             `json:"count,omitempty"`        // how many in the window, for counting rules
	Window    time.Duration   `json:"window_ns,omitempty"`    // length of the counted window
}

// Range is an interval of values, both ends included.
type Range struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// EvidencePoint is a reading as it is shown in an explanation.
type EvidencePoint struct {
	ObservedAt time.Time `json:"observed_at"`
	Value      float64   `json:"value"`
}

// FindingID is the same for the same detection however often it is published:
// a hash of rule id, version, device, group-by values and window start.
func FindingID(ruleID, ruleVersion, device, groupBy string, windowStart time.Time) string {
	h := sha256.New()
	for _, part := range []string{ruleID, ruleVersion, device, groupBy, strconv.FormatInt(windowStart.UnixNano(), 10)} {
		h.Write([]byte(strconv.Itoa(len(part))))
		h.Write([]byte{':'})
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// GuardRule is the rule id of findings that the guards of automatic
// quarantines raise about the fleet.
const GuardRule = "quarantine-guard"

// FleetID is the device of findings about the fleet as a whole.
const FleetID = "fleet"
