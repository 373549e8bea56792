package codec

import (
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"cordon/internal/fleet"
)

// The tags of Telemetry and Audit in internal/fleet/wire/telemetry.proto.
const (
	tagSeq      = 1<<3 | byte(protowire.VarintType)
	tagBoot     = 2<<3 | byte(protowire.BytesType)
	tagTS       = 3<<3 | byte(protowire.VarintType)
	tagColumns  = 5<<3 | byte(protowire.BytesType)
	tagReadings = 7<<3 | byte(protowire.BytesType)
)

// protobuf is the state of decoding one telemetry message of Protobuf.
type protobuf struct {
	*message
	out *Decoder
	rec *fleet.Record
	ts  int64 // ms

	names  []string // the dictionary
	metric []uint32
	delta  []int64
	rows   int // readings that came as rows, before the columns

	columns bool // a columns field was there
}

func (m *message) telemetryProtobuf(out *Decoder, rec *fleet.Record) *Rejection {
	p := &out.proto
	*p = protobuf{message: m, out: out, rec: rec, metric: p.metric[:0], delta: p.delta[:0]}
	if len(m.payload) == 0 {
		return reject(Malformed, "message is empty")
	}
	var columns []byte
	var base int
	rej := fields(m.payload, 0, func(f field) *Rejection {
		switch {
		case f.number == 1 && f.kind == protowire.VarintType:
			rec.Seq = f.varint
		case f.number == 2 && f.kind == protowire.BytesType:
			return m.setBoot(rec, out.names.text(f.bytes))
		case f.number == 3 && f.kind == protowire.VarintType:
			p.ts = int64(f.varint)
		case f.number == 5 && f.kind == protowire.BytesType:
			if p.columns {
				return reject(Malformed, "field columns appears again before byte %d", f.end)
			}
			p.columns, columns, base = true, f.bytes, f.end-len(f.bytes)
		case f.number == 7 && f.kind == protowire.BytesType:
			return p.row(f.bytes, f.end-len(f.bytes))
		case f.number <= 7 && f.number != 4 && f.number != 6:
			return wrongKind(f, "Telemetry")
		}
		return nil
	})
	if rej != nil {
		return rej
	}
	ts := int64(unset)
	if p.ts != 0 {
		if ts, rej = m.nanos(time.UnixMilli(p.ts).UTC(), rec.ReceivedAt); rej != nil {
			return rej
		}
	}
	if p.columns {
		if rej := p.column(columns, base); rej != nil {
			return rej
		}
	}
	return m.finish(out, rec, ts)
}

// field is one field of a Protobuf message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	varint uint64 // also the bits of fixed fields
	bytes  []byte
	end    int // place behind it in the payload
}

// fields calls yield for every field of a message that stands at byte base of
// the payload.
func fields(data []byte, base int, yield func(field) *Rejection) *Rejection {
	for pos := 0; pos < len(data); {
		f, n := nextField(data[pos:])
		if n < 0 {
			return reject(Malformed, "Protobuf at byte %d: %v", base+pos+1, protowire.ParseError(n))
		}
		pos += n
		f.end = base + pos
		if rej := yield(f); rej != nil {
			return rej
		}
	}
	return nil
}

// nextField reads a field; a negative length is an error of protowire.
func nextField(data []byte) (f field, n int) {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 {
		return f, n
	}
	f.number, f.kind = number, kind
	rest := data[n:]
	var m int
	switch kind {
	case protowire.VarintType:
		f.varint, m = protowire.ConsumeVarint(rest)
	case protowire.Fixed64Type:
		f.varint, m = protowire.ConsumeFixed64(rest)
	case protowire.BytesType:
		f.bytes, m = protowire.ConsumeBytes(rest)
	default:
		m = protowire.ConsumeFieldValue(number, kind, rest)
	}
	if m < 0 {
		return f, m
	}
	return f, n + m
}

func wrongKind(f field, of string) *Rejection {
	return reject(Mistyped, "field %d of %s before byte %d has wire type %d: is the message of another schema?", f.number, of, f.end, f.kind)
}

