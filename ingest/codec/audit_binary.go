package codec

import (
	"fmt"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"cordon/internal/fleet"
	"cordon/internal/fleet/wire"
)

// sniffAudit takes a message without a content type for what it looks like;
// nil: it is text. No line starts with a control character, and none that is
// UTF-8 with a continuation byte, which is what a CBOR map starts with.
func (m *message) sniffAudit() func(*fleet.Record) *Rejection {
	if len(m.payload) == 0 {
		return nil
	}
	switch c := m.payload[0]; {
	case c == tagSeq || c == tagBoot:
		return m.auditProtobuf
	case c >= 0xa0 && c <= 0xbf && cbor.Wellformed(m.payload) == nil:
		return m.auditCBOR
	}
	return nil
}

// auditProtobuf decodes wire.Audit.
func (m *message) auditProtobuf(rec *fleet.Record) *Rejection {
	events := 0
	if rej := fields(m.payload, 0, func(f field) *Rejection {
		if f.number == 7 {
			events++
		}
		if f.number == 2 && f.kind == protowire.BytesType {
			return m.setBoot(rec, string(f.bytes))
		}
		return nil
	}); rej != nil {
		return rej
	}
	if events > m.limits.MaxEvents {
		return reject(TooMany, "message holds more than %d events", m.limits.MaxEvents)
	}
	var in wire.Audit
	if err := proto.Unmarshal(m.payload, &in); err != nil {
		return reject(Malformed, "Protobuf of an audit message: %v", err)
	}
	if in.GetSeq() != 0 {
		rec.Seq = in.GetSeq()
	}
	rec.Audit = make([]fleet.AuditEvent, 0, len(in.GetEvents()))
	for i, e := range in.GetEvents() {
		read := event{
			Class: e.GetClass(), Activity: e.GetActivity(), Outcome: e.GetOutcome(), Program: e.GetProgram(),
			Actor: e.GetActor(), User: e.GetUser(), Message: e.GetMessage(), Repeat: int(e.GetRepeat()),
		}
		if e.GetTs() != 0 {
			read.TS.Time = time.UnixMilli(e.GetTs()).UTC()
		}
		if len(e.GetFields()) > 0 {
			read.Fields = make(map[string]plain, len(e.GetFields()))
			for k, v := range e.GetFields() {
				read.Fields[k] = plain(v)
			}
		}
		if rej := m.addEvent(rec, i, read); rej != nil {
			return rej
		}
	}
	return nil
}

func (m *message) addEvent(rec *fleet.Record, i int, in event) *Rejection {
	out, rej := m.checkEvent(in, rec.ReceivedAt)
	if rej != nil {
		rej.Detail = fmt.Sprintf("event %d: %s", i+1, rej.Detail)
		return rej
	}
	rec.Audit = append(rec.Audit, out)
	return nil
}

// cborEvent is an audit event in CBOR; the names are those of JSON.
type cborEvent struct {
	TS       cbor.RawMessage `cbor:"ts"`
	Class    string          `cbor:"class"`
	Activity string          `cbor:"activity"`
	Outcome  string          `cbor:"outcome"`
	Program  string          `cbor:"program"`
	Actor    string          `cbor:"actor"`
	User     string          `cbor:"user"`
	Message  string          `cbor:"message"`
	Fields   map[string]any  `cbor:"fields"`
	Repeat   int             `cbor:"repeat"`
}

// cborAudit is a wrapper around events, or one event.
type cborAudit struct {
	Boot   string      `cbor:"boot"`
	Seq    uint64      `cbor:"seq"`
	Events []cborEvent `cbor:"events"`
	cborEvent
}

// auditCBOR decodes a map with boot, seq and events, or one with the fields of
// an event.
func (m *message) auditCBOR(rec *fleet.Record) *Rejection {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: maxDepth, MaxArrayElements: max(m.limits.MaxEvents, 16),
		MaxMapPairs: max(m.limits.MaxFields, 16), IndefLength: cbor.IndefLengthAllowed,
	}.DecMode()
	if err != nil {
		return reject(Rejected, "CBOR cannot be decoded with these limits: %v", err)
	}
	var in cborAudit
	if err := mode.Unmarshal(m.payload, &in); err != nil {
		return reject(Malformed, "CBOR of an audit message: %v", err)
	}
	if in.Boot != "" {
		if rej := m.setBoot(rec, in.Boot); rej != nil {
			return rej
		}
	}
	if in.Seq != 0 {
		rec.Seq = in.Seq
	}
	if in.Events == nil {
		in.Events = []cborEvent{in.cborEvent}
	}
	rec.Audit = make([]fleet.AuditEvent, 0, len(in.Events))
	for i := range in.Events {
		read, rej := m.cborEvent(&in.Events[i], rec.ReceivedAt)
		if rej != nil {
			rej.Detail = fmt.Sprintf("event %d: %s", i+1, rej.Detail)
			return rej
		}
		if rej := m.addEvent(rec, i, read); rej != nil {
			return rej
		}
	}
	return nil
}

func (m *message) cborEvent(in *cborEvent, receivedAt time.Time) (event, *Rejection) {
	out := event{
		Class: in.Class, Activity: in.Activity, Outcome: in.Outcome, Program: in.Program,
		Actor: in.Actor, User: in.User, Message: in.Message, Repeat: in.Repeat,
	}
	if len(in.TS) > 0 && in.TS[0] != 0xf6 { // null
		c := cborReader{message: m, data: in.TS, rec: &fleet.Record{ReceivedAt: receivedAt}}
		ns, rej := c.time()
		if rej != nil {
			return out, rej
		}
		out.TS.Time = time.Unix(0, ns).UTC()
	}
	if len(in.Fields) == 0 {
		return out, nil
	}
	out.Fields = make(map[string]plain, len(in.Fields))
	for k, v := range in.Fields {
		switch v := v.(type) {
		case string:
			out.Fields[k] = plain(v)
		case uint64:
			out.Fields[k] = plain(strconv.FormatUint(v, 10))
		case int64:
			out.Fields[k] = plain(strconv.FormatInt(v, 10))
		case float64:
			out.Fields[k] = plain(strconv.FormatFloat(v, 'g', -1, 64))
		case bool:
			out.Fields[k] = plain(strconv.FormatBool(v))
		default:
			return out, reject(Mistyped, "field %q holds a %T, expected a text, number or truth value", clip(k), v)
		}
	}
	return out, nil
}
