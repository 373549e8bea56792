package threshold_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"cordon/detect/threshold"
)

func TestLatch_raisesAndClearsAfterRuns(t *testing.T) {
	var l threshold.Latch
	var got []threshold.Change
	for i, c := range "xx.xxxx..x...x" {
		got = append(got, l.Step(c == 'x', int64(i), 3, 2))
	}
	const s, r, c = threshold.Same, threshold.Raise, threshold.Clear
	require.Equal(t, []threshold.Change{s, s, s, s, s, r, s, s, c, s, s, s, s, s}, got)
}

// TestEpisode_equalsNaiveCount compares the bounded window with counting all
// events again, for the first time that the limit is met.
func TestEpisode_equalsNaiveCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 8).Draw(t, "limit")
		window := rapid.Int64Range(1, 50).Draw(t, "window")
		var e threshold.Episode
		var all []threshold.Moment
		at, met := int64(1), false
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			gap := rapid.Int64Range(0, 30).Draw(t, "gap")
			if gap > window {
				all, met = nil, false // quiet for a window: a new episode
			}
			at += gap
			n := rapid.IntRange(1, 3).Draw(t, "count")
			all = append(all, threshold.Moment{At: at, Count: n})
			within := 0
			for _, m := range all {
				if at-m.At <= window {
					within += m.Count
				}
			}
			want := !met && within >= limit
			met = met || want
			require.Equal(t, want, e.Add(at, n, limit, window))
			require.LessOrEqual(t, len(e.Moments), limit)
		}
	})
}
