package engine

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"cordon/detect/rule"
	"cordon/internal/fleet"
)

func (e *Engine) control(r *fleet.Record) {
	c := &r.Control
	switch {
	case c.Rule != nil:
		e.changeRule(*c.Rule, r.ReceivedAt)
	case c.Device != nil:
		e.changeDevice(c.Device)
	case c.Quarantine != nil:
		d := e.device(c.Quarantine.Device)
		d.held, d.level = c.Quarantine.Active, c.Quarantine.Level
		d.heard = e.healthy // silence begins anew after a release
		clear(d.silences)
	case c.Verdict != nil && (c.Verdict.Verdict == fleet.FalsePositive || c.Verdict.Verdict == fleet.Benign):
		if d := e.devices[c.Verdict.Device]; d != nil {
			d.accept(c.Verdict.Rule)
		}
	}
}

// accept lets what a rule found teach, since a person called it harmless.
func (d *device) accept(id string) {
	for _, s := range d.streams {
		if s.model != nil && slices.ContainsFunc(s.bound, func(b bound) bool { return b.rule.ID == id }) {
			s.model.Accept()
			if s.prior != nil {
				s.prior = nil // its cohort is no measure for it
			}
		}
	}
}

// changeRule sets or removes a rule. A changed mode makes an ongoing
// condition speak again, so that arming a rule takes effect on what goes on.
func (e *Engine) changeRule(c fleet.RuleChange, at time.Time) {
	next, err := activate(c, at)
	if err != nil {
		e.rejected++
		return
	}
	i, found := slices.BinarySearchFunc(e.rules, c.ID, func(a *active, id string) int { return cmp.Compare(a.ID, id) })
	if found {
		old := e.rules[i]
		if next != nil && old.Version == next.Version && old.mode == next.mode {
			old.change, old.at = next.change, next.at
			return
		}
		e.rules = slices.Delete(e.rules, i, i+1)
		e.forget(c.ID)
	}
	if next != nil {
		e.rules = slices.Insert(e.rules, i, next)
	}
	e.arrange()
}

// activate parses a rule change; nil means that the rule is removed.
func activate(c fleet.RuleChange, at time.Time) (*active, error) {
	if c.Source == "" {
		return nil, nil //nolint:nilnil // no rule, no error
	}
	r, err := rule.Parse(c.ID, []byte(c.Source))
	if err != nil {
		return nil, err
	}
	a := &active{Rule: r, mode: c.Mode, change: c, at: at}
	if a.mode == "" {
		a.mode = r.Mode
	}
	if err := rule.CheckMode(r, a.mode); err != nil {
		return nil, err
	}
	if r.Kind == rule.Baseline {
		a.surprise = -math.Log10(r.Sensitivity)
	}
	a.limit, a.op, a.bounded = r.Limit()
	return a, nil
}

// arrange sorts the rules in force by what they look at.
func (e *Engine) arrange() {
	e.gen++
	e.counts, e.absent, e.joints = nil, nil, nil
	for _, a := range e.rules {
		if a.mode == fleet.Off {
			continue
		}
		switch {
		case a.AboutEvents():
			e.counts = append(e.counts, a)
		case a.Kind == rule.Absence:
			e.absent = append(e.absent, a)
		case a.Kind == rule.Joint:
			e.joints = append(e.joints, a)
		}
	}
}

// forget drops what a rule that changed knew of groups and silences.
func (e *Engine) forget(id string) {
	delete(e.fleet, id)
	for _, d := range e.order {
		delete(d.silences, id)
		delete(d.together, id)
		for key := range d.episodes {
			if strings.HasPrefix(key, id+"\x00") {
				delete(d.episodes, key)
			}
		}
	}
}

func (e *Engine) changeDevice(c *fleet.DeviceChange) {
	if c.Erased {
		e.erase(c.ID)
		return
	}
	d := e.device(c.ID)
	d.cohort, d.tags, d.historic, d.retired = c.Cohort, slices.Clone(c.Tags), c.Historic, c.Retired
	d.setZone(c.TimeZone)
	for _, s := range d.streams {
		s.gen = math.MaxUint32 // scopes may name it now
	}
}

// erase forgets a device. Should anything of it come later, the device is new.
func (e *Engine) erase(id string) {
	d := e.devices[id]
	if d == nil {
		return
	}
	for rule, s := range d.silences {
		if together := e.fleet[rule]; together != nil && s.decided && !s.alone {
			together.members--
		}
	}
	delete(e.devices, id)
	e.order = slices.DeleteFunc(e.order, func(d *device) bool { return d.id == id })
}

func (d *device) setZone(name string) {
	d.zoneName, d.zone, d.offsetHour = name, time.UTC, -1
	if zone, err := time.LoadLocation(name); err == nil {
		d.zone = zone
	}
}

// Rules lists the rules in force as the catalogue shows them, by id.
func (e *Engine) Rules() []fleet.Rule {
	out := make([]fleet.Rule, len(e.rules))
	for i, a := range e.rules {
		out[i] = a.Fleet()
		out[i].Mode, out[i].ChangedBy, out[i].ChangedAt, out[i].Reason = a.mode, a.change.Actor, a.at, a.change.Reason
	}
	return out
}
