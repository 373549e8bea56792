package simulate

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func plans(t *testing.T, texts ...string) []Plan {
	t.Helper()
	var out []Plan
	for _, text := range texts {
		p, err := ParsePlan(text)
		require.NoError(t, err)
		out = append(out, p)
	}
	return out
}

func newFleet(t *testing.T, cfg Config) *Fleet {
	t.Helper()
	cfg.Start = start
	f, err := New(cfg)
	require.NoError(t, err)
	return f
}

// trace hashes all that a fleet says in an hour.
func trace(f *Fleet) string {
	h := sha256.New()
	for i := range f.Len() {
		for at := start; at.Before(start.Add(time.Hour)); at = at.Add(time.Minute) {
			h.Write(fleet.EncodeTelemetry(nil, "b", 1, f.Next(i, at)))
			log := f.Events(i, at, at.Add(time.Minute))
			h.Write(log.Lines)
			fmt.Fprintln(h, log.Events)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestFleet_sameSeedSameBytes(t *testing.T) {
	cfg := Config{Devices: 40, Seed: 7, Plans: plans(t, "brute-force@1m", "exfiltration@2m", "tamper@3m", "cryptominer@4m")}
	a, b := newFleet(t, cfg), newFleet(t, cfg)
	require.Equal(t, trace(a), trace(b))
	require.Equal(t, a.Truth(), b.Truth())
	cfg.Seed = 8
	require.NotEqual(t, trace(a), trace(newFleet(t, cfg)))
}

func TestFleet_anyInstantAlone(t *testing.T) {
	f := newFleet(t, Config{Devices: 5, Seed: 3})
	want := f.Next(4, start.Add(time.Hour))
	for at := start; at.Before(start.Add(2 * time.Hour)); at = at.Add(time.Minute) {
		f.Next(4, at)
	}
	require.Equal(t, want, f.Next(4, start.Add(time.Hour)))
}

func TestFleet_devicesHaveValidIdentities(t *testing.T) {
	f := newFleet(t, Config{Devices: 200, Seed: 1})
	ids, cohorts, sitesSeen := map[string]bool{}, map[string]int{}, map[string]int{}
	for i := range f.Len() {
		r := f.Registration(i)
		require.NoError(t, fleet.CheckDeviceID(r.ID))
		require.False(t, ids[r.ID], r.ID)
		ids[r.ID] = true
		cohorts[r.Cohort+" "+r.Site]++
		sitesSeen[r.Site]++
		require.NotEmpty(t, r.Firmware)
	}
	require.Len(t, sitesSeen, 5)
	require.Len(t, cohorts, 20, "every site has every cohort")
}

func TestFleet_healthyValuesArePossible(t *testing.T) {
	f := newFleet(t, Config{Devices: 60, Seed: 5})
	for i := range f.Len() {
		for at := start; at.Before(start.Add(24 * time.Hour)); at = at.Add(7 * time.Minute) {
			readings := f.Next(i, at)
			require.GreaterOrEqual(t, len(readings), 13)
			for _, r := range readings {
				require.False(t, math.IsNaN(r.Value) || r.Value < 0, "%s %v", r.Metric, r.Value)
				if strings.HasSuffix(r.Metric, "_percent") {
					require.LessOrEqual(t, r.Value, 90.0, r.Metric)
				}
				if r.Metric == agent.CPUTemperature {
					require.Less(t, r.Value, 70.0)
				}
			}
		}
	}
}

// value is one metric of one device at one instant.
func value(t *testing.T, f *Fleet, device int, metric string, at time.Time) float64 {
	t.Helper()
	for _, r := range f.Next(device, at) {
		if r.Metric == metric {
			return r.Value
		}
	}
	require.Failf(t, "no such metric", "%s", metric)
	return 0
}

func index(t *testing.T, f *Fleet, id string) int {
	t.Helper()
	for i := range f.Len() {
		if f.Registration(i).ID == id {
			return i
		}
	}
	require.Failf(t, "no such device", "%s", id)
	return 0
}

func TestAttacks_changeWhatTheySay(t *testing.T) {
	f := newFleet(t, Config{Devices: 100, Seed: 2, Plans: plans(t,
		"brute-force@10m", "exfiltration@10m", "botnet-scan@10m", "cryptominer@10m", "tamper@10m", "silent@10m", "slow-drift@10m/1h", "firmware-swap@10m")})
	truth := f.Truth()
	require.Len(t, truth, len(Attacks))
	devices := map[string]bool{}
	for _, a := range truth {
		devices[a.Device] = true
		i := index(t, f, a.Device)
		before, during := a.From.Add(-time.Minute), a.From.Add(a.To.Sub(a.From)*9/10)
		switch a.Attack {
		case BruteForce:
			log := string(f.Events(i, a.From, a.From.Add(time.Minute)).Lines)
			require.GreaterOrEqual(t, strings.Count(log, "Failed password for"), 25)
			require.NotContains(t, string(f.Events(i, a.To, a.To.Add(time.Hour)).Lines), "Failed password")
		case Exfiltration:
			require.Greater(t, value(t, f, i, agent.NetBytesOut, during), 2e6+value(t, f, i, agent.NetBytesOut, before))
		case BotnetScan:
			require.Greater(t, value(t, f, i, agent.DistinctAddresses, during), 100.0)
		case Cryptominer:
			require.Greater(t, value(t, f, i, agent.CPUPercent, during), 90.0)
			require.Greater(t, value(t, f, i, agent.CPUTemperature, during), 80.0)
		case Tamper, FirmwareSwap:
			events := f.Events(i, a.From, a.To).Events
			require.NotEmpty(t, events)
			require.Equal(t, "integrity", events[0].Class)
		case Silent:
			require.Empty(t, f.Next(i, during))
			require.NotEmpty(t, f.Next(i, a.To))
		case SlowDrift:
			require.Greater(t, value(t, f, i, agent.MemoryPercent, during), 15+value(t, f, i, agent.MemoryPercent, before))
		}
	}
	require.Len(t, devices, len(Attacks), "every attack has a device of its own")
}

// TestEvents_everyEventOnce cuts the same time differently: nothing is said
// twice or left out at the seams.
func TestEvents_everyEventOnce(t *testing.T) {
	f := newFleet(t, Config{Devices: 10, Seed: 2, Plans: plans(t, "brute-force@90s/2m", "tamper@95s", "firmware-swap@100s")})
	end := start.Add(10 * time.Minute)
	for i := range f.Len() {
		whole, parts := f.Events(i, start, end), Log{}
		for at := start; at.Before(end); at = at.Add(3700 * time.Millisecond) {
			to := at.Add(3700 * time.Millisecond)
			if to.After(end) {
				to = end
			}
			l := f.Events(i, at, to)
			parts.Lines, parts.Events = append(parts.Lines, l.Lines...), append(parts.Events, l.Events...)
		}
		require.ElementsMatch(t, strings.Split(string(whole.Lines), "\n"), strings.Split(string(parts.Lines), "\n"))
		require.ElementsMatch(t, whole.Events, parts.Events)
	}
}

func TestWriteTruth(t *testing.T) {
	f := newFleet(t, Config{Devices: 20, Seed: 4, Plans: plans(t, "silent@10m/5m", "tamper@1m")})
	path := filepath.Join(t.TempDir(), "truth.json")
	require.NoError(t, f.WriteTruth(path))
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var got struct {
		Seed    uint64   `json:"seed"`
		Devices int      `json:"devices"`
		Attacks []Attack `json:"attacks"`
	}
	require.NoError(t, json.Unmarshal(raw, &got))
	require.Equal(t, uint64(4), got.Seed)
	require.Equal(t, 20, got.Devices)
	require.Len(t, got.Attacks, 2)
	require.Equal(t, Tamper, got.Attacks[0].Attack, "earliest first")
	require.Equal(t, start.Add(15*time.Minute), got.Attacks[1].To)
}

func TestParsePlan(t *testing.T) {
	p, err := ParsePlan("exfiltration@10m/5m:plc-lyon-001")
	require.NoError(t, err)
	require.Equal(t, Plan{Attack: Exfiltration, After: 10 * time.Minute, Lasts: 5 * time.Minute, Device: "plc-lyon-001"}, p)
	for _, bad := range []string{"", "x@1m", "silent", "silent@", "silent@-1m", "silent@1m/0s", "silent@1m/x"} {
		_, err := ParsePlan(bad)
		require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err), bad)
	}
}

func BenchmarkNext(b *testing.B) {
	f, err := New(Config{Devices: 10, Seed: 1})
	require.NoError(b, err)
	var readings []fleet.Reading
	n := 0
	for b.Loop() {
		readings = f.AppendNext(readings[:0], n%10, start.Add(time.Duration(n)*time.Second))
		n++
	}
}
