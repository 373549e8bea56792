package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// Version names what Decode makes of its input. It changes whenever the same
// bytes decode to something else.
const Version = "2"

// Reasons why a message is no record: the codes of fleet.DeadLetter.
const (
	Malformed   = "malformed"    // not the syntax it claims to be
	Oversized   = "oversized"    // more bytes than allowed
	Mistyped    = "mistyped"     // well-formed, but a field has the wrong type
	NotFinite   = "not_finite"   // NaN or infinite
	TooOld      = "too_old"      // observed too long before receipt
	TooNew      = "too_new"      // observed too long after receipt
	TooMany     = "too_many"     // more readings, events or fields than allowed
	Rejected    = "rejected"     // understood, and not accepted
	ForgedReply = "forged_reply" // the broker's answer to a publish, sent here by a forged reply subject
)

// Headers that Decode reads, apart from Content-Type.
const (
	HeaderBoot = "Cordon-Boot"
	HeaderSeq  = "Cordon-Seq"
	HeaderYear = "Cordon-Year"
)

// Limits bound one message.
type Limits struct {
	MaxBytes    int           // of the payload
	MaxReadings int           // per telemetry message
	MaxEvents   int           // per audit message
	MaxMetric   int           // bytes of a metric name
	MaxBoot     int           // bytes of a boot id
	MaxText     int           // bytes of any one text field of an audit event, except its message
	MaxFields   int           // entries of an audit event's fields
	MaxAhead    time.Duration // observed after receipt
	MaxAge      time.Duration // observed before receipt
}

// DefaultLimits are the documented limits.
func DefaultLimits() Limits {
	return Limits{
		MaxBytes:    1 << 20,
		MaxReadings: 10_000,
		MaxEvents:   10_000,
		MaxMetric:   128,
		MaxBoot:     64,
		MaxText:     4096,
		MaxFields:   64,
		MaxAhead:    10 * time.Minute,
		MaxAge:      7 * 24 * time.Hour,
	}
}

// The years that any time must lie in, historic or not: what the store's
// columns and charts can hold.
const (
	minYear = 1971
	maxYear = 2200
)

// Rejection says why a message is no record.
type Rejection struct {
	Reason string // one of the reasons above
	Detail string // one sentence: what and where
}

func (r *Rejection) Error() string { return r.Reason + ": " + r.Detail }

func reject(reason, format string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

type message struct {
	header   map[string][]string
	payload  []byte
	historic bool
	limits   Limits
}

func (m *message) decode(subject string, out *Decoder, rec *fleet.Record) *Rejection {
	what, device, rej := address(subject)
	rec.Kind, rec.Device = what, device
	switch {
	case rej != nil:
		return rej
	case len(m.payload) > m.limits.MaxBytes:
		return reject(Oversized, "message has %d bytes, the limit is %d", len(m.payload), m.limits.MaxBytes)
	}
	switch what {
	case fleet.TickKind:
		return m.strict(&rec.Tick, "tick")
	case fleet.ControlKind:
		return m.control(rec)
	case fleet.TelemetryKind:
		if rej := m.identity(rec); rej != nil {
			return rej
		}
		return m.telemetry(out, rec)
	default:
		if rej := m.identity(rec); rej != nil {
			return rej
		}
		return m.audit(rec)
	}
}

// address reads kind and device off a subject.
func address(subject string) (fleet.Kind, string, *Rejection) {
	if subject == "fleet.tick" {
		return fleet.TickKind, "", nil
	}
	rest, ok := strings.CutPrefix(subject, "fleet.")
	what, rest, dotted := strings.Cut(rest, ".")
	if !ok || !dotted {
		return fleet.UnknownKind, "", reject(Rejected, "subject %q is none of Cordon's", subject)
	}
	var kind fleet.Kind
	switch what {
	case "control":
		return fleet.ControlKind, "", nil
	case "telemetry":
		kind = fleet.TelemetryKind
	case "audit":
		kind = fleet.AuditKind
	case "posture":
		device, _, _ := strings.Cut(rest, ".")
		return fleet.UnknownKind, device, reject(Rejected, "posture reports are not accepted yet")
	default:
		return fleet.UnknownKind, "", reject(Rejected, "subject %q is none of Cordon's", subject)
	}
	device, child, isChild := strings.Cut(rest, ".")
	if err := fleet.CheckDeviceID(device); err != nil {
		return kind, "", reject(Rejected, "subject %q: %v", subject, err)
	}
	if !isChild {
		return kind, device, nil
	}
	if err := fleet.CheckDeviceID(child); err != nil {
		return kind, device, reject(Rejected, "subject %q: child %v", subject, err)
	}
	return kind, child, nil
}

// get returns a header's first value; names match without regard to case.
func (m *message) get(name string) string {
	if len(m.header) == 0 {
		return ""
	}
	if v, ok := m.header[name]; ok && len(v) > 0 {
		return v[0]
	}
	for k, v := range m.header {
		if len(v) > 0 && len(k) == len(name) && strings.EqualFold(k, name) {
			return v[0]
		}
	}
	return ""
}

func (m *message) contentType() string {
	ct, _, _ := strings.Cut(m.get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(ct))
}

// identity takes boot and seq from the headers; the payload overrides them.
func (m *message) identity(rec *fleet.Record) *Rejection {
	if len(m.header) == 0 {
		return nil
	}
	if boot := m.get(HeaderBoot); boot != "" {
		if rej := m.setBoot(rec, boot); rej != nil {
			return rej
		}
	}
	if text := m.get(HeaderSeq); text != "" {
		seq, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return reject(Mistyped, "header %s %q is not a number from 0 to 2^64-1", HeaderSeq, clip(text))
		}
		rec.Seq = seq
	}
	return nil
}

