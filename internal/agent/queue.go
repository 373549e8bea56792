package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	"cordon/internal/fleet"
)

// kind is what a buffered message holds.
type kind uint8

const (
	telemetryMessage kind = 1 + iota
	auditMessage
	syslogMessage
)

// entry is one message, encoded once and sent until it is acknowledged.
type entry struct {
	kind kind
	boot string
	seq  uint64
	year int // of syslog times without one; 0: unknown
	body []byte
}

// message addresses an entry.
func (e entry) message(device string) *nats.Msg {
	if e.kind == telemetryMessage {
		return &nats.Msg{Subject: "fleet.telemetry." + device, Data: e.body}
	}
	msg := nats.NewMsg("fleet.audit." + device)
	msg.Data = e.body
	if e.kind == auditMessage {
		msg.Header.Set(fleet.HeaderContentType, fleet.ContentJSON)
		return msg
	}
	msg.Header.Set(fleet.HeaderContentType, fleet.ContentSyslog)
	msg.Header.Set(fleet.HeaderBoot, e.boot)
	msg.Header.Set(fleet.HeaderSeq, strconv.FormatUint(e.seq, 10))
	if e.year != 0 {
		msg.Header.Set(fleet.HeaderYear, strconv.Itoa(e.year))
	}
	return msg
}

// maxEntry bounds what is read back from a damaged buffer.
const maxEntry = 8 << 20

func (e entry) encode() []byte {
	out := make([]byte, 0, len(e.body)+len(e.boot)+16)
	out = append(out, byte(e.kind))
	out = binary.AppendUvarint(out, e.seq)
	out = binary.AppendUvarint(out, uint64(max(e.year, 0)))
	out = binary.AppendUvarint(out, uint64(len(e.boot)))
	out = append(out, e.boot...)
	return append(out, e.body...)
}

var errEntry = errors.New("buffered message is damaged")

func decodeEntry(raw []byte) (entry, error) {
	if len(raw) == 0 || kind(raw[0]) < telemetryMessage || kind(raw[0]) > syslogMessage {
		return entry{}, errEntry
	}
	e := entry{kind: kind(raw[0])}
	raw = raw[1:]
	var numbers [3]uint64
	for i := range numbers {
		v, n := binary.Uvarint(raw)
		if n <= 0 {
			return entry{}, errEntry
		}
		numbers[i], raw = v, raw[n:]
	}
	if numbers[2] > uint64(len(raw)) || numbers[1] > 9999 {
		return entry{}, errEntry
	}
	e.seq, e.year = numbers[0], int(numbers[1])
	e.boot, e.body = string(raw[:numbers[2]]), raw[numbers[2]:]
	return e, nil
}

// queue holds messages in the order in which they were pushed. A cursor walks
// over them; rewind takes it back to the oldest that is not acknowledged.
// generation changes whenever messages vanish under the cursor, so that an
// acknowledgement of a dropped message removes nothing else.
type queue interface {
	push(ctx context.Context, e entry) error
	next() (e entry, generation uint64, ok bool, err error)
	ack(generation uint64) error // removes the oldest message
	rewind()
	stats() queueStats
	changed() <-chan struct{} // closed at the next push, ack or drop
	close() error
}

type queueStats struct {
	messages int
	bytes    int64
	dropped  uint64
}

// signal wakes everybody who waits for a change.
type signal struct{ ch chan struct{} }

func newSignal() signal { return signal{ch: make(chan struct{})} }

func (s *signal) broadcast() {
	close(s.ch)
	s.ch = make(chan struct{})
}

// memoryQueue is a queue whose messages have another home (a recorded file)
// or whose loss is no harm (a simulated device).
type memoryQueue struct {
	limit int64

	mu         sync.Mutex
	block      bool // a full queue makes push wait; else it drops its oldest
	entries    []entry
	cursor     int
	bytes      int64
	dropped    uint64
	generation uint64
	signal     signal
}

func newMemoryQueue(limit int64, block bool) *memoryQueue {
	return &memoryQueue{limit: limit, block: block, signal: newSignal()}
}

func (q *memoryQueue) push(ctx context.Context, e entry) error {
	size := int64(len(e.body))
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes+size > q.limit && len(q.entries) > 0 {
		if !q.block {
			q.drop()
			continue
		}
		wait := q.signal.ch
		q.mu.Unlock()
		select {
		case <-wait:
			q.mu.Lock()
		case <-ctx.Done():
			q.mu.Lock()
			return fmt.Errorf("wait for room in the buffer: %w", ctx.Err())
		}
	}
	q.entries = append(q.entries, e)
	q.bytes += size
	q.signal.broadcast()
	return nil
}

func (q *memoryQueue) setBlock(on bool) {
	q.mu.Lock()
	q.block = on
	q.signal.broadcast()
	q.mu.Unlock()
}

func (q *memoryQueue) drop() {
	q.removeFirst()
	q.dropped++
	q.generation++
	q.cursor = 0
}

func (q *memoryQueue) removeFirst() {
	q.bytes -= int64(len(q.entries[0].body))
	q.entries[0] = entry{}
	q.entries = q.entries[1:]
	q.cursor = max(q.cursor-1, 0)
}

func (q *memoryQueue) next() (entry, uint64, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.cursor >= len(q.entries) {
		return entry{}, q.generation, false, nil
	}
	e := q.entries[q.cursor]
	q.cursor++
	return e, q.generation, true, nil
}

func (q *memoryQueue) ack(generation uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if generation == q.generation && len(q.entries) > 0 {
		q.removeFirst()
		q.signal.broadcast()
	}
	return nil
}

func (q *memoryQueue) rewind() {
	q.mu.Lock()
	q.cursor = 0
	q.mu.Unlock()
}

func (q *memoryQueue) stats() queueStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return queueStats{messages: len(q.entries), bytes: q.bytes, dropped: q.dropped}
}

func (q *memoryQueue) changed() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.signal.ch
}

func (q *memoryQueue) close() error { return nil }
