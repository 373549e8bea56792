package threshold_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"cordon/detect/threshold"
)

// TestDistinct_equalsNaiveCount compares the bounded count with one over all
// values, for the first time that the limit is met.
func TestDistinct_equalsNaiveCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 6).Draw(t, "limit")
		window := rapid.Int64Range(1, 50).Draw(t, "window")
		var d threshold.Distinct
		last := map[string]int64{}
		at, met := int64(1), false
		for range rapid.IntRange(1, 80).Draw(t, "events") {
			gap := rapid.Int64Range(0, 20).Draw(t, "gap")
			if gap > window {
				clear(last)
				met = false
			}
			at += gap
			value := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "value"))
			last[value] = at
			within := 0
			for _, seen := range last {
				if at-seen <= window {
					within++
				}
			}
			want := !met && within >= limit
			met = met || want
			require.Equal(t, want, d.Add(value, at, limit, window))
			require.LessOrEqual(t, len(d.Seen), limit)
		}
	})
}

// TestSequence_equalsNaiveSearch compares with looking through all events for
// steps in order within the window.
func TestSequence_equalsNaiveSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := rapid.IntRange(2, 4).Draw(t, "steps")
		window := rapid.Int64Range(1, 30).Draw(t, "window")
		type seen struct {
			at   int64
			step int
		}
		var all []seen
		var s threshold.Sequence
		at := int64(1)
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			at += rapid.Int64Range(1, 9).Draw(t, "gap")
			step := rapid.IntRange(0, steps-1).Draw(t, "step")
			all = append(all, seen{at, step})
			want := int64(0)
			if step == steps-1 { // the latest run that ends here
				need, k := steps-1, len(all)-1
				for ; k >= 0 && need >= 0; k-- {
					if all[k].step == need {
						if need == 0 && at-all[k].at <= window {
							want = all[k].at
						}
						need--
					}
				}
			}
			start, done := s.Step(at, steps, func(i int) bool { return i == step }, window)
			require.Equal(t, want != 0, done)
			if done {
				require.Equal(t, want, start)
				all = nil
			}
		}
	})
}
