package codec_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest/codec"
	"cordon/internal/fleet"
)

var received = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func decode(t *testing.T, subject, payload string) (fleet.Record, *codec.Rejection) {
	t.Helper()
	return codec.Decode(subject, nil, []byte(payload), received, 7, false, codec.DefaultLimits())
}

func TestDecode_telemetryShapes(t *testing.T) {
	at := time.Date(2026, 11, 24, 11, 59, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		payload string
		want    []fleet.Reading
	}{
		"map": {
			`{"boot":"b1","seq":42,"ts":"2026-11-24T11:59:00Z","metrics":{"a":1,"b.c/d:e-f_g":-2.5e3}}`,
			[]fleet.Reading{{ObservedAt: at, Metric: "a", Value: 1}, {ObservedAt: at, Metric: "b.c/d:e-f_g", Value: -2500}},
		},
		"time behind": {
			`{"boot":"b1","seq":42,"metrics":{"a":1},"ts":"2026-11-24T12:59:00+01:00"}`,
			[]fleet.Reading{{ObservedAt: at, Metric: "a", Value: 1}},
		},
		"readings": {
			` { "boot" : "b1" , "seq" : 42 , "extra" : {"x":[1,{"y":null}],"z":true} , "readings" : [ {"ts":"2026-11-24T11:59:00.25Z","metric":"a","value":1,"q":"\u00e9"} , {"metric":"b","value":0} ] } `,
			[]fleet.Reading{{ObservedAt: at.Add(250 * time.Millisecond), Metric: "a", Value: 1}, {ObservedAt: received, Metric: "b"}},
		},
		"seconds": {
			`{"boot":"b1","seq":42,"ts":1795521540.5,"metrics":{"a":1}}`,
			[]fleet.Reading{{ObservedAt: at.Add(500 * time.Millisecond), Metric: "a", Value: 1}},
		},
		"milliseconds": {
			`{"boot":"b1","seq":42,"ts":1795521540500,"metrics":{"a":1}}`,
			[]fleet.Reading{{ObservedAt: at.Add(500 * time.Millisecond), Metric: "a", Value: 1}},
		},
		"escaped name": {
			`{"boot":"b1","seq":42,"ts":"2026-11-24T11:59:00Z","metrics":{"\u0061":1}}`,
			[]fleet.Reading{{ObservedAt: at, Metric: "a", Value: 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			rec, rej := decode(t, "fleet.telemetry.d1", tc.payload)
			require.Nil(t, rej)
			require.Equal(t, fleet.Record{
				Kind: fleet.TelemetryKind, StreamSeq: 7, ReceivedAt: received, Device: "d1", Boot: "b1", Seq: 42, Readings: tc.want,
			}, rec)
		})
	}
}
