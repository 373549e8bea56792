package engine

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"cordon/internal/fleet"
)

// Baselines says how far the expectations of a device's metrics have been
// learned, and what they are at the device's own time.
func (e *Engine) Baselines(id string) []fleet.BaselineState {
	d, ok := e.devices[id]
	if !ok {
		return nil
	}
	out := make([]fleet.BaselineState, 0, len(d.streams))
	for _, s := range d.streams {
		if s.model == nil {
			continue
		}
		out = append(out, e.baselineState(d, s))
	}
	slices.SortFunc(out, func(a, b fleet.BaselineState) int { return cmp.Compare(a.Metric, b.Metric) })
	return out
}

func (e *Engine) baselineState(d *device, s *stream) fleet.BaselineState {
	m, cfg := s.model, &e.cfg.Baseline
	offset := d.local(d.clock)
	low, _, high := m.Band(d.clock/1000, offset)
	state := fleet.BaselineState{
		Metric: s.metric, State: "learning", Samples: uint64(m.Samples()), Needed: uint64(cfg.Needed),
		Since: time.Unix(m.Started, 0).UTC(), Low: low, High: high,
	}
	unit := unitFromName(s.metric)
	state.Low = possible(low, unit)
	progress := m.Progress(cfg)
	switch {
	case m.Samples() == 0:
		state.Since = time.Time{}
		state.Detail = "Nothing has been learned yet: no reading was allowed to teach."
	case progress.Ready:
		state.State = "ready"
		state.Detail = fmt.Sprintf("Learned from %s readings over %s; %d of 24 hours of the day are known. Expects %s at this hour.",
			grouped(state.Samples), span((d.clock/1000-m.Started)*1000), m.Hours(), interval(fleet.Range{Low: state.Low, High: high}, unit))
	default:
		state.Detail = fmt.Sprintf("Has %s readings over %s; %d of 24 hours of the day are known. Needs ", grouped(state.Samples),
			span((d.clock/1000-m.Started)*1000), m.Hours())
		state.Detail += need(progress.MissingSamples, progress.MissingSeconds) + " before it judges."
		if s.prior != nil {
			state.Detail += fmt.Sprintf(" Until then %d devices of its cohort are its measure.", s.prior.Devices)
			low, _, high := s.prior.Range(cfg, m, d.clock/1000, offset)
			state.Low, state.High = possible(low, unit), high
		}
	}
	if d.held {
		state.Detail += " Learns nothing while the device is quarantined."
	}
	return state
}

func need(samples uint32, seconds int64) string {
	switch {
	case samples > 0 && seconds > 0:
		return fmt.Sprintf("%d more readings and %s more", samples, span(seconds*1000))
	case samples > 0:
		return fmt.Sprintf("%d more readings", samples)
	}
	return span(seconds*1000) + " more, to see a whole day"
}

// Learning is how many devices have a baseline that is not ready yet.
func (e *Engine) Learning() int {
	n := 0
	for _, d := range e.order {
		if slices.ContainsFunc(d.streams, func(s *stream) bool { return s.model != nil && !s.model.Ready(&e.cfg.Baseline) }) {
			n++
		}
	}
	return n
}
