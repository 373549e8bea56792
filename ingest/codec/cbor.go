package codec

import (
	"math"
	"time"
	"unicode/utf8"

	"cordon/internal/fleet"
)

// The major types of CBOR (RFC 8949), as they stand in an initial byte.
const (
	cborUint  = 0
	cborInt   = 1
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5
	cborTag   = 6
	cborOther = 7

	cborIndefinite = 31
	cborBreak      = 0xff
	cborSelf       = 55799 // a tag that says: this is CBOR
)

// cborReader reads CBOR forward, without building a tree.
type cborReader struct {
	*message
	data []byte
	pos  int
	out  *Decoder
	rec  *fleet.Record
	ts   int64
}

// cborHead is the start of an item.
type cborHead struct {
	major      byte
	info       byte
	value      uint64 // length, number or bits
	indefinite bool
	at         int
}

func (m *message) telemetryCBOR(out *Decoder, rec *fleet.Record) *Rejection {
	c := &out.cbor
	*c = cborReader{message: m, data: m.payload, out: out, rec: rec, ts: unset}
	h, rej := c.head()
	if rej != nil {
		return rej
	}
	if h.major == cborTag && h.value == cborSelf {
		if h, rej = c.head(); rej != nil {
			return rej
		}
	}
	if h.major != cborMap {
		return reject(Mistyped, "message is CBOR of major type %d, expected a map", h.major)
	}
	saw := 0
	rej = c.each(h, true, func(key []byte, at int) *Rejection {
		bit, rej := c.field(key)
		if rej == nil && bit != 0 && saw&bit != 0 {
			return reject(Malformed, "field %q appears again at byte %d", key, at+1)
		}
		saw |= bit
		return rej
	})
	switch {
	case rej != nil:
		return rej
	case c.pos < len(c.data):
		return reject(Malformed, "more data after the end of the message at byte %d", c.pos+1)
	case saw&(sawMetrics|sawReadings) == 0:
		return reject(Malformed, "message has neither metrics nor readings")
	}
	return m.finish(out, rec, c.ts)
}

func (c *cborReader) field(key []byte) (bit int, rej *Rejection) {
	switch string(key) {
	case "boot":
		text, rej := c.text("boot")
		if rej != nil {
			return 0, rej
		}
		return sawBoot, c.setBoot(c.rec, c.out.names.text(text))
	case "seq":
		h, rej := c.head()
		if rej == nil && h.major != cborUint {
			rej = reject(Mistyped, "seq at byte %d is not a whole number from 0 to 2^64-1", h.at+1)
		}
		c.rec.Seq = h.value
		return sawSeq, rej
	case "ts":
		c.ts, rej = c.time()
		return sawTS, rej
	case "metrics":
		return sawMetrics, c.metrics()
	case "readings":
		return sawReadings, c.readings()
	}
	return 0, c.skip(1)
}

func (c *cborReader) cut() *Rejection {
	return reject(Malformed, "CBOR is cut off after byte %d", len(c.data))
}

// head reads the start of an item.
func (c *cborReader) head() (h cborHead, rej *Rejection) {
	h.at = c.pos
	if c.pos >= len(c.data) {
		return h, c.cut()
	}
	b := c.data[c.pos]
	c.pos++
	h.major, h.info = b>>5, b&31
	n := 0
	switch {
	case h.info < 24:
		h.value = uint64(h.info)
	case h.info < 28:
		n = 1 << (h.info - 24)
	case h.info == cborIndefinite && h.major >= cborBytes && h.major <= cborMap || b == cborBreak:
		h.indefinite = true
	default:
		return h, reject(Malformed, "CBOR has the reserved byte 0x%02x at byte %d", b, h.at+1)
	}
	if len(c.data)-c.pos < n {
		return h, c.cut()
	}
	for _, b := range c.data[c.pos : c.pos+n] {
		h.value = h.value<<8 | uint64(b)
	}
	c.pos += n
	if h.major == cborOther && h.info == 24 && h.value < 32 {
		return h, reject(Malformed, "CBOR has a simple value in two bytes that fits one at byte %d", h.at+1)
	}
	return h, nil
}

