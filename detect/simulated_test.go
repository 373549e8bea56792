package detect_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/detect/engine"
	"cordon/detect/rule"
	"cordon/detect/rules"
	"cordon/ingest/codec"
	"cordon/internal/fleet"
	"cordon/internal/simulate"
)

// trial runs the pack over a simulated fleet, as the detector would.
type trial struct {
	engine *engine.Engine
	fleet  *simulate.Fleet
	seq    uint64
	found  []fleet.Finding
}

func newTrial(t *testing.T, cfg simulate.Config) *trial {
	t.Helper()
	pack, err := rule.ParseFS(rules.FS)
	require.NoError(t, err)
	f, err := simulate.New(cfg)
	require.NoError(t, err)
	x := &trial{engine: engine.New(engine.DefaultConfig()), fleet: f}
	for _, r := range pack {
		x.apply(fleet.Record{Kind: fleet.ControlKind, ReceivedAt: cfg.Start, Control: fleet.Control{Rule: &fleet.RuleChange{ID: r.ID, Source: r.Source, Mode: r.Mode}}})
	}
	for i := range f.Len() {
		r := f.Registration(i)
		x.apply(fleet.Record{Kind: fleet.ControlKind, ReceivedAt: cfg.Start, Control: fleet.Control{Device: &fleet.DeviceChange{
			ID: r.ID, Cohort: r.Cohort, Tags: r.Tags, TimeZone: r.TimeZone,
		}}})
	}
	return x
}

func (x *trial) apply(r fleet.Record) {
	x.seq++
	r.StreamSeq = x.seq
	x.found = append(x.found, x.engine.Apply(r)...)
}

// run feeds measurements and logs of every device, one round per step.
func (x *trial) run(from, to time.Time, step time.Duration) {
	syslog := map[string][]string{fleet.HeaderContentType: {fleet.ContentSyslog}}
	for at := from; at.Before(to); at = at.Add(step) {
		for i := range x.fleet.Len() {
			id := x.fleet.Registration(i).ID
			if readings := x.fleet.Next(i, at); len(readings) > 0 {
				x.apply(fleet.Record{Kind: fleet.TelemetryKind, ReceivedAt: at, Device: id, Readings: readings})
			}
			log := x.fleet.Events(i, at, at.Add(step))
			if len(log.Events) > 0 {
				x.apply(fleet.Record{Kind: fleet.AuditKind, ReceivedAt: at, Device: id, Audit: log.Events})
			}
			if len(log.Lines) > 0 {
				if r, rejected := codec.Decode("fleet.audit."+id, syslog, log.Lines, at, x.seq+1, false, codec.DefaultLimits()); rejected == nil {
					x.apply(r)
				}
			}
		}
		for tick := at; tick.Before(at.Add(step)); tick = tick.Add(10 * time.Second) {
			x.apply(fleet.Record{Kind: fleet.TickKind, ReceivedAt: tick, Tick: fleet.Tick{At: tick, Healthy: true}})
		}
	}
}

var simulated = time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)

// TestSimulated_quiet counts what the default rules raise over a clean fleet:
// at most one false finding a day.
func TestSimulated_quiet(t *testing.T) {
	devices, days := 40, 5
	if os.Getenv("CORDON_SOAK") != "" {
		devices, days = 1000, 14
	}
	x := newTrial(t, simulate.Config{Devices: devices, Seed: 1, Start: simulated})
	x.run(simulated, simulated.AddDate(0, 0, days), 2*time.Minute)
	raised := 0
	for _, f := range x.found {
		if !f.Cleared {
			raised++
			t.Log(f.WindowStart.Format(time.DateTime), f.RuleID, f.Explanation.Sentence, f.Explanation.ScoreText)
		}
	}
	t.Logf("%d false findings over %d devices and %d days", raised, devices, days)
	require.LessOrEqual(t, raised, days)
}

// TestSimulated_attacks runs every attack after three days of learning and
// says how long it took to be found.
func TestSimulated_attacks(t *testing.T) {
	seeds := []uint64{1}
	if os.Getenv("CORDON_SOAK") != "" {
		seeds = []uint64{1, 2, 3}
	}
	begin := simulated.Add(3*24*time.Hour + 8*time.Hour)
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			var plans []simulate.Plan
			for _, a := range simulate.Attacks {
				plans = append(plans, simulate.Plan{Attack: a, After: begin.Sub(simulated)})
			}
			x := newTrial(t, simulate.Config{Devices: 20, Seed: seed, Start: simulated, Plans: plans})
			x.run(simulated, begin.Add(-time.Hour), 2*time.Minute)
			x.run(begin.Add(-time.Hour), begin.Add(8*time.Hour), 10*time.Second)
			for _, a := range x.fleet.Truth() {
				first := -1
				for i, f := range x.found {
					if f.Device == a.Device && !f.Cleared && !f.WindowEnd.Before(a.From) && f.WindowEnd.Before(a.To.Add(15*time.Minute)) {
						first = i
						break
					}
				}
				if first < 0 {
					t.Errorf("%s on %s was not found", a.Attack, a.Device)
					continue
				}
				f := x.found[first]
				t.Logf("%-14s after %-8s by %s: %s", a.Attack, f.DetectedAt.Sub(a.From), f.RuleID, f.Explanation.Sentence)
				if f.Evidence == fleet.Outside {
					require.Empty(t, f.Level, "an outside actor must not cut a device off")
				}
			}
		})
	}
}
