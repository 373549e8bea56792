package engine_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

// TestPack_findsAttacks learns three days, then lets attacks run on a device
// each, in one fleet, and says how long each took to be found.
func TestPack_findsAttacks(t *testing.T) {
	e := withPack(t)
	s := newSynthetic(12, 11, start)
	begin := start.Add(3*24*time.Hour + 10*time.Hour)
	grow := func(metric int, change func(v, hours float64) float64) func(time.Time, []fleet.Reading) {
		return func(at time.Time, r []fleet.Reading) {
			if at.After(begin) {
				r[metric].Value = change(r[metric].Value, at.Sub(begin).Hours())
			}
		}
	}
	attacks := map[string]struct {
		device int
		run    func(time.Time, []fleet.Reading)
		within time.Duration
	}{
		"exfiltration x8":     {0, grow(2, func(v, _ float64) float64 { return v * 8 }), 15 * time.Minute},
		"exfiltration +1MB":   {1, grow(2, func(v, _ float64) float64 { return v + 1e6 }), 5 * time.Minute},
		"cryptominer":         {2, grow(0, func(v, _ float64) float64 { return min(99, v+55) }), 15 * time.Minute},
		"cryptominer +25":     {3, grow(0, func(v, _ float64) float64 { return min(99, v+25) }), 2 * time.Hour},
		"drift 1 degree/h":    {4, grow(1, func(v, h float64) float64 { return v + h }), 24 * time.Hour},
		"drift 0.4 degree/h":  {5, grow(1, func(v, h float64) float64 { return v + 0.4*h }), 36 * time.Hour},
		"memory drift 0.5%/h": {6, grow(4, func(v, h float64) float64 { return v + 0.5*h }), 36 * time.Hour},
		"connections +40":     {7, grow(5, func(v, _ float64) float64 { return v + 40 }), 10 * time.Minute},
	}
	for _, a := range attacks {
		s.devices[a.device].attack = a.run
	}
	found := map[string]fleet.Finding{}
	for range 5 * 1440 {
		s.next(func(r fleet.Record) {
			for _, f := range e.Apply(r) {
				if _, ok := found[f.Device]; !ok && !f.Cleared {
					found[f.Device] = f
				}
			}
		})
	}
	for name, a := range attacks {
		f, ok := found[s.devices[a.device].id]
		if !ok {
			t.Errorf("%s was not found", name)
			continue
		}
		after := f.DetectedAt.Sub(begin)
		t.Logf("%-20s after %-8s %s · %s", name, after.Round(time.Second), f.Explanation.Sentence, f.Explanation.ScoreText)
		require.Positive(t, after, name)
		require.LessOrEqual(t, after, a.within, name)
		delete(found, f.Device)
	}
	require.Empty(t, found, "devices without an attack have findings")
}
