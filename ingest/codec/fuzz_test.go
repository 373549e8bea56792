package codec_test

import (
	"fmt"
	"math"
	"os"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"cordon/ingest/codec"
	"cordon/internal/fleet"
)

func FuzzDecode(f *testing.F) {
	log, err := os.ReadFile("testdata/auth.log")
	require.NoError(f, err)
	for _, seed := range []struct {
		subject, year string
		data          string
	}{
		{"fleet.telemetry.d1", "", `{"boot":"b1","seq":42,"ts":"2026-11-24T11:59:00Z","metrics":{"cpu_temp_celsius":61.2}}`},
		{"fleet.telemetry.d1", "", `{"boot":"b1","seq":42,"readings":[{"ts":1795521540,"metric":"a","value":-1e-3,"x":[{}]}]}`},
		{"fleet.telemetry.gw.child", "", `{"metrics":{"\u0061":NaN}}`},
		{"fleet.telemetry.d1", "", `{"stream":"FLEET","seq":1}`},
		{"fleet.audit.d1", "2015", string(log)},
		{"fleet.audit.d1", "", `<38>1 2026-11-24T11:59:58Z h1 sshd 77 ID9 [meta x="1"] Accepted password for a from 10.0.0.1 port 5 ssh2`},
		{"fleet.audit.d1", "", "<34>Oct 11 22:14:15 m su: 'su root' failed\n[ 1.2] kernel\n\xff\x00"},
		{"fleet.audit.d1", "", "message repeated 9999999999 times: [ Failed password for from  port  ssh2]"},
		{"fleet.audit.d1", "", `{"events":[{"ts":1,"class":"a","fields":{"a":null}}]}`},
		{"fleet.tick", "", `{"at":"2026-11-24T12:00:00Z","healthy":true}`},
		{"fleet.control.rule.x", "", `{"rule":{"id":"x","source":"id: x"}}`},
	} {
		f.Add(seed.subject, seed.year, []byte(seed.data), false)
	}
	limits := codec.DefaultLimits()
	f.Fuzz(func(t *testing.T, subject, year string, data []byte, historic bool) {
		var header map[string][]string
		if year != "" {
			header = map[string][]string{codec.HeaderYear: {year}}
		}
		before := string(data)
		rec, rej := codec.Decode(subject, header, data, received, 1, historic, limits)
		again, rejAgain := codec.Decode(subject, header, data, received, 1, historic, limits)
		require.Equal(t, rec, again, "the same bytes decode to the same record")
		require.Equal(t, rej, rejAgain)
		require.Equal(t, before, string(data), "the input is left alone")
		if rej != nil {
			require.NotEmpty(t, rej.Reason)
			require.NotEmpty(t, rej.Detail)
			return
		}
		require.LessOrEqual(t, len(rec.Readings), limits.MaxReadings)
		for _, r := range rec.Readings {
			require.False(t, math.IsNaN(r.Value) || math.IsInf(r.Value, 0))
			require.Regexp(t, `^[A-Za-z0-9_.:/-]{1,128}$`, r.Metric)
			requireTime(t, r.ObservedAt, historic, limits)
		}
		for _, e := range rec.Audit {
			require.NotEmpty(t, e.Class)
			require.GreaterOrEqual(t, e.Count(), 1)
			require.True(t, utf8.ValidString(e.Message+e.Actor+e.User))
			requireTime(t, e.ObservedAt, historic, limits)
		}
	})
}

func requireTime(t *testing.T, at time.Time, historic bool, limits codec.Limits) {
	t.Helper()
	require.Equal(t, time.UTC, at.Location())
	require.True(t, at.Year() >= 1971 && at.Year() <= 2200)
	if !historic {
		require.LessOrEqual(t, at.Sub(received), limits.MaxAhead)
		require.LessOrEqual(t, received.Sub(at), limits.MaxAge)
	}
}

