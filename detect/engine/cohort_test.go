package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/detect/engine"
	"cordon/internal/fleet"
)

// TestCohort_judgesADeviceWithoutHistory enrols a device into a cohort that is
// known: it is quiet while it does what the others do, is found when it does
// not, and moves to its own history.
func TestCohort_judgesADeviceWithoutHistory(t *testing.T) {
	e := withPack(t)
	s := newSynthetic(10, 21, start)
	begin := start.Add(3*24*time.Hour + 9*time.Hour)
	late := []string{s.devices[8].id, s.devices[9].id}
	attack := begin.Add(5 * time.Hour)
	s.devices[9].attack = func(at time.Time, r []fleet.Reading) {
		if at.After(attack) {
			r[2].Value += 2e6
		}
	}
	for _, d := range s.devices {
		e.Apply(fleet.Record{Kind: fleet.ControlKind, ReceivedAt: start, Control: fleet.Control{Device: &fleet.DeviceChange{ID: d.id, Cohort: "c"}}})
	}
	found := map[string][]fleet.Finding{}
	for range 6 * 1440 {
		now := s.at
		s.next(func(r fleet.Record) {
			if r.ReceivedAt.Before(begin) && (r.Device == late[0] || r.Device == late[1]) {
				return
			}
			for _, f := range e.Apply(r) {
				found[f.Device] = append(found[f.Device], f)
			}
		})
		for k := range 6 {
			e.Apply(fleet.Record{Kind: fleet.TickKind, ReceivedAt: now.Add(time.Duration(k) * 10 * time.Second), Tick: fleet.Tick{Healthy: true}})
		}
	}
	require.Empty(t, found[late[0]])
	require.NotEmpty(t, found[late[1]])
	f := found[late[1]][0]
	t.Log(f.Explanation.Sentence, f.Explanation.ScoreText, f.Explanation.Basis)
	require.WithinDuration(t, attack, f.WindowEnd, 5*time.Minute)
	require.Equal(t, "cohort", f.Explanation.Basis)
	require.Contains(t, f.Explanation.Sentence, "Devices of its cohort show")
	for _, b := range e.Baselines(late[0]) {
		require.Equal(t, "ready", b.State)
	}
}

// TestCohort_sameForAnyOrderAndRestart holds pools and joint models to the
// metamorphic property: devices in any order between ticks, restarts anywhere.
func TestCohort_sameForAnyOrderAndRestart(t *testing.T) {
	run := func(reverse bool, restarts ...int) []string {
		cfg := engine.DefaultConfig()
		cfg.Joint.Learn = 60
		e := engine.New(cfg)
		for id, source := range map[string]string{"unlike-itself": jointRule, "odd": stormyRules[1]} {
			e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: id, Source: source}}})
		}
		s := newSynthetic(8, 33, start)
		s.step = 10 * time.Minute
		s.devices[7].attack = func(at time.Time, r []fleet.Reading) {
			if at.After(start.Add(62 * time.Hour)) {
				r[2].Value += 3e6
			}
		}
		for _, d := range s.devices {
			e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Device: &fleet.DeviceChange{ID: d.id, Cohort: "c"}}})
		}
		var found []fleet.Finding
		for n := range 480 {
			var batch []fleet.Record
			s.next(func(r fleet.Record) {
				if n > 340 || r.Device != s.devices[7].id { // the eighth comes late
					batch = append(batch, r)
				}
			})
			if reverse {
				slices.Reverse(batch)
			}
			for _, r := range batch {
				found = append(found, e.Apply(r)...)
			}
			if slices.Contains(restarts, n) {
				state := e.Snapshot()
				e = engine.New(cfg)
				require.NoError(t, e.Restore(state))
				require.Equal(t, state, e.Snapshot())
			}
			e.Apply(fleet.Record{Kind: fleet.TickKind, ReceivedAt: s.at, Tick: fleet.Tick{Healthy: true}})
		}
		bases := map[string]int{}
		for _, f := range found {
			bases[f.RuleID+" "+f.Explanation.Basis]++
		}
		t.Log(bases)
		require.NotZero(t, bases["odd cohort"])
		out := lines(t, found)
		slices.Sort(out)
		return out
	}
	want := run(false)
	require.Equal(t, want, run(true))
	require.Equal(t, want, run(false, 10, 300, 341, 345, 380, 400, 470))
}

// apply feeds readings of one metric, one every so often.
type feeder struct {
	t     *testing.T
	apply func(fleet.Record) []fleet.Finding
	seq   uint64
	found []fleet.Finding
}

func (f *feeder) put(at time.Time, metric string, value float64) {
	f.seq++
	for _, x := range f.apply(fleet.Record{
		Kind: fleet.TelemetryKind, StreamSeq: f.seq, ReceivedAt: at, Device: "d",
		Readings: []fleet.Reading{{ObservedAt: at, Metric: metric, Value: value}},
	}) {
		if !x.Cleared {
			f.t.Log(at.Format(time.DateTime), x.Explanation.Sentence, x.Explanation.ScoreText)
			f.found = append(f.found, x)
		}
	}
}

// TestBaseline_dailyJobIsStrangeOnce runs a job of twenty minutes every night.
func TestBaseline_dailyJobIsStrangeOnce(t *testing.T) {
	e := withPack(t)
	f := &feeder{t: t, apply: e.Apply}
	s := newSynthetic(1, 3, start)
	for i := range 8 * 1440 {
		at := start.Add(time.Duration(i) * time.Minute)
		v := s.devices[0].readings(at)[0].Value
		if i%1440 >= 180 && i%1440 < 200 && i > 3*1440 { // from the fourth night on
			v += 45
		}
		f.put(at, "cpu_percent", v)
	}
	require.NotEmpty(t, f.found)
	for _, x := range f.found {
		require.Less(t, x.WindowStart.Sub(start), 4*24*time.Hour, "the job is known after its first night")
	}
}

