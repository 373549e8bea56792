package joint

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// madScale makes a median absolute deviation comparable with a standard
// deviation.
const madScale = 1.4826

// fit ends learning.
func (m *Model) fit(s *Settings) {
	m.used = nil
	for i := range m.Metrics {
		m.Metrics[i].Wander = m.wander(s, i)
		_, m.Metrics[i].Raw = m.spread(i)
	}
	raw := m.smoothRows(s)
	for i := range m.Metrics {
		if m.learnMetric(s, i) {
			m.used = append(m.used, i)
		}
	}
	table := m.table()
	m.correlate(s, table)
	t2, z := make([]float64, len(table)), make([]float64, len(table))
	for k, d := range table {
		t2[k], z[k] = m.distance(d), largest(d)
	}
	m.square = make([]float64, len(m.used))
	for k := range m.square {
		m.square[k] = 1
	}
	squares := make([]float64, len(raw))
	for k, row := range raw {
		squares[k] = m.scatter(s, row)
	}
	m.limitS = max(quantile(squares, s.Control), 1e-9)
	m.limitT = max(quantile(t2, s.Control), 1e-9)
	m.limitZ = max(quantile(z, s.Control), 1e-9)
	m.rows, m.fitted = nil, true
}

// table is what was learned from, standardised.
func (m *Model) table() [][]float64 {
	out := make([][]float64, len(m.rows))
	row := make([]float64, len(m.Metrics))
	for k, r := range m.rows {
		for i, v := range r {
			row[i] = float64(v)
		}
		out[k] = m.standardised(row)
	}
	return out
}

// wander is the share of a metric's variance that lies between parts of the
// learning time.
func (m *Model) wander(s *Settings, i int) float64 {
	values := make([]float64, len(m.rows))
	for k, r := range m.rows {
		values[k] = float64(r[i])
	}
	mean, variance := moments(values)
	size := max(len(values)/s.Blocks, 1)
	between, blocks := 0.0, 0.0
	for from := 0; from+size <= len(values); from += size {
		part, _ := moments(values[from : from+size])
		between += (part - mean) * (part - mean)
		blocks++
	}
	if variance <= 0 || blocks == 0 {
		return 0
	}
	return between / blocks / variance
}

// smoothRows smooths what was learned from, as Observe does, and returns it as
// it was.
func (m *Model) smoothRows(s *Settings) (raw [][]float64) {
	smooth := make([]float64, len(m.Metrics))
	for k, r := range m.rows {
		raw = append(raw, make([]float64, len(r)))
		for i, v := range r {
			raw[k][i] = float64(v)
			smooth[i] += max(1/s.Span, 1/float64(k+1)) * (float64(v) - smooth[i])
			r[i] = float32(smooth[i])
		}
	}
	return raw
}

// learnMetric finds centre and scale of a metric and says whether it can be
// used: it varies, and did not wander.
func (m *Model) learnMetric(s *Settings, i int) bool {
	c := &m.Metrics[i]
	c.Center, c.Scale = m.spread(i)
	least := 1e-7 * math.Abs(c.Center) // what float32 resolves
	return c.Wander < s.Wander && c.Scale > least && c.Raw > least
}

// spread is the median of a metric and its MAD as a standard deviation; where
// most values are the same it is the standard deviation itself.
func (m *Model) spread(i int) (center, scale float64) {
	values := make([]float64, len(m.rows))
	for k, r := range m.rows {
		values[k] = float64(r[i])
	}
	_, variance := moments(values)
	center = quantile(slices.Clone(values), 0.5)
	for k, v := range values {
		values[k] = math.Abs(v - center)
	}
	if scale = madScale * quantile(values, 0.5); scale <= 1e-7*math.Abs(center) {
		scale = math.Sqrt(variance)
	}
	return center, scale
}

func moments(values []float64) (mean, variance float64) {
	for _, v := range values {
		mean += v
	}
	mean /= float64(len(values))
	for _, v := range values {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(values))
}

// correlate learns the inverse of the shrunk correlations.
func (m *Model) correlate(s *Settings, table [][]float64) {
	n := len(m.used)
	m.inverse = make([]float64, n*n)
	if n == 0 {
		return
	}
	cov := mat.NewSymDense(n, nil)
	clipped := make([]float64, n)
	for _, z := range table {
		for k := range z {
			clipped[k] = min(max(z[k], -s.Clip), s.Clip)
		}
		for a := range n {
			for b := a; b < n; b++ {
				cov.SetSym(a, b, cov.At(a, b)+clipped[a]*clipped[b]/float64(len(table)))
			}
		}
	}
	for a := range n {
		for b := a + 1; b < n; b++ {
			cov.SetSym(a, b, s.Shrink*cov.At(a, b))
		}
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(cov, true) { // does not happen with finite numbers; metrics then count as independent
		for a := range n {
			m.inverse[a*n+a] = 1
		}
		return
	}
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	for k, v := range eigen.Values(nil) {
		v = max(v, s.Floor)
		for a := range n {
			for b := range n {
				m.inverse[a*n+b] += vectors.At(a, k) * vectors.At(b, k) / v
			}
		}
	}
}

// quantile sorts values.
func quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	at := share * float64(len(values)-1)
	low := int(at)
	if low+1 >= len(values) {
		return values[low]
	}
	return values[low] + (at-float64(low))*(values[low+1]-values[low])
}
