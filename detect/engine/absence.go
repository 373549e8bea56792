package engine

import (
	"time"

	"cordon/internal/fleet"
)

// silence is a device's silence under one absence rule. Times are ms of
// healthy time, except start.
type silence struct {
	crossed int64 // when it became too long
	start   int64 // stream ms of the last thing heard
	decided bool  // reported, alone or with the fleet
	alone   bool
}

// fleetSilence is many devices silent at once under one absence rule.
type fleetSilence struct {
	start    int64 // stream ms
	crossed  int64 // healthy ms when the last of them became silent
	returned int64 // healthy ms when one was last heard again
	members  int   // devices that were silent together and still are
}

func (e *Engine) tick(r *fleet.Record) {
	now := r.ReceivedAt.UnixMilli()
	if e.tickAt != 0 && e.tickOK && r.Tick.Healthy {
		e.healthy += min(max(now-e.tickAt, 0), e.cfg.TickGap.Milliseconds())
	}
	e.tickAt, e.tickOK = now, r.Tick.Healthy
	e.adopt(now)
	if !r.Tick.Healthy {
		return
	}
	for _, a := range e.absent {
		e.disband(a, r)
		e.silences(a, r)
	}
}

// disband ends a fleet finding once only a few of its devices stay silent:
// those are then reported one by one.
func (e *Engine) disband(a *active, r *fleet.Record) {
	together := e.fleet[a.ID]
	if together == nil || together.members >= e.cfg.FleetSilent || e.healthy-together.returned < e.settle(a) {
		return
	}
	e.endTogether(a, together, r)
	for _, d := range e.order {
		if s, ok := d.silences[a.ID]; ok && s.decided && !s.alone {
			s.decided = false
		}
	}
}

func (t *fleetSilence) join(s *silence) {
	s.decided = true
	t.start = min(t.start, s.start)
	t.crossed = max(t.crossed, s.crossed)
	t.members++
}

func (e *Engine) endTogether(a *active, together *fleetSilence, r *fleet.Record) {
	delete(e.fleet, a.ID)
	f := e.finding(&device{id: FleetDevice}, a, r, together.start, r.ReceivedAt.UnixMilli(), "together")
	f.ID = fleet.FindingID(a.ID, a.Version, FleetDevice, "cleared", f.WindowStart)
	f.Cleared = true
	f.Explanation.Basis = "cohort"
	f.Explanation.Sentence = "The devices that fell silent together are heard again."
	if together.members > 0 {
		f.Explanation.Sentence = "Most devices that fell silent together are heard again; the others are reported one by one."
	}
	e.emit(f)
}

// settle is how long silences under a rule are gathered, in ms: the rule's
// grace, else what the engine does with all.
func (e *Engine) settle(a *active) int64 {
	if a.Grace > 0 {
		return a.Grace.Milliseconds()
	}
	return e.cfg.Settle.Milliseconds()
}

// watched says whether the silence of a device matters.
func (d *device) watched() bool {
	return d.heardAny && d.live && !d.retired && (!d.held || d.level == fleet.Observe)
}

func (e *Engine) silences(a *active, r *fleet.Record) {
	limit, settle := a.After.Milliseconds(), e.settle(a)
	watched, due := 0, 0
	var fresh []*device
	for _, d := range e.order {
		if !d.watched() || !a.Scope.Contains(d.id, d.cohort, d.tags) || !a.Looks(r.ReceivedAt.UnixMilli(), d.zone) {
			continue
		}
		watched++
		if e.healthy-d.heard < limit {
			continue
		}
		s, ok := d.silences[a.ID]
		if !ok {
			s = &silence{crossed: d.heard + limit, start: d.received}
			d.silences[a.ID] = s
		}
		if s.decided {
			continue
		}
		fresh = append(fresh, d)
		if e.healthy-s.crossed >= settle {
			due++
		}
	}
	if due == 0 {
		return
	}
	together := e.fleet[a.ID]
	if together == nil && len(fresh) >= e.cfg.FleetSilent && float64(len(fresh)) >= e.cfg.FleetShare*float64(watched) {
		e.silentTogether(a, fresh, watched, r)
		return
	}
	for _, d := range fresh {
		s := d.silences[a.ID]
		if together != nil && s.crossed <= together.crossed+settle {
			together.join(s)
			continue
		}
		if e.healthy-s.crossed < settle {
			continue
		}
		s.decided, s.alone = true, true
		f := e.finding(d, a, r, s.start, r.ReceivedAt.UnixMilli(), "")
		x := &f.Explanation
		seconds := float64(e.healthy-d.heard) / 1000
		threshold := a.After.Seconds()
		x.Value, x.Unit, x.Threshold, x.Basis, x.Window = seconds, "s", &threshold, "rule", a.After
		x.Sentence = words{device: d.id, cohort: d.cohort}.absence(time.Duration(e.healthy-d.heard)*time.Millisecond, a.After)
		e.emit(f)
	}
}

// silentTogether reports many silences as one finding about the fleet.
func (e *Engine) silentTogether(a *active, members []*device, watched int, r *fleet.Record) {
	together := &fleetSilence{start: members[0].silences[a.ID].start, returned: e.healthy}
	e.fleet[a.ID] = together
	for _, d := range members {
		together.join(d.silences[a.ID])
	}
	f := e.finding(&device{id: FleetDevice}, a, r, together.start, r.ReceivedAt.UnixMilli(), "together")
	x := &f.Explanation
	limit := float64(e.cfg.FleetSilent)
	x.Value, x.Unit, x.Threshold, x.Count, x.Basis, x.Window = float64(len(members)), "1", &limit, len(members), "cohort", a.After
	x.Sentence = fleetSentence(members, watched, a.After)
	e.emit(f)
}

// endSilence is called when a device that was silent speaks.
func (e *Engine) endSilence(d *device, s *silence, ruleID string, r *fleet.Record) {
	delete(d.silences, ruleID)
	if !s.decided {
		return
	}
	a := e.rule(ruleID)
	if a == nil {
		return
	}
	now := r.ReceivedAt.UnixMilli()
	if s.alone {
		f := e.finding(d, a, r, s.start, now, "")
		f.ID = fleet.FindingID(a.ID, a.Version, d.id, "cleared", f.WindowStart)
		f.Cleared = true
		f.Explanation.Basis, f.Explanation.Unit = "rule", "s"
		f.Explanation.Value = float64(now-s.start) / 1000
		f.Explanation.Sentence = words{device: d.id}.back(now - s.start)
		e.emit(f)
		return
	}
	together := e.fleet[ruleID]
	if together == nil {
		return
	}
	together.members--
	together.returned = e.healthy
	if together.members == 0 {
		e.endTogether(a, together, r)
	}
}

func (e *Engine) rule(id string) *active {
	for _, a := range e.rules {
		if a.ID == id {
			return a
		}
	}
	return nil
}
