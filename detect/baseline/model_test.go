package baseline

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"cordon/detect/wire"
)

// teach feeds days of a daily cycle with noise at one reading a minute.
func teach(m *Model, s *Settings, rng *rand.Rand, from, minutes int, level float64) (worst float64) {
	for i := from; i < from+minutes; i++ {
		x := level + 5*math.Sin(float64(i%1440)/1440*2*math.Pi) + rng.NormFloat64()
		if j := m.Observe(s, int64(i)*60, 0, x, true); j.Ready {
			worst = max(worst, j.Surprise)
		}
	}
	return worst
}

func TestModel_learnsTheDayAndSeesTheJump(t *testing.T) {
	s := DefaultSettings()
	rng := rand.New(rand.NewPCG(1, 2))
	var m Model
	teach(&m, &s, rng, 0, 48*60, 20)
	require.False(t, m.Ready(&s))
	require.Positive(t, m.Progress(&s).MissingSeconds)
	require.Less(t, teach(&m, &s, rng, 48*60, 48*60, 20), 7.0, "a calm day has no great surprise")
	require.True(t, m.Ready(&s))
	low, center, high := m.Band(4*86400+6*3600, 0)
	require.InDelta(t, 25, center, 0.7)
	require.InDelta(t, 25-3.3, low, 3.0)
	require.InDelta(t, 25+3.3, high, 3.0)
	for i := range 20 { // an excursion stays strange: it does not teach
		j := m.Observe(&s, 4*86400+int64(i)*60, 0, 40, true)
		require.Greater(t, j.Surprise, 8.0, "reading %d", i)
		require.True(t, j.Up)
	}
}

func TestModel_adoptsANewLevel(t *testing.T) {
	s := DefaultSettings()
	rng := rand.New(rand.NewPCG(3, 4))
	var m Model
	teach(&m, &s, rng, 0, 4*1440, 20)
	teach(&m, &s, rng, 4*1440, 4*1440, 40)
	require.Less(t, teach(&m, &s, rng, 8*1440, 1440, 40), 7.0)
}

func TestModel_flatMetric(t *testing.T) {
	s := DefaultSettings()
	var m Model
	for i := range 4000 {
		require.Zero(t, m.Observe(&s, int64(i)*60, 0, 5, true).Surprise)
	}
	low, _, high := m.Band(4000*60, 0)
	require.InDelta(t, 5, low, 0)
	require.InDelta(t, 5, high, 0)
	require.Greater(t, m.Observe(&s, 4000*60, 0, 6, true).Surprise, 10.0)
}

func TestModel_heldBackTeachesNothing(t *testing.T) {
	s := DefaultSettings()
	var m Model
	teach(&m, &s, rand.New(rand.NewPCG(5, 6)), 0, 4*1440, 20)
	before := m
	m.Observe(&s, 4*86400, 0, 1000, false)
	require.Equal(t, before, m)
}

// TestModel_anyInput holds the model to finite answers and to its own state
// format for whatever comes.
func TestModel_anyInput(t *testing.T) {
	s := DefaultSettings()
	rapid.Check(t, func(t *rapid.T) {
		var m Model
		at := rapid.Int64Range(-1e10, 1e10).Draw(t, "start")
		scale := math.Pow(10, rapid.Float64Range(-300, 300).Draw(t, "scale"))
		for range rapid.IntRange(1, 200).Draw(t, "readings") {
			at += rapid.Int64Range(0, 7200).Draw(t, "gap")
			x := rapid.Float64Range(-1, 1).Draw(t, "value") * scale
			j := m.Observe(&s, at, 3600, x, true)
			require.False(t, math.IsNaN(j.Surprise) || math.IsInf(j.Surprise, 0) || j.Surprise < 0, "surprise %g", j.Surprise)
			require.False(t, math.IsNaN(j.Center), "center")
		}
		var w wire.Writer
		m.Encode(&w)
		var back Model
		r := wire.NewReader(w.Bytes)
		back.Decode(r)
		require.NoError(t, r.Err())
		require.Zero(t, r.Left())
		require.Equal(t, m, back)
	})
}