// each calls yield for every entry of a map (with its key) or array.
func (c *cborReader) each(h cborHead, keys bool, yield func(key []byte, at int) *Rejection) *Rejection {
	if !h.indefinite && h.value > uint64(len(c.data)-c.pos) {
		return c.cut()
	}
	for i := uint64(0); h.indefinite || i < h.value; i++ {
		if h.indefinite {
			if c.pos >= len(c.data) {
				return c.cut()
			}
			if c.data[c.pos] == cborBreak {
				c.pos++
				return nil
			}
		}
		at := c.pos
		var key []byte
		if keys {
			var rej *Rejection
			if key, rej = c.text("a field name"); rej != nil {
				return rej
			}
		}
		if rej := yield(key, at); rej != nil {
			return rej
		}
	}
	return nil
}

// text reads a text of known length. It aliases the payload.
func (c *cborReader) text(what string) ([]byte, *Rejection) {
	h, rej := c.head()
	switch {
	case rej != nil:
		return nil, rej
	case h.major != cborText:
		return nil, reject(Mistyped, "%s at byte %d is CBOR of major type %d, expected a text", what, h.at+1, h.major)
	case h.indefinite:
		return nil, reject(Malformed, "%s at byte %d is a text in pieces, send it as one", what, h.at+1)
	case h.value > uint64(len(c.data)-c.pos):
		return nil, c.cut()
	}
	out := c.data[c.pos : c.pos+int(h.value)]
	c.pos += int(h.value)
	if !utf8.Valid(out) {
		return nil, reject(Malformed, "%s at byte %d is not UTF-8", what, h.at+1)
	}
	return out, nil
}

// number reads an integer or a float of any size.
func (c *cborReader) number(what string) (float64, *Rejection) {
	h, rej := c.head()
	if rej != nil {
		return 0, rej
	}
	v := 0.0
	switch {
	case h.major == cborUint:
		return float64(h.value), nil
	case h.major == cborInt:
		return -1 - float64(h.value), nil
	case h.major == cborOther && h.info == 25:
		v = half(uint16(h.value))
	case h.major == cborOther && h.info == 26:
		v = float64(math.Float32frombits(uint32(h.value)))
	case h.major == cborOther && h.info == 27:
		v = math.Float64frombits(h.value)
	default:
		return 0, reject(Mistyped, "%s at byte %d is CBOR of major type %d, expected a number", what, h.at+1, h.major)
	}
	if !finite(v) {
		return 0, reject(NotFinite, "%s is %g at byte %d", what, v, h.at+1)
	}
	return v, nil
}

// half is an IEEE 754 half-precision number.
func half(bits uint16) float64 {
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	v := 0.0
	switch exponent {
	case 0:
		v = math.Ldexp(fraction, -24)
	case 31:
		if v = math.Inf(1); fraction != 0 {
			v = math.NaN()
		}
	default:
		v = math.Ldexp(1024+fraction, exponent-25)
	}
	if bits&0x8000 != 0 {
		return -v
	}
	return v
}

// time reads RFC 3339 text (also tag 0) or a Unix time in seconds (also tag 1)
// or milliseconds.
func (c *cborReader) time() (int64, *Rejection) {
	start := c.pos
	if c.pos < len(c.data) && c.data[c.pos]>>5 == cborTag {
		h, rej := c.head()
		if rej != nil {
			return 0, rej
		}
		if h.value > 1 {
			return 0, reject(Mistyped, "ts at byte %d has tag %d, expected 0 or 1 or none", h.at+1, h.value)
		}
	}
	var at time.Time
	if c.pos < len(c.data) && c.data[c.pos]>>5 == cborText {
		text, rej := c.text("ts")
		if rej != nil {
			return 0, rej
		}
		t, err := parseTime(text)
		if err != nil {
			return 0, reject(Malformed, "ts %q at byte %d is not RFC 3339 such as 2026-11-22T17:30:00Z", clip(string(text)), start+1)
		}
		at = t
	} else {
		v, rej := c.number("ts")
		if rej != nil {
			return 0, rej
		}
		if at, rej = unixTime(v); rej != nil {
			return 0, rej
		}
	}
	return c.nanos(at, c.rec.ReceivedAt)
}

