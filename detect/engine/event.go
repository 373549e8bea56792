package engine

import (
	"fmt"
	"strings"
	"time"

	"cordon/detect/rule"
	"cordon/internal/fleet"
)

// sequence follows events that must come in an order.
func (e *Engine) sequence(d *device, a *active, event *fleet.AuditEvent, at int64, r *fleet.Record) {
	about := false
	for i := range a.Steps {
		about = about || a.MatchesStep(i, event)
	}
	if !about {
		return
	}
	ep := e.group(d, a, a.Group(event), at)
	ep.Last = at
	start, done := ep.sequence.Step(at, len(a.Steps), func(i int) bool { return a.MatchesStep(i, event) }, a.Window.Milliseconds())
	ep.keep(event, at)
	if !done {
		return
	}
	ep.raised = at
	f := e.eventFinding(d, a, ep, event, start, at, r)
	x := &f.Explanation
	x.Count, x.Value, x.Window = len(a.Steps), float64(len(a.Steps)), a.Window
	w := e.eventWords(d, event, at-start)
	w.counted = len(a.Steps)
	x.Sentence = brief(w.fill(orElse(a.Sentence, "{device}: "+plainTitle(a.Title))) +
		fmt.Sprintf(". All %d steps came in order within %s.", len(a.Steps), span(a.Window.Milliseconds())))
	e.emit(f)
	ep.events = nil
}

// maxValue bounds the text of a value that is watched for changes.
const maxValue = 256

// change watches a value that events state.
func (e *Engine) change(d *device, a *active, event *fleet.AuditEvent, at int64, r *fleet.Record) {
	if !a.MatchesEvent(event) {
		return
	}
	value := clip(rule.Value(event, a.Of), maxValue)
	if value == "" {
		return
	}
	ep := e.group(d, a, a.Group(event), at)
	old, known := ep.value, ep.known
	ep.Last, ep.value, ep.known = at, strings.Clone(value), true
	if !known || old == value {
		return
	}
	ep.raised = at
	f := e.eventFinding(d, a, ep, event, at, at, r)
	w := e.eventWords(d, event, 0)
	w.from, w.to = clip(old, 60), clip(value, 60)
	f.Explanation.Sentence = brief(w.fill(orElse(a.Sentence, "{device}: "+plainTitle(a.Title)+": {from} became {to}")) + ".")
	e.emit(f)
}

// eventFinding starts a finding about an event.
func (e *Engine) eventFinding(d *device, a *active, ep *episode, event *fleet.AuditEvent, start, at int64, r *fleet.Record) fleet.Finding {
	f := e.finding(d, a, r, start, at, a.Group(event))
	f.Actor = event.Actor
	x := &f.Explanation
	x.Value, x.Unit, x.Basis, x.Count = 1, "1", "rule", 1
	x.Events = append(x.Events, ep.events...)
	if len(x.Events) == 0 {
		kept := *event
		kept.ObservedAt = time.UnixMilli(at).UTC()
		x.Events = []fleet.AuditEvent{kept}
	}
	return f
}

func (e *Engine) eventWords(d *device, event *fleet.AuditEvent, window int64) words {
	return words{
		device: d.id, cohort: d.cohort, value: 1, counted: 1, window: window,
		actor: event.Actor, user: event.User, program: event.Program, message: event.Message,
	}
}

func plainTitle(title string) string { return strings.ToLower(title[:1]) + title[1:] }

// distinct says how many different values a group had.
func (w words) distinct(sentence, of string, atLeast int, window time.Duration) string {
	if sentence == "" {
		sentence = "{device} saw {count} different values of " + strings.TrimPrefix(of, "fields.") + " from {actor} in {window}"
	}
	return w.fill(sentence) + fmt.Sprintf(". The rule allows %d in %s.", atLeast-1, span(window.Milliseconds()))
}