// row reads one Reading.
func (p *protobuf) row(data []byte, base int) *Rejection {
	metric, at, value := "", int64(0), 0.0
	for pos := 0; pos < len(data); {
		f, n := nextField(data[pos:])
		if n < 0 {
			return reject(Malformed, "Protobuf at byte %d: %v", base+pos+1, protowire.ParseError(n))
		}
		pos += n
		f.end = base + pos
		switch {
		case f.number == 1 && f.kind == protowire.BytesType:
			if rej := p.checkMetric(f.bytes, f.end-len(f.bytes)); rej != nil {
				return rej
			}
			metric = p.out.names.text(f.bytes)
		case f.number == 2 && f.kind == protowire.Fixed64Type:
			value = math.Float64frombits(f.varint)
		case f.number == 3 && f.kind == protowire.VarintType:
			at = int64(f.varint)
		case f.number <= 3:
			return wrongKind(f, "Reading")
		}
	}
	if metric == "" {
		return reject(Malformed, "reading before byte %d lacks its metric", base+len(data))
	}
	if !finite(value) {
		return reject(NotFinite, "%s is %g", metric, value)
	}
	ns := int64(unset)
	if at != 0 {
		var rej *Rejection
		if ns, rej = p.nanos(time.UnixMilli(at).UTC(), p.rec.ReceivedAt); rej != nil {
			return rej
		}
	}
	return p.out.add(p.message, metric, ns, value)
}

// column reads Columns, which stand at byte base of the payload.
func (p *protobuf) column(data []byte, base int) *Rejection {
	p.rows = len(p.out.Value)
	for pos := 0; pos < len(data); {
		if data[pos] == 1<<3|byte(protowire.BytesType) {
			n, rej := p.dictionary(data[pos:], base+pos)
			if rej != nil {
				return rej
			}
			pos += n
			continue
		}
		f, n := nextField(data[pos:])
		if n < 0 {
			return reject(Malformed, "Protobuf at byte %d: %v", base+pos+1, protowire.ParseError(n))
		}
		pos += n
		f.end = base + pos
		if rej := p.columnField(f); rej != nil {
			return rej
		}
	}
	return p.join()
}

func (p *protobuf) columnField(f field) *Rejection {
	switch {
	case f.number == 2 && f.kind == protowire.BytesType:
		return p.packed(f, "metric", func(v uint64) { p.metric = append(p.metric, uint32(min(v, math.MaxUint32))) }, len(p.metric))
	case f.number == 2 && f.kind == protowire.VarintType:
		p.metric = append(p.metric, uint32(min(f.varint, math.MaxUint32)))
	case f.number == 3 && f.kind == protowire.BytesType:
		return p.packed(f, "ts_delta", func(v uint64) { p.delta = append(p.delta, protowire.DecodeZigZag(v)) }, len(p.delta))
	case f.number == 3 && f.kind == protowire.VarintType:
		p.delta = append(p.delta, protowire.DecodeZigZag(f.varint))
	case f.number == 4 && f.kind == protowire.BytesType:
		if len(f.bytes)%8 != 0 {
			return reject(Malformed, "column value before byte %d has %d bytes, which is no multiple of 8", f.end, len(f.bytes))
		}
		if len(p.out.Value)+len(f.bytes)/8 > p.limits.MaxReadings {
			return tooManyReadings(p.message)
		}
		for raw := f.bytes; len(raw) > 0; raw = raw[8:] {
			p.out.Value = append(p.out.Value, math.Float64frombits(binary.LittleEndian.Uint64(raw)))
		}
	case f.number == 4 && f.kind == protowire.Fixed64Type:
		if len(p.out.Value) >= p.limits.MaxReadings {
			return tooManyReadings(p.message)
		}
		p.out.Value = append(p.out.Value, math.Float64frombits(f.varint))
	case f.number <= 4:
		return wrongKind(f, "Columns")
	}
	return nil
}

// packed reads a packed column of varints.
func (p *protobuf) packed(f field, what string, add func(uint64), have int) *Rejection {
	for raw := f.bytes; len(raw) > 0; have++ {
		if have >= p.limits.MaxReadings {
			return tooManyReadings(p.message)
		}
		if raw[0] < 0x80 {
			add(uint64(raw[0]))
			raw = raw[1:]
			continue
		}
		v, n := protowire.ConsumeVarint(raw)
		if n < 0 {
			return reject(Malformed, "column %s before byte %d: %v", what, f.end, protowire.ParseError(n))
		}
		add(v)
		raw = raw[n:]
	}
	return nil
}

