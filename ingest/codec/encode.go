package codec

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"cordon/internal/fleet"
)

// EncodeTelemetry makes a telemetry message that Decode reads back. Readings
// that are not finite are left out: no decoder would take them.
func EncodeTelemetry(boot string, seq uint64, readings []fleet.Reading) []byte {
	out := make([]byte, 0, 64+len(readings)*48)
	out = append(out, '{')
	out = appendIdentity(out, boot, seq)
	if at, ok := oneTime(readings); ok {
		out = append(out, `"ts":"`...)
		out = at.UTC().AppendFormat(out, time.RFC3339Nano)
		out = append(out, `","metrics":{`...)
		for i, r := range readings {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendText(out, r.Metric)
			out = append(out, ':')
			out = appendFloat(out, r.Value)
		}
		return append(out, `}}`...)
	}
	out = append(out, `"readings":[`...)
	first := true
	for _, r := range readings {
		if !finite(r.Value) {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(out, `{"ts":"`...)
		out = r.ObservedAt.UTC().AppendFormat(out, time.RFC3339Nano)
		out = append(out, `","metric":`...)
		out = appendText(out, r.Metric)
		out = append(out, `,"value":`...)
		out = appendFloat(out, r.Value)
		out = append(out, '}')
	}
	return append(out, `]}`...)
}

// EncodeAudit makes an audit message that Decode reads back.
func EncodeAudit(boot string, seq uint64, events []fleet.AuditEvent) ([]byte, error) {
	return json.Marshal(struct {
		Boot   string             `json:"boot,omitempty"`
		Seq    uint64             `json:"seq,omitempty"`
		Events []fleet.AuditEvent `json:"events"`
	}{boot, seq, events})
}

func appendIdentity(out []byte, boot string, seq uint64) []byte {
	if boot != "" {
		out = append(out, `"boot":`...)
		out = appendText(out, boot)
		out = append(out, ',')
	}
	if seq > 0 {
		out = append(out, `"seq":`...)
		out = strconv.AppendUint(out, seq, 10)
		out = append(out, ',')
	}
	return out
}

// oneTime says whether the short form can hold the readings: one time,
// distinct metrics, all finite.
func oneTime(readings []fleet.Reading) (time.Time, bool) {
	if len(readings) == 0 || len(readings) > 256 {
		return time.Time{}, false
	}
	for i, r := range readings {
		if !finite(r.Value) || !r.ObservedAt.Equal(readings[0].ObservedAt) {
			return time.Time{}, false
		}
		for _, before := range readings[:i] {
			if before.Metric == r.Metric {
				return time.Time{}, false
			}
		}
	}
	return readings[0].ObservedAt, true
}

func appendText(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always marshals
				return append(out, `""`...)
			}
			return append(out, quoted...)
		}
	}
	out = append(out, '"')
	out = append(out, s...)
	return append(out, '"')
}

func appendFloat(out []byte, v float64) []byte { return strconv.AppendFloat(out, v, 'g', -1, 64) }

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
