package joint

import "cordon/detect/wire"

// Encode appends a model's state.
func (m *Model) Encode(w *wire.Writer) {
	w.Uint(uint64(len(m.Metrics)))
	for i := range m.Metrics {
		c := &m.Metrics[i]
		w.String(c.Name)
		for _, v := range []float64{c.Center, c.Scale, c.Raw, c.Wander} {
			w.Float(v)
		}
	}
	w.Uint(uint64(m.n))
	w.Bool(m.smooth != nil)
	for _, v := range m.smooth {
		w.Float(v)
	}
	w.Uint(uint64(len(m.rows)))
	for _, row := range m.rows {
		for _, v := range row {
			w.Float32(v)
		}
	}
	w.Bool(m.fitted)
	if !m.fitted {
		return
	}
	w.Uint(uint64(len(m.used)))
	for _, i := range m.used {
		w.Uint(uint64(i))
	}
	for _, list := range [][]float64{m.inverse, m.square, {m.limitT, m.limitZ, m.limitS}} {
		for _, v := range list {
			w.Float(v)
		}
	}
}

// Decode reads a model's state.
func (m *Model) Decode(r *wire.Reader) {
	n := min(r.Count(), MaxMetrics)
	m.Metrics = make([]Metric, n)
	for i := range m.Metrics {
		m.Metrics[i] = Metric{Name: r.String(), Center: r.Float(), Scale: r.Float(), Raw: r.Float(), Wander: r.Float()}
	}
	m.n = int(r.Uint())
	if r.Bool() {
		m.smooth = floats(r, n)
	}
	for range r.Count() {
		row := make([]float32, n)
		for i := range row {
			row[i] = r.Float32()
		}
		m.rows = append(m.rows, row)
	}
	if m.fitted = r.Bool(); !m.fitted {
		return
	}
	used := min(r.Count(), n)
	for range used {
		m.used = append(m.used, min(int(r.Uint()), n-1))
	}
	m.inverse = floats(r, used*used)
	m.square = floats(r, used)
	m.limitT, m.limitZ, m.limitS = r.Float(), r.Float(), r.Float()
}

func floats(r *wire.Reader, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = r.Float()
	}
	return out
}
