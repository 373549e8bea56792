package ingest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// positionDetect is the key of the detector's checkpoint: the last sequence
// that it will not read again, in decimal.
const positionDetect = "detect"

// almostFull is the share of FLEET's size above which it is unhealthy that
// nothing can be trimmed.
const almostFull = 0.9

// trimmer removes from FLEET what both its readers are done with.
type trimmer struct {
	cfg       Config
	deps      Deps
	metrics   *metrics
	positions jetstream.KeyValue
	last      time.Time

	mu   sync.Mutex
	text string
}

// run trims when it is time to. stored is the mover's own checkpoint.
func (t *trimmer) run(ctx context.Context, stream jetstream.Stream, stored uint64) {
	now := t.deps.Clock()
	if now.Sub(t.last) < t.cfg.TrimEvery {
		return
	}
	t.last = now
	info := stream.CachedInfo()
	limit := float64(info.Config.MaxBytes)
	share := float64(info.State.Bytes) / limit
	if limit <= 0 || share <= t.cfg.TrimAbove {
		t.say("")
		return
	}
	detected, err := t.detected(ctx)
	if err != nil {
		t.deps.Log.Warn("cannot read the detector's position", "error", err)
		return
	}
	done := min(stored, detected)
	if done < info.State.FirstSeq {
		text := ""
		if share > almostFull {
			who := "the store"
			if detected < stored {
				who = "the detector"
			}
			text = fmt.Sprintf("the stream of device messages is %.0f %% full and waits for %s; when it is full devices are refused", 100*share, who)
		}
		t.say(text)
		return
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(done+1)); err != nil {
		t.deps.Log.Warn("cannot trim the stream", "stream", info.Config.Name, "error", err)
		return
	}
	t.say("")
	t.metrics.trimmed.Inc()
	t.deps.Log.Info("trimmed the stream", "stream", info.Config.Name, "below", done+1)
}

// detected is the detector's checkpoint, 0 before it made one.
func (t *trimmer) detected(ctx context.Context) (uint64, error) {
	entry, err := t.positions.Get(ctx, positionDetect)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read position %s: %w", positionDetect, err)
	}
	seq, err := strconv.ParseUint(strings.TrimSpace(string(entry.Value())), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read position %s: %w", positionDetect, err)
	}
	return seq, nil
}

func (t *trimmer) say(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = text
}

func (t *trimmer) trouble() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text
}
