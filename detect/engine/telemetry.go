package engine

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"cordon/detect/baseline"
	"cordon/detect/rule"
	"cordon/detect/threshold"
	"cordon/internal/fleet"
)

func (e *Engine) telemetry(r *fleet.Record) {
	d := e.device(r.Device)
	e.hear(d, r)
	readings := r.Readings
	if !slices.IsSortedFunc(readings, byTime) {
		readings = slices.Clone(readings)
		slices.SortStableFunc(readings, byTime)
	}
	for i := range readings {
		reading := &readings[i]
		at := e.advance(d, reading.ObservedAt, r.ReceivedAt)
		if s := d.stream(reading.Metric, e.cfg.Metrics); s != nil {
			if s.gen != e.gen {
				e.bind(d, s)
			}
			e.reading(d, s, at, reading.Value, r)
		}
	}
}

func byTime(a, b fleet.Reading) int { return a.ObservedAt.Compare(b.ObservedAt) }

// stream finds the stream of a metric. Batches name metrics in the same order
// again and again, so the one after the last is tried first.
func (d *device) stream(metric string, limit int) *stream {
	n := len(d.streams)
	if d.hint < n && d.streams[d.hint].metric == metric {
		s := d.streams[d.hint]
		if d.hint++; d.hint == n {
			d.hint = 0
		}
		return s
	}
	if d.index != nil {
		if i, ok := d.index[metric]; ok {
			d.hint = (i + 1) % n
			return d.streams[i]
		}
	} else {
		for i, s := range d.streams {
			if s.metric == metric {
				d.hint = (i + 1) % n
				return s
			}
		}
	}
	if n >= limit {
		return nil
	}
	s := &stream{metric: strings.Clone(metric), gen: math.MaxUint32}
	d.streams = append(d.streams, s)
	d.reindex()
	d.hint = 0
	return s
}

// reindex keeps a map of streams where a walk would cost more.
func (d *device) reindex() {
	if len(d.streams) <= 16 {
		return
	}
	if d.index == nil {
		d.index = make(map[string]int, 2*len(d.streams))
	}
	for i := len(d.index); i < len(d.streams); i++ {
		d.index[d.streams[i].metric] = i
	}
}

// bind attaches the rules that are about a stream; what an unchanged rule
// knew of it is kept.
func (e *Engine) bind(d *device, s *stream) {
	old := s.bound
	s.bound, s.gen = nil, e.gen
	var named bool
	for _, a := range e.rules {
		named = named || a.Kind == rule.Baseline && !a.Generic() && e.about(a, d, s)
	}
	learn := false
	s.rate = false
	for _, a := range e.rules {
		if !e.about(a, d, s) || a.Kind == rule.Baseline && a.Generic() && named {
			continue
		}
		b := bound{rule: a}
		if i := slices.IndexFunc(old, func(o bound) bool { return o.rule == a }); i >= 0 {
			b = old[i]
		}
		s.bound = append(s.bound, b)
		learn = learn || a.Kind == rule.Baseline
		s.rate = s.rate || a.Kind == rule.Baseline && a.Counter
	}
	s.joint = slices.ContainsFunc(e.joints, func(a *active) bool {
		return a.MatchesMetric(s.metric) && a.Scope.Contains(d.id, d.cohort, d.tags)
	})
	learn = learn || s.joint
	if learn && s.model == nil {
		s.model = &baseline.Model{}
		d.young = true
	}
}

func (e *Engine) about(a *active, d *device, s *stream) bool {
	return (a.Kind == rule.Threshold || a.Kind == rule.Baseline) && a.mode != fleet.Off &&
		a.MatchesMetric(s.metric) && a.Scope.Contains(d.id, d.cohort, d.tags)
}

