package joint

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// machine is four metrics: two that move together, one alone, one that
// wanders.
type machine struct {
	rng    *rand.Rand
	wander float64
}

func (m *machine) row() []float64 {
	busy := m.rng.NormFloat64()
	m.wander += 0.2 * m.rng.NormFloat64()
	return []float64{50 + 5*busy + 0.3*m.rng.NormFloat64(), 100 + 20*busy + m.rng.NormFloat64(), 7 + m.rng.NormFloat64(), m.wander}
}

func learned(t *testing.T) (*Model, *Settings, *machine) {
	t.Helper()
	s := DefaultSettings()
	m := New([]string{"cpu", "watts", "pressure", "heat"})
	from := &machine{rng: rand.New(rand.NewPCG(1, 2))}
	for range s.Learn {
		require.False(t, m.Observe(&s, from.row(), true).Ready)
	}
	require.True(t, m.Ready())
	return m, &s, from
}

func TestModel_quietWhileNothingChanges(t *testing.T) {
	m, s, from := learned(t)
	strange := 0
	for range 4000 {
		if m.Observe(s, from.row(), true).Score >= 1 {
			strange++
		}
	}
	require.Zero(t, strange)
	require.Equal(t, []int{0, 1, 2}, m.used, "what wandered is left out")
}

func TestModel_namesTheMetricThatLeftTheOthers(t *testing.T) {
	m, s, from := learned(t)
	var j Judgement
	for range 60 {
		row := from.row()
		row[0] -= 4 // each within what it did before, but never so together
		row[1] += 16
		j = m.Observe(s, row, true)
	}
	require.GreaterOrEqual(t, j.Score, 1.0)
	require.Less(t, j.Z, m.limitZ*s.Single, "no metric is strange alone")
	require.Contains(t, []string{"cpu", "watts"}, j.Parts[0].Metric)
	require.Greater(t, j.Parts[0].Share, 0.4)
	require.Less(t, j.Parts[2].Share, 0.2)
}

func TestModel_seesScatter(t *testing.T) {
	m, s, from := learned(t)
	var j Judgement
	for i := range 40 {
		row := from.row()
		row[2] += 8 * float64(i%2*2-1)
		j = m.Observe(s, row, true)
	}
	require.GreaterOrEqual(t, j.Score, 1.0)
	require.Greater(t, j.Scatter, m.limitS*s.Scatter)
}

func TestModel_oddInput(t *testing.T) {
	m, s, _ := learned(t)
	require.Zero(t, m.Observe(s, []float64{math.NaN(), 1, 2, 3}, true).Score)
	require.Zero(t, m.Observe(s, []float64{1}, true).Score)
	flat := New([]string{"a", "b"})
	for range s.Learn {
		flat.Observe(s, []float64{5, 5}, true)
	}
	require.True(t, flat.Ready())
	require.Zero(t, flat.Observe(s, []float64{6, 5}, true).Score, "no metric varied: single rules watch flat ones")
	held := New([]string{"a"})
	held.Observe(s, []float64{1}, false)
	require.Zero(t, held.Rows())
}
