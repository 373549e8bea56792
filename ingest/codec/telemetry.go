package codec

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// telemetry is the state of decoding one telemetry message of JSON.
type telemetry struct {
	*message
	scanner
	out *Decoder
	rec *fleet.Record
	ts  int64 // the message's own time, Unix ns, or unset

	lastText []byte // the last time text, and what it meant
	lastTime int64
}

func (m *message) telemetryJSON(out *Decoder, rec *fleet.Record) *Rejection {
	t := &out.json
	*t = telemetry{message: m, scanner: scanner{data: m.payload}, rec: rec, out: out, ts: unset}
	if c := t.peek(); c != '{' && t.pos < len(t.data) {
		if c == '[' || c == '"' || c == '-' || c-'0' <= 9 {
			return reject(Mistyped, "message starts with %q, expected a JSON object", c)
		}
		return t.unexpected("a JSON object")
	}
	if rej := t.expect('{', "a JSON object"); rej != nil {
		return rej
	}
	if rej := t.fields(); rej != nil {
		return rej
	}
	if rej := t.end(); rej != nil {
		return rej
	}
	return m.finish(out, rec, t.ts)
}

const (
	sawBoot = 1 << iota
	sawSeq
	sawTS
	sawMetrics
	sawReadings
	sawStream
)

// fields reads the message's fields up to its closing brace.
func (t *telemetry) fields() *Rejection {
	saw := 0
	for first := true; ; first = false {
		more, rej := t.next(first, '}', "a field name")
		if rej != nil {
			return rej
		}
		if !more {
			break
		}
		start := t.pos
		key, rej := t.key()
		if rej != nil {
			return rej
		}
		bit, rej := t.field(key)
		if rej != nil {
			return rej
		}
		if bit != 0 && saw&bit != 0 {
			return reject(Malformed, "field %q appears again at byte %d", key, start+1)
		}
		saw |= bit
	}
	if saw&(sawMetrics|sawReadings) == 0 {
		if saw&sawStream != 0 {
			return forgedReply()
		}
		return reject(Malformed, "message has neither metrics nor readings")
	}
	return nil
}

func forgedReply() *Rejection {
	return reject(ForgedReply, "this is the broker's answer to another publish: its sender named this subject as reply subject")
}

func (t *telemetry) field(key []byte) (int, *Rejection) {
	switch string(key) {
	case "boot":
		text, rej := t.typedText("boot")
		if rej != nil {
			return 0, rej
		}
		return sawBoot, t.setBoot(t.rec, t.out.names.text(text))
	case "seq":
		seq, rej := t.integer("seq")
		t.rec.Seq = seq
		return sawSeq, rej
	case "ts":
		ts, rej := t.time()
		t.ts = ts
		return sawTS, rej
	case "metrics":
		return sawMetrics, t.metrics()
	case "readings":
		return sawReadings, t.readings()
	case "stream":
		return sawStream, t.skip(1)
	}
	return 0, t.skip(1)
}

// typedText reads a text, and calls another type mistyped.
func (s *scanner) typedText(what string) ([]byte, *Rejection) {
	if c := s.peek(); c != '"' && s.pos < len(s.data) {
		start := s.pos
		if rej := s.skip(1); rej != nil {
			return nil, rej
		}
		return nil, reject(Mistyped, "%s at byte %d is not a text", what, start+1)
	}
	return s.text(what)
}

func (s *scanner) integer(what string) (uint64, *Rejection) {
	text, rej := s.number(what)
	if rej != nil {
		return 0, rej
	}
	v, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0, reject(Mistyped, "%s is %s, expected a whole number from 0 to 2^64-1", what, clip(string(text)))
	}
	return v, nil
}

func (t *telemetry) value(what string) (float64, *Rejection) {
	start := t.pos
	text, rej := t.number(what)
	if rej != nil {
		return 0, rej
	}
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0, reject(NotFinite, "%s %s at byte %d is too large for a float64", what, clip(string(text)), start+1)
	}
	return v, nil
}

// time reads RFC 3339 text or a Unix time in seconds or milliseconds, as Unix
// nanoseconds.
func (t *telemetry) time() (int64, *Rejection) {
	if c := t.peek(); c == '"' {
		start := t.pos
		text, rej := t.text("a time")
		if rej != nil {
			return 0, rej
		}
		if t.lastText != nil && bytes.Equal(text, t.lastText) {
			return t.lastTime, nil
		}
		at, err := parseTime(text)
		if err != nil {
			return 0, reject(Malformed, "ts %q at byte %d is not RFC 3339 such as 2026-11-22T17:30:00Z", clip(string(text)), start+1)
		}
		ns, rej := t.nanos(at, t.rec.ReceivedAt)
		t.lastText, t.lastTime = text, ns
		return ns, rej
	}
	v, rej := t.value("ts")
	if rej != nil {
		return 0, rej
	}
	at, rej := unixTime(v)
	if rej != nil {
		return 0, rej
	}
	return t.nanos(at, t.rec.ReceivedAt)
}

