package baseline

import (
	"math"
	"math/bits"
)

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
}

// DefaultSettings are used everywhere.
func DefaultSettings() Settings {
	return Settings{LevelSpan: 4000, ScaleSpan: 500, SlowSpan: 24, Clip: 4, SeasonRate: 0.08, Needed: 100, DaySpan: 24 * 3600, ReadySpan: 49 * 3600, Quiet: 3600, Adopt: 12 * 3600}
}

const hours = 24

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
	Season  [hours]float32 // mean minus level, by local hour
	Spread  [hours]float32 // mean size of the residual in that hour
	Seen    [hours]uint8   // days seen, saturating

	hour   int8    // being collected; -1 none
	sum    float64 // of offsets from the level
	spread float64 // mean of Spread
	size   float64 // of sizes of residuals
	count  uint32

	fast histogram // of residuals
	slow histogram // of their slow mean
	days uint8     // 0: the daily cycle is unseen; 1: seen once, residuals are being counted; 2: long enough
	away excursion
}

// excursion is a time in which a stream shows what it never showed before.
// Its values do not teach while it lasts; once it is over a few of them do.
type excursion struct {
	First, Last int64 // Unix seconds; First is 0 outside of one
	Count       uint32
	Fast        [kept]float32 // a spread sample of its residuals
	SlowLow     float32
	SlowHigh    float32
	Wild        uint16  // readings that were new themselves, not only their mean
	Calm        uint16  // usual readings in a row since
	CalmSum     float64 // of their residuals
}

// settle keeps the slow mean from remembering a wild excursion long after it
// ended: some usual readings in a row replace it by their own mean.
func (x *excursion) settle(wild bool, e, slow float64) float64 {
	if x.First == 0 {
		return slow
	}
	if wild {
		x.Wild = min(x.Wild+1, 1000)
		x.Calm, x.CalmSum = 0, 0
		return slow
	}
	x.Calm++
	x.CalmSum += e
	if x.Wild < leastWild || x.Calm < calmReadings {
		return slow
	}
	slow = x.CalmSum / float64(x.Calm)
	x.Wild, x.Calm, x.CalmSum = 0, 0, 0
	return slow
}

const (
	leastWild    = 3
	calmReadings = 12
)

// kept is how many values of an excursion are remembered.
const kept = 6

// Judgement is what a model says about one reading.
type Judgement struct {
	Ready    bool
	Surprise float64 // minus the decimal logarithm of the tail probability
	Center   float64 // expected
	Residual float64
	Slow     float64 // mean residual of late
	Ratio    float64 // residuals are divided by it: how wide they scatter at this hour
	Up       bool    // the reading, or its slow mean, lies above what is expected
	Shift    bool    // the slow mean is the stranger of the two
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
		m.Started, m.Level, m.hour = at, x, int8(hour)
	}
	center := m.Level + m.season(second)
	ratio := m.ratio(second)
	e := (x - center) / ratio
	slow := m.Slow + max(1/s.SlowSpan, 1/float64(m.fast.N+1))*(e-m.Slow)
	j := Judgement{Center: center, Residual: e, Slow: slow, Ratio: ratio, Up: e > 0}
	newFast, newSlow := m.judge(s, &j, e, slow)
	if teach {
		slow = m.away.settle(newFast, e, slow)
		if (newFast || newSlow) && j.Ready && m.depart(s, at, e, slow) {
			m.N++
			m.last = at
			m.Slow = slow
			return j
		}
		m.arrive(s, at)
		m.learn(s, at, hour, x, e, slow, ratio)
	}
	return j
}

// judge fills in the surprise and says whether the reading, and the mean of
// late, lie where nothing was seen before.
func (m *Model) judge(s *Settings, j *Judgement, e, slow float64) (newFast, newSlow bool) {
	if m.fast.N < s.Needed {
		return false, false
	}
	j.Ready = m.Ready(s)
	floor := math.Abs(j.Center) * 1e-9
	var a, b float64
	a, newFast = m.fast.surprise(e, floor)
	b, newSlow = m.slow.surprise(slow, floor)
	if a == 0 && b == 0 {
		return newFast, newSlow
	}
	j.Surprise = math.Sqrt(a*a + b*b)
	if j.Surprise < 2 {
		return newFast, newSlow
	}
	if b > a {
		j.Shift = true
		j.Up = slow > m.slow.quantile(0.5)
	} else {
		j.Up = e > m.fast.quantile(0.5)
	}
	return newFast, newSlow
}

// depart notes a reading of an excursion. False once the excursion has lasted
// so long that it is the new normal.
func (m *Model) depart(s *Settings, at int64, e, slow float64) bool {
	x := &m.away
	if x.First == 0 {
		*x = excursion{First: at, SlowLow: float32(slow), SlowHigh: float32(slow)}
	}
	if at-x.First >= s.Adopt {
		return false
	}
	x.Last = at
	// Every value while there is room, then ever rarer ones in turn.
	if n := x.Count; n < kept || n&(n-1) == 0 {
		x.Fast[spread(n)] = float32(e)
	}
	x.Count++
	x.SlowLow, x.SlowHigh = min(x.SlowLow, float32(slow)), max(x.SlowHigh, float32(slow))
	return true
}

func spread(n uint32) int {
	if n < kept {
		return int(n)
	}
	return bits.Len32(n) % kept
}

// arrive ends an excursion after a quiet time: what it showed is known from
// then on, so that a once-a-day job is strange once.
func (m *Model) arrive(s *Settings, at int64) {
	x := &m.away
	if x.First == 0 || at-x.First < s.Adopt && at-x.Last < s.Quiet {
		return
	}
	for _, e := range x.Fast[:min(x.Count, kept)] {
		m.fast.add(float64(e))
	}
	m.slow.add(float64(x.SlowLow))
	m.slow.add(float64(x.SlowHigh))
	*x = excursion{}
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
	m.Level += max(1/s.LevelSpan, 1/n) * clipped * ratio
	m.Slow = slow
	m.fast.add(e)
	m.slow.add(slow)
	if m.days == 0 && at-m.Started >= s.DaySpan {
		m.days = 1
		m.fast, m.slow, m.Slow = histogram{}, histogram{}, 0
		for i := range m.Spread {
			m.Spread[i] = float32(m.Scale)
		}
		m.meanSpread()
	}
	if m.days == 1 && at-m.Started >= s.ReadySpan {
		m.days = 2
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
	return min(max(own/m.spread, 1/maxRatio), maxRatio)
}

// maxRatio bounds how far an hour's scatter is believed to differ.
const maxRatio = 4

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
	if m.fast.N == 0 {
		return center, center, center
	}
	ratio := m.ratio(second)
	return center + m.fast.quantile(0.0005)*ratio, center, center + m.fast.quantile(0.9995)*ratio
}

// Expected is the range that holds the central 99.9 % of what was learned,
// around the judgement's centre: of readings, or of their slow mean where
// that is what is strange.
func (m *Model) Expected(j Judgement) (low, high float64) {
	h := &m.fast
	if j.Shift {
		h = &m.slow
	}
	return j.Center + h.quantile(0.0005)*j.Ratio, j.Center + h.quantile(0.9995)*j.Ratio
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
