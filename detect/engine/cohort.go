package engine

import (
	"cordon/detect/baseline"
)

// priorEvery is how often, in ms, a young device asks for what its cohort
// shows while the cohort has nothing to say.
const priorEvery = 3_600_000

// adopt gives streams without a history what their cohort shows. It runs on
// ticks: a tick is at one place in the log whatever the order of devices.
func (e *Engine) adopt(now int64) {
	var pools map[[2]string]*baseline.Prior
	for _, d := range e.order {
		if !d.young || now < d.asked || d.cohort == "" || d.retired {
			continue
		}
		d.asked = now + priorEvery
		d.young = false
		for _, s := range d.streams {
			if s.model == nil || s.model.Ready(&e.cfg.Baseline) {
				s.prior = nil
				continue
			}
			d.young = true
			if s.prior != nil {
				continue
			}
			key := [2]string{d.cohort, s.metric}
			p, ok := pools[key]
			if !ok {
				if pools == nil {
					pools = map[[2]string]*baseline.Prior{}
				}
				p = e.pool(d.cohort, s.metric)
				pools[key] = p
			}
			if p != nil {
				own := *p
				s.prior = &own
			}
		}
	}
}

// pool gathers a metric over the devices of a cohort that are in order.
func (e *Engine) pool(cohort, metric string) *baseline.Prior {
	var models []*baseline.Model
	for _, d := range e.order {
		if d.cohort != cohort || d.held || d.retired {
			continue
		}
		for _, s := range d.streams {
			if s.metric == metric && s.model != nil {
				models = append(models, s.model)
			}
		}
	}
	return baseline.Pool(&e.cfg.Baseline, models)
}

// judged is what a stream's model says of a reading; without a history of its
// own, what its cohort says.
func (e *Engine) judged(d *device, s *stream, at int64, value float64) baseline.Judgement {
	cfg := &e.cfg.Baseline
	seconds, local := at/1000, d.local(at)
	if s.prior == nil || s.model.Ready(cfg) {
		return s.model.Observe(cfg, seconds, local, value, !d.held)
	}
	j := s.prior.Judge(cfg, s.model, seconds, local, value)
	s.model.Observe(cfg, seconds, local, value, !d.held && s.prior.Teaches(cfg, seconds, j))
	return j
}
