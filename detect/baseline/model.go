package baseline

import "math"

// Settings are the constants of the mechanism: one set for every stream.
type Settings struct {
	LevelSpan  float64 // readings that the level averages over
	ScaleSpan  float64 // readings that the scale averages over
	SlowSpan   float64 // readings that the slow mean averages over
	Clip       float64 // outliers are clipped at so many scales
	SeasonRate float64 // least weight of a new day in an hour's mean
	Needed     uint32  // samples in the histograms before a stream is ready
	DaySpan    int64   // seconds after which the daily cycle is known and residuals are counted
	ReadySpan  int64   // seconds of history before a stream is ready
	Quiet      int64   // seconds without a new extreme after which an excursion is over and remembered
	Adopt      int64   // seconds after which an excursion is the new normal
	Early      uint32  // values from which novelty is told, for charts and scores
}

// DefaultSettings are used everywhere.
func DefaultSettings() Settings {
	return Settings{LevelSpan: 4000, ScaleSpan: 500, SlowSpan: 24, Clip: 4, SeasonRate: 0.08, Needed: 100, DaySpan: 24 * 3600, ReadySpan: 49 * 3600, Quiet: 3600, Adopt: 12 * 3600, Early: 60}
}

const hours = 24

// nearSpan is how many readings the expectation of the first day averages over.
const nearSpan = 12.0

// mostValue bounds readings, so that sums and float32 means stay finite.
const mostValue = 1e36

// Model is what is known of one stream. Its zero value knows nothing. All
// fields are plain data; see Encode.
type Model struct {
	N       uint32 // values that taught
	Started int64  // Unix seconds of the first of them
	last    int64  // Unix seconds of the last of them
	Level   float64
	Scale   float64
	Slow    float64
	near    float64        // mean of late, until the day is known
	Season  [hours]float32 // mean minus level, by local hour
	Spread  [hours]float32 // mean size of the residual in that hour
	Seen    [hours]uint8   // days seen, saturating

	hour   int8    // being collected; -1 none
	sum    float64 // of offsets from the level
	spread float64 // mean of Spread
	size   float64 // of sizes of residuals
	count  uint32

	fast histogram  // of residuals
	slow histogram  // of their slow mean
	days uint8      // 0: the daily cycle is unseen; 1: seen once, residuals are being counted; 2: long enough
	away *excursion // nil outside of one
}

// Judgement is what a model says about one reading.
type Judgement struct {
	Ready    bool
	Surprise float64 // minus the decimal logarithm of the tail probability
	Novelty  float64 // the same with the tail beyond everything seen compressed, for ranking; told before the model is ready
	Center   float64 // expected
	Residual float64
	Slow     float64 // mean residual of late
	Ratio    float64 // residuals are divided by it: how wide they scatter at this hour
	Up       bool    // the reading, or its slow mean, lies above what is expected
	Shift    bool    // the slow mean is the stranger of the two
	Cohort   bool    // judged by the cohort's history, not by its own
}

// P is the tail probability.
func (j Judgement) P() float64 { return math.Pow(10, -j.Surprise) }

// Move is the distance from the expected centre of what is strange: the
// reading, or the mean of late.
func (j Judgement) Move() float64 {
	if j.Shift {
		return j.Slow * j.Ratio
	}
	return j.Residual * j.Ratio
}

// Observe judges a reading, then learns from it. at is Unix seconds of event
// time, local the seconds to add for the device's local time. A value that
// must not teach (the device is quarantined) only gets its judgement.
func (m *Model) Observe(s *Settings, at int64, local int32, x float64, teach bool) Judgement {
	x = min(max(x, -mostValue), mostValue)
	second := mod(at+int64(local), 86400)
	hour := int(second / 3600)
	if m.N == 0 {
		if !teach {
			return Judgement{Center: x}
		}
		m.Started, m.Level, m.near, m.hour = at, x, x, int8(hour)
	}
	center := m.Level + m.season(second)
	if m.days == 0 { // the day is not known yet: expect what was seen of late
		center = m.near
	}
	ratio := m.ratio(second)
	e := (x - center) / ratio
	slow := m.Slow + max(1/s.SlowSpan, 1/float64(m.fast.N+1))*(e-m.Slow)
	j := Judgement{Center: center, Residual: e, Slow: slow, Ratio: ratio, Up: e > 0}
	newFast, newSlow := m.judge(s, &j, e, slow)
	if !teach {
		return j
	}
	switch outside := newFast || newSlow; {
	case m.away == nil && outside && j.Ready:
		m.depart(at)
	case m.away == nil:
	case m.away.over(s, at, outside):
		m.arrive()
	case outside:
		m.away.Last = at
	}
	if m.away != nil && m.away.Disputed {
		slow = m.away.settle(newFast, e, slow)
		if newFast || newSlow {
			m.away.keep(e, slow)
			m.N++
			m.last, m.Slow = at, slow
			return j
		}
	}
	m.learn(s, at, hour, x, e, slow, ratio)
	return j
}

