package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"cordon/internal/fleet"
)

// audit decodes JSON events or syslog lines.
func (m *message) audit(rec *fleet.Record) *Rejection {
	var rej *Rejection
	switch ct := m.contentType(); ct {
	case "application/json":
		if rej = m.auditJSON(rec); rej != nil && looksForeign(m.payload) {
			rec.Audit = nil
			rej = m.auditLines(rec)
		}
	case "text/plain", "application/syslog", "application/octet-stream", "application/x-ndjson", "application/jsonlines":
		rej = m.auditLines(rec)
	case fleet.ContentCBOR:
		rej = m.auditCBOR(rec)
	case fleet.ContentProtobuf, "application/protobuf", "application/vnd.google.protobuf":
		rej = m.auditProtobuf(rec)
	case "":
		if decode := m.sniffAudit(); decode != nil {
			rej = decode(rec)
		} else if looksJSON(m.payload) && !looksForeign(m.payload) {
			rej = m.auditJSON(rec)
		} else {
			rej = m.auditLines(rec)
		}
	default:
		rej = reject(Rejected, "content type %q is not accepted for audit events, use application/json, text/plain, %s or %s", ct, fleet.ContentCBOR, fleet.ContentProtobuf)
	}
	if rej != nil {
		return rej
	}
	for i := range rec.Audit {
		if rej := m.checkTime(rec.Audit[i].ObservedAt, rec.ReceivedAt); rej != nil {
			rej.Detail = fmt.Sprintf("event %d was %s", i+1, rej.Detail)
			return rej
		}
	}
	return nil
}

// looksJSON takes '{' and an array of objects for JSON: a line may start with
// '[' as well, as the kernel's do.
func looksJSON(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) == 0 {
		return false
	}
	if data[0] == '{' {
		return true
	}
	if data[0] != '[' {
		return false
	}
	rest := bytes.TrimLeft(data[1:], " \t\r\n")
	return len(rest) == 0 || rest[0] == '{' || rest[0] == ']'
}

// looksForeign says whether the first line is an object of another program's
// log: Zeek's, or journald's export.
func looksForeign(data []byte) bool {
	line, _, _ := bytes.Cut(bytes.TrimLeft(data, " \t\r\n"), []byte{'\n'})
	line = line[:min(len(line), 4096)]
	return bytes.Contains(line, []byte(`"id.orig_h"`)) || bytes.Contains(line, []byte(`"__REALTIME_TIMESTAMP"`))
}

// event is an audit event as devices write it.
type event struct {
	TS       moment           `json:"ts"`
	Class    string           `json:"class"`
	Activity string           `json:"activity"`
	Outcome  string           `json:"outcome"`
	Program  string           `json:"program"`
	Actor    string           `json:"actor"`
	User     string           `json:"user"`
	Message  string           `json:"message"`
	Fields   map[string]plain `json:"fields"`
	Repeat   int              `json:"repeat"`
}

// moment is a time as RFC 3339 text or Unix seconds or milliseconds.
type moment struct{ time.Time }

func (t *moment) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	if raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
		at, err := parseTime([]byte(text))
		if err != nil {
			return reject(Malformed, "ts %q is not RFC 3339 such as 2026-11-22T17:30:00Z", clip(text))
		}
		t.Time = at
		return nil
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return reject(Mistyped, "ts %s is neither a text nor a number", clip(string(raw)))
	}
	at, rej := unixTime(v)
	if rej != nil {
		return rej
	}
	t.Time = at
	return nil
}

// plain is a text, or a number or truth value taken as its text.
type plain string

func (p *plain) UnmarshalJSON(raw []byte) error {
	switch c := raw[0]; c {
	case '"':
		return json.Unmarshal(raw, (*string)(p))
	case '{', '[':
		return reject(Mistyped, "fields holds %s, expected a text, number or truth value", clip(string(raw)))
	default:
		*p = plain(raw)
		return nil
	}
}

// auditJSON reads an array of events, a wrapper around one, or a single event.
// Events are counted before they are decoded.
func (m *message) auditJSON(rec *fleet.Record) *Rejection {
	s := scanner{data: m.payload}
	w := wrapper{message: m, scanner: &s, rec: rec}
	switch c := s.peek(); {
	case c == '[':
		if rej := w.array(); rej != nil {
			return rej
		}
	case c == '{':
		if rej := w.object(); rej != nil {
			return rej
		}
	case c == '"' || c == '-' || c-'0' <= 9:
		return reject(Mistyped, "message starts with %q, expected a JSON object or array", c)
	default:
		return s.unexpected("a JSON object or array")
	}
	if rej := s.end(); rej != nil {
		return rej
	}
	rec.Audit = make([]fleet.AuditEvent, 0, len(w.events))
	for i, at := range w.events {
		e, rej := m.event(at, rec.ReceivedAt)
		if rej != nil {
			rej.Detail = fmt.Sprintf("event %d: %s", i+1, rej.Detail)
			return rej
		}
		rec.Audit = append(rec.Audit, e)
	}
	return nil
}

