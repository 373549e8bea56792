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

// checkpoint keeps the filter with the position it belongs to: creation time
// of the stream and last sequence, eight bytes each, then the filter.
type checkpoint struct{ js jetstream.JetStream }

func (c *checkpoint) store(ctx context.Context) (jetstream.ObjectStore, error) {
	objects, err := c.js.ObjectStore(ctx, bus.ObjectsCheckpoint)
	if err != nil {
		return nil, fmt.Errorf("open object store %s: %w", bus.ObjectsCheckpoint, err)
	}
	return objects, nil
}

// load restores the filter and returns its position, 0 when there is none.
func (c *checkpoint) load(ctx context.Context, created time.Time, filter *fleet.SeenFilter) (uint64, error) {
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
	if err := filter.UnmarshalBinary(raw[16:]); err != nil {
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
