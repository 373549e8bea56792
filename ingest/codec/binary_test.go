package codec_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"cordon/ingest/codec"
	"cordon/internal/fleet"
	"cordon/internal/fleet/wire"
)

// columnsOf is the columnar Protobuf of readings by the generated code.
func columnsOf(boot string, seq uint64, readings []fleet.Reading) *wire.Telemetry {
	out := &wire.Telemetry{Boot: boot, Seq: seq, Columns: &wire.Columns{}}
	places := map[string]uint32{}
	for i, r := range readings {
		at := r.ObservedAt.UnixMilli()
		if i == 0 {
			out.Ts = at
		}
		if _, ok := places[r.Metric]; !ok {
			places[r.Metric] = uint32(len(places))
			out.Columns.Metrics = append(out.Columns.Metrics, r.Metric)
		}
		last := out.Ts
		if i > 0 {
			last = readings[i-1].ObservedAt.UnixMilli()
		}
		out.Columns.Metric = append(out.Columns.Metric, places[r.Metric])
		out.Columns.TsDelta = append(out.Columns.TsDelta, at-last)
		out.Columns.Value = append(out.Columns.Value, r.Value)
	}
	return out
}

func rowsOf(boot string, seq uint64, readings []fleet.Reading) *wire.Telemetry {
	out := &wire.Telemetry{Boot: boot, Seq: seq}
	for _, r := range readings {
		out.Readings = append(out.Readings, &wire.Reading{Metric: r.Metric, Value: r.Value, Ts: r.ObservedAt.UnixMilli()})
	}
	return out
}

func cborOf(boot string, seq uint64, readings []fleet.Reading) any {
	type reading struct {
		TS     float64 `cbor:"ts"`
		Metric string  `cbor:"metric"`
		Value  float64 `cbor:"value"`
	}
	list := []reading{}
	for _, r := range readings {
		list = append(list, reading{float64(r.ObservedAt.UnixMilli()), r.Metric, r.Value})
	}
	return map[string]any{"boot": boot, "seq": seq, "readings": list}
}

