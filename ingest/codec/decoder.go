package codec

import (
	"math"
	"sync"
	"time"

	"cordon/internal/fleet"
)

// Columns are the readings of one telemetry message, one element per reading.
type Columns struct {
	Metric     []string
	ObservedAt []int64 // Unix nanoseconds
	Value      []float64
}

// Len is the number of readings.
func (c *Columns) Len() int { return len(c.Value) }

// Decoder decodes one message after the other and uses its memory again. It is
// not safe for concurrent use.
type Decoder struct {
	Columns // of the last message, until the next one

	names names
	dicts dictionaries
	json  telemetry
	proto protobuf
	cbor  cborReader
	msg   message
	rec   fleet.Record
}

// NewDecoder returns a decoder.
func NewDecoder() *Decoder { return &Decoder{names: newNames(), dicts: newDictionaries()} }

// Decode makes a record of one message of the FLEET log. The readings of a
// telemetry message are in d.Columns and not in the record. historic lifts the
// limits on the age of its data. With a rejection the record still carries
// StreamSeq and ReceivedAt and, as far as they were understood, Kind, Device,
// Boot and Seq; there are no readings, events or changes then.
func (d *Decoder) Decode(subject string, header map[string][]string, data []byte, receivedAt time.Time, streamSeq uint64, historic bool, limits Limits) (fleet.Record, *Rejection) {
	d.Metric, d.ObservedAt, d.Value = d.Metric[:0], d.ObservedAt[:0], d.Value[:0]
	d.rec = fleet.Record{StreamSeq: streamSeq, ReceivedAt: receivedAt.UTC()}
	d.msg = message{header: header, payload: data, historic: historic, limits: limits}
	rej := d.msg.decode(subject, d, &d.rec)
	if rej != nil {
		d.rec.Audit, d.rec.Tick, d.rec.Control = nil, fleet.Tick{}, fleet.Control{}
		d.Metric, d.ObservedAt, d.Value = d.Metric[:0], d.ObservedAt[:0], d.Value[:0]
	}
	d.msg.payload, d.msg.header, d.json.data = nil, nil, nil
	return d.rec, rej
}

var decoders = sync.Pool{New: func() any { return NewDecoder() }}

// Decode is Decoder.Decode with the readings in the record.
func Decode(subject string, header map[string][]string, data []byte, receivedAt time.Time, streamSeq uint64, historic bool, limits Limits) (fleet.Record, *Rejection) {
	d := decoders.Get().(*Decoder)
	defer decoders.Put(d)
	rec, rej := d.Decode(subject, header, data, receivedAt, streamSeq, historic, limits)
	if n := d.Len(); n > 0 {
		rec.Readings = make([]fleet.Reading, n)
		for i := range rec.Readings {
			rec.Readings[i] = fleet.Reading{ObservedAt: time.Unix(0, d.ObservedAt[i]).UTC(), Metric: d.Metric[i], Value: d.Value[i]}
		}
	}
	return rec, rej
}

// unset is the time of a reading that has none.
const unset = math.MinInt64

func (d *Decoder) add(m *message, metric string, at int64, value float64) *Rejection {
	if len(d.Value) >= m.limits.MaxReadings {
		return tooManyReadings(m)
	}
	d.Metric = append(d.Metric, metric)
	d.ObservedAt = append(d.ObservedAt, at)
	d.Value = append(d.Value, value)
	return nil
}

func tooManyReadings(m *message) *Rejection {
	return reject(TooMany, "message holds more than %d readings", m.limits.MaxReadings)
}

// names keeps metric names and boot ids between messages, so that a reading
// costs no allocation. What is decoded does not depend on it.
type names struct{ known map[string]string }

const maxNames = 4096

func newNames() names { return names{known: make(map[string]string)} }

func (n *names) text(b []byte) string {
	if s, ok := n.known[string(b)]; ok {
		return s
	}
	if len(n.known) >= maxNames {
		clear(n.known)
	}
	s := string(b)
	n.known[s] = s
	return s
}

// telemetry decodes a telemetry message of any encoding.
func (m *message) telemetry(out *Decoder, rec *fleet.Record) *Rejection {
	ct := m.contentType()
	if ct == "" {
		ct = sniff(m.payload)
	}
	switch ct {
	case fleet.ContentJSON:
		return m.telemetryJSON(out, rec)
	case fleet.ContentProtobuf, "application/protobuf", "application/vnd.google.protobuf":
		return m.telemetryProtobuf(out, rec)
	case fleet.ContentCBOR:
		return m.telemetryCBOR(out, rec)
	}
	return reject(Rejected, "content type %q is not accepted for telemetry, use %s, %s or %s", ct, fleet.ContentJSON, fleet.ContentCBOR, fleet.ContentProtobuf)
}

// sniff tells the encodings apart by the first byte: a CBOR map or tag, one of
// the schema's Protobuf fields, else JSON.
func sniff(data []byte) string {
	if len(data) == 0 {
		return fleet.ContentJSON
	}
	switch c := data[0]; {
	case c == 0xd9 || c >= 0xa0 && c <= 0xbf:
		return fleet.ContentCBOR
	case c == tagSeq || c == tagBoot || c == tagTS || c == tagColumns || c == tagReadings:
		return fleet.ContentProtobuf
	}
	return fleet.ContentJSON
}

// nanos is t in Unix nanoseconds; what they cannot hold is refused.
func (m *message) nanos(t, receivedAt time.Time) (int64, *Rejection) {
	if year := t.Year(); year < minYear || year > maxYear {
		return 0, m.checkTime(t, receivedAt)
	}
	return t.UnixNano(), nil
}

// finish fills in times that were left out and checks all of them. ts is the
// message's own time.
func (m *message) finish(out *Decoder, rec *fleet.Record, ts int64) *Rejection {
	received := rec.ReceivedAt.UnixNano()
	own := ts
	if own == unset {
		own = received
	}
	checked := int64(unset)
	for i, at := range out.ObservedAt {
		if at == unset {
			at = own
			out.ObservedAt[i] = own
		}
		if at == checked {
			continue
		}
		if rej := m.checkTime(time.Unix(0, at).UTC(), rec.ReceivedAt); rej != nil {
			rej.Detail = out.Metric[i] + " was " + rej.Detail
			return rej
		}
		checked = at
	}
	if len(out.ObservedAt) == 0 && ts != unset {
		return m.checkTime(time.Unix(0, ts).UTC(), rec.ReceivedAt)
	}
	return nil
}
