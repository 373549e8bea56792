package engine_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/detect/engine"
	"cordon/internal/fleet"
)

const jointRule = "id: unlike-itself\ntitle: Metrics part\nkind: joint\nmetric: \"*\"\nsustained: 3\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n"

// TestJoint_seesMetricsPart lets a device's temperature stop following its
// processor, each within what it did before; and counts false findings on
// devices to which nothing happens.
func TestJoint_seesMetricsPart(t *testing.T) {
	e := engine.New(engine.DefaultConfig())
	e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: "unlike-itself", Source: jointRule}}})
	s := newSynthetic(6, 5, start)
	begin := start.Add(6*24*time.Hour + 10*time.Hour)
	s.devices[2].attack = func(at time.Time, r []fleet.Reading) {
		if at.After(begin) { // the fan stopped and the processor is throttled
			r[0].Value = math.Max(1, r[0].Value-12)
			r[1].Value += 7
		}
	}
	var found []fleet.Finding
	for n := range 7 * 1440 {
		if n == 5*1440 { // a restart changes nothing
			state := e.Snapshot()
			e = engine.New(engine.DefaultConfig())
			require.NoError(t, e.Restore(state))
			require.Equal(t, state, e.Snapshot())
		}
		s.next(func(r fleet.Record) { found = append(found, e.Apply(r)...) })
	}
	require.NotEmpty(t, found)
	for _, f := range found {
		t.Log(f.WindowStart.Format(time.DateTime), f.WindowEnd.Sub(begin), f.Explanation.Sentence, f.Explanation.ScoreText)
		require.Equal(t, s.devices[2].id, f.Device)
	}
	f := found[0]
	require.WithinDuration(t, begin, f.WindowEnd, time.Hour)
	require.Contains(t, []string{"cpu_percent", "cpu_temp_celsius"}, f.Explanation.Metric)
	require.NotEmpty(t, f.Explanation.Readings)
}
