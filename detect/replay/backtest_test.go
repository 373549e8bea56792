package replay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/detect/engine"
	"cordon/detect/replay"
	"cordon/internal/fleet"
)

const ruleTail = "mode: alert\nevidence: own\nseverity: low\nlevel: isolate\nrunbook: x\nfalse_positives: [y]\n"

func TestBacktest_findsTheJump(t *testing.T) {
	rule := "id: jump\ntitle: Jump\nkind: baseline\nmetric: m\n" + ruleTail
	trial := replay.Trial{Rule: rule, From: monday.Add(96 * time.Hour), To: monday.Add(130 * time.Hour)}
	report, err := replay.Backtest(t.Context(), wave, trial)
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)
	require.WithinDuration(t, monday.Add(119*time.Hour), report.Findings[0].WindowStart, 10*time.Minute)
	require.Len(t, report.Incidents, 1)
	require.Len(t, report.Quarantines, 1)
	require.InDelta(t, 4*3600, report.Quarantines[0].Seconds, 0)
	trial.Rule = "nonsense"
	_, err = replay.Backtest(t.Context(), wave, trial)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
}

// records hands out a log as ClickHouse would: no ticks, no control records.
func records(log []fleet.Record) replay.Scan {
	return func(_ context.Context, device, _ string, from, to time.Time, yield func(fleet.Record) error) error {
		for _, r := range log {
			if r.Device == "" || device != "" && r.Device != device || r.ReceivedAt.Before(from) || !to.IsZero() && !r.ReceivedAt.Before(to) {
				continue
			}
			if err := yield(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// history is a day of three devices at one reading a minute; one falls silent
// from hour 10 to 11, all from hour 15 to 16, which says nothing about them.
func history() []fleet.Record {
	var log []fleet.Record
	for m := range 24 * 60 {
		for d := range 3 {
			at := monday.Add(time.Duration(m)*time.Minute + time.Duration(d)*time.Second)
			if d == 1 && m/60 == 10 || m/60 == 15 {
				continue
			}
			log = append(log, fleet.Record{
				Kind: fleet.TelemetryKind, StreamSeq: uint64(len(log) + 1), ReceivedAt: at, Device: fmt.Sprintf("d%d", d),
				Readings: []fleet.Reading{{ObservedAt: at, Metric: "m", Value: float64(m % 100)}},
			})
		}
	}
	return log
}

func TestBacktest_silenceByReconstructedTicks(t *testing.T) {
	rule := "id: silent\ntitle: Silent\nkind: absence\nafter: 10m\n" + ruleTail
	for _, device := range []string{"", "d1"} {
		report, err := replay.Backtest(t.Context(), records(history()), replay.Trial{Rule: rule, Device: device, From: monday, To: monday.Add(24 * time.Hour)})
		require.NoError(t, err)
		require.Equal(t, 1, report.Raised, "%v", report.Findings)
		require.Equal(t, "d1", report.Findings[0].Device)
		require.WithinDuration(t, monday.Add(10*time.Hour+10*time.Minute), report.Findings[0].WindowEnd, 2*time.Minute)
		require.Equal(t, 1, report.Cleared)
		require.Positive(t, report.Ticks)
		require.Contains(t, fmt.Sprint(report.Notes), "Ticks are not stored")
	}
	report, err := replay.Backtest(t.Context(), records(history()), replay.Trial{Rule: rule, Device: "d0", From: monday, To: monday.Add(24 * time.Hour)})
	require.NoError(t, err)
	require.Zero(t, report.Raised)
}

// TestBacktest_isTheDetector holds that a trial finds what the engine found
// live on the same log.
func TestBacktest_isTheDetector(t *testing.T) {
	rule := "id: high\ntitle: High\nkind: threshold\nmetric: m\nwhen: value > 90.0\nraise_after: 3\n" + ruleTail
	log := history()
	e := engine.New(engine.DefaultConfig())
	e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: "high", Source: rule}}})
	var live []fleet.Finding
	for _, r := range log {
		for _, f := range e.Apply(r) {
			if !f.Cleared {
				live = append(live, f)
			}
		}
	}
	report, err := replay.Backtest(t.Context(), records(log), replay.Trial{Rule: rule, From: monday, To: monday.Add(24 * time.Hour)})
	require.NoError(t, err)
	want, err := json.Marshal(live)
	require.NoError(t, err)
	got, err := json.Marshal(report.Findings)
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(got))
}

func TestBacktest_differenceToTheRuleInForce(t *testing.T) {
	at := func(limit string) string {
		return "id: high\ntitle: High\nkind: threshold\nmetric: m\nwhen: value > " + limit + "\n" + ruleTail
	}
	trial := replay.Trial{Rule: at("97.0"), Live: at("97.5"), From: monday, To: monday.Add(24 * time.Hour)}
	report, err := replay.Backtest(t.Context(), records(history()), trial)
	require.NoError(t, err)
	require.NotEmpty(t, report.LiveVersion)
	require.Equal(t, report.Raised, report.Difference.Same, "the same readings are above both")
	require.Zero(t, report.Difference.Added+report.Difference.Removed)
	trial.Rule = at("150.0")
	report, err = replay.Backtest(t.Context(), records(history()), trial)
	require.NoError(t, err)
	require.Zero(t, report.Raised)
	require.Positive(t, report.Difference.Removed)
	require.Len(t, report.Difference.Lost, min(50, report.Difference.Removed))
	trial.Rule, trial.Limit = at("97.0"), 600
	report, err = replay.Backtest(t.Context(), records(history()), trial)
	require.NoError(t, err)
	require.True(t, report.Truncated)
	require.LessOrEqual(t, report.Readings, uint64(600))
	require.True(t, report.To.Before(trial.To))
}