func (e *Engine) reading(d *device, s *stream, at int64, value float64, r *fleet.Record) {
	copy(s.recent[1:], s.recent[:])
	s.recent[0] = point{at, value}
	s.filled = min(s.filled+1, recentReadings)

	var j baseline.Judgement
	learned, known := value, true
	if s.rate {
		learned, known = s.perSecond()
	}
	if s.model != nil && known {
		j = e.judged(d, s, at, learned)
		if s.joint && !j.Cohort {
			e.jointReading(d, s, at, j, r)
		}
	}
	for i := range s.bound {
		b := &s.bound[i]
		a := b.rule
		if a.Kind == rule.Threshold {
			switch b.latch.Step(e.beyond(d, s, b, at, value), at, a.RaiseAfter, a.ClearAfter) {
			case threshold.Raise:
				e.raiseThreshold(d, s, b, at, value, r)
			case threshold.Clear:
				e.clear(d, s, b, at, value, r)
			}
			continue
		}
		if known {
			e.judge(d, s, b, j, at, learned, r)
		}
	}
}

// perSecond is the rate of a counter over the last two readings. A counter
// that fell began anew.
func (s *stream) perSecond() (rate float64, known bool) {
	seconds := float64(s.recent[0].at-s.recent[1].at) / 1000
	if s.filled < 2 || seconds <= 0 {
		return 0, false
	}
	grown := s.recent[0].value - s.recent[1].value
	if grown < 0 {
		grown = s.recent[0].value
	}
	return grown / seconds, true
}

// judge applies a baseline rule to a judgement.
func (e *Engine) judge(d *device, s *stream, b *bound, j baseline.Judgement, at int64, value float64, r *fleet.Record) {
	a := b.rule
	strange := j.Ready && j.Surprise >= leastSurprise && j.Surprise >= a.needs(s.model) && towards(a.Direction, j.Up) && farEnough(a, j)
	if strange && !b.latch.Raised && b.last != 0 && at-b.last < e.cfg.HoldOff.Milliseconds() && j.Surprise < b.peak+1 {
		strange = false
	}
	switch b.latch.Step(strange, at, a.sustained(&b.latch, at), a.ClearAfter) {
	case threshold.Raise:
		b.last, b.peak = at, j.Surprise
		s.model.Dispute()
		e.raiseBaseline(d, s, b, j, at, value, r)
	case threshold.Clear:
		b.last = at
		e.clear(d, s, b, at, value, r)
	case threshold.Same:
		if b.latch.Raised {
			b.peak = max(b.peak, j.Surprise)
		}
	}
}

// sustained is how many readings in a row raise: as many as the rule says, and
// more while they have not lasted as long as it says.
func (a *active) sustained(l *threshold.Latch, at int64) int {
	if a.SustainedFor == 0 || l.Run > 0 && at-l.Start >= a.SustainedFor.Milliseconds() {
		return a.Sustained
	}
	return max(a.Sustained, int(l.Run)+2)
}

// leastSurprise bounds what a budget can ask for.
const leastSurprise = 4

// needs is the surprise from which a reading is strange.
func (a *active) needs(m *baseline.Model) float64 {
	if a.Budget == 0 {
		return a.surprise
	}
	return math.Log10(m.PerDay() / a.Budget)
}

func towards(want rule.Direction, up bool) bool {
	return want == rule.Both || (want == rule.Up) == up
}

// farEnough keeps statistically strange but tiny moves quiet.
func farEnough(a *active, j baseline.Judgement) bool {
	move := math.Abs(j.Move())
	return move >= a.MinChange && move >= a.MinEffect*math.Abs(j.Center)
}

func (e *Engine) raiseThreshold(d *device, s *stream, b *bound, at int64, value float64, r *fleet.Record) {
	a := b.rule
	f := e.finding(d, a, r, b.latch.Start, at, s.metric)
	x := &f.Explanation
	x.Metric, x.Unit, x.Value, x.Basis = s.metric, a.Unit, value, "rule"
	x.Readings = s.evidence()
	w := words{device: d.id, cohort: d.cohort, metric: s.metric, unit: a.Unit, value: value}
	if a.bounded {
		limit := a.limit
		x.Threshold = &limit
		w.limit = &limit
	}
	x.Sentence = w.threshold(a.Sentence, a.op, a.RaiseAfter)
	e.emit(f)
}

