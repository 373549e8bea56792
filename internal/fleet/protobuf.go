package fleet

import (
	"encoding/binary"
	"math"
)

// ContentProtobuf is the content type of Protobuf messages, see
// internal/fleet/wire/telemetry.proto; ContentCBOR that of CBOR ones, which
// have the same fields as JSON.
const (
	ContentProtobuf = "application/x-protobuf"
	ContentCBOR     = "application/cbor"
)

// AppendColumns appends a telemetry message in columnar Protobuf: the smallest
// form and the cheapest to decode. Times are sent in milliseconds. A value
// that is NaN or infinite is left out: it was never measured.
func AppendColumns(dst []byte, boot string, seq uint64, readings []Reading) []byte {
	readings = onlyFinite(readings)
	dst = appendHead(dst, boot, seq)
	if len(readings) == 0 {
		return append(dst, 5<<3|2, 0)
	}
	first := readings[0].ObservedAt.UnixMilli()
	dst = binary.AppendUvarint(append(dst, 3<<3), uint64(first))
	names, places, cyclic := dictionary(readings)
	var body []byte
	for _, name := range names {
		body = appendBytes(body, 1<<3|2, name)
	}
	if !cyclic {
		var packed []byte
		for _, p := range places {
			packed = binary.AppendUvarint(packed, uint64(p))
		}
		body = appendBytes(body, 2<<3|2, packed)
	}
	body = appendDeltas(body, readings)
	body = append(body, 4<<3|2)
	body = binary.AppendUvarint(body, uint64(8*len(readings)))
	for i := range readings {
		body = binary.LittleEndian.AppendUint64(body, math.Float64bits(readings[i].Value))
	}
	return appendBytes(dst, 5<<3|2, body)
}

// AppendRows appends a telemetry message in Protobuf, reading by reading.
func AppendRows(dst []byte, boot string, seq uint64, readings []Reading) []byte {
	dst = appendHead(dst, boot, seq)
	for _, r := range onlyFinite(readings) {
		body := appendBytes(make([]byte, 0, 64), 1<<3|2, r.Metric)
		body = append(body, 2<<3|1)
		body = binary.LittleEndian.AppendUint64(body, math.Float64bits(r.Value))
		body = binary.AppendUvarint(append(body, 3<<3), uint64(r.ObservedAt.UnixMilli()))
		dst = appendBytes(dst, 7<<3|2, body)
	}
	return dst
}

func appendHead(dst []byte, boot string, seq uint64) []byte {
	if seq > 0 {
		dst = binary.AppendUvarint(append(dst, 1<<3), seq)
	}
	if boot != "" {
		dst = appendBytes(dst, 2<<3|2, boot)
	}
	return dst
}

func appendBytes[T string | []byte](dst []byte, tag byte, value T) []byte {
	dst = binary.AppendUvarint(append(dst, tag), uint64(len(value)))
	return append(dst, value...)
}

// dictionary lists the metrics in order of appearance and each reading's place
// in it; cyclic says that reading i has place i mod their number.
func dictionary(readings []Reading) (names []string, places []uint32, cyclic bool) {
	known := make(map[string]uint32, 32)
	places = make([]uint32, len(readings))
	for i := range readings {
		p, ok := known[readings[i].Metric]
		if !ok {
			p = uint32(len(names))
			known[readings[i].Metric] = p
			names = append(names, readings[i].Metric)
		}
		places[i] = p
	}
	for i, p := range places {
		if int(p) != i%len(names) {
			return names, places, false
		}
	}
	return names, places, true
}

// appendDeltas leaves the column out when all times are equal.
func appendDeltas(body []byte, readings []Reading) []byte {
	first := readings[0].ObservedAt.UnixMilli()
	last, same := first, true
	var packed []byte
	for i := range readings {
		at := readings[i].ObservedAt.UnixMilli()
		same = same && at == first
		packed = binary.AppendVarint(packed, at-last)
		last = at
	}
	if same {
		return body
	}
	return appendBytes(body, 3<<3|2, packed)
}

func onlyFinite(readings []Reading) []Reading {
	for i, r := range readings {
		if math.IsNaN(r.Value) || math.IsInf(r.Value, 0) {
			out := append([]Reading(nil), readings[:i]...)
			for _, r := range readings[i:] {
				if !math.IsNaN(r.Value) && !math.IsInf(r.Value, 0) {
					out = append(out, r)
				}
			}
			return out
		}
	}
	return readings
}
