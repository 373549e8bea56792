package ingest

import (
	"strings"
	"time"

	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/store"
)

// block is a run of a stream's messages and the rows they become.
type block struct {
	first, last uint64
	redo        *intent // the intent this block repeats, or nil
	opened      time.Time
	oldest      time.Time // received_at of the first message
	newest      time.Time
	bytes       int
	messages    []message

	telemetry store.TelemetryBlock
	audit     store.AuditBlock
	dead      store.DeadLetterBlock
	history   []store.HistoryRow

	dropped  []span
	void     []span          // behind the fence of a quarantine
	historic map[string]bool // devices that count as historic
	receipts []receipt
	filter   []byte // state of the filter behind this block, when it is to be written
}

// receipt tells a device that a message is stored.
type receipt struct {
	device string // the one that is connected
	child  string
	boot   string
	seq    uint64
}

func (b *block) rows() int {
	return b.telemetry.Len() + b.audit.Len() + b.dead.Len() + len(b.history)
}

func (b *block) empty() bool { return b.first == 0 }

func newBlock() *block { return &block{historic: make(map[string]bool)} }

// repeat makes the block one that builds an intent's block again.
func (b *block) repeat(redo *intent) {
	b.redo = redo
	for _, id := range redo.Historic {
		b.historic[id] = true
	}
}

// reset empties the block and keeps its memory.
func (b *block) reset() {
	b.telemetry.Reset()
	b.audit.Reset()
	b.dead.Reset()
	clear(b.messages)
	clear(b.history)
	clear(b.historic)
	*b = block{
		historic: b.historic, messages: b.messages[:0], history: b.history[:0], telemetry: b.telemetry, audit: b.audit, dead: b.dead, receipts: b.receipts[:0],
	}
}

// take counts a message as part of the block.
func (b *block) take(m message, now time.Time) {
	if b.first == 0 {
		b.first, b.opened, b.oldest = m.seq, now, m.receivedAt
	}
	b.last, b.newest = m.seq, m.receivedAt
	b.bytes += len(m.data)
	b.messages = append(b.messages, m)
}

// reader turns the messages of one stream into rows.
type reader interface {
	// skip takes note of a message that is stored already.
	skip(m message)
	// add puts a message's rows into the block that it was taken into.
	add(b *block, m message)
	// again puts the rows of a block's message into another block, as they were.
	again(from, to *block, m message)
}

// fleetReader reads FLEET.
type fleetReader struct {
	limits  codec.Limits
	decoder *codec.Decoder // of fill; again is called beside it
	device  func(id string) (fleet.Device, bool)
	filter  *fleet.SeenFilter
	fences  *fleet.Fences
	metrics *metrics
}

// reasonQuarantined is why a message behind a fence is a dead letter.
const (
	reasonQuarantined = "quarantined"
	detailQuarantined = "the device's quarantine was confirmed before this message: it came from a connection that no longer was"
)

// decode leaves readings in r.decoder.
func (r *fleetReader) decode(m message, historic bool) (fleet.Record, *codec.Rejection) {
	return r.decoder.Decode(m.subject, m.header, m.data, m.receivedAt, m.seq, historic, r.limits)
}

// deviceOf is the device that a message is about: the child, behind a gateway.
func deviceOf(subject string) string {
	return subject[strings.LastIndexByte(subject, '.')+1:]
}

func (r *fleetReader) isHistoric(id string) bool {
	d, ok := r.device(id)
	return ok && d.Historic
}

func (r *fleetReader) skip(m message) {
	if r.fences.Void(m.subject) {
		return
	}
	if rec, rej := r.decode(m, r.isHistoric(deviceOf(m.subject))); rej == nil {
		r.filter.Seen(rec.Device, rec.Boot, rec.Seq)
		r.fence(rec)
	}
}

// fence takes note of a quarantine on the log, and of an erased device.
func (r *fleetReader) fence(rec fleet.Record) {
	if rec.Kind != fleet.ControlKind {
		return
	}
	if rec.Control.Quarantine != nil {
		r.fences.Apply(*rec.Control.Quarantine)
	}
	if gone := rec.Control.Device; gone != nil && gone.Erased {
		r.filter.Forget(gone.ID)
	}
}

