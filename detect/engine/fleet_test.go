package engine_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/detect/engine"
	"cordon/detect/rule"
	"cordon/detect/rules"
	"cordon/internal/fleet"
)

func withPack(t testing.TB) *engine.Engine {
	t.Helper()
	pack, err := rule.ParseFS(rules.FS)
	require.NoError(t, err)
	e := engine.New(engine.DefaultConfig())
	for _, r := range pack {
		e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: r.ID, Source: r.Source, Mode: r.Mode}}})
	}
	return e
}

var start = time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)

// TestPack_quietOnCleanFleet learns three days and then counts what the pack
// raises over clean days.
func TestPack_quietOnCleanFleet(t *testing.T) {
	devices, days := 40, 2
	if n, err := strconv.Atoi(os.Getenv("FLEET")); err == nil {
		devices = n
	}
	if n, err := strconv.Atoi(os.Getenv("DAYS")); err == nil {
		days = n
	}
	e := withPack(t)
	s := newSynthetic(devices, 7, start)
	byRule := map[string]int{}
	for range (3 + days) * 1440 {
		s.next(func(r fleet.Record) {
			for _, f := range e.Apply(r) {
				if f.Cleared {
					continue
				}
				byRule[f.RuleID+" day "+strconv.Itoa(int(f.WindowStart.Sub(start)/(24*time.Hour)))]++
				if os.Getenv("SHOW") != "" {
					t.Log(f.WindowStart.Format(time.DateTime), f.RuleID, f.Explanation.Sentence, f.Explanation.ScoreText)
				}
			}
		})
	}
	t.Log(byRule)
}