func (e *Engine) raiseBaseline(d *device, s *stream, b *bound, j baseline.Judgement, at int64, value float64, r *fleet.Record) {
	a := b.rule
	f := e.finding(d, a, r, b.latch.Start, at, s.metric)
	x := &f.Explanation
	x.Metric, x.Unit, x.Value, x.Basis = s.metric, unitOf(a, s.metric), value, "own"
	if j.Shift {
		x.Value = j.Center + j.Move()
	}
	low, high := s.model.Expected(j)
	x.Samples, x.Since = uint64(s.model.Samples()), time.Unix(s.model.Started, 0).UTC()
	if j.Cohort {
		low, _, high = s.prior.Range(&e.cfg.Baseline, s.model, at/1000, d.local(at))
		x.Basis, x.Samples = "cohort", s.prior.Samples
	}
	x.Expected = &fleet.Range{Low: possible(low, x.Unit), High: high}
	p, limit := j.P(), math.Pow(10, -a.needs(s.model))
	x.Score, x.Threshold = &p, &limit
	x.Readings = s.evidence()
	x.ScoreText = scoreText(j.Surprise, a.Sustained, s.model, d, at)
	if j.Cohort {
		x.ScoreText = fmt.Sprintf("score 10%s by %d devices of cohort %s; its own history is being learned", superscript(-int(j.Surprise)), s.prior.Devices, d.cohort)
	}
	w := words{device: d.id, cohort: d.cohort, metric: s.metric, unit: x.Unit, value: x.Value, expected: x.Expected}
	x.Sentence = w.baseline(a.Sentence, j, int(e.cfg.Baseline.SlowSpan))
	e.emit(f)
}

func (e *Engine) clear(d *device, s *stream, b *bound, at int64, value float64, r *fleet.Record) {
	a := b.rule
	f := e.finding(d, a, r, b.latch.Start, at, s.metric)
	f.ID = fleet.FindingID(a.ID, a.Version, d.id, s.metric+"/cleared", f.WindowStart)
	f.Cleared = true
	x := &f.Explanation
	x.Metric, x.Unit, x.Value, x.Basis = s.metric, unitOf(a, s.metric), value, "own"
	if a.Kind == rule.Threshold {
		x.Basis = "rule"
	}
	x.Readings = s.evidence()
	w := words{device: d.id, metric: s.metric, unit: x.Unit, value: value}
	x.Sentence = w.cleared(at - b.latch.Start)
	e.emit(f)
}

// evidence returns the latest readings, oldest first.
func (s *stream) evidence() []fleet.EvidencePoint {
	out := make([]fleet.EvidencePoint, 0, s.filled)
	for i := int(s.filled) - 1; i >= 0; i-- {
		out = append(out, fleet.EvidencePoint{ObservedAt: time.UnixMilli(s.recent[i].at).UTC(), Value: s.recent[i].value})
	}
	return out
}

// finding starts a finding of a rule.
func (e *Engine) finding(d *device, a *active, r *fleet.Record, start, end int64, group string) fleet.Finding {
	from := time.UnixMilli(start).UTC()
	return fleet.Finding{
		ID:     fleet.FindingID(a.ID, a.Version, d.id, group, from),
		Device: d.id, Cohort: d.cohort, RuleID: a.ID, RuleVersion: a.Version, RuleTitle: a.Title, Mode: a.mode,
		Evidence: a.Evidence, Severity: a.Severity, Technique: a.Technique, Level: a.Level,
		WindowStart: from, WindowEnd: time.UnixMilli(end).UTC(),
		ReceivedAt: r.ReceivedAt, DetectedAt: r.ReceivedAt, StreamSeq: r.StreamSeq,
	}
}

func (e *Engine) emit(f fleet.Finding) { e.found = append(e.found, f) }
