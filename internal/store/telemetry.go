package store

import (
	"context"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"cordon/internal/fleet"
)

// TelemetryBlock is a block of readings in the columns that ClickHouse takes,
// one element per reading. It is filled with Append and AppendColumns; Reset
// keeps its memory, so that a block that is used again allocates nothing.
type TelemetryBlock struct {
	device, metric, boot dictionary
	observed, received   []proto.DateTime64
	value                proto.ColFloat64
	seq, stream          proto.ColUInt64
	n                    proto.ColUInt32

	order []uint32 // keys of the last message's metrics: the next one often has the same
}

// Append adds the readings of one telemetry record.
func (b *TelemetryBlock) Append(r fleet.Record) {
	for i := range r.Readings {
		reading := &r.Readings[i]
		b.reading(i, reading.Metric)
		b.observed = append(b.observed, proto.DateTime64(reading.ObservedAt.UnixMilli()))
		b.value = append(b.value, reading.Value)
	}
	b.message(r, len(r.Readings))
}

// AppendColumns adds the readings of one telemetry record that are given in
// columns: metric, Unix nanoseconds of the device's clock, value.
func (b *TelemetryBlock) AppendColumns(r fleet.Record, metric []string, observedAt []int64, value []float64) {
	for i, name := range metric {
		b.reading(i, name)
	}
	for _, ns := range observedAt {
		b.observed = append(b.observed, proto.DateTime64(floorMillis(ns)))
	}
	b.value = append(b.value, value...)
	b.message(r, len(value))
}

// floorMillis rounds down as time.Time.UnixMilli does.
func floorMillis(ns int64) int64 {
	ms := ns / int64(time.Millisecond)
	if ns < 0 && ms*int64(time.Millisecond) != ns {
		ms--
	}
	return ms
}

// reading adds the metric of a message's reading i.
func (b *TelemetryBlock) reading(i int, name string) {
	if i < len(b.order) {
		if key := b.order[i]; b.metric.words[key] == name {
			b.metric.keys = append(b.metric.keys, key)
			return
		}
	}
	key := b.metric.key(name)
	b.metric.keys = append(b.metric.keys, key)
	if i < len(b.order) {
		b.order[i] = key
	} else {
		b.order = append(b.order, key)
	}
}

// message adds the columns that all n readings of a message share.
func (b *TelemetryBlock) message(r fleet.Record, n int) {
	device, boot := b.device.key(r.Device), b.boot.key(r.Boot)
	received := proto.DateTime64(r.ReceivedAt.UnixMilli())
	for i := range n {
		b.device.keys = append(b.device.keys, device)
		b.boot.keys = append(b.boot.keys, boot)
		b.received = append(b.received, received)
		b.seq = append(b.seq, r.Seq)
		b.stream = append(b.stream, r.StreamSeq)
		b.n = append(b.n, uint32(i))
	}
}

// Len is the number of rows.
func (b *TelemetryBlock) Len() int { return len(b.stream) }

// Devices lists the devices that the block has readings of.
func (b *TelemetryBlock) Devices() []string { return b.device.words }

// Reset empties the block and keeps its memory.
func (b *TelemetryBlock) Reset() {
	b.device.reset()
	b.metric.reset()
	b.boot.reset()
	b.observed, b.received, b.value = b.observed[:0], b.received[:0], b.value[:0]
	b.seq, b.stream, b.n, b.order = b.seq[:0], b.stream[:0], b.n[:0], b.order[:0]
}

// InsertTelemetry stores a block of readings. With the same token and the same
// rows it may be repeated: the rows count once, in every roll-up too. Tokens of
// different blocks must differ; each table has its own. The server remembers
// the last 10,000 parts per table, one per week of receipt that a block touches.
func (s *Store) InsertTelemetry(ctx context.Context, token string, b *TelemetryBlock) error {
	if b.Len() == 0 {
		return nil
	}
	return s.insert(ctx, "telemetry", token, proto.Input{
		{Name: "device", Data: b.device.column()},
		{Name: "metric", Data: b.metric.column()},
		{Name: "observed_at", Data: dateTimes(b.observed)},
		{Name: "received_at", Data: dateTimes(b.received)},
		{Name: "value", Data: &b.value},
		{Name: "boot", Data: b.boot.column()},
		{Name: "seq", Data: &b.seq},
		{Name: "stream_seq", Data: &b.stream},
		{Name: "n", Data: &b.n},
	})
}

// dictionary is a LowCardinality(String) column that is being filled.
type dictionary struct {
	words []string
	known map[string]uint32
	last  uint32
	keys  []uint32 // one per row

	index proto.ColStr
	raw   proto.ColLowCardinalityRaw
}

// key is the place of a word in the dictionary. Neighbours are often equal.
func (d *dictionary) key(word string) uint32 {
	if int(d.last) < len(d.words) && d.words[d.last] == word {
		return d.last
	}
	key, ok := d.known[word]
	if !ok {
		if d.known == nil {
			d.known = make(map[string]uint32, 64)
		}
		key = uint32(len(d.words))
		d.known[word] = key
		d.words = append(d.words, word)
	}
	d.last = key
	return key
}

func (d *dictionary) reset() {
	clear(d.known)
	clear(d.words)
	d.words, d.keys, d.last = d.words[:0], d.keys[:0], 0
}

// column is the dictionary with keys as narrow as they can be.
func (d *dictionary) column() *proto.ColLowCardinalityRaw {
	d.index.Reset()
	for _, word := range d.words {
		d.index.Append(word)
	}
	c := &d.raw
	c.Index = &d.index
	switch {
	case len(d.words) <= 1<<8:
		c.Key, c.Keys8 = proto.KeyUInt8, narrow(c.Keys8, d.keys)
	case len(d.words) <= 1<<16:
		c.Key, c.Keys16 = proto.KeyUInt16, narrow(c.Keys16, d.keys)
	default:
		c.Key, c.Keys32 = proto.KeyUInt32, d.keys
	}
	return c
}

func narrow[S ~[]E, E uint8 | uint16](dst S, keys []uint32) S {
	if cap(dst) < len(keys) {
		dst = make(S, len(keys), cap(keys))
	}
	dst = dst[:len(keys)]
	for i, k := range keys {
		dst[i] = E(k)
	}
	return dst
}

// dateTimes is a DateTime64(3, 'UTC') column of milliseconds.
func dateTimes(millis []proto.DateTime64) *proto.ColDateTime64Raw {
	c := (&proto.ColDateTime64{Data: millis}).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
	return &proto.ColDateTime64Raw{ColDateTime64: *c}
}