func TestDecode_readsBackWhatEncodeWrote(t *testing.T) {
	name := rapid.StringMatching(`[A-Za-z0-9_.:/-]{1,128}`)
	times := rapid.Custom(func(t *rapid.T) time.Time {
		return received.Add(-time.Duration(rapid.Int64Range(0, int64(6*24*time.Hour)).Draw(t, "age")))
	})
	rapid.Check(t, func(t *rapid.T) {
		boot := rapid.StringMatching(`[A-Za-z0-9-]{0,64}`).Draw(t, "boot")
		seq := rapid.Uint64().Draw(t, "seq")
		same := rapid.Bool().Draw(t, "one time")
		at := times.Draw(t, "at")
		var want []fleet.Reading
		for range rapid.IntRange(0, 50).Draw(t, "n") {
			if !same {
				at = times.Draw(t, "at")
			}
			value := rapid.Float64().Draw(t, "value")
			if math.IsNaN(value) || math.IsInf(value, 0) {
				value = 0
			}
			want = append(want, fleet.Reading{ObservedAt: at, Metric: name.Draw(t, "metric"), Value: value})
		}
		payload := codec.EncodeTelemetry(boot, seq, want)
		rec, rej := codec.Decode("fleet.telemetry.d1", nil, payload, received, 1, false, codec.DefaultLimits())
		if rej != nil {
			t.Fatalf("%v in %s", rej, payload)
		}
		if rec.Boot != boot || rec.Seq != seq || fmt.Sprint(rec.Readings) != fmt.Sprint(want) {
			t.Fatalf("decoded %v, want %v", rec, want)
		}
	})
}

func TestEncodeTelemetry_leavesOutWhatIsNotFinite(t *testing.T) {
	readings := []fleet.Reading{{ObservedAt: received, Metric: "a", Value: math.NaN()}, {ObservedAt: received, Metric: "b", Value: 1}}
	rec, rej := decode(t, "fleet.telemetry.d1", string(codec.EncodeTelemetry("b", 1, readings)))
	require.Nil(t, rej)
	require.Equal(t, readings[1:], rec.Readings)
}

func TestEncodeAudit_isReadBack(t *testing.T) {
	events := []fleet.AuditEvent{{ObservedAt: received, Class: "file", Activity: "change", Message: "ä", Fields: map[string]string{"a": "b"}, Repeat: 3}}
	raw, err := codec.EncodeAudit("b", 9, events)
	require.NoError(t, err)
	rec, rej := decode(t, "fleet.audit.d1", string(raw))
	require.Nil(t, rej)
	require.Equal(t, events, rec.Audit)
	require.EqualValues(t, 9, rec.Seq)
}

func BenchmarkDecode(b *testing.B) {
	readings := make([]fleet.Reading, 20)
	for i := range readings {
		readings[i] = fleet.Reading{ObservedAt: received.Add(-time.Second), Metric: fmt.Sprintf("metric_%d_celsius", i), Value: 61.25 + float64(i)*1.37}
	}
	mixed := make([]fleet.Reading, len(readings))
	copy(mixed, readings)
	mixed[3].ObservedAt = received
	for name, payload := range map[string][]byte{
		"metrics x1":   codec.EncodeTelemetry("b1", 42, readings[:1]),
		"metrics x20":  codec.EncodeTelemetry("b1", 42, readings),
		"readings x20": codec.EncodeTelemetry("b1", 42, mixed),
	} {
		b.Run(name, func(b *testing.B) {
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				rec, rej := codec.Decode("fleet.telemetry.d1", nil, payload, received, 7, false, codec.DefaultLimits())
				if rej != nil {
					b.Fatal(rej)
				}
				n += len(rec.Readings)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/reading")
		})
	}
	log, err := os.ReadFile("testdata/auth.log")
	require.NoError(b, err)
	b.Run("syslog lines", func(b *testing.B) {
		n := 0
		b.ReportAllocs()
		for b.Loop() {
			rec, _ := codec.Decode("fleet.audit.d1", nil, log, received, 7, true, codec.DefaultLimits())
			n += len(rec.Audit)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/line")
	})
}
