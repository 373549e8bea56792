package replay

import (
	"math"
	"math/rand/v2"
	"slices"
)

// A Disturbance makes another series of a labelled one. A detector whose
// score depends on accidents of the originals loses on the copies.
type Disturbance struct {
	Name string
	Do   func(Series) Series
}

// Disturbances are the copies that a detector is judged by: as it is, negated,
// every second row (both ways), the first 5 and 10 % cut off, with noise.
func Disturbances() []Disturbance {
	return []Disturbance{
		{"as it is", func(s Series) Series { return s }},
		{"negated", func(s Series) Series { return s.mapped(func(_ int, v float64) float64 { return -v }) }},
		{"every 2nd row, from the 1st", func(s Series) Series { return s.thinned(0) }},
		{"every 2nd row, from the 2nd", func(s Series) Series { return s.thinned(1) }},
		{"first 5 % cut off", func(s Series) Series { return s.cut(0.05) }},
		{"first 10 % cut off", func(s Series) Series { return s.cut(0.10) }},
		{"noise", func(s Series) Series { return s.noisy() }},
	}
}

func (s Series) mapped(f func(i int, v float64) float64) Series {
	out := s
	out.Value = make([]float64, len(s.Value))
	for i, v := range s.Value {
		out.Value[i] = f(i, v)
	}
	return out
}

// kept returns a series of some rows; windows shrink to the rows that are
// left, and those of which nothing is left go.
func (s Series) kept(keep func(i int) bool) Series {
	out := Series{Name: s.Name}
	index := make([]int, len(s.At)+1) // rows kept before
	for i := range s.At {
		index[i+1] = index[i]
		if keep(i) {
			index[i+1]++
			out.At = append(out.At, s.At[i])
			out.Value = append(out.Value, s.Value[i])
		}
	}
	for _, w := range s.Windows {
		if from, to := index[w[0]], index[w[1]+1]-1; from <= to {
			out.Windows = append(out.Windows, [2]int{from, to})
		}
	}
	return out
}

func (s Series) thinned(odd int) Series { return s.kept(func(i int) bool { return i%2 == odd }) }

func (s Series) cut(share float64) Series {
	first := int(share * float64(len(s.At)))
	return s.kept(func(i int) bool { return i >= first })
}

// noisy adds Gaussian noise with a tenth of the spread of changes from row to
// row; a series that mostly stands still gets a hundredth of its deviation.
func (s Series) noisy() Series {
	changes := make([]float64, 0, len(s.Value))
	mean, square := 0.0, 0.0
	for i, v := range s.Value {
		d := v - mean
		mean += d / float64(i+1)
		square += d * (v - mean)
		if i > 0 {
			changes = append(changes, math.Abs(v-s.Value[i-1]))
		}
	}
	slices.Sort(changes)
	sd := 0.0
	if len(changes) > 0 {
		sd = 0.1 * 1.4826 * changes[len(changes)/2]
	}
	if sd == 0 {
		sd = 0.01 * math.Sqrt(square/float64(max(len(s.Value), 1)))
	}
	rng := rand.New(rand.NewPCG(1, uint64(len(s.Value)))) //nolint:gosec // the same noise every time
	return s.mapped(func(_ int, v float64) float64 { return v + sd*rng.NormFloat64() })
}

// Verdict is what a detector is worth on one set of series.
type Verdict struct {
	Copy      string  `json:"copy"`
	Score     float64 `json:"score"` // of a hundred
	Windows   int     `json:"windows"`
	Found     int     `json:"found"`
	FalseRows int     `json:"false_rows"`
}

// Disturbed scores a detector on every disturbed copy, with the one threshold
// for all that gives the best mean.
func Disturbed(series []Series, copies []Disturbance, detect func(Series) []float64) (verdicts []Verdict, mean, threshold float64) {
	type set struct {
		points            []Point
		windows, scorable int
	}
	profile := Profiles()[0]
	sets := make([]set, len(copies))
	var thresholds []float64
	for i, c := range copies {
		all := make([]judged, len(series))
		for k := range series {
			changed := c.Do(series[k])
			all[k] = judgeSeries(&changed, detect(changed))
		}
		sets[i].points, sets[i].windows, sets[i].scorable = sweep(all)
		for _, p := range sets[i].points {
			thresholds = append(thresholds, p.Threshold)
		}
	}
	slices.Sort(thresholds)
	mean = math.Inf(-1)
	for _, t := range slices.Compact(thresholds) {
		sum := 0.0
		for i := range sets {
			sum += profile.score(at(sets[i].points, t), sets[i].windows, sets[i].scorable)
		}
		if sum /= float64(len(sets)); sum > mean {
			mean, threshold = sum, t
		}
	}
	for i := range sets {
		p := at(sets[i].points, threshold)
		verdicts = append(verdicts, Verdict{copies[i].Name, profile.score(p, sets[i].windows, sets[i].scorable), sets[i].windows, p.Found, p.FalseRows})
	}
	return verdicts, mean, threshold
}

// Plain scores a detector on the series as they are, with the best threshold
// of each profile.
func Plain(series []Series, detect func(Series) []float64) []Verdict {
	all := make([]judged, len(series))
	for k := range series {
		all[k] = judgeSeries(&series[k], detect(series[k]))
	}
	points, windows, scorable := sweep(all)
	var out []Verdict
	for _, p := range Profiles() {
		best := Verdict{Copy: p.Name, Score: math.Inf(-1), Windows: windows}
		for _, at := range points {
			if s := p.score(at, windows, scorable); s > best.Score {
				best.Score, best.Found, best.FalseRows = s, at.Found, at.FalseRows
			}
		}
		out = append(out, best)
	}
	return out
}
