package rule

import (
	"slices"
	"strings"
	"time"

	"cordon/detect/sigma"
	"cordon/internal/fleet"
)

// Kind says how a rule detects.
type Kind string

// The kinds of rule.
const (
	Threshold Kind = "threshold" // a condition on single readings, held for some of them
	Baseline  Kind = "baseline"  // a reading that a stream's own history makes improbable
	Count     Kind = "count"     // audit events of one group in a window, or what follows them
	Absence   Kind = "absence"   // a device that fell silent
	Sequence  Kind = "sequence"  // audit events of one group in an order
	Change    Kind = "change"    // a value that audit events of one group state is another than before
	Joint     Kind = "joint"     // metrics of a device that no longer move together as they did
	Sigma     Kind = "sigma"     // audit events that a rule in Sigma's syntax describes
)

// Kinds lists every kind.
var Kinds = []Kind{Threshold, Baseline, Count, Absence, Sequence, Change, Joint, Sigma}

// Direction says on which side of its expectation a reading is remarkable.
type Direction string

// The directions.
const (
	Both Direction = "both"
	Up   Direction = "up"
	Down Direction = "down"
)

// Directions lists every direction.
var Directions = []Direction{Both, Up, Down}

// GroupFields are the audit event fields that group_by may name.
var GroupFields = []string{"actor", "user", "program", "class", "activity", "outcome"}

// Scope restricts a rule to some devices. Empty lists restrict nothing; a
// device must satisfy every list that is not empty.
type Scope struct {
	Cohorts []string `yaml:"cohorts"`
	Devices []string `yaml:"devices"`
	Tags    []string `yaml:"tags"` // any of them
}

// Contains says whether a device is in the scope.
func (s Scope) Contains(device, cohort string, tags []string) bool {
	if len(s.Devices) > 0 && !slices.Contains(s.Devices, device) {
		return false
	}
	if len(s.Cohorts) > 0 && !slices.Contains(s.Cohorts, cohort) {
		return false
	}
	return len(s.Tags) == 0 || slices.ContainsFunc(s.Tags, func(t string) bool { return slices.Contains(tags, t) })
}

// Rule is a parsed and checked rule. Only Parse makes one.
type Rule struct {
	ID          string `yaml:"id"`
	Title       string `yaml:"title"`
	Description string `yaml:"description"`
	Kind        Kind   `yaml:"kind"`

	Metric     string `yaml:"metric"`      // threshold, baseline: a name, a prefix ending in *, or * for every metric
	Unit       string `yaml:"unit"`        // of the metric: Cel, %, By/s, 1, …
	When       string `yaml:"when"`        // threshold: CEL over value, metric, device, cohort, tags
	RaiseAfter int    `yaml:"raise_after"` // threshold: readings in a row that raise
	ClearAfter int    `yaml:"clear_after"` // threshold, baseline: readings in a row that clear

	Sensitivity  float64       `yaml:"sensitivity"`   // baseline: tail probability at or below which a reading is remarkable
	Budget       float64       `yaml:"budget"`        // baseline: instead of sensitivity, the false alarms allowed per stream and day
	Direction    Direction     `yaml:"direction"`     // baseline
	Sustained    int           `yaml:"sustained"`     // baseline: remarkable readings in a row that raise
	SustainedFor time.Duration `yaml:"sustained_for"` // baseline, joint: and for at least so long, however often readings come
	MinEffect    float64       `yaml:"min_effect"`    // baseline: least distance from the expected centre, as a share of it
	MinChange    float64       `yaml:"min_change"`    // baseline: least distance from the expected centre, in units

	ClearWhen string `yaml:"clear_when"` // threshold: once raised, only readings that meet this clear (hysteresis)
	Counter   bool   `yaml:"counter"`    // threshold, baseline: the metric only grows, a smaller value is a restart from 0

	Events   string        `yaml:"events"`    // count, change: CEL over an audit event
	GroupBy  []string      `yaml:"group_by"`  // count, sequence, change: per device and these fields
	AtLeast  int           `yaml:"threshold"` // count: so many events
	Distinct string        `yaml:"distinct"`  // count: so many distinct values of this field instead
	Window   time.Duration `yaml:"window"`    // count, sequence: within this time
	Then     string        `yaml:"then"`      // count: raise on this event instead, when the count precedes it
	YieldsTo []string      `yaml:"yields_to"` // count: silent where one of these rules spoke about the same group within the window
	Steps    []string      `yaml:"steps"`     // sequence: CEL over audit events, in their order
	Of       string        `yaml:"of"`        // change: the field whose value is watched

	After time.Duration `yaml:"after"` // absence: silence that raises
	Grace time.Duration `yaml:"grace"` // absence: how much longer it may last before it is reported

	Schedule *Schedule `yaml:"schedule"` // every kind but baseline: when the rule looks at all

	Mode           fleet.Mode     `yaml:"mode"`
	Evidence       fleet.Evidence `yaml:"evidence"`
	Severity       fleet.Severity `yaml:"severity"`
	Technique      string         `yaml:"technique"` // MITRE ATT&CK id
	Level          fleet.Level    `yaml:"level"`
	Sentence       string         `yaml:"sentence"` // how the explanation begins; see Placeholders
	Runbook        string         `yaml:"runbook"`
	FalsePositives []string       `yaml:"false_positives"`
	Scope          Scope          `yaml:"scope"`

	Source  string `yaml:"-"`
	Version string `yaml:"-"` // first 12 hex digits of the SHA-256 of Source

	reading Reading
	clears  Reading
	events  Event
	then    Event
	steps   []Event
	group   func(*fleet.AuditEvent) string // sigma: by other names, or by the rule that matched
}

