package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// diskQueue keeps messages in append-only segment files:
//
//	<number>.seg   frames: length u32 | CRC-32C u32 | entry
//	head           segment u64 | frame u64 | dropped u64 | CRC-32C u32
//
// A segment is deleted once all its messages are acknowledged; the head file
// says how far into the oldest segment that has come. A process killed at any
// point loses nothing that push returned for: a torn last frame is one that
// push had not returned for. A stale head only leads to resends, which are
// recognised by (boot, seq).
type diskQueue struct {
	dir   string
	limit int64
	// segmentBytes is small against the limit: a whole segment is dropped at
	// a time.
	segmentBytes int64

	mu         sync.Mutex
	segments   []*segment // oldest first, never empty
	writer     *os.File   // the newest segment
	head       *os.File
	headFrame  int // acknowledged frames of the oldest segment
	cursorSeg  int // index into segments
	cursorAt   int // frames read of that segment
	reader     *bufio.Reader
	readerFile *os.File
	dropped    uint64
	generation uint64
	signal     signal
}

type segment struct {
	number uint64
	frames int
	bytes  int64
}

const (
	frameHeader   = 8
	maxSegment    = 1 << 20
	segmentFrames = 1024
	headFile      = "head"
	segmentSuffix = ".seg"
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func openDiskQueue(dir string, limit int64) (*diskQueue, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make buffer directory: %w", err)
	}
	q := &diskQueue{dir: dir, limit: limit, segmentBytes: min(maxSegment, max(limit/8, 1)), signal: newSignal()}
	numbers, err := q.list()
	if err != nil {
		return nil, err
	}
	for _, n := range numbers {
		s, err := recoverSegment(q.path(n), n)
		if err != nil {
			return nil, err
		}
		q.segments = append(q.segments, s)
	}
	if q.head, err = os.OpenFile(filepath.Join(dir, headFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("open buffer head: %w", err)
	}
	q.readHead()
	// Always write to a new segment: the old ones are never written again.
	next := uint64(1)
	if len(q.segments) > 0 {
		next = q.segments[len(q.segments)-1].number + 1
	}
	if err := q.roll(next); err != nil {
		return nil, err
	}
	if err := q.trim(); err != nil {
		return nil, err
	}
	q.rewindLocked()
	return q, nil
}

func (q *diskQueue) list() ([]uint64, error) {
	files, err := os.ReadDir(q.dir)
	if err != nil {
		return nil, fmt.Errorf("read buffer directory: %w", err)
	}
	var numbers []uint64
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), segmentSuffix)
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(name, 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (q *diskQueue) path(number uint64) string {
	return filepath.Join(q.dir, fmt.Sprintf("%020d%s", number, segmentSuffix))
}

// recoverSegment counts the whole frames of a segment and cuts off what
// follows them.
func recoverSegment(path string, number uint64) (*segment, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open buffer segment: %w", err)
	}
	defer f.Close()
	s := &segment{number: number}
	r := bufio.NewReader(f)
	for {
		e, err := readFrame(r)
		if err != nil {
			break
		}
		s.frames++
		s.bytes += int64(frameHeader + len(e))
	}
	if err := f.Truncate(s.bytes); err != nil {
		return nil, fmt.Errorf("cut torn buffer segment: %w", err)
	}
	return s, nil
}

func readFrame(r io.Reader) ([]byte, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[:4])
	if size > maxEntry {
		return nil, errEntry
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	if crc32.Checksum(raw, crcTable) != binary.BigEndian.Uint32(header[4:]) {
		return nil, errEntry
	}
	return raw, nil
}

func (q *diskQueue) readHead() {
	var raw [28]byte
	if _, err := q.head.ReadAt(raw[:], 0); err != nil {
		return
	}
	if crc32.Checksum(raw[:24], crcTable) != binary.BigEndian.Uint32(raw[24:]) {
		return
	}
	q.dropped = binary.BigEndian.Uint64(raw[16:])
	number, frame := binary.BigEndian.Uint64(raw[:8]), int(min(binary.BigEndian.Uint64(raw[8:16]), segmentFrames))
	if len(q.segments) > 0 && q.segments[0].number == number {
		q.headFrame = min(frame, q.segments[0].frames)
	}
}

func (q *diskQueue) writeHead() error {
	var raw [28]byte
	binary.BigEndian.PutUint64(raw[:], q.segments[0].number)
	binary.BigEndian.PutUint64(raw[8:], uint64(q.headFrame))
	binary.BigEndian.PutUint64(raw[16:], q.dropped)
	binary.BigEndian.PutUint32(raw[24:], crc32.Checksum(raw[:24], crcTable))
	if _, err := q.head.WriteAt(raw[:], 0); err != nil {
		return fmt.Errorf("write buffer head: %w", err)
	}
	return nil
}

// roll starts a new segment.
func (q *diskQueue) roll(number uint64) error {
	f, err := os.OpenFile(q.path(number), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create buffer segment: %w", err)
	}
	q.segments = append(q.segments, &segment{number: number})
	old := q.writer
	q.writer = f
	if old != nil {
		if err := errors.Join(old.Sync(), old.Close()); err != nil {
			return fmt.Errorf("close buffer segment: %w", err)
		}
	}
	return nil
}