// wrapper finds the events in an audit message.
type wrapper struct {
	*message
	*scanner
	rec    *fleet.Record
	events []place
}

// place is where a value stands in the payload.
type place struct{ from, to int }

func (w *wrapper) array() *Rejection {
	w.pos++
	for first := true; ; first = false {
		more, rej := w.next(first, ']', "an event")
		if rej != nil || !more {
			return rej
		}
		if w.peek() != '{' {
			return w.unexpected("an event object")
		}
		if len(w.events) >= w.limits.MaxEvents {
			return reject(TooMany, "message holds more than %d events", w.limits.MaxEvents)
		}
		from := w.pos
		if rej := w.skip(1); rej != nil {
			return rej
		}
		w.events = append(w.events, place{from, w.pos})
	}
}

func (w *wrapper) object() *Rejection {
	from := w.pos
	w.pos++
	wrapped, event, broker := false, false, false
	for first := true; ; first = false {
		more, rej := w.next(first, '}', "a field name")
		if rej != nil {
			return rej
		}
		if !more {
			break
		}
		key, rej := w.key()
		if rej != nil {
			return rej
		}
		switch string(key) {
		case "boot":
			var text []byte
			if text, rej = w.typedText("boot"); rej == nil {
				rej = w.setBoot(w.rec, string(text))
			}
		case "seq":
			w.rec.Seq, rej = w.integer("seq")
		case "events":
			if wrapped {
				return reject(Malformed, "field \"events\" appears again before byte %d", w.pos+1)
			}
			wrapped = true
			if w.peek() == '[' {
				rej = w.array()
			} else if rej = w.skip(1); rej == nil {
				rej = reject(Mistyped, "events is not an array")
			}
		default:
			event = event || string(key) == "class" || string(key) == "message"
			broker = broker || string(key) == "stream" || string(key) == "type"
			rej = w.skip(1)
		}
		if rej != nil {
			return rej
		}
	}
	switch {
	case wrapped:
	case broker && !event:
		return forgedReply()
	default:
		w.events = []place{{from, w.pos}}
	}
	return nil
}

// event checks one JSON event. One without a class is classified by its
// program and message, as a line of the same words would be.
func (m *message) event(at place, receivedAt time.Time) (fleet.AuditEvent, *Rejection) {
	var in event
	if err := json.Unmarshal(m.payload[at.from:at.to], &in); err != nil {
		return fleet.AuditEvent{}, jsonRejection("audit JSON", err, at.from, at.to)
	}
	return m.checkEvent(in, receivedAt)
}

// checkEvent makes an audit event of what a device wrote.
func (m *message) checkEvent(in event, receivedAt time.Time) (fleet.AuditEvent, *Rejection) {
	out := fleet.AuditEvent{
		ObservedAt: in.TS.Time, Class: in.Class, Activity: in.Activity, Outcome: in.Outcome,
		Program: in.Program, Actor: in.Actor, User: in.User, Message: in.Message, Repeat: in.Repeat,
	}
	if out.Class == "" && out.Message == "" {
		return out, reject(Malformed, "it has neither class nor message")
	}
	for _, f := range []struct{ name, text string }{
		{"class", out.Class},
		{"activity", out.Activity},
		{"outcome", out.Outcome},
		{"program", out.Program},
		{"actor", out.Actor},
		{"user", out.User},
	} {
		if len(f.text) > m.limits.MaxText {
			return out, reject(TooMany, "%s has %d bytes, the limit is %d", f.name, len(f.text), m.limits.MaxText)
		}
	}
	if n := len(in.Fields); n > m.limits.MaxFields {
		return out, reject(TooMany, "it has %d fields, the limit is %d", n, m.limits.MaxFields)
	}
	if out.Repeat < 0 || out.Repeat > maxRepeat {
		return out, reject(Mistyped, "repeat is %d, expected 0 to %d", out.Repeat, maxRepeat)
	}
	if len(in.Fields) > 0 {
		out.Fields = make(map[string]string, len(in.Fields))
		for k, v := range in.Fields {
			if len(k) > m.limits.MaxText || len(v) > m.limits.MaxText {
				return out, reject(TooMany, "field %q has more than %d bytes", clip(k), m.limits.MaxText)
			}
			out.Fields[k] = string(v)
		}
	}
	if out.ObservedAt.IsZero() {
		out.ObservedAt = receivedAt
	}
	if out.Class == "" {
		classify(&out)
	}
	return out, nil
}

// maxRepeat bounds how many events one line may claim to stand for.
const maxRepeat = 1_000_000
