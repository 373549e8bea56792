package notify

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// Duration is a time.Duration that YAML and JSON write as text: 15m.
type Duration time.Duration

// UnmarshalText reads 15m, 4h, 1h30m.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time such as 30s, 15m or 4h", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Route sends what matches to receivers. Routes are read from top to bottom;
// the first that matches decides, unless it says continue.
type Route struct {
	Name      string      `json:"name" yaml:"name"`
	Match     fleet.Match `json:"match" yaml:"match,omitempty"`
	Hours     *Hours      `json:"hours,omitempty" yaml:"hours,omitempty"` // only then; default always
	Receivers []string    `json:"receivers" yaml:"receivers"`
	Continue  bool        `json:"continue,omitempty" yaml:"continue,omitempty"`
	Group     *Grouping   `json:"group,omitempty" yaml:"group,omitempty"`
	Escalate  *Escalation `json:"escalate,omitempty" yaml:"escalate,omitempty"`
}

// Hours are times of the week, in a time zone of their own.
type Hours struct {
	Days []string `json:"days,omitempty" yaml:"days,omitempty"` // mon … sun; default all
	From string   `json:"from" yaml:"from"`                     // 08:00
	To   string   `json:"to" yaml:"to"`                         // 18:00; before From: it ends the next day
	Zone string   `json:"zone,omitempty" yaml:"zone,omitempty"` // IANA name; default UTC
}

// Grouping gathers notifications into one message.
type Grouping struct {
	By       []string `json:"by,omitempty" yaml:"by,omitempty"`             // incident, device, cohort, site, severity, rule, none; default none: all together
	Wait     Duration `json:"wait,omitempty" yaml:"wait,omitempty"`         // for more, before the first message
	Interval Duration `json:"interval,omitempty" yaml:"interval,omitempty"` // between messages of one group
	Repeat   Duration `json:"repeat,omitempty" yaml:"repeat,omitempty"`     // remind while nobody acknowledged it
}

// Escalation tells others when nobody acknowledged.
type Escalation struct {
	After     Duration `json:"after" yaml:"after"`
	Receivers []string `json:"receivers" yaml:"receivers"`
}

// Inhibition keeps back what another open incident explains.
type Inhibition struct {
	Source fleet.Match `json:"source" yaml:"source"`
	Target fleet.Match `json:"target" yaml:"target"`
	Equal  []string    `json:"equal,omitempty" yaml:"equal,omitempty"` // device, cohort, site: must be the same, and not empty
}

// Policy says who is told of what. The zero policy tells every receiver.
type Policy struct {
	Routes   []Route         `json:"routes" yaml:"routes,omitempty"`
	Inhibit  []Inhibition    `json:"inhibit" yaml:"inhibit,omitempty"`
	Silences []fleet.Silence `json:"silences" yaml:"silences,omitempty"` // from the settings file
}

var (
	groupLabels = []string{"incident", "device", "cohort", "site", "severity", "rule", "none"}
	equalLabels = []string{"device", "cohort", "site"}
	dayNames    = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
)

const shortestRepeat = 5 * time.Minute

