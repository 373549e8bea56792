package baseline

import (
	"math"
	"slices"

	"cordon/detect/wire"
)

// Prior is what the devices of a cohort show in one metric: what a device of
// that cohort is judged by until it has a history of its own.
type Prior struct {
	Devices uint32         // that it is pooled from
	Samples uint64         // that taught them
	Center  [hours]float32 // median of the expected value, by local hour
	Low     float32        // what nearly all of them stay above, relative to the centre
	High    float32        // … and below
	Scale   float32        // how far beyond that is far
	Skipped int64          // Unix seconds of the first reading that did not teach because of it; 0 none
}

// leastPool is how many devices with a history make a prior.
const leastPool = 5

// poolTrim is the share of devices whose extremes are left out on each side.
const poolTrim = 0.1

// Pool makes a prior of the ready models of a cohort. Nil if they are too few.
func Pool(s *Settings, models []*Model) *Prior {
	models = slices.DeleteFunc(slices.Clone(models), func(m *Model) bool { return !m.Ready(s) })
	if len(models) < leastPool {
		return nil
	}
	p := &Prior{Devices: uint32(len(models))}
	values := make([]float64, len(models))
	for h := range hours {
		for i, m := range models {
			values[i] = m.Level + float64(m.Season[h])
		}
		p.Center[h] = float32(median(values))
	}
	low, high, scale := make([]float64, len(models)), make([]float64, len(models)), make([]float64, len(models))
	for i, m := range models {
		known := m.fast.edges()
		if m.away != nil {
			known = m.away.Fast
		}
		p.Samples += uint64(m.N)
		low[i], high[i] = math.Inf(1), math.Inf(-1)
		for h := range hours {
			apart := m.Level + float64(m.Season[h]) - float64(p.Center[h])
			low[i] = min(low[i], apart+known.Low)
			high[i] = max(high[i], apart+known.High)
		}
		scale[i] = max(known.Down, known.Up, m.Scale)
	}
	slices.Sort(low)
	slices.Sort(high)
	trim := int(poolTrim * float64(len(models)))
	p.Low, p.High = float32(low[trim]), float32(high[len(high)-1-trim])
	// Devices differ: how much the range of the next one may differ is
	// believed from how much theirs do.
	between := max(median(high)-high[0], median(low)-low[0]) / 2
	p.Scale = float32(max(median(scale), between))
	return p
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// Range is what is expected at a time of a device with model m: the cohort's
// range at first, more and more its own as its history grows.
func (p *Prior) Range(s *Settings, m *Model, at int64, local int32) (low, center, high float64) {
	hour := mod(at+int64(local), 86400) / 3600
	center = float64(p.Center[hour])
	low, high = center+float64(p.Low), center+float64(p.High)
	own := float64(m.last-m.Started) / float64(s.ReadySpan)
	if m.fast.N < s.Needed || own <= 0 {
		return low, center, high
	}
	own = min(own, 1)
	known := m.fast.edges()
	_, mine, _ := m.Band(at, local)
	blend := func(cohort, device float64) float64 { return cohort + own*(device-cohort) }
	return blend(low, mine+known.Low), blend(center, mine), blend(high, mine+known.High)
}

// Judge judges a reading of a device that has no history of its own yet.
func (p *Prior) Judge(s *Settings, m *Model, at int64, local int32, x float64) Judgement {
	low, center, high := p.Range(s, m, at, local)
	j := Judgement{Ready: true, Cohort: true, Center: center, Residual: x - center, Ratio: 1, Up: x > center}
	if distance := max(low-x, x-high); distance > 0 {
		j.Surprise = math.Log10(2*float64(p.Devices+1)) + tail(distance, max(float64(p.Scale), math.Abs(center)*1e-9))
	}
	return j
}

// disputedSurprise is from where on a reading that its cohort makes improbable
// does not teach a device without a history.
const disputedSurprise = 6

// Teaches says whether a reading that was judged by the cohort may teach: what
// no device of the cohort shows does not, for as long as an excursion may last.
func (p *Prior) Teaches(s *Settings, at int64, j Judgement) bool {
	if j.Surprise < disputedSurprise {
		return true
	}
	if p.Skipped == 0 {
		p.Skipped = at
	}
	return at-p.Skipped >= s.Adopt
}

// Encode appends a prior's state.
func (p *Prior) Encode(w *wire.Writer) {
	w.Uint(uint64(p.Devices))
	w.Uint(p.Samples)
	for _, v := range p.Center {
		w.Float32(v)
	}
	for _, v := range []float32{p.Low, p.High, p.Scale} {
		w.Float32(v)
	}
	w.Int(p.Skipped)
}

// Decode reads a prior's state.
func (p *Prior) Decode(r *wire.Reader) {
	p.Devices = uint32(r.Uint())
	p.Samples = r.Uint()
	for i := range p.Center {
		p.Center[i] = r.Float32()
	}
	p.Low, p.High, p.Scale = r.Float32(), r.Float32(), r.Float32()
	p.Skipped = r.Int()
}
