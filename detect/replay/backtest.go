package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cordon/detect/engine"
	"cordon/detect/rule"
	"cordon/internal/fleet"
)

// Trial asks what a rule would have done.
type Trial struct {
	Rule     string               // its source
	Live     string               // the source of the rule in force that it is compared with; empty: none
	Devices  []fleet.DeviceChange // cohorts, tags and time zones of the fleet
	Device   string               // restricts the trial; empty: every device
	From, To time.Time            // findings outside are left out
	Hold     time.Duration        // how long an automatic quarantine lasts; 0: 4 hours
	Limit    uint64               // most readings and events; 0: 50 million
}

// How history is read and told.
const (
	teaching    = 14 * 24 * time.Hour // before From, for rules that learn
	remembering = 25 * time.Hour      // before From, for rules that count
	tickEvery   = 10 * time.Second
	tickGap     = 15 * time.Minute // silence of the whole fleet from which the log says nothing
	maxFindings = 200
	maxChanges  = 50
	quietFor    = 24 * time.Hour // after so long a device's next finding opens a new incident
	defaultHold = 4 * time.Hour
	maxValues   = 50_000_000
)

// errLimit ends a trial early.
var errLimit = errors.New("limit reached")

// Backtest runs the engine over stored records in stream order and says what
// a rule would have done: the code is the detector's own. The rule in force
// runs beside it over the same records.
func Backtest(ctx context.Context, scan Scan, trial Trial) (fleet.BacktestReport, error) {
	r, err := rule.Parse("rule", []byte(trial.Rule))
	if err != nil {
		return fleet.BacktestReport{}, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("source")
	}
	if !trial.To.After(trial.From) {
		return fleet.BacktestReport{}, fleet.Errorf(fleet.CodeInvalid, "from must be before to").On("from")
	}
	t := newTrial(trial, r)
	t.report.Taught = trial.From.Add(-remembering)
	if r.Kind == rule.Baseline {
		t.report.Taught = trial.From.Add(-teaching)
	}
	device := trial.Device
	if r.Kind == rule.Absence {
		device = "" // only the whole fleet says when the log was alive
	}
	err = scan(ctx, device, "", t.report.Taught, trial.To, t.record)
	if r.Kind == rule.Absence && err == nil {
		t.ticks(trial.To)
	}
	switch {
	case err == nil:
	case errors.Is(err, errLimit), errors.Is(err, context.DeadlineExceeded) && t.report.Records > 0:
		t.report.Truncated, t.report.To = true, t.last
	default:
		return t.report, fmt.Errorf("read history: %w", err)
	}
	t.finish()
	return t.report, nil
}

type trialRun struct {
	Trial
	rule      *rule.Rule
	candidate *engine.Engine
	live      *engine.Engine
	found     []fleet.Finding
	liveFound []fleet.Finding
	last      time.Time // receipt of the last record
	tickAt    time.Time
	seq       uint64
	report    fleet.BacktestReport
}

func newTrial(trial Trial, r *rule.Rule) *trialRun {
	if trial.Hold == 0 {
		trial.Hold = defaultHold
	}
	if trial.Limit == 0 {
		trial.Limit = maxValues
	}
	t := &trialRun{Trial: trial, rule: r}
	t.report = fleet.BacktestReport{
		Rule: r.ID, Title: r.Title, Version: r.Version, From: trial.From.UTC(), To: trial.To.UTC(), Findings: []fleet.Finding{},
		Incidents: []fleet.BacktestIncident{}, Quarantines: []fleet.BacktestQuarantine{},
		Difference: fleet.BacktestDifference{Gained: []fleet.Finding{}, Lost: []fleet.Finding{}},
	}
	t.candidate = t.engine(r.ID, trial.Rule)
	if live, err := rule.Parse("live", []byte(trial.Live)); trial.Live != "" && err == nil {
		t.live = t.engine(live.ID, trial.Live)
		t.report.LiveVersion = live.Version
	}
	return t
}

// engine makes one that knows the fleet and one rule, which speaks whatever
// its mode.
func (t *trialRun) engine(id, source string) *engine.Engine {
	e := engine.New(engine.DefaultConfig())
	for i := range t.Devices {
		e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Device: &t.Devices[i]}})
	}
	e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: id, Source: source, Mode: fleet.Alert}}})
	return e
}

func (t *trialRun) record(r fleet.Record) error {
	n := uint64(len(r.Readings) + len(r.Audit))
	if t.report.Readings+t.report.Events+n > t.Limit {
		return errLimit
	}
	if t.rule.Kind == rule.Absence {
		t.ticks(r.ReceivedAt)
	}
	t.report.Records++
	t.report.Readings += uint64(len(r.Readings))
	t.report.Events += uint64(len(r.Audit))
	t.last = r.ReceivedAt
	t.apply(r)
	return nil
}

// ticks puts healthy ticks between the last record and a time. Ticks are not
// stored; where no device at all spoke for long, nobody knows whether the gate
// was healthy, and there are none.
func (t *trialRun) ticks(until time.Time) {
	if t.tickAt.IsZero() {
		t.tickAt = until.Truncate(tickEvery)
	}
	quiet := !t.last.IsZero() && until.Sub(t.last) > tickGap
	for at := t.tickAt.Add(tickEvery); !at.After(until); at = at.Add(tickEvery) {
		t.tickAt = at
		if quiet {
			if next := until.Truncate(tickEvery); next.After(at) {
				t.apply(fleet.Record{Kind: fleet.TickKind, ReceivedAt: at, Tick: fleet.Tick{At: at}})
				t.tickAt = next.Add(-tickEvery)
				quiet = false
				at = t.tickAt
				continue
			}
		}
		t.report.Ticks++
		t.apply(fleet.Record{Kind: fleet.TickKind, ReceivedAt: at, Tick: fleet.Tick{At: at, Healthy: true}})
	}
}

