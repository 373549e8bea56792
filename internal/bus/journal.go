package bus

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	journalSave  = time.Second
	journalRetry = 5 * time.Second
)

// Journal puts the changes of a bucket on the FLEET log, in the bucket's
// order, each at least once: the revision up to which they are there is kept
// in bucket "position". A full or absent stream delays it and nothing else.
type Journal struct {
	bus  *Bus
	key  string
	log  *slog.Logger
	wake chan struct{}

	mu    sync.Mutex
	queue []change
	last  uint64 // newest revision that was added
	done  uint64 // revision up to which changes are on the log
	moved chan struct{}
}

type change struct {
	revision uint64
	subject  string
	data     []byte // nil: nothing to publish
}

// NewJournal makes an inert journal whose position has the given key.
func (b *Bus) NewJournal(key string, log *slog.Logger) *Journal {
	return &Journal{bus: b, key: key, log: log, wake: make(chan struct{}, 1), moved: make(chan struct{})}
}

// Add takes the change with a revision of the bucket; data nil only moves the
// position. Revisions that were added before are ignored, so a watch may start
// over.
func (j *Journal) Add(revision uint64, subject string, data []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if revision <= j.last {
		return
	}
	j.last = revision
	j.queue = append(j.queue, change{revision, subject, data})
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Await returns once the change with the revision, and all before it, are on
// the log.
func (j *Journal) Await(ctx context.Context, revision uint64) error {
	for {
		j.mu.Lock()
		done, moved := j.done, j.moved
		j.mu.Unlock()
		if done >= revision {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait until the change is on the log: %w", ctx.Err())
		}
	}
}

func (j *Journal) reached(position uint64) {
	j.done = max(j.done, position)
	close(j.moved)
	j.moved = make(chan struct{})
}

// MsgID names the message of a revision, for the broker's de-duplication.
func (j *Journal) MsgID(revision uint64) string {
	return j.bus.MsgID(j.key + "." + strconv.FormatUint(revision, 10))
}

// MsgID makes a Nats-Msg-Id for a record that Cordon puts on the FLEET log:
// the same in every process, and unknown to devices. De-duplication is one for
// the whole stream, so a device that guessed the id of a coming record could
// make the broker drop it.
func (b *Bus) MsgID(name string) string {
	mac := hmac.New(sha256.New, b.secret[:])
	mac.Write([]byte(name))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Run publishes until ctx ends.
func (j *Journal) Run(ctx context.Context) error {
	positions, err := j.bus.Bucket(ctx, BucketPosition)
	if err != nil {
		return err
	}
	position, err := j.load(ctx, positions)
	if err != nil {
		return err
	}
	saved := position
	j.mu.Lock()
	j.reached(position)
	j.mu.Unlock()
	defer func() {
		// For the next start; without it changes are only published twice.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalSave)
		defer cancel()
		if err := j.save(last, positions, saved, position); err != nil {
			j.log.Warn("position was not written", "error", err)
		}
	}()
	tick := time.NewTicker(journalSave)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := j.save(ctx, positions, saved, position); err != nil {
				j.log.Warn("position was not written", "error", err)
				continue
			}
			saved = position
		case <-j.wake:
			j.drain(ctx, &position)
		}
	}
}

// drain publishes what is queued.
func (j *Journal) drain(ctx context.Context, position *uint64) {
	wait := 100 * time.Millisecond
	for ctx.Err() == nil {
		j.mu.Lock()
		if len(j.queue) == 0 {
			j.queue = nil
			j.mu.Unlock()
			return
		}
		next := j.queue[0]
		j.mu.Unlock()
		if next.data != nil && next.revision > *position {
			_, err := j.bus.Fleet.Publish(ctx, next.subject, next.data, jetstream.WithMsgID(j.MsgID(next.revision)))
			if err != nil {
				j.log.Warn("change is not on the log yet", "subject", next.subject, "error", err, "retry_in", wait)
				select {
				case <-ctx.Done():
				case <-time.After(wait):
				}
				wait = min(2*wait, journalRetry)
				continue
			}
		}
		wait = 100 * time.Millisecond
		*position = max(*position, next.revision)
		j.mu.Lock()
		j.queue = j.queue[1:]
		j.reached(*position)
		j.mu.Unlock()
	}
}

func (j *Journal) load(ctx context.Context, positions jetstream.KeyValue) (uint64, error) {
	entry, err := positions.Get(ctx, j.key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read position %s: %w", j.key, err)
	}
	position, err := strconv.ParseUint(string(entry.Value()), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read position %s: %w", j.key, err)
	}
	return position, nil
}

// save writes the position by put: a lower one, of a slower process, only
// publishes again.
func (j *Journal) save(ctx context.Context, positions jetstream.KeyValue, saved, position uint64) error {
	if saved == position {
		return nil
	}
	if _, err := positions.Put(ctx, j.key, []byte(strconv.FormatUint(position, 10))); err != nil {
		return fmt.Errorf("write position %s: %w", j.key, err)
	}
	return nil
}