func parseTime(text []byte) (time.Time, error) {
	var at time.Time
	if err := at.UnmarshalText(text); err != nil {
		return time.Time{}, err
	}
	return at.UTC(), nil
}

// unixTime reads seconds below 1e11 (the year 5138) and milliseconds from
// there on, to the microsecond.
func unixTime(v float64) (time.Time, *Rejection) {
	if math.Abs(v) >= 1e11 {
		v /= 1e3
	}
	switch {
	case v > 1e11:
		return time.Time{}, reject(TooNew, "ts %g is past the year 5138: use seconds or milliseconds since 1970", v)
	case v < -1e11:
		return time.Time{}, reject(TooOld, "ts %g is far before 1970", v)
	}
	whole, frac := math.Modf(v)
	return time.Unix(int64(whole), int64(math.Round(frac*1e6))*1e3).UTC(), nil
}

// metrics reads {"name":value,…}; their time is filled in at the end.
func (t *telemetry) metrics() *Rejection {
	if rej := t.open('{', "metrics", "an object"); rej != nil {
		return rej
	}
	for first := true; ; first = false {
		more, rej := t.next(first, '}', "a metric name")
		if rej != nil || !more {
			return rej
		}
		start := t.pos
		key, rej := t.key()
		if rej != nil {
			return rej
		}
		if rej := t.checkMetric(key, start); rej != nil {
			return rej
		}
		name := t.out.names.text(key)
		v, rej := t.value(name)
		if rej != nil {
			return rej
		}
		if rej := t.out.add(t.message, name, unset, v); rej != nil {
			return rej
		}
	}
}

// readings reads [{"ts","metric","value"},…].
func (t *telemetry) readings() *Rejection {
	if rej := t.open('[', "readings", "an array"); rej != nil {
		return rej
	}
	for first := true; ; first = false {
		more, rej := t.next(first, ']', "a reading")
		if rej != nil || !more {
			return rej
		}
		if rej := t.reading(); rej != nil {
			return rej
		}
	}
}

func (t *telemetry) reading() *Rejection {
	metric, value, at := "", 0.0, int64(unset)
	start := t.pos
	if rej := t.open('{', "a reading", "an object"); rej != nil {
		return rej
	}
	hasValue, hasMetric := false, false
	for first := true; ; first = false {
		more, rej := t.next(first, '}', "a field name")
		if rej != nil {
			return rej
		}
		if !more {
			break
		}
		key, rej := t.key()
		if rej != nil {
			return rej
		}
		switch string(key) {
		case "metric":
			place := t.pos
			name, rej := t.typedText("metric")
			if rej != nil {
				return rej
			}
			if rej := t.checkMetric(name, place); rej != nil {
				return rej
			}
			metric, hasMetric = t.out.names.text(name), true
		case "value":
			if value, rej = t.value("value"); rej != nil {
				return rej
			}
			hasValue = true
		case "ts":
			if at, rej = t.time(); rej != nil {
				return rej
			}
		default:
			if rej := t.skip(3); rej != nil {
				return rej
			}
		}
	}
	if !hasMetric || !hasValue {
		return reject(Malformed, "reading at byte %d lacks its %s", start+1, missing(hasMetric))
	}
	return t.out.add(t.message, metric, at, value)
}

func missing(hasMetric bool) string {
	if hasMetric {
		return "value"
	}
	return "metric"
}

// open reads the bracket that starts a value and calls another type mistyped.
func (t *telemetry) open(bracket byte, what, want string) *Rejection {
	if c := t.peek(); c != bracket && t.pos < len(t.data) {
		start := t.pos
		if rej := t.skip(1); rej != nil {
			return rej
		}
		return reject(Mistyped, "%s at byte %d is not %s", what, start+1, want)
	}
	return t.expect(bracket, what)
}

// checkMetric allows [A-Za-z0-9_.:/-]{1,128}.
func (m *message) checkMetric(name []byte, at int) *Rejection {
	switch {
	case len(name) == 0:
		return reject(Malformed, "metric name at byte %d is empty", at+1)
	case len(name) > m.limits.MaxMetric:
		return reject(TooMany, "metric name at byte %d has %d bytes, the limit is %d", at+1, len(name), m.limits.MaxMetric)
	}
	for _, c := range name {
		if !metricByte[c] {
			return reject(Malformed, "metric name %q at byte %d: use A-Z a-z 0-9 _ . : / -", clip(string(name)), at+1)
		}
	}
	return nil
}

var metricByte = func() (ok [256]bool) {
	for c := range 256 {
		b := byte(c)
		ok[c] = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("_.:/-", b) >= 0
	}
	return ok
}()