// TestBaseline_followsTheClockOfThePlace has working hours in Paris over the
// end of daylight saving time: what starts at 8 by the clock is expected at 8.
func TestBaseline_followsTheClockOfThePlace(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	require.NoError(t, err)
	count := func(zone string) int {
		e := withPack(t)
		e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Device: &fleet.DeviceChange{ID: "d", TimeZone: zone}}})
		f := &feeder{t: t, apply: e.Apply}
		from := time.Date(2026, 10, 17, 0, 0, 0, 0, time.UTC) // the clock goes back on the 25th
		s := newSynthetic(1, 9, from)
		for i := range 11 * 1440 {
			at := from.Add(time.Duration(i) * time.Minute)
			v := 10 + s.devices[0].readings(at)[5].Value/10
			if h := at.In(paris).Hour(); h >= 8 && h < 18 {
				v += 40
			}
			f.put(at, "cpu_percent", v)
		}
		return len(f.found)
	}
	require.Zero(t, count("Europe/Paris"))
}

// TestBaseline_irregularSampling thins a stream out at random.
func TestBaseline_irregularSampling(t *testing.T) {
	e := withPack(t)
	f := &feeder{t: t, apply: e.Apply}
	s := newSynthetic(1, 12, start)
	jump := start.Add(8*24*time.Hour + 10*time.Hour)
	for i := range 9 * 1440 {
		at := start.Add(time.Duration(i) * time.Minute)
		v := s.devices[0].readings(at)[0].Value
		if at.After(jump) {
			v = 97
		}
		switch h := hash(at.String()) % 100; {
		case i/1440%2 == 1 && h < 97, h < 60: // sparse days between others
		default:
			f.put(at, "cpu_percent", v)
		}
	}
	require.NotEmpty(t, f.found)
	require.WithinDuration(t, jump, f.found[0].WindowEnd, 40*time.Minute)
}

const counterRule = "id: errors\ntitle: Errors\nkind: baseline\nmetric: errors_total\ncounter: true\ndirection: up\nsustained: 3\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n"

// TestBaseline_counterIsARate lets a counter restart: only a faster rate is
// strange.
func TestBaseline_counterIsARate(t *testing.T) {
	e := withPack(t)
	e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: "errors", Source: counterRule}}})
	f := &feeder{t: t, apply: e.Apply}
	s := newSynthetic(1, 12, start)
	total := 0.0
	for i := range 6 * 1440 {
		at := start.Add(time.Duration(i) * time.Minute)
		if i%2000 == 1999 {
			total = 0
		}
		grown := s.devices[0].readings(at)[5].Value
		if i > 5*1440 && i < 5*1440+60 {
			grown += 200
		}
		total += grown
		f.put(at, "errors_total", total)
	}
	require.Len(t, f.found, 1)
	require.Equal(t, "errors", f.found[0].RuleID)
	require.WithinDuration(t, start.Add(5*24*time.Hour), f.found[0].WindowEnd, 10*time.Minute)
	require.Less(t, f.found[0].Explanation.Value, 10.0, "per second")
}

// TestBaseline_verdictTeaches has a person call a new level harmless, and
// another time not: then it stays disputed for half a day.
func TestBaseline_verdictTeaches(t *testing.T) {
	again := func(verdict fleet.Verdict) int {
		e := withPack(t)
		f := &feeder{t: t, apply: e.Apply}
		s := newSynthetic(1, 14, start)
		from := 5 * 1440
		for i := range from + 600 {
			at := start.Add(time.Duration(i) * time.Minute)
			v := s.devices[0].readings(at)[0].Value / 3
			if i >= from && (i-from)%60 < 30 { // half an hour of work, half an hour of rest
				v += 50
			}
			if i == from+10 {
				e.Apply(fleet.Record{Kind: fleet.ControlKind, ReceivedAt: at, Control: fleet.Control{
					Verdict: &fleet.VerdictChange{Device: "d", Rule: "processor-use-unusual", Verdict: verdict},
				}})
			}
			f.put(at, "cpu_percent", v)
		}
		require.NotEmpty(t, f.found)
		b := e.Baselines("d")[0]
		require.Equal(t, "cpu_percent", b.Metric)
		return int(b.High)
	}
	require.Less(t, again(fleet.TruePositive), 50)
	require.Greater(t, again(fleet.FalsePositive), 50)
}

const lastingRule = "id: lasting\ntitle: Lasting\nkind: baseline\nmetric: cpu_percent\nsustained: 2\nsustained_for: 30m\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n"

// TestBaseline_sustainedForATime raises after half an hour however often
// readings come.
func TestBaseline_sustainedForATime(t *testing.T) {
	for _, step := range []time.Duration{time.Minute, 10 * time.Minute} {
		e := engine.New(engine.DefaultConfig())
		e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: "lasting", Source: lastingRule}}})
		f := &feeder{t: t, apply: e.Apply}
		s := newSynthetic(1, 14, start)
		jump := start.Add(4*24*time.Hour + 3*time.Hour)
		for at := start; at.Before(jump.Add(2 * time.Hour)); at = at.Add(step) {
			v := s.devices[0].readings(at)[0].Value
			if !at.Before(jump) {
				v = 99
			}
			f.put(at, "cpu_percent", v)
		}
		require.Len(t, f.found, 1)
		require.Equal(t, jump, f.found[0].WindowStart)
		require.Equal(t, jump.Add(30*time.Minute), f.found[0].WindowEnd)
	}
}
