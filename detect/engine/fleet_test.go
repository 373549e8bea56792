package engine_test

import (
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

// TestPack_quietOnCleanFleet learns two days and then counts what the pack
// raises over clean ones. The fleet is harsher than most: traffic with
// multiplicative noise, bursts and days that differ by a tenth.
func TestPack_quietOnCleanFleet(t *testing.T) {
	const devices, days = 25, 4
	e := withPack(t)
	s := newSynthetic(devices, 7, start)
	raised := 0
	for range days * 1440 {
		s.next(func(r fleet.Record) {
			for _, f := range e.Apply(r) {
				if !f.Cleared {
					raised++
					t.Log(f.WindowStart.Format(time.DateTime), f.RuleID, f.Explanation.Sentence, f.Explanation.ScoreText)
				}
			}
		})
	}
	require.LessOrEqual(t, raised, 1, "false findings in %d clean device days", devices*(days-2))
	for _, b := range e.Baselines(s.devices[3].id) {
		require.Equal(t, "ready", b.State, b.Metric)
		require.Less(t, b.Low, b.High)
	}
}

// TestBaselines_learningExplainsItself looks at what a person is told.
func TestBaselines_learningExplainsItself(t *testing.T) {
	e := withPack(t)
	s := newSynthetic(1, 7, start)
	id := s.devices[0].id
	require.Empty(t, e.Baselines(id))
	for range 60 {
		s.next(func(r fleet.Record) { e.Apply(r) })
	}
	b := e.Baselines(id)[0]
	require.Equal(t, "learning", b.State)
	require.Equal(t, uint64(60), b.Samples)
	require.Equal(t, start, b.Since)
	require.Contains(t, b.Detail, "Needs")
	require.Contains(t, b.Detail, "before it judges")
	e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Quarantine: &fleet.QuarantineChange{Device: id, Active: true, Level: fleet.Isolate}}})
	for range 60 {
		s.next(func(r fleet.Record) { e.Apply(r) })
	}
	b = e.Baselines(id)[0]
	require.Equal(t, uint64(60), b.Samples, "a quarantined device teaches nothing")
	require.Contains(t, b.Detail, "quarantined")
}

// BenchmarkApply is one batch of six readings through the whole pack; its
// metrics are per reading and per stream.
func BenchmarkApply(b *testing.B) {
	e := withPack(b)
	s := newSynthetic(200, 1, start)
	var records []fleet.Record
	for range 30 {
		s.next(func(r fleet.Record) { records = append(records, r) })
	}
	day := records[len(records)-1].ReceivedAt.Sub(start) + time.Minute
	readings, laps := 0, 0
	b.ResetTimer()
	for i := range b.N {
		r := records[i%len(records)]
		if i%len(records) == 0 {
			laps++
		}
		shift := time.Duration(laps) * day
		r.ReceivedAt = r.ReceivedAt.Add(shift)
		for k := range r.Readings {
			r.Readings[k].ObservedAt = r.ReceivedAt
		}
		e.Apply(r)
		readings += len(r.Readings)
	}
	b.StopTimer()
	_, streams := e.Size()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(readings), "ns/reading")
	began := time.Now()
	state := e.Snapshot()
	b.ReportMetric(float64(time.Since(began).Nanoseconds())/float64(streams), "snapshot-ns/stream")
	b.ReportMetric(float64(len(state))/float64(streams), "snapshot-bytes/stream")
}
