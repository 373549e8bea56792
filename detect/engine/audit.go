package engine

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"cordon/detect/rule"
	"cordon/detect/threshold"
	"cordon/internal/fleet"
)

// keptEvents is how many events of an episode are kept as evidence.
const keptEvents = 10

// keptMessage bounds the text of a kept event.
const keptMessage = 240

// episode is what one rule about events knows of one group on one device.
type episode struct {
	threshold.Episode
	distinct threshold.Distinct
	sequence threshold.Sequence
	value    string // rules of kind change: what was stated last
	known    bool   // value was stated
	raised   int64  // when the rule last spoke
	events   []fleet.AuditEvent
}

func (e *Engine) audit(r *fleet.Record) {
	d := e.device(r.Device)
	e.hear(d, r)
	for i := range r.Audit {
		event := &r.Audit[i]
		at := e.advance(d, event.ObservedAt, r.ReceivedAt)
		for _, a := range e.counts {
			if a.Scope.Contains(d.id, d.cohort, d.tags) && a.Looks(at, d.zone) {
				e.event(d, a, event, at, r)
			}
		}
	}
}

func (e *Engine) event(d *device, a *active, event *fleet.AuditEvent, at int64, r *fleet.Record) {
	switch a.Kind {
	case rule.Sequence:
		e.sequence(d, a, event, at, r)
	case rule.Change:
		e.change(d, a, event, at, r)
	default:
		e.count(d, a, event, at, r)
	}
}

// group finds or makes the episode of an event's group.
func (e *Engine) group(d *device, a *active, group string, at int64) *episode {
	key := a.ID + "\x00" + group
	ep, ok := d.episodes[key]
	if !ok {
		e.makeRoom(d, a, at)
		ep = &episode{}
		d.episodes[key] = ep
	}
	return ep
}

func (e *Engine) count(d *device, a *active, event *fleet.AuditEvent, at int64, r *fleet.Record) {
	if a.HasThen() && a.MatchesThen(event) {
		e.after(d, a, event, at, r)
	}
	if !a.MatchesEvent(event) {
		return
	}
	group := a.Group(event)
	ep := e.group(d, a, group, at)
	window := a.Window.Milliseconds()
	if ep.Last != 0 && at-ep.Last > window {
		ep.events = nil
	}
	raised := ep.Add(at, event.Count(), a.AtLeast, window)
	if a.Distinct != "" {
		raised = false
		if value := rule.Value(event, a.Distinct); value != "" {
			raised = ep.distinct.Add(value, at, a.AtLeast, window)
		}
	}
	ep.keep(event, at)
	if raised && !a.HasThen() {
		if !d.yields(a, group, at) {
			e.raiseCount(d, a, ep, event, at, r)
		}
		ep.events = nil
	}
}

// yields says whether a rule that this one yields to spoke about the same
// group within the window.
func (d *device) yields(a *active, group string, at int64) bool {
	for _, other := range a.YieldsTo {
		if ep, ok := d.episodes[other+"\x00"+group]; ok && ep.raised != 0 && at-ep.raised <= a.Window.Milliseconds() {
			return true
		}
	}
	return false
}

// after handles an event that makes counted ones matter, such as a sign-in
// that succeeds after many that failed.
func (e *Engine) after(d *device, a *active, event *fleet.AuditEvent, at int64, r *fleet.Record) {
	key := a.ID + "\x00" + a.Group(event)
	ep, ok := d.episodes[key]
	if !ok || ep.Within(at, a.Window.Milliseconds()) < a.AtLeast {
		return
	}
	ep.keep(event, at)
	e.raiseCount(d, a, ep, event, at, r)
	delete(d.episodes, key)
}

func (ep *episode) keep(event *fleet.AuditEvent, at int64) {
	if (ep.Met || ep.distinct.Met) && len(ep.events) == 0 {
		return
	}
	kept := *event
	kept.ObservedAt = time.UnixMilli(at).UTC()
	kept.Message = strings.Clone(clip(event.Message, keptMessage))
	kept.Actor, kept.User = strings.Clone(event.Actor), strings.Clone(event.User)
	if len(ep.events) == keptEvents {
		ep.events = append(ep.events[:0], ep.events[1:]...)
	}
	ep.events = append(ep.events, kept)
}

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// makeRoom bounds the groups of a rule on a device: first those go whose
// episode is over, then the quarter that was seen least recently.
func (e *Engine) makeRoom(d *device, a *active, at int64) {
	if len(d.episodes) < e.cfg.Groups {
		return
	}
	type entry struct {
		key  string
		last int64
	}
	var mine []entry
	prefix := a.ID + "\x00"
	for key, ep := range d.episodes {
		if strings.HasPrefix(key, prefix) {
			mine = append(mine, entry{key, ep.Last})
		}
	}
	if len(mine) < e.cfg.Groups {
		return
	}
	slices.SortFunc(mine, func(x, y entry) int { return cmp.Or(cmp.Compare(x.last, y.last), cmp.Compare(x.key, y.key)) })
	for i, m := range mine {
		if (at-m.last <= a.Window.Milliseconds() || a.Kind == rule.Change) && i >= e.cfg.Groups/4 {
			return
		}
		delete(d.episodes, m.key)
	}
}

func (e *Engine) raiseCount(d *device, a *active, ep *episode, event *fleet.AuditEvent, at int64, r *fleet.Record) {
	start := ep.Start()
	ep.raised = at
	if a.Distinct != "" {
		start = ep.distinct.Start()
	}
	f := e.finding(d, a, r, start, at, a.Group(event))
	f.Actor = event.Actor
	x := &f.Explanation
	x.Count = ep.Within(at, a.Window.Milliseconds())
	if a.Distinct != "" {
		x.Count = len(ep.distinct.Seen)
	}
	x.Value, x.Unit, x.Basis, x.Window = float64(x.Count), "1", "rule", a.Window
	limit := float64(a.AtLeast)
	x.Threshold = &limit
	x.Events = slices.Clone(ep.events)
	if len(x.Events) == 0 {
		kept := *event
		kept.ObservedAt = time.UnixMilli(at).UTC()
		x.Events = []fleet.AuditEvent{kept}
	}
	w := words{
		device: d.id, cohort: d.cohort, value: x.Value, counted: x.Count, window: at - start,
		actor: event.Actor, user: event.User, program: event.Program, message: event.Message, users: users(x.Events, a.HasThen()),
	}
	x.Sentence = brief(w.count(a.Sentence, a.Title, a.AtLeast, a.Window))
	if a.Distinct != "" {
		x.Sentence = brief(w.distinct(a.Sentence, a.Distinct, a.AtLeast, a.Window))
	}
	e.emit(f)
}

// users lists the accounts of the counted events, each once.
func users(events []fleet.AuditEvent, then bool) []string {
	if then && len(events) > 1 {
		events = events[:len(events)-1]
	}
	var out []string
	for i := range events {
		if u := events[i].User; u != "" && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out
}