func (m *message) setBoot(rec *fleet.Record, boot string) *Rejection {
	if len(boot) > m.limits.MaxBoot {
		return reject(TooMany, "boot has %d bytes, the limit is %d", len(boot), m.limits.MaxBoot)
	}
	for i := range len(boot) {
		if boot[i] <= ' ' || boot[i] > '~' {
			return reject(Malformed, "boot %q has byte 0x%02x, use printable ASCII without spaces", boot, boot[i])
		}
	}
	rec.Boot = boot
	return nil
}

// checkTime says whether t is within the limits.
func (m *message) checkTime(t, receivedAt time.Time) *Rejection {
	if !m.historic {
		if ahead := t.Sub(receivedAt); ahead > m.limits.MaxAhead {
			return reject(TooNew, "observed at %s, %s after receipt, the limit is %s: is the device's clock wrong?",
				t.Format(time.RFC3339), ahead.Round(time.Second), m.limits.MaxAhead)
		}
		if age := receivedAt.Sub(t); age > m.limits.MaxAge {
			return reject(TooOld, "observed at %s, %s before receipt, the limit is %s",
				t.Format(time.RFC3339), age.Round(time.Second), m.limits.MaxAge)
		}
	}
	switch year := t.Year(); {
	case year < minYear:
		return reject(TooOld, "observed in the year %d, times before %d are not accepted", year, minYear)
	case year > maxYear:
		return reject(TooNew, "observed in the year %d, times after %d are not accepted", year, maxYear)
	}
	return nil
}

// control decodes a control record: exactly one change.
func (m *message) control(rec *fleet.Record) *Rejection {
	if rej := m.strict(&rec.Control, "control record"); rej != nil {
		return rej
	}
	n, c := 0, rec.Control
	for _, set := range []bool{c.Rule != nil, c.Device != nil, c.Quarantine != nil, c.Verdict != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return reject(Malformed, "control record holds %d changes, expected exactly one of rule, device, quarantine, verdict", n)
	}
	return nil
}

// strict decodes one JSON value and refuses anything behind it.
func (m *message) strict(into any, what string) *Rejection {
	dec := json.NewDecoder(bytes.NewReader(m.payload))
	if err := dec.Decode(into); err != nil {
		return jsonRejection(what, err, 0, len(m.payload))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return reject(Malformed, "%s is followed by more data at byte %d", what, dec.InputOffset()+1)
	}
	return nil
}

// jsonRejection puts an error of encoding/json into words. The JSON stands
// from byte start to size of the payload.
func jsonRejection(what string, err error, start, size int) *Rejection {
	var syntax *json.SyntaxError
	var mistyped *json.UnmarshalTypeError
	var rej *Rejection
	switch {
	case errors.As(err, &rej):
		return reject(rej.Reason, "%s: %s", what, rej.Detail)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return reject(Malformed, "%s is cut off after byte %d", what, size)
	case errors.As(err, &mistyped):
		return reject(Mistyped, "%s: field %q at byte %d is a %s, expected %s", what, mistyped.Field, int64(start)+mistyped.Offset, mistyped.Value, mistyped.Type)
	case errors.As(err, &syntax):
		if start+int(syntax.Offset) >= size && strings.Contains(err.Error(), "unexpected end") {
			return reject(Malformed, "%s is cut off after byte %d", what, size)
		}
		return reject(Malformed, "%s: %v at byte %d", what, err, int64(start)+syntax.Offset)
	default:
		return reject(Mistyped, "%s: %v", what, err)
	}
}

// clip shortens a text of the device's for a sentence.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