func (r *fleetReader) add(b *block, m message) {
	if r.fences.Void(m.subject) {
		// No receipt, and not seen: what a released device sends again is new.
		b.void = appendSeq(b.void, m.seq)
		b.dead.Append(deadLetter(m, deviceOf(m.subject), reasonQuarantined, detailQuarantined))
		return
	}
	rec, rej := r.decode(m, r.historicIn(b, deviceOf(m.subject)))
	b.receipt(m, rec)
	if rej == nil {
		r.fence(rec)
		seen := r.filter.Seen(rec.Device, rec.Boot, rec.Seq)
		if b.redo != nil {
			seen = inSpans(b.redo.Dropped, m.seq)
		}
		if seen {
			b.dropped = appendSeq(b.dropped, m.seq)
			r.metrics.duplicates.Inc()
			return
		}
		if rec.Kind == fleet.TelemetryKind {
			r.metrics.readings.Add(float64(r.decoder.Len()))
			b.telemetry.AppendColumns(rec, r.decoder.Metric, r.decoder.ObservedAt, r.decoder.Value)
			return
		}
		r.metrics.events.Add(float64(len(rec.Audit)))
	}
	b.put(m, rec, rej)
}

// historicIn says whether a device counts as historic in a block: as it did
// when one of its messages first came into it.
func (r *fleetReader) historicIn(b *block, id string) bool {
	if b.redo != nil || b.historic[id] {
		return b.historic[id]
	}
	historic := r.isHistoric(id)
	if historic {
		b.historic[id] = true
	}
	return historic
}

func (r *fleetReader) again(from, to *block, m message) {
	if inSpans(from.void, m.seq) {
		to.dead.Append(deadLetter(m, deviceOf(m.subject), reasonQuarantined, detailQuarantined))
		return
	}
	if inSpans(from.dropped, m.seq) {
		return
	}
	rec, rej := codec.Decode(m.subject, m.header, m.data, m.receivedAt, m.seq, from.historic[deviceOf(m.subject)], r.limits)
	to.put(m, rec, rej)
}

// put adds the rows of a decoded message.
func (b *block) put(m message, rec fleet.Record, rej *codec.Rejection) {
	switch {
	case rej != nil:
		b.dead.Append(deadLetter(m, rec.Device, rej.Reason, rej.Detail))
	case rec.Kind == fleet.TelemetryKind:
		b.telemetry.Append(rec)
	case rec.Kind == fleet.AuditKind:
		b.audit.Append(rec)
	}
}

func deadLetter(m message, device, reason, detail string) fleet.DeadLetter {
	if device == "" {
		device = bus.Device(m.subject)
	}
	return fleet.DeadLetter{
		StreamSeq: m.seq, Device: device, Subject: m.subject, ReceivedAt: m.receivedAt, Reason: reason, Detail: detail, Raw: m.data,
	}
}

// receipt notes the receipt of a message that came over MQTT: its publisher
// got a PUBACK, which says nothing. Copies and dead letters get one too, or
// they would be sent for ever.
func (b *block) receipt(m message, rec fleet.Record) {
	if len(m.header) == 0 || rec.Boot == "" || rec.Seq == 0 {
		return
	}
	if _, mqtt := m.header[headerMQTT]; !mqtt {
		return
	}
	r := receipt{device: bus.Device(m.subject), boot: rec.Boot, seq: rec.Seq}
	if rec.Device != r.device {
		r.child = rec.Device
	}
	b.receipts = append(b.receipts, r)
}

// headerMQTT marks what the broker took from an MQTT client.
const headerMQTT = "Nmqtt-Pub"

// historyReader reads a bucket's stream, or FINDINGS.
type historyReader struct {
	prefix string // of the subjects, up to the key
}

func (*historyReader) skip(message) {}

func (r *historyReader) add(b *block, m message) {
	row := store.HistoryRow{Key: strings.TrimPrefix(m.subject, r.prefix), Revision: m.seq, At: m.receivedAt, JSON: m.data}
	if m.header.Get("KV-Operation") != "" || len(m.data) == 0 || m.header.Get("Nats-Marker-Reason") != "" {
		row.Deleted, row.JSON = true, nil
	}
	b.history = append(b.history, row)
}

func (r *historyReader) again(_, to *block, m message) { r.add(to, m) }