// metrics reads {"name": value, …}.
func (c *cborReader) metrics() *Rejection {
	h, rej := c.head()
	if rej != nil {
		return rej
	}
	if h.major != cborMap {
		return reject(Mistyped, "metrics at byte %d is not a map", h.at+1)
	}
	return c.each(h, true, func(key []byte, at int) *Rejection {
		if rej := c.checkMetric(key, at); rej != nil {
			return rej
		}
		name := c.out.names.text(key)
		v, rej := c.number(name)
		if rej != nil {
			return rej
		}
		return c.out.add(c.message, name, unset, v)
	})
}

// readings reads [{"ts", "metric", "value"}, …].
func (c *cborReader) readings() *Rejection {
	h, rej := c.head()
	if rej != nil {
		return rej
	}
	if h.major != cborArray {
		return reject(Mistyped, "readings at byte %d is not an array", h.at+1)
	}
	return c.each(h, false, func([]byte, int) *Rejection { return c.reading() })
}

func (c *cborReader) reading() *Rejection {
	h, rej := c.head()
	if rej != nil {
		return rej
	}
	if h.major != cborMap {
		return reject(Mistyped, "a reading at byte %d is not a map", h.at+1)
	}
	metric, value, at := "", math.NaN(), int64(unset)
	rej = c.each(h, true, func(key []byte, _ int) (rej *Rejection) {
		switch string(key) {
		case "metric":
			place := c.pos
			var name []byte
			if name, rej = c.text("metric"); rej != nil {
				return rej
			}
			if rej = c.checkMetric(name, place); rej != nil {
				return rej
			}
			metric = c.out.names.text(name)
		case "value":
			value, rej = c.number("value")
		case "ts":
			at, rej = c.time()
		default:
			rej = c.skip(3)
		}
		return rej
	})
	switch {
	case rej != nil:
		return rej
	case metric == "" || !finite(value):
		return reject(Malformed, "reading at byte %d lacks its %s", h.at+1, missing(metric != ""))
	}
	return c.out.add(c.message, metric, at, value)
}

// skip steps over any item.
func (c *cborReader) skip(depth int) *Rejection {
	if depth > maxDepth {
		return reject(TooMany, "CBOR is nested deeper than %d at byte %d", maxDepth, c.pos+1)
	}
	h, rej := c.head()
	if rej != nil {
		return rej
	}
	switch h.major {
	case cborBytes, cborText:
		return c.skipText(h)
	case cborTag:
		return c.skip(depth + 1)
	case cborArray:
		return c.each(h, false, func([]byte, int) *Rejection { return c.skip(depth + 1) })
	case cborMap:
		return c.each(h, false, func([]byte, int) *Rejection {
			if rej := c.skip(depth + 1); rej != nil {
				return rej
			}
			return c.skip(depth + 1)
		})
	case cborOther:
		if h.indefinite {
			return reject(Malformed, "CBOR has a break at byte %d where a value should be", h.at+1)
		}
	}
	return nil
}

// skipText steps over the rest of a text or byte string, also one in pieces.
func (c *cborReader) skipText(h cborHead) *Rejection {
	if !h.indefinite {
		if h.value > uint64(len(c.data)-c.pos) {
			return c.cut()
		}
		text := c.data[c.pos : c.pos+int(h.value)]
		c.pos += int(h.value)
		if h.major == cborText && !utf8.Valid(text) {
			return reject(Malformed, "a text at byte %d is not UTF-8", h.at+1)
		}
		return nil
	}
	return c.each(h, false, func([]byte, int) *Rejection {
		piece, rej := c.head()
		if rej != nil {
			return rej
		}
		if piece.major != h.major || piece.indefinite {
			return reject(Malformed, "CBOR has a piece of another type at byte %d", piece.at+1)
		}
		return c.skipText(piece)
	})
}
