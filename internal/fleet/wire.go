package fleet

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Message headers of device messages. Telemetry and JSON audit messages carry
// boot and seq in their body; raw syslog lines, which have no place for them,
// carry them as headers.
const (
	HeaderBoot        = "Cordon-Boot" // boot id of the sender
	HeaderSeq         = "Cordon-Seq"  // decimal number of the message within its boot
	HeaderYear        = "Cordon-Year" // the year of syslog times that have none
	HeaderContentType = "Content-Type"
)

// Content types of device messages.
const (
	ContentJSON   = "application/json"
	ContentSyslog = "text/plain" // raw syslog lines, one event per line
)

// EncodeTelemetry appends the JSON of one telemetry message to dst. Readings
// that share one instant are written as {"ts","metrics"}, others one by one as
// {"readings":[{"ts","metric","value"}]}. A value that is NaN or infinite has
// no JSON form and is left out: it was never measured.
func EncodeTelemetry(dst []byte, boot string, seq uint64, readings []Reading) []byte {
	dst = append(dst, `{"boot":`...)
	dst = appendText(dst, boot)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	if oneInstant(readings) {
		dst = append(dst, `,"ts":"`...)
		dst = readings[0].ObservedAt.UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, `","metrics":{`...)
		for i, r := range readings {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendText(dst, r.Metric)
			dst = append(dst, ':')
			dst = appendValue(dst, r.Value)
		}
		return append(dst, "}}"...)
	}
	dst = append(dst, `,"readings":[`...)
	first := true
	for _, r := range readings {
		if math.IsNaN(r.Value) || math.IsInf(r.Value, 0) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, `{"ts":"`...)
		dst = r.ObservedAt.UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, `","metric":`...)
		dst = appendText(dst, r.Metric)
		dst = append(dst, `,"value":`...)
		dst = appendValue(dst, r.Value)
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}

// EncodeAudit is the JSON of one audit message:
// {"boot","seq","events":[AuditEvent, …]}.
func EncodeAudit(boot string, seq uint64, events []AuditEvent) ([]byte, error) {
	raw, err := json.Marshal(struct {
		Boot   string       `json:"boot"`
		Seq    uint64       `json:"seq"`
		Events []AuditEvent `json:"events"`
	}{boot, seq, events})
	if err != nil {
		return nil, fmt.Errorf("encode audit events: %w", err)
	}
	return raw, nil
}

// appendText appends s as a JSON string; plain ASCII needs no escaping.
func appendText(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always has a JSON form
				return append(dst, `""`...)
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

func appendValue(dst []byte, v float64) []byte {
	return strconv.AppendFloat(dst, v, 'g', -1, 64)
}

// oneInstant says whether the readings fit the short form: one time, every
// metric once, every value finite.
func oneInstant(readings []Reading) bool {
	if len(readings) == 0 || len(readings) > 64 {
		return false
	}
	for i, r := range readings {
		if !r.ObservedAt.Equal(readings[0].ObservedAt) || math.IsNaN(r.Value) || math.IsInf(r.Value, 0) {
			return false
		}
		for _, earlier := range readings[:i] {
			if earlier.Metric == r.Metric {
				return false
			}
		}
	}
	return true
}
