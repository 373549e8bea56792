package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// intent is what a worker writes before it stores a block: enough to build
// exactly that block again.
type intent struct {
	Stream     string    `json:"stream"`
	Created    int64     `json:"created"`    // of the stream, Unix µs: a stream made anew starts over
	Generation int       `json:"generation"` // grows when the stream lost its tail
	First      uint64    `json:"first"`      // 0: no block yet
	Last       uint64    `json:"last"`
	LastAt     int64     `json:"last_at"` // received_at of the last message, Unix ns: tells it from another one of its number
	Token      string    `json:"token"`
	Dropped    []span    `json:"dropped,omitempty"`  // resent messages
	Historic   []string  `json:"historic,omitempty"` // devices that counted as historic
	Halved     []string  `json:"halved,omitempty"`   // tables whose insert was refused as a whole
	Version    string    `json:"version"`            // of the decoder
	Owner      string    `json:"owner"`              // the mover that wrote it
	At         time.Time `json:"at"`
}

// span is a range of stream sequences, both ends included.
type span [2]uint64

func appendSeq(spans []span, seq uint64) []span {
	if n := len(spans); n > 0 && spans[n-1][1]+1 == seq {
		spans[n-1][1] = seq
		return spans
	}
	return append(spans, span{seq, seq})
}

func inSpans(spans []span, seq uint64) bool {
	i, found := slices.BinarySearchFunc(spans, seq, func(s span, seq uint64) int { return cmp.Compare(s[0], seq) })
	return found || i > 0 && seq <= spans[i-1][1]
}

func token(i intent) string {
	return fmt.Sprintf("%s@%d.%d:%d-%d", i.Stream, i.Created, i.Generation, i.First, i.Last)
}

// position is the intent of one stream in the bucket, and its fence.
type position struct {
	kv       jetstream.KeyValue
	key      string
	owner    string
	now      func() time.Time
	revision uint64
	current  intent
}

// claim reads the intent and makes this mover its owner. A mover that owned
// it before fails at its next write.
func (p *position) claim(ctx context.Context, created time.Time) error {
	p.owner = nuid.Next()
	p.current = intent{Stream: p.current.Stream, Created: created.UnixMicro()}
	entry, err := p.kv.Get(ctx, p.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		p.revision = 0
	case err != nil:
		return fmt.Errorf("read position %s: %w", p.key, err)
	default:
		p.revision = entry.Revision()
		var found intent
		if err := json.Unmarshal(entry.Value(), &found); err != nil {
			return fmt.Errorf("decode position %s: %w", p.key, err)
		}
		if found.Created == p.current.Created {
			p.current = found
		}
	}
	return p.write(ctx, p.current)
}

// write stores the next intent. ErrFenced: another mover wrote since.
func (p *position) write(ctx context.Context, next intent) error {
	next.Owner, next.At = p.owner, p.now().UTC()
	raw, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode position %s: %w", p.key, err)
	}
	revision, err := p.kv.Update(ctx, p.key, raw, p.revision)
	if err == nil {
		p.revision, p.current = revision, next
		return nil
	}
	// A write whose answer got lost looks like somebody else's.
	entry, getErr := p.kv.Get(ctx, p.key)
	if getErr != nil {
		return fmt.Errorf("write position %s: %w", p.key, err)
	}
	if string(entry.Value()) == string(raw) {
		p.revision, p.current = entry.Revision(), next
		return nil
	}
	if entry.Revision() != p.revision {
		return fmt.Errorf("write position %s: %w", p.key, ErrFenced)
	}
	return fmt.Errorf("write position %s: %w", p.key, err)
}

// check says ErrFenced when the intent is no longer this mover's.
func (p *position) check(ctx context.Context) error {
	entry, err := p.kv.Get(ctx, p.key)
	if err != nil {
		return fmt.Errorf("read position %s: %w", p.key, err)
	}
	var found intent
	if err := json.Unmarshal(entry.Value(), &found); err != nil {
		return fmt.Errorf("decode position %s: %w", p.key, err)
	}
	if found.Owner != p.owner {
		return fmt.Errorf("check position %s: %w", p.key, ErrFenced)
	}
	return nil
}
