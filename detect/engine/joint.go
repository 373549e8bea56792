package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cordon/detect/baseline"
	"cordon/detect/joint"
	"cordon/detect/threshold"
	"cordon/detect/wire"
	"cordon/internal/fleet"
)

// together is what one joint rule knows of a device: how the residuals of its
// baselines move together.
type together struct {
	model  *joint.Model // nil until every baseline is ready
	next   *joint.Model // learns the successor of an old model
	tried  int64        // ms of the last attempt to begin
	at     int64        // ms of the last row
	since  int64        // ms when the model began to judge
	row    []float64    // latest residuals
	center []float64    // … and the expectations they belong to
	ratio  []float64
	fresh  uint32 // metrics measured since the last row
	latch  threshold.Latch
}

// jointReading takes a metric's residual into the rows of the joint rules.
func (e *Engine) jointReading(d *device, s *stream, at int64, j baseline.Judgement, r *fleet.Record) {
	for _, a := range e.joints {
		if !a.MatchesMetric(s.metric) || !a.Scope.Contains(d.id, d.cohort, d.tags) {
			continue
		}
		t := d.together[a.ID]
		if t == nil {
			if d.together == nil {
				d.together = map[string]*together{}
			}
			t = &together{tried: at}
			d.together[a.ID] = t
		}
		every := e.cfg.JointEvery.Milliseconds()
		if t.model == nil || at-t.at > e.cfg.JointGap.Milliseconds() {
			if at-t.tried < every {
				continue
			}
			if t.tried = at; !e.beginTogether(d, a, t, at) {
				continue
			}
		}
		k, ok := slices.BinarySearchFunc(t.model.Metrics, s.metric, func(m joint.Metric, name string) int { return strings.Compare(m.Name, name) })
		if !ok {
			continue
		}
		t.row[k], t.center[k], t.ratio[k] = j.Residual, j.Center, j.Ratio
		t.fresh |= 1 << k
		if t.fresh == uint32(1)<<len(t.row)-1 && at-t.at >= every {
			t.at, t.fresh = at, 0
			e.judgeTogether(d, a, t, at, r)
		}
	}
}

// beginTogether starts a model once the baselines of all metrics are ready.
func (e *Engine) beginTogether(d *device, a *active, t *together, at int64) bool {
	var names []string
	for _, s := range d.streams {
		switch {
		case s.model == nil || !a.MatchesMetric(s.metric):
		case !s.model.Ready(&e.cfg.Baseline):
			return false
		case d.clock-s.recent[0].at <= e.cfg.JointGap.Milliseconds(): // still measured
			names = append(names, s.metric)
		}
	}
	if len(names) < 2 {
		return false
	}
	slices.Sort(names)
	names = names[:min(len(names), joint.MaxMetrics-1)]
	*t = together{model: joint.New(names), tried: at, at: at - e.cfg.JointEvery.Milliseconds(), latch: t.latch}
	t.widen()
	return true
}

func (t *together) widen() {
	n := len(t.model.Metrics)
	t.row, t.center, t.ratio = make([]float64, n), make([]float64, n), make([]float64, n)
}

func (e *Engine) judgeTogether(d *device, a *active, t *together, at int64, r *fleet.Record) {
	was := t.model.Ready()
	j := t.model.Observe(&e.cfg.Joint, t.row, !d.held)
	switch {
	case !was && t.model.Ready():
		t.since = at
	case was && at-t.since >= e.cfg.JointAge.Milliseconds() && j.Score < 1 && !d.held: // habits change
		if t.next == nil {
			names := make([]string, len(t.row))
			for i := range names {
				names[i] = t.model.Metrics[i].Name
			}
			t.next = joint.New(names)
		}
		if t.next.Observe(&e.cfg.Joint, t.row, true); t.next.Ready() {
			t.model, t.next, t.since = t.next, nil, at
		}
	}
	switch t.latch.Step(j.Score >= 1, at, a.sustained(&t.latch, at), a.ClearAfter) {
	case threshold.Raise:
		e.emit(e.togetherFinding(d, a, t, j, at, r))
	case threshold.Clear:
		f := e.finding(d, a, r, t.latch.Start, at, "joint")
		f.ID = fleet.FindingID(a.ID, a.Version, d.id, "joint/cleared", f.WindowStart)
		f.Cleared = true
		f.Explanation.Basis = "own"
		f.Explanation.Sentence = fmt.Sprintf("%s is back to normal: its metrics move together as before, after %s.", d.id, span(at-t.latch.Start))
		e.emit(f)
	case threshold.Same:
	}
}