// Validate names every route and field that is wrong; receivers are the names
// that there are.
func (p Policy) Validate(receivers []string) error {
	var errs []error
	seen := map[string]bool{}
	for i, r := range p.Routes {
		where := fmt.Sprintf("route %q", r.Name)
		if !receiverName.MatchString(r.Name) || seen[r.Name] {
			where = fmt.Sprintf("route %d", i+1)
			errs = append(errs, fmt.Errorf("%s: name: %q is not 1 to 32 of a-z 0-9 -, or used twice", where, r.Name))
		}
		seen[r.Name] = true
		for _, err := range r.faults(receivers) {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
	}
	for i, in := range p.Inhibit {
		where := fmt.Sprintf("inhibit %d", i+1)
		errs = append(errs, prefixed(where+": source", matchFaults(in.Source))...)
		errs = append(errs, prefixed(where+": target", matchFaults(in.Target))...)
		if empty(in.Source) || empty(in.Target) {
			errs = append(errs, fmt.Errorf("%s: source and target must name something", where))
		}
		for _, label := range in.Equal {
			if !slices.Contains(equalLabels, label) {
				errs = append(errs, fmt.Errorf("%s: equal: %q is not one of %s", where, label, strings.Join(equalLabels, ", ")))
			}
		}
	}
	for i, s := range p.Silences {
		if err := CheckSilence(s); err != nil {
			errs = append(errs, fmt.Errorf("silence %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

// Advice is what is allowed but probably not meant.
func (p Policy) Advice(receivers []string) []string {
	var out []string
	if len(p.Routes) == 0 {
		return nil
	}
	if last := p.Routes[len(p.Routes)-1]; !empty(last.Match) || last.Hours != nil {
		out = append(out, fmt.Sprintf("the last route (%s) does not take everything: what no route takes is told to nobody", last.Name))
	}
	for i, r := range p.Routes[:len(p.Routes)-1] {
		if empty(r.Match) && r.Hours == nil && !r.Continue {
			out = append(out, fmt.Sprintf("route %s takes everything: the %d behind it are never read", r.Name, len(p.Routes)-1-i))
		}
	}
	for _, name := range receivers {
		if !slices.ContainsFunc(p.Routes, func(r Route) bool {
			return slices.Contains(r.Receivers, name) || r.Escalate != nil && slices.Contains(r.Escalate.Receivers, name)
		}) {
			out = append(out, fmt.Sprintf("no route leads to receiver %s", name))
		}
	}
	return out
}

func prefixed(where string, errs []error) []error {
	for i := range errs {
		errs[i] = fmt.Errorf("%s: %w", where, errs[i])
	}
	return errs
}

func (r Route) faults(receivers []string) []error {
	errs := matchFaults(r.Match)
	known := func(field string, names []string) {
		if len(names) == 0 {
			errs = append(errs, fmt.Errorf("%s: name at least one", field))
		}
		for _, name := range names {
			if !slices.Contains(receivers, name) {
				errs = append(errs, fmt.Errorf("%s: there is no receiver %q", field, name))
			}
		}
	}
	known("receivers", r.Receivers)
	if r.Hours != nil {
		if err := r.Hours.check(); err != nil {
			errs = append(errs, fmt.Errorf("hours: %w", err))
		}
	}
	if g := r.Group; g != nil {
		for _, label := range g.By {
			if !slices.Contains(groupLabels, label) {
				errs = append(errs, fmt.Errorf("group: by: %q is not one of %s", label, strings.Join(groupLabels, ", ")))
			}
		}
		if g.Wait < 0 || time.Duration(g.Wait) > time.Hour || g.Interval < 0 || time.Duration(g.Interval) > 24*time.Hour {
			errs = append(errs, errors.New("group: wait is at most 1h, interval at most 24h"))
		}
		if g.Repeat != 0 && time.Duration(g.Repeat) < shortestRepeat {
			errs = append(errs, fmt.Errorf("group: repeat is at least %s", shortestRepeat))
		}
	}
	if e := r.Escalate; e != nil {
		known("escalate: receivers", e.Receivers)
		if e.After <= 0 {
			errs = append(errs, errors.New("escalate: after is missing"))
		}
	}
	return errs
}

func matchFaults(m fleet.Match) []error {
	var errs []error
	for _, s := range m.Severities {
		if s.Rank() == 0 {
			errs = append(errs, fmt.Errorf("match: severity %q is not one of %v", s, fleet.Severities))
		}
	}
	for _, s := range m.Scopes {
		if s != fleet.ScopeDevice && s != fleet.ScopeCampaign && s != fleet.ScopeCause {
			errs = append(errs, fmt.Errorf("match: scope %q is not one of device, campaign, cause", s))
		}
	}
	return errs
}

func empty(m fleet.Match) bool {
	return len(m.Severities)+len(m.Cohorts)+len(m.Sites)+len(m.Tags)+len(m.Rules)+len(m.Devices)+len(m.Scopes) == 0
}

// CheckSilence says what is wrong with a silence.
func CheckSilence(s fleet.Silence) error {
	switch {
	case empty(s.Match):
		return fleet.Errorf(fleet.CodeInvalid, "a silence must name what it is about; everything at once can't be silenced").On("match")
	case len(matchFaults(s.Match)) > 0:
		return fleet.Errorf(fleet.CodeInvalid, "%w", errors.Join(matchFaults(s.Match)...)).On("match")
	case s.Owner == "":
		return fleet.Errorf(fleet.CodeInvalid, "owner is missing").On("owner")
	case s.Reason == "":
		return fleet.Errorf(fleet.CodeInvalid, "reason is missing").On("reason")
	case s.EndsAt.IsZero():
		return fleet.Errorf(fleet.CodeInvalid, "ends_at is missing: a silence must end").On("ends_at")
	case !s.StartsAt.Before(s.EndsAt):
		return fleet.Errorf(fleet.CodeInvalid, "it ends before it starts").On("ends_at")
	}
	return nil
}

// matches says whether every list of the match holds the incident's value.
func matches(m fleet.Match, inc fleet.Incident) bool {
	one := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	any := func(list, values []string) bool {
		return len(list) == 0 || slices.ContainsFunc(values, func(v string) bool { return slices.Contains(list, v) })
	}
	devices := inc.Devices
	if !slices.Contains(devices, inc.Device) {
		devices = append([]string{inc.Device}, devices...)
	}
	return (len(m.Severities) == 0 || slices.Contains(m.Severities, inc.Severity)) &&
		one(m.Cohorts, inc.Cohort) && one(m.Sites, inc.Site) && one(m.Scopes, cmp.Or(inc.Scope, fleet.ScopeDevice)) &&
		any(m.Tags, inc.Tags) && any(m.Rules, inc.Rules) && any(m.Devices, devices)
}

func (h Hours) check() error {
	_, _, err := h.minutes()
	if err != nil {
		return err
	}
	for _, d := range h.Days {
		if !slices.Contains(dayNames, d) {
			return fmt.Errorf("day %q is not one of mon, tue, wed, thu, fri, sat, sun", d)
		}
	}
	if _, err := time.LoadLocation(h.Zone); err != nil {
		return fmt.Errorf("zone %q is not known; use a name such as Europe/Berlin", h.Zone)
	}
	return nil
}

func (h Hours) minutes() (from, to int, err error) {
	for _, part := range []struct {
		text string
		to   *int
	}{{h.From, &from}, {h.To, &to}} {
		at, err := time.Parse("15:04", part.text)
		if part.text == "24:00" {
			*part.to = 24 * 60
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("%q is not a time of day such as 08:30", part.text)
		}
		*part.to = at.Hour()*60 + at.Minute()
	}
	return from, to, nil
}

// holds says whether at is within the hours, on the clocks of their zone:
// daylight saving moves them as it moves people. A span over midnight belongs
// to the day on which it begins.
func (h Hours) holds(at time.Time) bool {
	zone, err := time.LoadLocation(h.Zone)
	if err != nil {
		return false
	}
	at = at.In(zone)
	from, to, err := h.minutes()
	if err != nil {
		return false
	}
	minute, day := at.Hour()*60+at.Minute(), int(at.Weekday())
	on := func(day int) bool { return len(h.Days) == 0 || slices.Contains(h.Days, dayNames[(day+7)%7]) }
	if from < to {
		return minute >= from && minute < to && on(day)
	}
	return minute >= from && on(day) || minute < to && on(day-1)
}

// choice is a receiver that a route names.
type choice struct {
	receiver string
	route    *Route
	why      string
}

// choose lists who is to be told, in order, each receiver once. all are the
// receivers that there are.
func (p Policy) choose(inc fleet.Incident, at time.Time, all []string) []choice {
	if len(p.Routes) == 0 {
		out := make([]choice, 0, len(all))
		for _, name := range all {
			out = append(out, choice{receiver: name, why: "there are no routes: every receiver is told"})
		}
		return out
	}
	var out []choice
	for i := range p.Routes {
		r := &p.Routes[i]
		if !r.takes(inc, at) {
			continue
		}
		for _, name := range r.Receivers {
			if !slices.ContainsFunc(out, func(c choice) bool { return c.receiver == name }) {
				out = append(out, choice{name, r, "route " + r.Name + ": " + r.because()})
			}
		}
		if !r.Continue {
			break
		}
	}
	return out
}

func (r *Route) takes(inc fleet.Incident, at time.Time) bool {
	return matches(r.Match, inc) && (r.Hours == nil || r.Hours.holds(at))
}

func (r *Route) because() string {
	var parts []string
	add := func(name string, values []string) {
		if len(values) > 0 {
			parts = append(parts, name+" is "+strings.Join(values, " or "))
		}
	}
	var severities []string
	for _, s := range r.Match.Severities {
		severities = append(severities, string(s))
	}
	add("severity", severities)
	add("cohort", r.Match.Cohorts)
	add("site", r.Match.Sites)
	add("tag", r.Match.Tags)
	add("rule", r.Match.Rules)
	add("device", r.Match.Devices)
	add("scope", r.Match.Scopes)
	if h := r.Hours; h != nil {
		days := "every day"
		if len(h.Days) > 0 {
			days = strings.Join(h.Days, ", ")
		}
		parts = append(parts, fmt.Sprintf("it is %s from %s to %s in %s", days, h.From, h.To, cmp.Or(h.Zone, "UTC")))
	}
	if len(parts) == 0 {
		return "it takes everything"
	}
	return strings.Join(parts, ", ")
}

// groupKey names the group of an incident's notifications; "" sends each by
// itself.
func (r *Route) groupKey(inc fleet.Incident) string {
	if r == nil || r.Group == nil || r.Group.Wait == 0 && r.Group.Interval == 0 {
		return ""
	}
	parts := []string{r.Name}
	for _, label := range r.Group.By {
		parts = append(parts, label+"="+map[string]string{
			"incident": inc.ID, "device": inc.Device, "cohort": inc.Cohort, "site": inc.Site,
			"severity": string(inc.Severity), "rule": strings.Join(inc.Rules[:min(len(inc.Rules), 1)], ""),
		}[label])
	}
	return strings.Join(parts, " ")
}

// Told is the answer to "who would be told, and why".
type Told struct {
	Receiver string   `json:"receiver"`
	Kind     string   `json:"kind"`
	Route    string   `json:"route"`
	Told     bool     `json:"told"`
	Why      string   `json:"why"`
	HeldBy   string   `json:"held_by,omitempty"`  // the silence or incident that keeps it back
	After    Duration `json:"after,omitempty"`    // told only if nobody acknowledges within
	Together Duration `json:"together,omitempty"` // waits so long for others of its group
}

// told explains a policy for one incident and kind of change. held says what
// keeps it back.
func (p Policy) told(inc fleet.Incident, change string, at time.Time, receivers []Receiver, held func(fleet.Incident) (by, why string)) []Told {
	var names []string
	byName := map[string]Receiver{}
	for _, r := range receivers {
		names = append(names, r.Name)
		byName[r.Name] = r
	}
	out := []Told{}
	chosen := p.choose(inc, at, names)
	for _, c := range chosen {
		r, ok := byName[c.receiver]
		if !ok {
			continue
		}
		t := Told{Receiver: c.receiver, Kind: r.Kind, Told: true, Why: c.why}
		if c.route != nil {
			t.Route = c.route.Name
			if c.route.groupKey(inc) != "" {
				t.Together = c.route.Group.Wait
			}
		}
		if wants, why := r.hears(inc.Severity, change); !wants {
			t.Told, t.Why = false, t.Why+"; but "+why
		} else if by, why := held(inc); by != "" {
			t.Told, t.HeldBy, t.Why = false, by, t.Why+"; but "+why
		}
		out = append(out, t)
	}
	for i := range p.Routes {
		r := &p.Routes[i]
		if r.Escalate == nil || !slices.ContainsFunc(chosen, func(c choice) bool { return c.route == r }) {
			continue
		}
		for _, name := range r.Escalate.Receivers {
			out = append(out, Told{
				Receiver: name, Kind: byName[name].Kind, Route: r.Name, Told: true, After: r.Escalate.After,
				Why: fmt.Sprintf("route %s: if nobody acknowledges within %s", r.Name, time.Duration(r.Escalate.After)),
			})
		}
	}
	return out
}

// Explain says who would be told of an incident, with no silences or other
// incidents in the way but those of the settings: what `cordon alerts route
// --config` answers without a running Cordon.
func Explain(cfg Config, inc fleet.Incident, change string, at time.Time) []Told {
	cfg = cfg.withDefaults()
	return cfg.Policy.told(inc, change, at, cfg.Receivers, func(inc fleet.Incident) (string, string) {
		return silencedBy(cfg.Policy.Silences, inc, at)
	})
}

func silencedBy(silences []fleet.Silence, inc fleet.Incident, at time.Time) (by, why string) {
	for i, s := range silences {
		if s.ActiveAt(at) && matches(s.Match, inc) {
			kind := "silenced"
			if s.Maintenance {
				kind = "in maintenance"
			}
			return cmp.Or(s.ID, fmt.Sprintf("file-%d", i+1)), fmt.Sprintf("%s by %s until %s: %s", kind, s.Owner, s.EndsAt.UTC().Format("2006-01-02 15:04 UTC"), s.Reason)
		}
	}
	return "", ""
}

// inhibitedBy finds an open incident that explains this one.
func (p Policy) inhibitedBy(inc fleet.Incident, open []fleet.Incident) (by, why string) {
	for _, in := range p.Inhibit {
		if !matches(in.Target, inc) {
			continue
		}
		for _, source := range open {
			if source.ID == inc.ID || !matches(in.Source, source) || !equalOn(in.Equal, source, inc) {
				continue
			}
			if matches(in.Source, inc) && matches(in.Target, source) && source.Number > inc.Number {
				continue // of two that explain each other the first is told
			}
			return source.ID, fmt.Sprintf("inhibited by %s, which is open: %s", source.ID, cut(source.Title, 120))
		}
	}
	return "", ""
}

func equalOn(labels []string, a, b fleet.Incident) bool {
	for _, label := range labels {
		var x, y string
		switch label {
		case "device":
			if slices.Contains(a.Devices, b.Device) || slices.Contains(b.Devices, a.Device) {
				continue
			}
			x, y = a.Device, b.Device
		case "cohort":
			x, y = a.Cohort, b.Cohort
		case "site":
			x, y = a.Site, b.Site
		}
		if x == "" || x != y {
			return false
		}
	}
	return true
}