func (t *trialRun) apply(r fleet.Record) {
	if r.StreamSeq > t.seq {
		t.seq = r.StreamSeq
	}
	r.StreamSeq = max(r.StreamSeq, t.seq)
	t.found = t.keep(t.found, t.candidate.Apply(r))
	if t.live != nil {
		t.liveFound = t.keep(t.liveFound, t.live.Apply(r))
	}
}

func (t *trialRun) keep(all, found []fleet.Finding) []fleet.Finding {
	for i := range found {
		if f := &found[i]; !f.WindowEnd.Before(t.From) && (t.Device == "" || f.Device == t.Device) {
			f.Mode = t.rule.Mode
			all = append(all, *f)
		}
	}
	return all
}

func (t *trialRun) finish() {
	raised := make([]fleet.Finding, 0, len(t.found))
	for i := range t.found {
		if t.found[i].Cleared {
			t.report.Cleared++
			continue
		}
		raised = append(raised, t.found[i])
	}
	t.report.Raised = len(raised)
	t.report.Findings = append(t.report.Findings, raised[:min(len(raised), maxFindings)]...)
	t.incidents(raised)
	if t.rule.Evidence == fleet.Own && t.rule.Level != "" {
		t.quarantines(raised)
	}
	t.compare(raised)
	t.notes()
}

func (t *trialRun) incidents(raised []fleet.Finding) {
	open := map[string]int{}
	for i := range raised {
		f := &raised[i]
		at, ok := open[f.Device]
		if ok && f.WindowEnd.Sub(t.report.Incidents[at].LastAt) <= quietFor {
			t.report.Incidents[at].LastAt = f.WindowEnd
			t.report.Incidents[at].Findings++
			continue
		}
		open[f.Device] = len(t.report.Incidents)
		t.report.Incidents = append(t.report.Incidents, fleet.BacktestIncident{
			Device: f.Device, Severity: f.Severity, OpenedAt: f.WindowEnd, LastAt: f.WindowEnd, Findings: 1, Sentence: f.Explanation.Sentence,
		})
	}
}

func (t *trialRun) quarantines(raised []fleet.Finding) {
	held := map[string]time.Time{}
	for i := range raised {
		f := &raised[i]
		if f.Device == engine.FleetDevice || f.WindowEnd.Before(held[f.Device]) {
			continue
		}
		until := f.WindowEnd.Add(t.Hold)
		held[f.Device] = until
		t.report.Quarantines = append(t.report.Quarantines, fleet.BacktestQuarantine{
			Device: f.Device, Level: t.rule.Level, From: f.WindowEnd, Until: until, Seconds: t.Hold.Seconds(),
		})
	}
}

// compare matches findings by device, actor and window: their ids hold the
// version.
func (t *trialRun) compare(raised []fleet.Finding) {
	if t.live == nil {
		return
	}
	type place struct {
		device, actor, metric string
		from                  int64
	}
	of := func(f *fleet.Finding) place {
		return place{f.Device, f.Actor, f.Explanation.Metric, f.WindowStart.UnixMilli()}
	}
	lost := map[place][]fleet.Finding{}
	for i := range t.liveFound {
		if f := &t.liveFound[i]; !f.Cleared {
			lost[of(f)] = append(lost[of(f)], *f)
		}
	}
	d := &t.report.Difference
	for i := range raised {
		key := of(&raised[i])
		if rest := lost[key]; len(rest) > 0 {
			d.Same++
			lost[key] = rest[1:]
			continue
		}
		d.Added++
		if len(d.Gained) < maxChanges {
			d.Gained = append(d.Gained, raised[i])
		}
	}
	for _, rest := range lost {
		d.Removed += len(rest)
		d.Lost = append(d.Lost, rest...)
	}
	slices.SortFunc(d.Lost, func(a, b fleet.Finding) int {
		return cmp.Or(a.WindowEnd.Compare(b.WindowEnd), cmp.Compare(a.ID, b.ID))
	})
	d.Lost = d.Lost[:min(len(d.Lost), maxChanges)]
}

func (t *trialRun) notes() {
	t.report.Notes = []string{
		"Quarantines that were in force then are not replayed, and devices have the cohorts, tags and time zones of now.",
		fmt.Sprintf("A device's findings are one incident while less than %s lies between them.", quietFor),
	}
	if t.rule.Kind == rule.Absence {
		t.report.Notes = append(t.report.Notes, fmt.Sprintf(
			"Ticks are not stored: a healthy one every %s is assumed, but none where no device at all spoke for %s.", tickEvery, tickGap))
	}
	if len(t.report.Quarantines) > 0 {
		t.report.Notes = append(t.report.Notes, fmt.Sprintf("Each quarantine is counted for %s; guards (caps, protected devices) are not applied.", t.Hold))
	}
	if t.report.Truncated {
		t.report.Notes = append(t.report.Notes, "The trial reached its limit of readings or time and ends early: narrow it.")
	}
}
