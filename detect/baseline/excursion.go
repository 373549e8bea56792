package baseline

import (
	"math"
	"math/bits"
)

// excursion is a time in which a stream shows what it never showed before. As
// long as it lasts, readings are compared with what was known before it began,
// so that a slow drift can't teach its way out of sight.
//
// Once somebody was told about it, it is disputed: then its values do not
// teach at all while it lasts, and a few of them do when it is over, so that a
// once-a-day job is strange once.
type excursion struct {
	First, Last int64 // Unix seconds
	Fast, Slow  edges
	Disputed    bool
	Count       uint32        // values kept or passed over, once disputed
	Kept        [kept]float32 // a spread sample of their residuals
	SlowLow     float32
	SlowHigh    float32
	Wild        uint16  // readings that were new themselves, not only their mean
	Calm        uint16  // usual readings in a row since
	CalmSum     float64 // of their residuals
}

const (
	kept         = 6 // values of a disputed excursion that are remembered
	leastWild    = 3
	calmReadings = 12
)

// edges are the ends of a histogram, and how fast it thins out there.
type edges struct {
	Low, High, Down, Up float64
}

// edges of what is counted.
func (h *histogram) edges() edges {
	if h.Width == 0 {
		return edges{Low: h.First, High: h.First}
	}
	low, high := 0, bins-1
	for low < high && h.Count[low] == 0 {
		low++
	}
	for high > low && h.Count[high] == 0 {
		high--
	}
	return edges{
		Low: h.Low + float64(low)*h.Width, High: h.Low + float64(high+1)*h.Width,
		Down: h.excess(low, false) * h.Width, Up: h.excess(high, true) * h.Width,
	}
}

// surprise of a value outside the edges; inside them it is what the histogram
// says of it.
func (x *edges) surprise(s surprise, v float64, n uint32, floor float64) surprise {
	distance, scale := x.Low-v, x.Down
	if v > x.High {
		distance, scale = v-x.High, x.Up
	}
	if distance <= 0 {
		return s
	}
	return surprise{math.Log10(2 * (float64(n) + 1)), tail(distance, max(scale, floor)), true}
}

// depart begins an excursion.
func (m *Model) depart(at int64) {
	m.away = &excursion{First: at, Last: at, Fast: m.fast.edges(), Slow: m.slow.edges()}
}

// over says whether an excursion ended: by a quiet time, or because it has
// lasted so long that it is the new normal.
func (x *excursion) over(s *Settings, at int64, outside bool) bool {
	return at-x.First >= s.Adopt || !outside && at-x.Last >= s.Quiet
}

// arrive ends an excursion. What nobody disputed has taught already.
func (m *Model) arrive() {
	x := m.away
	m.away = nil
	if x.Count == 0 {
		return
	}
	for _, e := range x.Kept[:min(x.Count, kept)] {
		m.fast.add(float64(e))
	}
	m.slow.add(float64(x.SlowLow))
	m.slow.add(float64(x.SlowHigh))
}

// Dispute notes that somebody was told about what goes on: it does not teach
// until it is over.
func (m *Model) Dispute() {
	if m.away != nil {
		m.away.Disputed = true
	}
}

// Accept notes that a person called what goes on harmless: it is the new
// normal at once.
func (m *Model) Accept() {
	if m.away != nil {
		m.arrive()
	}
}

// keep notes a value that does not teach: every one while there is room, then
// ever rarer ones in turn.
func (x *excursion) keep(e, slow float64) {
	if x.Count == 0 {
		x.SlowLow, x.SlowHigh = float32(slow), float32(slow)
	}
	if n := x.Count; n < kept || n&(n-1) == 0 {
		x.Kept[spread(n)] = float32(e)
	}
	x.Count++
	x.SlowLow, x.SlowHigh = min(x.SlowLow, float32(slow)), max(x.SlowHigh, float32(slow))
}

func spread(n uint32) int {
	if n < kept {
		return int(n)
	}
	return bits.Len32(n) % kept
}

// settle keeps the slow mean from remembering a wild excursion long after it
// ended: some usual readings in a row replace it by their own mean.
func (x *excursion) settle(wild bool, e, slow float64) float64 {
	if wild {
		x.Wild = min(x.Wild+1, 1000)
		x.Calm, x.CalmSum = 0, 0
		return slow
	}
	x.Calm = min(x.Calm+1, 1000)
	x.CalmSum += e
	if x.Wild < leastWild || x.Calm < calmReadings {
		return slow
	}
	slow = x.CalmSum / float64(x.Calm)
	x.Wild, x.Calm, x.CalmSum = 0, 0, 0
	return slow
}