// togetherFinding names the metric that contributes most.
func (e *Engine) togetherFinding(d *device, a *active, t *together, j joint.Judgement, at int64, r *fleet.Record) fleet.Finding {
	f := e.finding(d, a, r, t.latch.Start, at, "joint")
	x := &f.Explanation
	limit := 1.0
	x.Basis, x.Threshold = "own", &limit
	x.Samples, x.Since = uint64(e.cfg.Joint.Learn), time.UnixMilli(t.since).UTC()
	most := j.Parts[0]
	k := slices.IndexFunc(t.model.Metrics, func(m joint.Metric) bool { return m.Name == most.Metric })
	back := func(v float64) float64 { return t.center[k] + t.ratio[k]*v }
	x.Metric, x.Unit = most.Metric, unitFromName(most.Metric)
	x.Value = back(most.Value)
	x.Expected = &fleet.Range{Low: possible(back(most.Center-3*most.Scale), x.Unit), High: back(most.Center + 3*most.Scale)}
	if i := slices.IndexFunc(d.streams, func(s *stream) bool { return s.metric == most.Metric }); i >= 0 {
		x.Readings = d.streams[i].evidence()
	}
	x.ScoreText = fmt.Sprintf("%.1f times the limit; shares:", j.Score)
	for _, p := range j.Parts[:min(3, len(j.Parts))] {
		x.ScoreText += fmt.Sprintf(" %s %.0f %%", plainMetric(p.Metric), 100*p.Share)
	}
	x.Sentence = fmt.Sprintf("%s moves unlike itself: %s is %s beside %s. By its history it expects %s.", d.id, plainMetric(most.Metric),
		quantity(x.Value, x.Unit), plainMetric(j.Parts[min(1, len(j.Parts)-1)].Metric), interval(*x.Expected, x.Unit))
	return f
}

func (d *device) encodeTogether(w *wire.Writer) {
	w.Uint(uint64(len(d.together)))
	for _, id := range slices.Sorted(maps.Keys(d.together)) {
		t := d.together[id]
		w.String(id)
		for _, v := range []int64{t.tried, t.at, t.since, t.latch.Start} {
			w.Int(v)
		}
		w.Uint(uint64(t.fresh))
		w.Uint(uint64(t.latch.Run))
		w.Bool(t.latch.Raised)
		w.Bool(t.model != nil)
		if t.model == nil {
			continue
		}
		t.model.Encode(w)
		w.Bool(t.next != nil)
		if t.next != nil {
			t.next.Encode(w)
		}
		for _, list := range [][]float64{t.row, t.center, t.ratio} {
			for _, v := range list {
				w.Float(v)
			}
		}
	}
}

func (d *device) decodeTogether(r *wire.Reader) {
	for range r.Count() {
		t := &together{}
		id := r.String()
		for _, v := range []*int64{&t.tried, &t.at, &t.since, &t.latch.Start} {
			*v = r.Int()
		}
		t.fresh, t.latch.Run, t.latch.Raised = uint32(r.Uint()), uint32(r.Uint()), r.Bool()
		if r.Bool() {
			t.model = &joint.Model{}
			t.model.Decode(r)
			if r.Bool() {
				t.next = &joint.Model{}
				t.next.Decode(r)
			}
			t.widen()
			for _, list := range [][]float64{t.row, t.center, t.ratio} {
				for i := range list {
					list[i] = r.Float()
				}
			}
		}
		if d.together == nil {
			d.together = map[string]*together{}
		}
		d.together[id] = t
	}
}
