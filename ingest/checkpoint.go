package ingest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// checkpointName is the object that holds the filter of resent messages.
const checkpointName = "ingest-seen"

// checkpoint keeps the filter and the fences with the position they belong to:
// creation time of the stream and last sequence, eight bytes each, then both.
type checkpoint struct{ js jetstream.JetStream }

func (c *checkpoint) store(ctx context.Context) (jetstream.ObjectStore, error) {
	objects, err := c.js.ObjectStore(ctx, bus.ObjectsCheckpoint)
	if err != nil {
		return nil, fmt.Errorf("open object store %s: %w", bus.ObjectsCheckpoint, err)
	}
	return objects, nil
}

// stateVersion comes before fences and filter. Before there were fences the
// filter stood alone, beginning with its own version, 1.
const stateVersion = 2

func marshalState(filter *fleet.SeenFilter, fences *fleet.Fences) ([]byte, error) {
	closed, err := fences.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode fences: %w", err)
	}
	seen, err := filter.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode filter of resent messages: %w", err)
	}
	out := binary.AppendUvarint([]byte{stateVersion}, uint64(len(closed)))
	return append(append(out, closed...), seen...), nil
}

func unmarshalState(raw []byte, filter *fleet.SeenFilter, fences *fleet.Fences) error {
	if len(raw) > 0 && raw[0] == stateVersion {
		size, n := binary.Uvarint(raw[1:])
		if n <= 0 || size > uint64(len(raw)-1-n) {
			return errors.New("fences are cut off")
		}
		raw = raw[1+n:]
		if err := fences.UnmarshalBinary(raw[:size]); err != nil {
			return err
		}
		raw = raw[size:]
	}
	return filter.UnmarshalBinary(raw)
}

// load restores filter and fences and returns their position, 0 when there is
// none.
func (c *checkpoint) load(ctx context.Context, created time.Time, filter *fleet.SeenFilter, fences *fleet.Fences) (uint64, error) {
	objects, err := c.store(ctx)
	if err != nil {
		return 0, err
	}
	raw, err := objects.GetBytes(ctx, checkpointName)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read checkpoint %s: %w", checkpointName, err)
	}
	if len(raw) < 16 {
		return 0, fmt.Errorf("read checkpoint %s: it has %d bytes", checkpointName, len(raw))
	}
	if int64(binary.BigEndian.Uint64(raw)) != created.UnixMicro() { //nolint:gosec // what save wrote
		return 0, nil // of a stream that is gone
	}
	if err := unmarshalState(raw[16:], filter, fences); err != nil {
		return 0, fmt.Errorf("read checkpoint %s: %w", checkpointName, err)
	}
	return binary.BigEndian.Uint64(raw[8:]), nil
}

func (c *checkpoint) save(ctx context.Context, created int64, seq uint64, filter []byte) error {
	objects, err := c.store(ctx)
	if err != nil {
		return err
	}
	raw := make([]byte, 0, 16+len(filter))
	raw = binary.BigEndian.AppendUint64(raw, uint64(created)) //nolint:gosec // read back as written
	raw = binary.BigEndian.AppendUint64(raw, seq)
	raw = append(raw, filter...)
	if _, err := objects.PutBytes(ctx, checkpointName, raw); err != nil {
		return fmt.Errorf("write checkpoint %s: %w", checkpointName, err)
	}
	return nil
}