func (q *diskQueue) push(_ context.Context, e entry) error {
	raw := e.encode()
	frame := make([]byte, frameHeader, frameHeader+len(raw))
	binary.BigEndian.PutUint32(frame, uint32(len(raw)))
	binary.BigEndian.PutUint32(frame[4:], crc32.Checksum(raw, crcTable))
	frame = append(frame, raw...)

	q.mu.Lock()
	defer q.mu.Unlock()
	last := q.segments[len(q.segments)-1]
	if last.frames >= segmentFrames || last.frames > 0 && last.bytes+int64(len(frame)) > q.segmentBytes {
		if err := q.roll(last.number + 1); err != nil {
			return err
		}
		last = q.segments[len(q.segments)-1]
	}
	for q.size()+int64(len(frame)) > q.limit && len(q.segments) > 1 {
		if err := q.dropOldest(); err != nil {
			return err
		}
	}
	if _, err := q.writer.Write(frame); err != nil {
		// Half a frame would make the rest of the segment unreadable.
		_ = q.writer.Truncate(last.bytes)
		_, _ = q.writer.Seek(last.bytes, io.SeekStart)
		return fmt.Errorf("write buffer: %w", err)
	}
	last.frames++
	last.bytes += int64(len(frame))
	q.signal.broadcast()
	return nil
}

func (q *diskQueue) size() int64 {
	var total int64
	for _, s := range q.segments {
		total += s.bytes
	}
	return total
}

// dropOldest loses the oldest segment to make room.
func (q *diskQueue) dropOldest() error {
	q.dropped += uint64(q.segments[0].frames - q.headFrame)
	q.generation++
	if err := q.removeOldest(); err != nil {
		return err
	}
	q.rewindLocked()
	q.signal.broadcast()
	return q.writeHead()
}

func (q *diskQueue) removeOldest() error {
	if err := os.Remove(q.path(q.segments[0].number)); err != nil {
		return fmt.Errorf("delete buffer segment: %w", err)
	}
	q.segments = q.segments[1:]
	q.headFrame = 0
	if q.cursorSeg == 0 {
		q.closeReader()
		q.cursorAt = 0
	}
	q.cursorSeg = max(q.cursorSeg-1, 0)
	return nil
}

// trim deletes acknowledged segments, except the one that is written to.
func (q *diskQueue) trim() error {
	for len(q.segments) > 1 && q.headFrame >= q.segments[0].frames {
		if err := q.removeOldest(); err != nil {
			return err
		}
	}
	return q.writeHead()
}

func (q *diskQueue) next() (entry, uint64, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		s := q.segments[q.cursorSeg]
		if q.cursorAt < s.frames {
			break
		}
		if q.cursorSeg == len(q.segments)-1 {
			return entry{}, q.generation, false, nil
		}
		q.closeReader()
		q.cursorSeg, q.cursorAt = q.cursorSeg+1, 0
	}
	raw, err := q.read()
	if err != nil {
		return entry{}, q.generation, false, err
	}
	q.cursorAt++
	e, err := decodeEntry(raw)
	return e, q.generation, err == nil, err
}

// read returns the frame at the cursor.
func (q *diskQueue) read() ([]byte, error) {
	if q.reader == nil {
		f, err := os.Open(q.path(q.segments[q.cursorSeg].number))
		if err != nil {
			return nil, fmt.Errorf("open buffer segment: %w", err)
		}
		q.readerFile, q.reader = f, bufio.NewReaderSize(f, 32<<10)
		for range q.skip() {
			if _, err := readFrame(q.reader); err != nil {
				return nil, fmt.Errorf("read buffer: %w", err)
			}
		}
		q.cursorAt = max(q.cursorAt, q.skip())
	}
	raw, err := readFrame(q.reader)
	if err != nil {
		return nil, fmt.Errorf("read buffer: %w", err)
	}
	return raw, nil
}

// skip is how many frames of the cursor's segment come before the cursor.
func (q *diskQueue) skip() int {
	if q.cursorSeg == 0 {
		return max(q.cursorAt, q.headFrame)
	}
	return q.cursorAt
}

func (q *diskQueue) closeReader() {
	if q.readerFile != nil {
		_ = q.readerFile.Close() // opened for reading only
	}
	q.reader, q.readerFile = nil, nil
}

func (q *diskQueue) ack(generation uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if generation != q.generation {
		return nil
	}
	for len(q.segments) > 1 && q.headFrame >= q.segments[0].frames {
		if err := q.removeOldest(); err != nil {
			return err
		}
	}
	q.headFrame = min(q.headFrame+1, q.segments[0].frames)
	if err := q.trim(); err != nil {
		return err
	}
	q.signal.broadcast()
	return nil
}

func (q *diskQueue) rewind() {
	q.mu.Lock()
	q.rewindLocked()
	q.mu.Unlock()
}

func (q *diskQueue) rewindLocked() {
	q.closeReader()
	q.cursorSeg, q.cursorAt = 0, q.headFrame
}

func (q *diskQueue) stats() queueStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	st := queueStats{dropped: q.dropped, bytes: q.size(), messages: -q.headFrame}
	for _, s := range q.segments {
		st.messages += s.frames
	}
	return st
}

func (q *diskQueue) changed() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.signal.ch
}

func (q *diskQueue) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closeReader()
	err := errors.Join(q.writeHead(), q.writer.Sync(), q.writer.Close(), q.head.Close())
	if err != nil {
		return fmt.Errorf("close buffer: %w", err)
	}
	return nil
}