// judge fills in the surprise and says whether the reading, and the mean of
// late, lie where nothing was seen before.
func (m *Model) judge(s *Settings, j *Judgement, e, slow float64) (newFast, newSlow bool) {
	if m.fast.N < min(s.Early, s.Needed) {
		return false, false
	}
	j.Ready = m.Ready(s)
	floor := math.Abs(j.Center) * 1e-9
	a := m.fast.surprise(e, floor)
	b := m.slow.surprise(slow, floor)
	if x, y := a.novelty(), b.novelty(); x+y > 0 {
		j.Novelty = math.Sqrt(x*x + y*y)
	}
	if m.away != nil {
		a = m.away.Fast.surprise(a, e, m.fast.N, floor)
		b = m.away.Slow.surprise(b, slow, m.slow.N, floor)
	}
	if a.inside+a.beyond == 0 && b.inside+b.beyond == 0 {
		return a.outside, b.outside
	}
	// Days differ; by how much, a few days say little: tails are wider at first.
	days := float64(max(m.last-m.Started, 86400)) / 86400
	a.beyond /= 1 + youngFast/days
	b.beyond /= 1 + youngSlow/days
	x, y := a.inside+a.beyond, b.inside+b.beyond
	j.Surprise = math.Sqrt(x*x + y*y)
	if j.Surprise < 2 {
		return a.outside, b.outside
	}
	if y > x {
		j.Shift = true
		j.Up = slow > m.slow.quantile(0.5)
	} else {
		j.Up = e > m.fast.quantile(0.5)
	}
	return a.outside, b.outside
}

func (m *Model) learn(s *Settings, at int64, hour int, x, e, slow, ratio float64) {
	m.N++
	m.last = at
	n := float64(m.N)
	limit := math.Inf(1)
	if m.N > 50 {
		limit = s.Clip * m.Scale
	}
	clipped := min(max(e, -limit), limit)
	m.Scale += max(1/s.ScaleSpan, 1/n) * (math.Abs(clipped) - m.Scale)
	m.collect(s, hour, x-m.Level, limit*ratio, math.Abs(clipped)*ratio)
	if m.days == 0 {
		m.near += max(1/nearSpan, 1/n) * (x - m.near)
	} else {
		m.Level += max(1/s.LevelSpan, 1/n) * clipped * ratio
	}
	m.Slow = slow
	m.fast.add(e)
	m.slow.add(slow)
	if m.days == 0 && at-m.Started >= s.DaySpan {
		m.days = 1
		m.settleLevel()
		m.Slow = 0
		for i := range m.Spread {
			m.Spread[i] = float32(m.Scale)
		}
		m.meanSpread()
	}
	if m.days == 1 && at-m.Started >= s.ReadySpan {
		m.days = 2
	}
}

// settleLevel moves the mean of the first day's cycle, which was taken
// relative to the first reading, into the level.
func (m *Model) settleLevel() {
	mean, n := 0.0, 0
	for i, seen := range m.Seen {
		if seen > 0 {
			mean += float64(m.Season[i])
			n++
		}
	}
	if n == 0 {
		return
	}
	mean /= float64(n)
	m.Level += mean
	m.sum -= mean * float64(m.count)
	for i, seen := range m.Seen {
		if seen > 0 {
			m.Season[i] -= float32(mean)
		}
	}
}

// collect gathers the current hour's mean and folds it into the cycle when
// the hour is over.
func (m *Model) collect(s *Settings, hour int, offset, limit, size float64) {
	if int(m.hour) != hour {
		m.fold(s)
		m.hour = int8(hour)
	}
	if m.Seen[hour] > 0 && !math.IsInf(limit, 1) {
		old := float64(m.Season[hour])
		offset = min(max(offset, old-limit), old+limit)
	}
	m.sum += offset
	m.size += size
	m.count++
}

func (m *Model) fold(s *Settings) {
	if m.count == 0 || m.hour < 0 {
		return
	}
	mean, size := m.sum/float64(m.count), m.size/float64(m.count)
	trust := min(1, float64(m.count)/12) // one reading an hour says little of scatter
	m.sum, m.size, m.count = 0, 0, 0
	h := m.hour
	if m.Seen[h] < math.MaxUint8 {
		m.Seen[h]++
	}
	weight := max(s.SeasonRate, 1/float64(m.Seen[h]))
	m.Season[h] += float32(weight * (mean - float64(m.Season[h])))
	m.scatter(int(h), weight*trust, size)
}

