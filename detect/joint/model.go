package joint

import (
	"cmp"
	"math"
	"slices"
)

// Settings are the constants of the mechanism: one set for every device.
type Settings struct {
	Learn   int     // rows to learn from
	Span    float64 // rows that smoothing averages over
	Blocks  int     // learning is cut into so many parts …
	Wander  float64 // … and a metric whose part means hold this share of its variance is left out
	Clip    float64 // deviations are clipped at so many scales before they teach correlations
	Shrink  float64 // correlations are multiplied by it
	Floor   float64 // least eigenvalue
	Control float64 // quantile of what learning showed: the control limit
	Joint   float64 // the squared distance is strange at so many control limits …
	Single  float64 // … the largest deviation at so many of its own
	Scatter float64 // … and the largest mean square at so many of its own
}

// DefaultSettings are used everywhere.
func DefaultSettings() Settings {
	return Settings{Learn: 400, Span: 8, Blocks: 10, Wander: 0.7, Clip: 3, Shrink: 0.7, Floor: 0.001, Control: 0.99, Joint: 4, Single: 2, Scatter: 3}
}

// MaxMetrics bounds the metrics of one model.
const MaxMetrics = 32

// Model is what is known of one device. Its zero value knows nothing.
type Model struct {
	Metrics []Metric
	rows    [][]float32 // while learning, as they came
	smooth  []float64
	n       int // rows seen
	fitted  bool
	inverse []float64 // of the correlations of the metrics in use, row by row
	used    []int     // metrics in use
	limitT  float64   // control limit of the squared distance
	limitZ  float64   // … of the largest deviation
	limitS  float64   // … of the largest mean square
	square  []float64 // mean squares of late of the metrics in use, unsmoothed
}

// Metric is one column of a model.
type Metric struct {
	Name   string
	Center float64
	Scale  float64
	Raw    float64 // scale before smoothing
	Wander float64 // share of the variance between parts of the learning time
}

// Judgement is what a model says about one row.
type Judgement struct {
	Ready   bool
	Score   float64 // 1 is the least that is strange
	T2      float64 // squared distance
	Limit   float64 // of it
	Z       float64 // largest deviation
	Scatter float64 // largest mean square of late
	Parts   []Part  // what the metrics contribute, largest first; only when strange
}

// Part is a metric's contribution.
type Part struct {
	Metric   string
	Value    float64 // smoothed
	Center   float64
	Scale    float64
	Residual float64 // deviation in scales
	Share    float64 // of the squared distance that goes when it is as expected
}

// New makes a model of some metrics.
func New(names []string) *Model {
	names = names[:min(len(names), MaxMetrics)]
	m := &Model{Metrics: make([]Metric, len(names))}
	for i, name := range names {
		m.Metrics[i].Name = name
	}
	return m
}

func finite(row []float64) bool {
	for _, v := range row {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

// Observe judges a row of values in the order of Metrics, then learns from it
// unless it must not teach.
func (m *Model) Observe(s *Settings, row []float64, teach bool) Judgement {
	if len(row) != len(m.Metrics) || !finite(row) {
		return Judgement{Ready: m.fitted}
	}
	if !m.fitted && !teach {
		return Judgement{}
	}
	m.n++
	if m.smooth == nil {
		m.smooth = slices.Clone(row)
	}
	for i, v := range row {
		m.smooth[i] += max(1/s.Span, 1/float64(m.n)) * (v - m.smooth[i])
	}
	if m.fitted {
		return m.judge(s, row)
	}
	kept := make([]float32, len(row))
	for i, v := range row {
		kept[i] = float32(v)
	}
	if m.rows = append(m.rows, kept); len(m.rows) >= s.Learn {
		m.fit(s)
	}
	return Judgement{}
}

// Ready says whether the model judges.
func (m *Model) Ready() bool { return m.fitted }

// Rows is how many rows are learned, of those needed.
func (m *Model) Rows() int { return len(m.rows) }

func (m *Model) judge(s *Settings, row []float64) Judgement {
	j := Judgement{Ready: true, Limit: m.limitT * s.Joint}
	if len(m.used) == 0 {
		return j
	}
	z := m.standardised(m.smooth)
	j.T2, j.Z = m.distance(z), largest(z)
	j.Scatter = m.scatter(s, row)
	j.Score = max(j.T2/j.Limit, j.Z/(m.limitZ*s.Single), j.Scatter/(m.limitS*s.Scatter))
	if j.Score >= 1 {
		j.Parts = m.parts(z, j.T2)
	}
	return j
}

// standardised returns the deviations of the metrics in use, in scales.
func (m *Model) standardised(values []float64) []float64 {
	z := make([]float64, len(m.used))
	for k, i := range m.used {
		c := &m.Metrics[i]
		z[k] = (values[i] - c.Center) / c.Scale
	}
	return z
}

func (m *Model) distance(z []float64) float64 {
	sum, n := 0.0, len(z)
	for i := range z {
		row := 0.0
		for k, v := range z {
			row += m.inverse[i*n+k] * v
		}
		sum += row * z[i]
	}
	return sum
}

// mostSquare bounds what one row adds to a mean square: a few rows must agree.
const mostSquare = 100

// scatter is the largest mean square of late. It sees metrics that vary more
// than they did, though their means are as expected.
func (m *Model) scatter(s *Settings, row []float64) float64 {
	most := 0.0
	for k, i := range m.used {
		c := &m.Metrics[i]
		z := (row[i] - c.Center) / c.Raw
		m.square[k] += (min(z*z, mostSquare) - m.square[k]) / (2 * s.Span)
		most = max(most, m.square[k])
	}
	return most
}

func largest(z []float64) float64 {
	most := 0.0
	for _, v := range z {
		most = max(most, math.Abs(v))
	}
	return most
}

// parts says how much of the distance would go if a metric were where the
// others make it expected: the least distance over its coordinate.
func (m *Model) parts(z []float64, whole float64) []Part {
	n := len(z)
	out := make([]Part, n)
	for k, i := range m.used {
		row := 0.0
		for l, v := range z {
			row += m.inverse[k*n+l] * v
		}
		c := &m.Metrics[i]
		out[k] = Part{
			Metric: c.Name, Value: m.smooth[i], Center: c.Center, Scale: c.Scale, Residual: z[k],
			Share: min(row*row/m.inverse[k*n+k]/max(whole, 1e-300), 1),
		}
	}
	slices.SortStableFunc(out, func(a, b Part) int { return cmp.Compare(b.Share, a.Share) })
	return out
}
