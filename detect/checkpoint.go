package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/detect/wire"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// positionKey names the detector's state in the object store and its stream
// position in bucket "position": the mover trims the log only below it.
const positionKey = "detect"

// checkpoint writes the state when it has advanced. Taking the copy holds the
// engine up; writing it does not.
func (d *Detector) checkpoint(ctx context.Context) error {
	started := time.Now()
	d.mu.Lock()
	seq := d.engine.Seq()
	if seq == d.saved {
		d.mu.Unlock()
		return nil
	}
	w := &wire.Writer{}
	seen, err := d.seen.MarshalBinary()
	fences, fencesErr := d.fences.MarshalBinary()
	if err = errors.Join(err, fencesErr); err == nil {
		w.String(string(seen))
		w.String(string(d.engine.Snapshot()))
		w.String(string(fences))
	}
	d.mu.Unlock()
	pause := time.Since(started)
	if err != nil {
		return fmt.Errorf("encode seen filter: %w", err)
	}
	objects, err := d.deps.Bus.Core.ObjectStore(ctx, bus.ObjectsCheckpoint)
	if err != nil {
		return fmt.Errorf("open object store %s: %w", bus.ObjectsCheckpoint, err)
	}
	if _, err := objects.PutBytes(ctx, positionKey, w.Bytes); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	positions, err := d.deps.Bus.Bucket(ctx, bus.BucketPosition)
	if err != nil {
		return err
	}
	if _, err := positions.Put(ctx, positionKey, []byte(strconv.FormatUint(seq, 10))); err != nil {
		return fmt.Errorf("write position: %w", err)
	}
	d.saved = seq
	d.metrics.checkpoint.Observe(pause.Seconds())
	d.update(func(s *status) { s.snapshot, s.pause = len(w.Bytes), pause })
	return nil
}

// restore reads the last state written. State of another version or a torn
// one is no reason to stop: the log is read again from its start.
func (d *Detector) restore(ctx context.Context) error {
	objects, err := d.deps.Bus.Core.ObjectStore(ctx, bus.ObjectsCheckpoint)
	if err != nil {
		return fmt.Errorf("open object store %s: %w", bus.ObjectsCheckpoint, err)
	}
	data, err := objects.GetBytes(ctx, positionKey)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	r := wire.NewReader(data)
	seen, state := r.String(), r.String()
	err = r.Err()
	filter, fences := fleet.NewSeenFilter(), fleet.NewFences()
	if closed := r.String(); r.Err() == nil { // absent in state from before there were fences
		err = errors.Join(err, fences.UnmarshalBinary([]byte(closed)))
	}
	if err == nil {
		err = filter.UnmarshalBinary([]byte(seen))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		err = d.engine.Restore([]byte(state))
	}
	if err != nil {
		d.log.Error("the detector's state can't be read; it learns again from the log", "error", err)
		return nil
	}
	d.seen, d.fences, d.saved = filter, fences, d.engine.Seq()
	d.update(func(s *status) { s.applied = d.engine.Seq() })
	return nil
}

// findPublished learns which findings are in the stream already, so that a
// restart behind them does not publish them again. Findings are published in
// the order of the log, so the last one says it.
func (d *Detector) findPublished(ctx context.Context) error {
	stream, err := d.deps.Bus.Core.Stream(ctx, bus.StreamFindings)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", bus.StreamFindings, err)
	}
	last, f, err := lastFinding(ctx, stream)
	if errors.Is(err, jetstream.ErrMsgNotFound) || stream.CachedInfo().State.Msgs == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	d.resume = f.StreamSeq
	d.published = map[string]string{}
	// Of the last record only some findings may have been published.
	for seq := last.Sequence; seq > 0; seq-- {
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break // trimmed: what is older is not needed
		}
		if err != nil {
			return fmt.Errorf("read finding %d: %w", seq, err)
		}
		var earlier fleet.Finding
		if err := json.Unmarshal(m.Data, &earlier); err != nil {
			return fmt.Errorf("decode finding %d: %w", seq, err)
		}
		if earlier.StreamSeq != f.StreamSeq {
			break
		}
		d.published[earlier.ID] = earlier.Device
	}
	return nil
}

// lastFinding is the newest finding of the detector's own: those of the
// quarantine's guards are not of the log.
func lastFinding(ctx context.Context, stream jetstream.Stream) (*jetstream.RawStreamMsg, fleet.Finding, error) {
	for seq := stream.CachedInfo().State.LastSeq; ; seq-- {
		var f fleet.Finding
		last, err := stream.GetMsg(ctx, seq)
		if err != nil {
			return nil, f, fmt.Errorf("read last finding: %w", err)
		}
		if err := json.Unmarshal(last.Data, &f); err != nil {
			return nil, f, fmt.Errorf("decode last finding: %w", err)
		}
		if f.RuleID != fleet.GuardRule {
			return last, f, nil
		}
	}
}

// alreadyPublished says whether a finding is in the stream from before.
func (d *Detector) alreadyPublished(f *fleet.Finding) bool {
	if f.StreamSeq > d.resume {
		d.published = nil
		return false
	}
	if f.StreamSeq < d.resume {
		return true
	}
	_, ok := d.published[f.ID]
	return ok
}