// scatter teaches how wide residuals scatter in an hour. Scatter changes
// slowly over the day, so neighbouring hours learn from it too; what is not
// known yet stays at the scatter of the whole day.
func (m *Model) scatter(hour int, weight, size float64) {
	if m.days == 0 {
		return
	}
	for distance := -reach; distance <= reach; distance++ {
		i := (hour + distance + hours) % hours
		share := weight / 2 / float64(1+distance*distance)
		m.Spread[i] += float32(share * (size - float64(m.Spread[i])))
	}
	m.meanSpread()
}

func (m *Model) meanSpread() {
	sum := 0.0
	for _, v := range m.Spread {
		sum += float64(v)
	}
	m.spread = sum / hours
}

// How much wider than seen a tail is believed to be after one day: days differ
// in their means more than in their scatter.
const (
	youngFast = 1.0
	youngSlow = 5.0
)

// reach is how many hours to each side learn from an hour's scatter.
const reach = 2

// season is the cycle's value at a second of the local day, linear between
// the centres of the hours.
func (m *Model) season(second int64) float64 {
	hour := int(second / 3600)
	if m.Seen[hour] == 0 {
		return 0
	}
	own := float64(m.Season[hour])
	part := float64(second%3600)/3600 - 0.5
	other := (hour + 1) % hours
	if part < 0 {
		other, part = (hour+hours-1)%hours, -part
	}
	if m.Seen[other] == 0 {
		return own
	}
	return own + part*(float64(m.Season[other])-own)
}

// ratio is how much wider residuals scatter at a second of the local day than
// over the whole day. The first day's residuals say nothing of it.
func (m *Model) ratio(second int64) float64 {
	if m.days == 0 || m.spread <= 0 {
		return 1
	}
	hour := int(second / 3600)
	own := float64(m.Spread[hour])
	part := float64(second%3600)/3600 - 0.5
	other := (hour + 1) % hours
	if part < 0 {
		other, part = (hour+hours-1)%hours, -part
	}
	own += part * (float64(m.Spread[other]) - own)
	// Only a clear difference is believed, and only what exceeds that.
	switch q := own / m.spread; {
	case q > clearRatio:
		return min(q, maxRatio) / clearRatio
	case q < 1/clearRatio:
		return max(q, 1/maxRatio) * clearRatio
	}
	return 1
}

const (
	clearRatio = 1.35 // differences of scatter below this are accidents
	maxRatio   = 4    // bounds how far an hour's scatter is believed to differ
)

// Ready says whether the model has learned enough to judge.
func (m *Model) Ready(s *Settings) bool { return m.days > 1 && m.fast.N >= s.Needed }

// Samples is how many values taught the model.
func (m *Model) Samples() uint32 { return m.N }

// PerDay is how many readings came per day.
func (m *Model) PerDay() float64 {
	return float64(m.N) * 86400 / float64(max(m.last-m.Started, 86400))
}

// Band is the range that holds the central 99.9 % of what was learned, around
// the expectation at a time.
func (m *Model) Band(at int64, local int32) (low, center, high float64) {
	second := mod(at+int64(local), 86400)
	center = m.Level + m.season(second)
	if m.days == 0 {
		center = m.near
	}
	if m.fast.N == 0 {
		return center, center, center
	}
	low, high = m.central(false)
	ratio := m.ratio(second)
	return center + low*ratio, center, center + high*ratio
}

// Expected is the range that holds the central 99.9 % of what was learned,
// around the judgement's centre: of readings, or of their slow mean where
// that is what is strange.
func (m *Model) Expected(j Judgement) (low, high float64) {
	low, high = m.central(j.Shift)
	return j.Center + low*j.Ratio, j.Center + high*j.Ratio
}

// central is the range of the central 99.9 % of residuals, or of their slow
// means. What an excursion shows is not expected.
func (m *Model) central(slow bool) (low, high float64) {
	h, known := &m.fast, edges{Low: math.Inf(-1), High: math.Inf(1)}
	if slow {
		h = &m.slow
	}
	if m.away != nil {
		if known = m.away.Fast; slow {
			known = m.away.Slow
		}
	}
	low = min(max(h.quantile(0.0005), known.Low), known.High)
	return low, min(max(h.quantile(0.9995), low), known.High)
}

// Hours is how many hours of the day have been seen.
func (m *Model) Hours() int {
	n := 0
	for _, s := range m.Seen {
		if s > 0 {
			n++
		}
	}
	return n
}

func mod(a, b int64) int64 {
	if r := a % b; r >= 0 {
		return r
	}
	return a%b + b
}

// Progress is how far learning has come.
type Progress struct {
	Ready          bool
	MissingSamples uint32
	MissingSeconds int64
}

// Progress says what is still missing before the model judges.
func (m *Model) Progress(s *Settings) Progress {
	p := Progress{Ready: m.Ready(s)}
	if m.fast.N < s.Needed {
		p.MissingSamples = s.Needed - m.fast.N
	}
	if m.days < 2 {
		p.MissingSeconds = max(s.ReadySpan-(m.last-m.Started), 1)
	}
	return p
}