// join makes readings of the columns.
func (p *protobuf) join() *Rejection {
	out := p.out
	values := out.Value[p.rows:]
	n := len(values)
	switch {
	case n > 0 && len(p.names) == 0:
		return reject(Malformed, "columns have %d values and no metrics", n)
	case len(p.metric) > 0 && len(p.metric) != n:
		return reject(Malformed, "column metric has %d entries, value has %d", len(p.metric), n)
	case len(p.delta) > 0 && len(p.delta) != n:
		return reject(Malformed, "column ts_delta has %d entries, value has %d", len(p.delta), n)
	case len(p.delta) > 0 && p.ts == 0:
		return reject(Malformed, "column ts_delta needs the message's ts")
	}
	for i, v := range values {
		if !finite(v) {
			return reject(NotFinite, "value %d is %g", i+1, v)
		}
	}
	if len(p.metric) == 0 {
		for len(out.Metric)+len(p.names) <= len(out.Value) && len(p.names) > 0 {
			out.Metric = append(out.Metric, p.names...)
		}
		if rest := len(out.Value) - len(out.Metric); rest > 0 {
			out.Metric = append(out.Metric, p.names[:rest]...)
		}
	}
	for i, place := range p.metric {
		if int(place) >= len(p.names) {
			return reject(Malformed, "reading %d has metric %d of %d", i+1, place, len(p.names))
		}
		out.Metric = append(out.Metric, p.names[place])
	}
	return p.times(n)
}

// The times that Unix nanoseconds of accepted years lie between, in ms.
var (
	leastMillis = time.Date(minYear, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	mostMillis  = time.Date(maxYear+1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() - 1
)

func (p *protobuf) times(n int) *Rejection {
	out := p.out
	if len(p.delta) == 0 {
		for range n {
			out.ObservedAt = append(out.ObservedAt, unset)
		}
		return nil
	}
	at := p.ts
	for _, d := range p.delta {
		if d > math.MaxInt64/4 || d < math.MinInt64/4 {
			return reject(Mistyped, "ts_delta holds %d, which is no time in ms", d)
		}
		at += d
		if at < leastMillis || at > mostMillis {
			return p.checkTime(time.UnixMilli(at).UTC(), p.rec.ReceivedAt)
		}
		out.ObservedAt = append(out.ObservedAt, at*int64(time.Millisecond))
	}
	return nil
}

// dictionaries keeps the dictionaries of columnar messages between messages:
// devices send the same one again and again.
type dictionaries struct {
	known  map[string][]string
	limits Limits // under which they were checked
}

const (
	maxDictionaries = 1024
	maxDictionary   = 8 << 10 // bytes of one that is kept
)

func newDictionaries() dictionaries { return dictionaries{known: make(map[string][]string)} }

// dictionary reads the run of metrics fields at the start of data and returns
// its length.
func (p *protobuf) dictionary(data []byte, base int) (int, *Rejection) {
	const tag = 1<<3 | byte(protowire.BytesType)
	end := 0
	for end < len(data) && data[end] == tag {
		_, n := protowire.ConsumeBytes(data[end+1:])
		if n < 0 {
			return 0, reject(Malformed, "Protobuf at byte %d: %v", base+end+1, protowire.ParseError(n))
		}
		end += 1 + n
	}
	if p.out.dicts.limits != p.limits {
		p.out.dicts.limits = p.limits
		clear(p.out.dicts.known)
	}
	known := p.out.dicts.known
	first := len(p.names) == 0
	if names, ok := known[string(data[:end])]; ok && first {
		p.names = names
		return end, nil
	}
	names := append([]string(nil), p.names...)
	for pos := 0; pos < end; {
		text, n := protowire.ConsumeBytes(data[pos+1:])
		pos += 1 + n
		if rej := p.checkMetric(text, base+pos-len(text)); rej != nil {
			return 0, rej
		}
		if len(names) >= p.limits.MaxReadings {
			return 0, reject(TooMany, "columns have more than %d metrics", p.limits.MaxReadings)
		}
		names = append(names, p.out.names.text(text))
	}
	p.names = names
	if first && end <= maxDictionary {
		if len(known) >= maxDictionaries {
			clear(known)
		}
		known[string(data[:end])] = names
	}
	return end, nil
}
