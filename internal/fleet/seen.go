package fleet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SeenWindow is how many sequence numbers below a boot's highest one are told
// apart by a SeenFilter. Anything older counts as seen.
const SeenWindow = 4096

// SeenBoots is how many boots of one device a SeenFilter remembers; a further
// one replaces the boot that was used longest ago.
const SeenBoots = 8

const seenWords = SeenWindow / 64

// SeenFilter tells a resent message from a new one: per (device, boot) a
// high-water mark and a window of SeenWindow bits. Its answers depend only on
// the calls made before, so two filters that saw the same messages in the
// same order agree. It is not safe for concurrent use.
type SeenFilter struct {
	devices map[string]*seenDevice
}

type seenDevice struct {
	boots []*seenBoot // used longest ago first, at most SeenBoots
}

type seenBoot struct {
	boot string
	high uint64
	bits [seenWords]uint64 // bit seq % SeenWindow
}

// NewSeenFilter returns a filter that has seen nothing.
func NewSeenFilter() *SeenFilter {
	return &SeenFilter{devices: make(map[string]*seenDevice)}
}

// Seen says whether the message was seen before, and remembers it. A message
// without boot or seq is never seen before.
func (f *SeenFilter) Seen(device, boot string, seq uint64) bool {
	if boot == "" || seq == 0 {
		return false
	}
	d := f.devices[device]
	if d == nil {
		d = &seenDevice{}
		f.devices[device] = d
	}
	return d.boot(boot).seen(seq)
}

// Forget drops what is known of a device.
func (f *SeenFilter) Forget(device string) { delete(f.devices, device) }

// Reset forgets everything.
func (f *SeenFilter) Reset() { clear(f.devices) }

// Len is the number of devices known.
func (f *SeenFilter) Len() int { return len(f.devices) }

// boot finds a boot and makes it the one used last.
func (d *seenDevice) boot(id string) *seenBoot {
	last := len(d.boots) - 1
	for i := last; i >= 0; i-- {
		b := d.boots[i]
		if b.boot != id {
			continue
		}
		if i != last {
			copy(d.boots[i:], d.boots[i+1:])
			d.boots[last] = b
		}
		return b
	}
	b := &seenBoot{boot: strings.Clone(id)}
	if len(d.boots) == SeenBoots {
		copy(d.boots, d.boots[1:])
		d.boots[last] = b
		return b
	}
	d.boots = append(d.boots, b)
	return b
}

func (b *seenBoot) seen(seq uint64) bool {
	switch {
	case seq > b.high:
		b.advance(seq)
	case b.high-seq >= SeenWindow:
		return true
	}
	word, bit := seq%SeenWindow/64, uint64(1)<<(seq%64)
	before := b.bits[word]&bit != 0
	b.bits[word] |= bit
	return before
}

// advance moves the window up to seq: what it newly covers is not seen.
func (b *seenBoot) advance(seq uint64) {
	if seq-b.high >= SeenWindow {
		b.bits = [seenWords]uint64{}
		b.high = seq
		return
	}
	for s := b.high + 1; ; s++ {
		b.bits[s%SeenWindow/64] &^= 1 << (s % 64)
		if s == seq {
			break
		}
	}
	b.high = seq
}

const seenVersion = 1

// MarshalBinary writes the filter's state, the same bytes for the same state.
func (f *SeenFilter) MarshalBinary() ([]byte, error) {
	ids := make([]string, 0, len(f.devices))
	for id := range f.devices {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	out := []byte{seenVersion}
	out = binary.AppendUvarint(out, uint64(len(ids)))
	for _, id := range ids {
		out = appendSeenText(out, id)
		boots := f.devices[id].boots
		out = binary.AppendUvarint(out, uint64(len(boots)))
		for _, b := range boots {
			out = appendSeenText(out, b.boot)
			out = binary.AppendUvarint(out, b.high)
			out = b.appendBits(out)
		}
	}
	return out, nil
}

// appendBits writes two bits per word (0 none set, 1 all set, 2 as it is) and
// then the words that need it: an orderly device takes some 20 bytes.
func (b *seenBoot) appendBits(out []byte) []byte {
	var codes [seenWords / 4]byte
	words := make([]byte, 0, 64)
	for i, w := range b.bits {
		code := byte(2)
		switch w {
		case 0:
			code = 0
		case ^uint64(0):
			code = 1
		default:
			words = binary.LittleEndian.AppendUint64(words, w)
		}
		codes[i/4] |= code << (i % 4 * 2)
	}
	out = append(out, codes[:]...)
	return append(out, words...)
}

func appendSeenText(out []byte, s string) []byte {
	out = binary.AppendUvarint(out, uint64(len(s)))
	return append(out, s...)
}

var errSeenCut = errors.New("decode seen filter: data is cut off")

// UnmarshalBinary replaces the filter's state by a written one.
func (f *SeenFilter) UnmarshalBinary(data []byte) error {
	if len(data) == 0 {
		return errSeenCut
	}
	if data[0] != seenVersion {
		return fmt.Errorf("decode seen filter: version %d is not known", data[0])
	}
	r := seenReader{data: data[1:]}
	devices := make(map[string]*seenDevice)
	for range r.count() {
		id := r.text()
		d := &seenDevice{}
		for range r.count() {
			b := &seenBoot{boot: r.text(), high: r.uvarint()}
			r.bits(b)
			d.boots = append(d.boots, b)
			if r.bad {
				return errSeenCut
			}
		}
		if len(d.boots) > SeenBoots {
			return fmt.Errorf("decode seen filter: device %q has %d boots, the limit is %d", id, len(d.boots), SeenBoots)
		}
		devices[id] = d
	}
	if r.bad {
		return errSeenCut
	}
	if len(r.data) > 0 {
		return fmt.Errorf("decode seen filter: %d bytes too many", len(r.data))
	}
	f.devices = devices
	return nil
}

type seenReader struct {
	data []byte
	bad  bool
}

func (r *seenReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.bad, r.data = true, nil
		return 0
	}
	r.data = r.data[n:]
	return v
}

// count reads a number of things that take at least a byte each.
func (r *seenReader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.data)) {
		r.bad, r.data = true, nil
		return 0
	}
	return int(n)
}

func (r *seenReader) text() string { return string(r.take(r.count())) }

func (r *seenReader) take(n int) []byte {
	if n > len(r.data) {
		r.bad, r.data = true, nil
		return make([]byte, n)
	}
	out := r.data[:n]
	r.data = r.data[n:]
	return out
}

func (r *seenReader) bits(b *seenBoot) {
	codes := r.take(seenWords / 4)
	for i := range b.bits {
		switch codes[i/4] >> (i % 4 * 2) & 3 {
		case 1:
			b.bits[i] = ^uint64(0)
		case 2:
			b.bits[i] = binary.LittleEndian.Uint64(r.take(8))
		}
	}
}
