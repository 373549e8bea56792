package codec_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest/codec"
	"cordon/internal/fleet"
)

func TestDecode_rejections(t *testing.T) {
	many := `{"readings":[` + strings.Repeat(`{"metric":"a","value":1},`, 10_000) + `{"metric":"a","value":1}]}`
	events := `[` + strings.Repeat(`{"message":"a"},`, 10_000) + `{"message":"a"}]`
	for _, tc := range []struct{ subject, payload, reason, detail string }{
		{"fleet.telemetry.d1", ``, codec.Malformed, "cut off after byte 0"},
		{"fleet.telemetry.d1", `{"boot":"b1","seq":42,"metrics":{"cpu":61.`, codec.Malformed, "cut off after byte 42"},
		{"fleet.telemetry.d1", `{"boot":"b1","seq":42,"metrics":{"cpu`, codec.Malformed, "cut off after byte 37"},
		{"fleet.telemetry.d1", `{"metrics":{"a":1}}{`, codec.Malformed, "more data after the end of the message at byte 20"},
		{"fleet.telemetry.d1", `{"metrics":{"a":1},}`, codec.Malformed, "unexpected '}' at byte 20"},
		{"fleet.telemetry.d1", `{"metrics":{"a":01}}`, codec.Malformed, "byte 17"},
		{"fleet.telemetry.d1", `{"metrics":{"a":1}`, codec.Malformed, "cut off after byte 18"},
		{"fleet.telemetry.d1", `{"metrics":{"a":1},"metrics":{"a":1}}`, codec.Malformed, `field "metrics" appears again at byte 20`},
		{"fleet.telemetry.d1", `{"metrics":{"":1}}`, codec.Malformed, "metric name at byte 13 is empty"},
		{"fleet.telemetry.d1", `{"metrics":{"a b":1}}`, codec.Malformed, `metric name "a b" at byte 13`},
		{"fleet.telemetry.d1", `{"metrics":{"` + strings.Repeat("x", 129) + `":1}}`, codec.TooMany, "129 bytes"},
		{"fleet.telemetry.d1", `{"seq":1}`, codec.Malformed, "neither metrics nor readings"},
		{"fleet.telemetry.d1", `{"readings":[{"value":1}]}`, codec.Malformed, "reading at byte 14 lacks its metric"},
		{"fleet.telemetry.d1", `{"readings":[{"metric":"a"}]}`, codec.Malformed, "lacks its value"},
		{"fleet.telemetry.d1", "{\"metrics\":{\"a\n\":1}}", codec.Malformed, "control character 0x0a"},
		{"fleet.telemetry.d1", `{"ts":"yesterday","metrics":{"a":1}}`, codec.Malformed, `ts "yesterday" at byte 7`},
		{"fleet.telemetry.d1", "\x00\x01\x02", codec.Malformed, "byte 1"},
		{"fleet.telemetry.d1", `[]`, codec.Mistyped, "expected a JSON object"},
		{"fleet.telemetry.d1", `42`, codec.Mistyped, "expected a JSON object"},
		{"fleet.telemetry.d1", `{"metrics":{"a":"1"}}`, codec.Mistyped, "a at byte 17 is a text"},
		{"fleet.telemetry.d1", `{"metrics":{"a":null}}`, codec.Mistyped, "a at byte 17 is not a number"},
		{"fleet.telemetry.d1", `{"metrics":{"a":{}}}`, codec.Mistyped, "is an object"},
		{"fleet.telemetry.d1", `{"metrics":{"a":[1]}}`, codec.Mistyped, "is an array"},
		{"fleet.telemetry.d1", `{"metrics":[1]}`, codec.Mistyped, "metrics at byte 12 is not an object"},
		{"fleet.telemetry.d1", `{"readings":{}}`, codec.Mistyped, "readings at byte 13 is not an array"},
		{"fleet.telemetry.d1", `{"readings":[1]}`, codec.Mistyped, "not an object"},
		{"fleet.telemetry.d1", `{"boot":1,"metrics":{}}`, codec.Mistyped, "boot at byte 9 is not a text"},
		{"fleet.telemetry.d1", `{"seq":"1","metrics":{}}`, codec.Mistyped, "seq at byte 8 is a text"},
		{"fleet.telemetry.d1", `{"seq":1.5,"metrics":{}}`, codec.Mistyped, "seq is 1.5"},
		{"fleet.telemetry.d1", `{"seq":-1,"metrics":{}}`, codec.Mistyped, "seq is -1"},
		{"fleet.telemetry.d1", `{"seq":18446744073709551616,"metrics":{}}`, codec.Mistyped, "2^64-1"},
		{"fleet.telemetry.d1", `{"metrics":{"a":NaN}}`, codec.NotFinite, "a is NaN at byte 17"},
		{"fleet.telemetry.d1", `{"metrics":{"a":-Infinity}}`, codec.NotFinite, "-Infinity at byte 17"},
		{"fleet.telemetry.d1", `{"metrics":{"a":"NaN"}}`, codec.NotFinite, "byte 17"},
		{"fleet.telemetry.d1", `{"metrics":{"a":1e999}}`, codec.NotFinite, "too large"},
		{"fleet.telemetry.d1", `{"ts":"2026-11-24T12:11:00Z","metrics":{"a":1}}`, codec.TooNew, "a was observed at 2026-11-24T12:11:00Z, 11m0s after receipt"},
		{"fleet.telemetry.d1", `{"ts":"2026-11-17T11:59:00Z","metrics":{"a":1}}`, codec.TooOld, "168h1m0s before receipt"},
		{"fleet.telemetry.d1", `{"readings":[{"metric":"a","value":1},{"ts":"9999-01-01T00:00:00Z","metric":"b","value":1}]}`, codec.TooNew, "observed at"},
		{"fleet.telemetry.d1", `{"ts":1e300,"metrics":{"a":1}}`, codec.TooNew, "past the year"},
		{"fleet.telemetry.d1", `{"ts":0,"metrics":{"a":1}}`, codec.TooOld, "1970"},
		{"fleet.telemetry.d1", many, codec.TooMany, "more than 10000 readings"},
		{"fleet.telemetry.d1", `{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, codec.TooMany, "nested"},
		{"fleet.telemetry.d1", strings.Repeat(" ", 1<<20+1), codec.Oversized, "1048577 bytes"},
		{"fleet.telemetry.d1", `{"boot":"` + strings.Repeat("b", 65) + `","metrics":{}}`, codec.TooMany, "boot has 65 bytes"},
		{"fleet.telemetry.d1", `{"boot":"a b","metrics":{}}`, codec.Malformed, "boot"},
		{"fleet.telemetry.d1", `{"stream":"FLEET","seq":5}`, codec.ForgedReply, "reply subject"},
		{"fleet.telemetry.d1", `{"stream":"FLEET", "seq":5,"duplicate": true}`, codec.ForgedReply, "reply subject"},
		{"fleet.audit.d1", `{"stream":"FLEET","seq":5}`, codec.ForgedReply, "reply subject"},
		{"fleet.audit.d1", `{"type":"io.nats.jetstream.api.v1.pub_ack_response","error":{"code":400}}`, codec.ForgedReply, "reply subject"},
		{"fleet.telemetry.gw.child.more", `{"metrics":{}}`, codec.Rejected, "child"},
		{"fleet.telemetry.d!", `{"metrics":{}}`, codec.Rejected, "subject"},
		{"fleet.posture.d1", `{}`, codec.Rejected, "posture"},
		{"other.d1", `{}`, codec.Rejected, "none of Cordon's"},
		{"fleet.audit.d1", ``, codec.Malformed, "no line"},
		{"fleet.audit.d1", "\r\n\r\n", codec.Malformed, "no line"},
		{"fleet.audit.d1", `{"message":"x`, codec.Malformed, "cut off after byte 13"},
		{"fleet.audit.d1", `{"message":"x"} x`, codec.Malformed, "more data"},
		{"fleet.audit.d1", `{"message":1}`, codec.Mistyped, `"message"`},
		{"fleet.audit.d1", `{"foo":1}`, codec.Malformed, "event 1: it has neither class nor message"},
		{"fleet.audit.d1", `[{"message":"x"},{"message":"y","ts":"2020-01-01T00:00:00Z"}]`, codec.TooOld, "event 2 was"},
		{"fleet.audit.d1", `{"message":"x","ts":"2030-01-01T00:00:00Z"}`, codec.TooNew, "event 1 was"},
		{"fleet.audit.d1", `{"message":"x","ts":"noon"}`, codec.Malformed, `ts "noon"`},
		{"fleet.audit.d1", `{"message":"x","ts":true}`, codec.Mistyped, "ts true"},
		{"fleet.audit.d1", `{"message":"x","repeat":-1}`, codec.Mistyped, "repeat"},
		{"fleet.audit.d1", `{"message":"x","fields":{"a":[1]}}`, codec.Mistyped, "fields"},
		{"fleet.audit.d1", `{"message":"x","actor":"` + strings.Repeat("a", 5000) + `"}`, codec.TooMany, "actor"},
		{"fleet.audit.d1", events, codec.TooMany, "more than 10000 events"},
		{"fleet.audit.d1", strings.Repeat("a\n", 10_001), codec.TooMany, "10000 lines"},
		{"fleet.tick", `{"at":"2026-`, codec.Malformed, "cut off"},
		{"fleet.tick", `{"at":7}`, codec.Mistyped, "tick"},
		{"fleet.control.rule.r1", `{}`, codec.Malformed, "holds 0 changes"},
		{"fleet.control.rule.r1", `{"rule":{"id":"r1"},"verdict":{}}`, codec.Malformed, "holds 2 changes"},
	} {
		rec, rej := decode(t, tc.subject, tc.payload)
		name := tc.subject + " " + tc.payload[:min(len(tc.payload), 60)]
		require.NotNil(t, rej, name)
		require.Equal(t, tc.reason, rej.Reason, "%s: %s", name, rej.Detail)
		require.Contains(t, rej.Detail, tc.detail, name)
		require.Empty(t, rec.Readings)
		require.Empty(t, rec.Audit)
	}
}

func TestDecode_contentTypes(t *testing.T) {
	for _, tc := range []struct{ subject, contentType, payload, reason string }{
		{"fleet.telemetry.d1", "application/json; charset=utf-8", `{"metrics":{"a":1}}`, ""},
		{"fleet.telemetry.d1", "application/cbor", `{"metrics":{"a":1}}`, codec.Mistyped},
		{"fleet.telemetry.d1", "application/x-protobuf", `{"metrics":{"a":1}}`, codec.Malformed},
		{"fleet.telemetry.d1", "text/plain", `{"metrics":{"a":1}}`, codec.Rejected},
		{"fleet.audit.d1", "application/json", `x`, codec.Malformed},
		{"fleet.audit.d1", "text/plain", `{"message":"x"}`, ""},
		{"fleet.audit.d1", "application/x-protobuf", `x`, codec.Malformed},
		{"fleet.audit.d1", "application/cbor", `x`, codec.Malformed},
		{"fleet.audit.d1", "application/xml", `x`, codec.Rejected},
	} {
		_, rej := codec.Decode(tc.subject, map[string][]string{"Content-Type": {tc.contentType}}, []byte(tc.payload), received, 1, false, codec.DefaultLimits())
		if tc.reason == "" {
			require.Nil(t, rej, tc)
			continue
		}
		require.NotNil(t, rej, tc)
		require.Equal(t, tc.reason, rej.Reason)
	}
}

func TestDecode_historicDevicesHaveNoAgeLimit(t *testing.T) {
	for year, reason := range map[int]string{1970: codec.TooOld, 1971: "", 2014: "", 2200: "", 2201: codec.TooNew} {
		payload := fmt.Sprintf(`{"ts":"%d-06-01T00:00:00Z","metrics":{"a":1}}`, year)
		_, rej := codec.Decode("fleet.telemetry.d1", nil, []byte(payload), received, 1, true, codec.DefaultLimits())
		if reason == "" {
			require.Nil(t, rej, year)
			continue
		}
		require.NotNil(t, rej, year)
		require.Equal(t, reason, rej.Reason)
	}
}

func TestDecode_identity(t *testing.T) {
	rec, rej := decode(t, "fleet.telemetry.gw.child", `{"boot":"b","seq":1,"metrics":{"a":1}}`)
	require.Nil(t, rej)
	require.Equal(t, "child", rec.Device)

	header := map[string][]string{"Cordon-Boot": {"b9"}, "Cordon-Seq": {"12"}}
	rec, rej = codec.Decode("fleet.audit.d1", header, []byte("a line"), received, 1, false, codec.DefaultLimits())
	require.Nil(t, rej)
	require.Equal(t, "b9", rec.Boot)
	require.EqualValues(t, 12, rec.Seq)

	rec, rej = decode(t, "fleet.telemetry.d1", `{"boot":"b","seq":18446744073709551615,"ts":"1999-01-01T00:00:00Z","metrics":{"a":1}}`)
	require.NotNil(t, rej)
	require.Equal(t, "b", rec.Boot, "a rejected message can be receipted")
	require.EqualValues(t, uint64(1<<64-1), rec.Seq)

	rec, rej = decode(t, "fleet.telemetry.d1", `{"metrics":{}}`)
	require.Nil(t, rej, "an empty message is a sign of life")
	require.Empty(t, rec.Boot)
}

func TestDecode_auditJSON(t *testing.T) {
	at := time.Date(2026, 11, 24, 11, 59, 0, 0, time.UTC)
	want := fleet.AuditEvent{
		ObservedAt: at, Class: "integrity", Activity: "change", Message: "firmware changed", Fields: map[string]string{"size": "12", "signed": "false", "to": "2.0"},
	}
	one := `{"ts":"2026-11-24T11:59:00Z","class":"integrity","activity":"change","message":"firmware changed","fields":{"size":12,"signed":false,"to":"2.0"}}`
	for _, payload := range []string{one, "[" + one + "]", `{"boot":"b","seq":3,"events":[` + one + `]}`} {
		rec, rej := decode(t, "fleet.audit.d1", payload)
		require.Nil(t, rej)
		require.Equal(t, []fleet.AuditEvent{want}, rec.Audit)
	}
	rec, rej := decode(t, "fleet.audit.d1", `{"program":"sshd","message":"Failed password for root from 10.0.0.1 port 1 ssh2"}`)
	require.Nil(t, rej)
	require.Equal(t, `authentication logon failure actor=10.0.0.1 user="root"`, words(rec.Audit[0]))
	require.Equal(t, received, rec.Audit[0].ObservedAt)
}

func TestDecode_ticksAndControl(t *testing.T) {
	rec, rej := decode(t, "fleet.tick", `{"at":"2026-11-24T12:00:00Z","healthy":true}`)
	require.Nil(t, rej)
	require.Equal(t, fleet.Tick{At: received, Healthy: true}, rec.Tick)
	rec, rej = decode(t, "fleet.control.device.d1", `{"device":{"id":"d1","cohort":"c"}}`)
	require.Nil(t, rej)
	require.Equal(t, "d1", rec.Control.Device.ID)
	require.Empty(t, rec.Device)
}