// Placeholders are the names in braces that Sentence may hold.
var Placeholders = []string{"device", "cohort", "metric", "value", "count", "window", "actor", "user", "program", "limit", "message", "for", "from", "to"}

// MatchesMetric says whether the rule is about a metric.
func (r *Rule) MatchesMetric(metric string) bool {
	if prefix, ok := strings.CutSuffix(r.Metric, "*"); ok {
		return strings.HasPrefix(metric, prefix)
	}
	return r.Metric == metric
}

// Generic says whether the rule is about every metric: it steps back where a
// rule of the same kind names the metric.
func (r *Rule) Generic() bool { return r.Metric == "*" }

// MatchesReading evaluates When.
func (r *Rule) MatchesReading(v *ReadingVars) bool { return r.reading(v) }

// MatchesEvent evaluates Events.
func (r *Rule) MatchesEvent(e *fleet.AuditEvent) bool { return r.events(e) }

// HasThen says whether the rule waits for an event after the counted ones.
func (r *Rule) HasThen() bool { return r.then != nil }

// HasClear says whether readings must meet a condition to clear.
func (r *Rule) HasClear() bool { return r.clears != nil }

// MatchesClear evaluates ClearWhen.
func (r *Rule) MatchesClear(v *ReadingVars) bool { return r.clears(v) }

// MatchesStep evaluates one of Steps.
func (r *Rule) MatchesStep(i int, e *fleet.AuditEvent) bool { return r.steps[i](e) }

// Value is a field of an event by its name, also by those that Sigma rules
// use; fields.X is entry X of its fields.
func Value(e *fleet.AuditEvent, name string) string { return field(e, name) }

// AboutEvents says whether the rule looks at audit events.
func (r *Rule) AboutEvents() bool {
	return r.Kind == Count || r.Kind == Sequence || r.Kind == Change || r.Kind == Sigma
}

// MatchesThen evaluates Then.
func (r *Rule) MatchesThen(e *fleet.AuditEvent) bool { return r.then(e) }

// Group returns the values of the group_by fields of an event.
func (r *Rule) Group(e *fleet.AuditEvent) string {
	if r.group != nil {
		return r.group(e)
	}
	if len(r.GroupBy) == 1 {
		return field(e, r.GroupBy[0])
	}
	var b strings.Builder
	for i, name := range r.GroupBy {
		if i > 0 {
			b.WriteByte(0)
		}
		b.WriteString(field(e, name))
	}
	return b.String()
}

func field(e *fleet.AuditEvent, name string) string {
	switch name {
	case "actor":
		return e.Actor
	case "user":
		return e.User
	case "program":
		return e.Program
	case "class":
		return e.Class
	case "activity":
		return e.Activity
	case "outcome":
		return e.Outcome
	case "message":
		return e.Message
	}
	if key, ok := strings.CutPrefix(name, "fields."); ok {
		return e.Fields[key]
	}
	v, _ := sigma.Value(e, name)
	return v
}

// Fleet returns the rule as the catalogue shows it.
func (r *Rule) Fleet() fleet.Rule {
	return fleet.Rule{
		ID: r.ID, Title: r.Title, Description: r.Description, Version: r.Version, Kind: string(r.Kind), Mode: r.Mode,
		Evidence: r.Evidence, Severity: r.Severity, Technique: r.Technique, Level: r.Level, Runbook: r.Runbook,
		FalsePositives: slices.Clone(r.FalsePositives), Source: r.Source,
	}
}
