// Package wire is the byte format of detector state: variable-length
// integers, fixed floats and counted strings, little-endian, without names. A
// Reader remembers its first error, so that decoding reads straight down; it
// never allocates more than the input could hold.
package wire

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrCorrupt says that bytes are not what was written.
var ErrCorrupt = errors.New("state is cut off or corrupt")

// Writer appends values to Bytes.
type Writer struct{ Bytes []byte }

// Uint appends an unsigned integer.
func (w *Writer) Uint(v uint64) { w.Bytes = binary.AppendUvarint(w.Bytes, v) }

// Int appends a signed integer.
func (w *Writer) Int(v int64) { w.Bytes = binary.AppendVarint(w.Bytes, v) }

// Float appends a float with all its bits.
func (w *Writer) Float(v float64) {
	w.Bytes = binary.LittleEndian.AppendUint64(w.Bytes, math.Float64bits(v))
}

// Float32 appends a float with all its bits.
func (w *Writer) Float32(v float32) {
	w.Bytes = binary.LittleEndian.AppendUint32(w.Bytes, math.Float32bits(v))
}

// Bool appends a truth value.
func (w *Writer) Bool(v bool) {
	b := byte(0)
	if v {
		b = 1
	}
	w.Bytes = append(w.Bytes, b)
}

// String appends a counted string.
func (w *Writer) String(s string) {
	w.Uint(uint64(len(s)))
	w.Bytes = append(w.Bytes, s...)
}

// Reader reads what a Writer wrote.
type Reader struct {
	rest []byte
	err  error
}

// NewReader reads from bytes.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Err is the first fault met.
func (r *Reader) Err() error { return r.err }

// Left is how many bytes have not been read.
func (r *Reader) Left() int { return len(r.rest) }

func (r *Reader) fail() {
	r.err = ErrCorrupt
	r.rest = nil
}

func (r *Reader) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.fail()
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// Uint reads an unsigned integer.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Int reads a signed integer.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Count reads the length of a list whose elements take at least one byte.
func (r *Reader) Count() int {
	n := r.Uint()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return int(n)
}

// Float reads a float.
func (r *Reader) Float() float64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// Float32 reads a float.
func (r *Reader) Float32() float32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(b))
}

// Bool reads a truth value.
func (r *Reader) Bool() bool {
	b := r.take(1)
	return b != nil && b[0] == 1
}

// String reads a counted string.
func (r *Reader) String() string { return string(r.take(r.Count())) }