func drawReadings(t *rapid.T) []fleet.Reading {
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[A-Za-z0-9_.:/-]{1,20}`), 1, 8, rapid.ID).Draw(t, "names")
	cyclic, same := rapid.Bool().Draw(t, "cyclic"), rapid.Bool().Draw(t, "one time")
	at := received
	var out []fleet.Reading
	for i := range rapid.IntRange(0, 50).Draw(t, "n") {
		if !same || i == 0 {
			at = received.Add(-time.Duration(rapid.Int64Range(0, 6*24*3600*1000).Draw(t, "age")) * time.Millisecond)
		}
		name := names[i%len(names)]
		if !cyclic {
			name = rapid.SampledFrom(names).Draw(t, "metric")
		}
		value := rapid.Float64().Draw(t, "value")
		if math.IsNaN(value) || math.IsInf(value, 0) {
			value = 0
		}
		out = append(out, fleet.Reading{ObservedAt: at, Metric: name, Value: value})
	}
	return out
}

// What our encoders, the generated code and another CBOR library write, with
// every option that a sender has, is read back the same.
func TestDecode_binaryEncodingsReadBack(t *testing.T) {
	decoder := codec.NewDecoder() // its caches must not show
	rapid.Check(t, func(t *rapid.T) {
		boot := rapid.StringMatching(`[A-Za-z0-9-]{0,64}`).Draw(t, "boot")
		seq := rapid.Uint64().Draw(t, "seq")
		want := drawReadings(t)
		if boot == "" && seq == 0 && len(want) == 0 {
			seq = 1 // no message is empty
		}
		must := func(raw []byte, err error) []byte {
			require.NoError(t, err)
			return raw
		}
		long := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, ShortestFloat: cbor.ShortestFloat16}
		mode, err := long.EncMode()
		require.NoError(t, err)
		for name, payload := range map[string][]byte{
			"columns":           fleet.AppendColumns(nil, boot, seq, want),
			"rows":              fleet.AppendRows(nil, boot, seq, want),
			"generated columns": must(proto.Marshal(columnsOf(boot, seq, want))),
			"generated rows":    must(proto.Marshal(rowsOf(boot, seq, want))),
			"cbor":              must(cbor.Marshal(cborOf(boot, seq, want))),
			"cbor short floats": must(mode.Marshal(cborOf(boot, seq, want))),
		} {
			rec, rej := codec.Decode("fleet.telemetry.d1", nil, payload, received, 1, false, codec.DefaultLimits())
			require.Nil(t, rej, "%s: %x", name, payload)
			require.Equal(t, boot, rec.Boot, name)
			require.Equal(t, seq, rec.Seq, name)
			require.Equal(t, want, rec.Readings, name)
			again, rej := decoder.Decode("fleet.telemetry.d1", nil, payload, received, 1, false, codec.DefaultLimits())
			require.Nil(t, rej)
			require.Equal(t, boot, again.Boot)
			require.Equal(t, len(want), decoder.Len())
			for i := range want {
				require.Equal(t, want[i], fleet.Reading{ObservedAt: time.Unix(0, decoder.ObservedAt[i]).UTC(), Metric: decoder.Metric[i], Value: decoder.Value[i]})
			}
		}
	})
}

// What Cordon writes is what the generated code reads.
func TestAppendColumns_isTheSchema(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawReadings(t)
		for _, payload := range [][]byte{fleet.AppendColumns(nil, "b", 7, want), fleet.AppendRows(nil, "b", 7, want)} {
			var got wire.Telemetry
			require.NoError(t, proto.Unmarshal(payload, &got))
			require.Empty(t, got.ProtoReflect().GetUnknown())
			require.Equal(t, "b", got.GetBoot())
			require.EqualValues(t, 7, got.GetSeq())
			require.Equal(t, len(want), len(got.GetReadings())+len(got.GetColumns().GetValue()))
			for i, v := range got.GetColumns().GetValue() {
				require.Equal(t, want[i].Value, v)
			}
		}
	})
}

// Messages as devices of the first version of the schema send them. They must
// be read for ever.
func TestDecode_goldenMessages(t *testing.T) {
	want := []fleet.Reading{
		{ObservedAt: received.Add(-2 * time.Second), Metric: "cpu", Value: 61.25},
		{ObservedAt: received.Add(-time.Second), Metric: "fan", Value: -1},
		{ObservedAt: received.Add(-time.Second), Metric: "cpu", Value: 0.1},
	}
	for name, golden := range map[string]string{
		"columns": "082a1202623118b0a4b5eba0342a2a0a036370750a0366616e1a0400d00f0022180000000000a04e40000000000000f0bf9a9999999999b93f",
		"rows":    "082a120262313a150a03637075110000000000a04e4018b0a4b5eba0343a150a0366616e11000000000000f0bf1898acb5eba0343a150a03637075119a9999999999b93f1898acb5eba034",
		"cbor":    "a364626f6f7462623163736571182a6872656164696e677383a3627473fb427a20d6d5230000666d6574726963636370756576616c7565fb404ea00000000000a3627473fb427a20d6d5618000666d65747269636366616e6576616c7565fbbff0000000000000a3627473fb427a20d6d5618000666d6574726963636370756576616c7565fb3fb999999999999a",
	} {
		payload, err := hex.DecodeString(golden)
		require.NoError(t, err)
		rec, rej := decode(t, "fleet.telemetry.d1", string(payload))
		require.Nil(t, rej, name)
		require.Equal(t, "b1", rec.Boot, name)
		require.EqualValues(t, 42, rec.Seq, name)
		require.Equal(t, want, rec.Readings, name)
	}
	require.Equal(t, "082a1202623118b0a4b5eba0342a2a0a036370750a0366616e1a0400d00f0022180000000000a04e40000000000000f0bf9a9999999999b93f", hex.EncodeToString(fleet.AppendColumns(nil, "b1", 42, want)))
}

func TestDecode_binaryRejections(t *testing.T) {
	enc := func(v any) string {
		raw, err := cbor.Marshal(v)
		require.NoError(t, err)
		return string(raw)
	}
	pb := func(m *wire.Telemetry) string {
		raw, err := proto.Marshal(m)
		require.NoError(t, err)
		return string(raw)
	}
	now := received.UnixMilli()
	columns := func(c *wire.Columns) string { return pb(&wire.Telemetry{Seq: 1, Ts: now, Columns: c}) }
	whole := columns(&wire.Columns{Metrics: []string{"a"}, Value: []float64{1, 2}})
	for _, tc := range []struct{ payload, reason, detail string }{
		{columns(&wire.Columns{Value: []float64{1}}), codec.Malformed, "no metrics"},
		{columns(&wire.Columns{Metrics: []string{"a"}, Metric: []uint32{0}, Value: []float64{1, 2}}), codec.Malformed, "column metric has 1"},
		{columns(&wire.Columns{Metrics: []string{"a"}, Metric: []uint32{7}, Value: []float64{1}}), codec.Malformed, "metric 7 of 1"},
		{columns(&wire.Columns{Metrics: []string{"a"}, TsDelta: []int64{1, 2, 3}, Value: []float64{1}}), codec.Malformed, "ts_delta has 3"},
		{columns(&wire.Columns{Metrics: []string{"a b"}, Value: []float64{1}}), codec.Malformed, "metric name"},
		{columns(&wire.Columns{Metrics: []string{""}, Value: []float64{1}}), codec.Malformed, "empty"},
		{columns(&wire.Columns{Metrics: []string{"a"}, Value: []float64{math.NaN()}}), codec.NotFinite, "value 1"},
		{columns(&wire.Columns{Metrics: []string{"a"}, TsDelta: []int64{-30 * 86400 * 1000}, Value: []float64{1}}), codec.TooOld, "a was"},
		{columns(&wire.Columns{Metrics: []string{"a"}, TsDelta: []int64{math.MaxInt64}, Value: []float64{1}}), codec.Mistyped, "no time"},
		{columns(&wire.Columns{Metrics: []string{"a"}, TsDelta: []int64{1 << 55}, Value: []float64{1}}), codec.TooNew, "observed"},
		{columns(&wire.Columns{Metrics: []string{"a"}, Value: make([]float64, 10_001)}), codec.TooMany, "10000 readings"},
		{columns(&wire.Columns{Metrics: []string{"a"}, TsDelta: make([]int64, 10_001), Value: []float64{1}}), codec.TooMany, "10000 readings"},
		{pb(&wire.Telemetry{Seq: 1, Columns: &wire.Columns{Metrics: []string{"a"}, TsDelta: []int64{1}, Value: []float64{1}}}), codec.Malformed, "needs the message's ts"},
		{pb(&wire.Telemetry{Seq: 1, Ts: 1 << 60}), codec.TooNew, "observed"},
		{pb(&wire.Telemetry{Seq: 1, Readings: []*wire.Reading{{Value: 1}}}), codec.Malformed, "lacks its metric"},
		{pb(&wire.Telemetry{Seq: 1, Readings: []*wire.Reading{{Metric: "a", Value: math.Inf(1)}}}), codec.NotFinite, "a is +Inf"},
		{pb(&wire.Telemetry{Seq: 1, Boot: "a b"}), codec.Malformed, "boot"},
		{whole[:len(whole)-1], codec.Malformed, "EOF"},
		{"\x08\x01\x2a\x00\x2a\x00", codec.Malformed, "again"},
		{"\x08\x01\x12", codec.Malformed, "EOF"},
		{"\x08\x01\x0a\x00", codec.Mistyped, "another schema"},
		{enc(map[string]any{"seq": 1}), codec.Malformed, "neither metrics"},
		{enc(map[string]any{"metrics": 1}), codec.Mistyped, "not a map"},
		{enc(map[string]any{"metrics": map[string]any{"a": "x"}}), codec.Mistyped, "expected a number"},
		{enc(map[string]any{"metrics": map[string]any{"a": math.NaN()}}), codec.NotFinite, "a is NaN"},
		{enc(map[string]any{"metrics": map[string]any{"a": 1}, "ts": "noon"}), codec.Malformed, "noon"},
		{enc(map[string]any{"readings": []any{map[string]any{"metric": "a"}}}), codec.Malformed, "lacks its value"},
		{enc(map[string]any{"readings": []any{map[string]any{"value": 1}}}), codec.Malformed, "lacks its metric"},
		{enc(map[string]any{"metrics": map[string]any{"a": 1}}) + "x", codec.Malformed, "more data"},
		{"\xa1\x67metrics\xbf\x61a", codec.Malformed, "cut off"},
		{"\xbf\x61x\xff", codec.Malformed, "break"},
		{"\xa1\x61x\x1c", codec.Malformed, "reserved"},
		{"\xa2\x67metrics\xa0\x67metrics\xa0", codec.Malformed, "again"},
		{"\xa1\x61x" + string(bytes.Repeat([]byte{0x81}, 50)) + "\x00", codec.TooMany, "nested"},
		{"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", codec.Malformed, "cut off"},
	} {
		rec, rej := decode(t, "fleet.telemetry.d1", tc.payload)
		require.NotNil(t, rej, "%q", tc.payload)
		require.Equal(t, tc.reason, rej.Reason, "%q: %s", tc.payload, rej.Detail)
		require.Contains(t, rej.Detail, tc.detail)
		require.Empty(t, rec.Readings)
	}
}

func TestDecode_binaryLeniency(t *testing.T) {
	want := []fleet.Reading{{ObservedAt: received, Metric: "a", Value: 1.5}}
	for name, payload := range map[string]string{
		"indefinite":     "\xbf\x67metrics\xbf\x61a\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00\xff\xff",
		"half":           "\xa1\x67metrics\xa1\x61a\xf9\x3e\x00",
		"self-described": "\xd9\xd9\xf7\xa1\x67metrics\xa1\x61a\xfa\x3f\xc0\x00\x00",
		"unknown":        "\xa2\x61x\x82\x5f\x41a\x42bc\xff\xc1\x00\x67metrics\xa1\x61a\xf9\x3e\x00",
		"unpacked":       "\x08\x01\x2a\x0c\x0a\x01a\x21\x00\x00\x00\x00\x00\x00\xf8\x3f",
		"unknown field":  "\x08\x01\x2a\x0c\x0a\x01a\x21\x00\x00\x00\x00\x00\x00\xf8\x3f\x82\x01\x01x",
	} {
		rec, rej := decode(t, "fleet.telemetry.d1", payload)
		require.Nil(t, rej, name)
		require.Equal(t, want, rec.Readings, name)
	}
}

func TestDecode_auditBinary(t *testing.T) {
	want := []fleet.AuditEvent{
		{ObservedAt: received.Add(-time.Second), Class: "file", Activity: "change", Actor: "root", Message: "ä", Fields: map[string]string{"a": "b", "n": "7"}, Repeat: 3},
		{ObservedAt: received, Class: "system", Message: "x"},
	}
	raw, err := proto.Marshal(&wire.Audit{Boot: "b", Seq: 9, Events: []*wire.Event{
		{Ts: received.UnixMilli() - 1000, Class: "file", Activity: "change", Actor: "root", Message: "ä", Fields: map[string]string{"a": "b", "n": "7"}, Repeat: 3},
		{Class: "system", Message: "x"},
	}})
	require.NoError(t, err)
	other, err := cbor.Marshal(map[string]any{"boot": "b", "seq": 9, "events": []any{
		map[string]any{"ts": received.Unix() - 1, "class": "file", "activity": "change", "actor": "root", "message": "ä", "fields": map[string]any{"a": "b", "n": 7}, "repeat": 3},
		map[string]any{"class": "system", "message": "x"},
	}})
	require.NoError(t, err)
	for _, tc := range []struct {
		contentType string
		payload     []byte
	}{{fleet.ContentProtobuf, raw}, {"", raw}, {fleet.ContentCBOR, other}, {"", other}} {
		var header map[string][]string
		if tc.contentType != "" {
			header = map[string][]string{"Content-Type": {tc.contentType}}
		}
		rec, rej := codec.Decode("fleet.audit.d1", header, tc.payload, received, 1, false, codec.DefaultLimits())
		require.Nil(t, rej, tc.contentType)
		require.Equal(t, want, rec.Audit, tc.contentType)
		require.Equal(t, "b", rec.Boot)
		require.EqualValues(t, 9, rec.Seq)
	}
	many, err := proto.Marshal(&wire.Audit{Events: make([]*wire.Event, 0)})
	require.NoError(t, err)
	many = append(many, bytes.Repeat([]byte{7<<3 | 2, 0}, 10_001)...)
	_, rej := codec.Decode("fleet.audit.d1", map[string][]string{"Content-Type": {fleet.ContentProtobuf}}, many, received, 1, false, codec.DefaultLimits())
	require.NotNil(t, rej)
	require.Equal(t, codec.TooMany, rej.Reason)
}

// Every accepted CBOR message is well-formed to another library too.
func FuzzDecode_binary(f *testing.F) {
	readings := []fleet.Reading{{ObservedAt: received, Metric: "a", Value: 1}, {ObservedAt: received.Add(-time.Second), Metric: "b", Value: -2.5}}
	f.Add("fleet.telemetry.d1", fleet.AppendColumns(nil, "b1", 42, readings), false)
	f.Add("fleet.telemetry.d1", fleet.AppendRows(nil, "b1", 42, readings), false)
	for _, v := range []any{cborOf("b1", 42, readings), map[string]any{"metrics": map[string]any{"a": 1, "b": -1.5}, "ts": received.Format(time.RFC3339), "x": []any{nil, true, "y"}}} {
		raw, err := cbor.Marshal(v)
		require.NoError(f, err)
		f.Add("fleet.telemetry.d1", raw, true)
	}
	raw, err := proto.Marshal(&wire.Audit{Seq: 1, Events: []*wire.Event{{Class: "file", Message: "m", Fields: map[string]string{"a": "b"}}}})
	require.NoError(f, err)
	f.Add("fleet.audit.d1", raw, false)
	limits := codec.DefaultLimits()
	reused := codec.NewDecoder()
	f.Fuzz(func(t *testing.T, subject string, data []byte, historic bool) {
		before := bytes.Clone(data)
		rec, rej := codec.Decode(subject, nil, data, received, 1, historic, limits)
		again, rejAgain := reused.Decode(subject, nil, data, received, 1, historic, limits)
		require.Equal(t, rej, rejAgain)
		require.Equal(t, before, data, "the input is left alone")
		require.Equal(t, len(rec.Readings), reused.Len())
		require.Equal(t, rec.Audit, again.Audit)
		if rej != nil {
			require.NotEmpty(t, rej.Detail)
			return
		}
		require.LessOrEqual(t, len(rec.Readings), limits.MaxReadings)
		for _, r := range rec.Readings {
			require.False(t, math.IsNaN(r.Value) || math.IsInf(r.Value, 0))
			require.Regexp(t, `^[A-Za-z0-9_.:/-]{1,128}$`, r.Metric)
			requireTime(t, r.ObservedAt, historic, limits)
		}
		if len(data) > 0 && data[0]>>5 == 5 && rec.Kind == fleet.TelemetryKind {
			require.NoError(t, cbor.Wellformed(data))
		}
	})
}

func BenchmarkDecoder(b *testing.B) {
	readings := make([]fleet.Reading, 20)
	for i := range readings {
		readings[i] = fleet.Reading{ObservedAt: received.Add(-time.Second), Metric: fmt.Sprintf("metric_%d_celsius", i), Value: 61.25 + float64(i)*1.37}
	}
	cborRaw, err := cbor.Marshal(cborOf("b1", 42, readings))
	require.NoError(b, err)
	metrics := map[string]float64{}
	for _, r := range readings {
		metrics[r.Metric] = r.Value
	}
	cborMetrics, err := cbor.Marshal(map[string]any{"boot": "b1", "seq": 42, "ts": received.Unix(), "metrics": metrics})
	require.NoError(b, err)
	mixed := make([]fleet.Reading, 20)
	copy(mixed, readings)
	for i := range mixed {
		mixed[i].ObservedAt = received.Add(-time.Duration(20-i) * time.Second)
	}
	for _, tc := range []struct {
		name    string
		payload []byte
	}{
		{"json x1", codec.EncodeTelemetry("b1", 42, readings[:1])},
		{"json x20", codec.EncodeTelemetry("b1", 42, readings)},
		{"cbor metrics x20", cborMetrics},
		{"cbor readings x20", cborRaw},
		{"protobuf rows x20", fleet.AppendRows(nil, "b1", 42, readings)},
		{"columns x20", fleet.AppendColumns(nil, "b1", 42, readings)},
		{"columns x20 with times", fleet.AppendColumns(nil, "b1", 42, mixed)},
	} {
		b.Run(tc.name, func(b *testing.B) {
			d := codec.NewDecoder()
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				if _, rej := d.Decode("fleet.telemetry.d1", nil, tc.payload, received, 7, false, codec.DefaultLimits()); rej != nil {
					b.Fatal(rej)
				}
				n += d.Len()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/reading")
			b.ReportMetric(float64(len(tc.payload))*float64(b.N)/float64(n), "B/reading")
		})
	}
}
