package fleet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fences knows, from the control records of the FLEET log, which devices may
// say nothing at a place of the log: from the record that says that a
// quarantine is confirmed to the one that ends it or lowers it to observe.
// What a device has on the log in between came from a connection that no
// longer was; readers treat it as void. Its answers depend only on the records
// applied before. It is not safe for concurrent use.
type Fences struct {
	devices map[string]fence
}

// fence is what is known of one device.
type fence struct {
	floor  uint64 // number of the lowest decision that may still close it
	closed bool
}

// NewFences returns fences that are all open.
func NewFences() *Fences { return &Fences{devices: map[string]fence{}} }

// Apply takes the next quarantine change of the log. A confirmation that comes
// behind the end of its own decision closes nothing.
func (f *Fences) Apply(c QuarantineChange) {
	d := f.devices[c.Device]
	n := DecisionNumber(c.ID)
	holds := c.Active && (c.Level == Restrict || c.Level == Isolate)
	switch {
	case holds && c.State == Confirmed:
		d.closed = d.closed || n == 0 || n >= d.floor
	case holds:
		d.floor = max(d.floor, n)
	case c.Active:
		if c.State != Confirmed {
			d.closed, d.floor = false, max(d.floor, n)
		}
	default:
		d.closed = false
		if n > 0 {
			d.floor = max(d.floor, n+1)
		}
	}
	f.devices[c.Device] = d
}

// Void says whether a message with this subject (fleet.<kind>.<device> or
// fleet.<kind>.<gateway>.<child>) is behind the fence of its sender.
func (f *Fences) Void(subject string) bool {
	if len(f.devices) == 0 {
		return false
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(subject, "fleet."), ".")
	switch kind {
	case "telemetry", "audit", "posture":
	default:
		return false
	}
	device, child, _ := strings.Cut(rest, ".")
	return f.devices[device].closed || child != "" && f.devices[child].closed
}

// Closed is how many devices are behind their fence.
func (f *Fences) Closed() int {
	n := 0
	for _, d := range f.devices {
		if d.closed {
			n++
		}
	}
	return n
}

// Reset opens every fence.
func (f *Fences) Reset() { clear(f.devices) }

// DecisionNumber is the number in the id of a quarantine, <device>.<number>; 0
// without one.
func DecisionNumber(id string) uint64 {
	n, err := strconv.ParseUint(id[strings.LastIndexByte(id, '.')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

const fencesVersion = 1

// MarshalBinary writes the state, the same bytes for the same state.
func (f *Fences) MarshalBinary() ([]byte, error) {
	ids := make([]string, 0, len(f.devices))
	for id := range f.devices {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	out := []byte{fencesVersion}
	out = binary.AppendUvarint(out, uint64(len(ids)))
	for _, id := range ids {
		d := f.devices[id]
		closed := byte(0)
		if d.closed {
			closed = 1
		}
		out = append(appendSeenText(out, id), closed)
		out = binary.AppendUvarint(out, d.floor)
	}
	return out, nil
}

// UnmarshalBinary replaces the state by a written one.
func (f *Fences) UnmarshalBinary(data []byte) error {
	if len(data) == 0 || data[0] != fencesVersion {
		return errors.New("decode fences: version is not known")
	}
	r := seenReader{data: data[1:]}
	devices := map[string]fence{}
	for range r.count() {
		id := r.text()
		devices[id] = fence{closed: r.take(1)[0] == 1, floor: r.uvarint()}
		if r.bad {
			return errors.New("decode fences: data is cut off")
		}
	}
	if r.bad || len(r.data) > 0 {
		return fmt.Errorf("decode fences: %d bytes do not fit", len(r.data))
	}
	f.devices = devices
	return nil
}
