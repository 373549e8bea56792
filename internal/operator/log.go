package operator

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Entry is one act of an operator, in the operator log.
type Entry struct {
	At        time.Time `json:"at"`
	Actor     string    `json:"actor"`
	Role      Role      `json:"role,omitempty"`
	Token     string    `json:"token,omitempty"` // name of the API token that was used
	Act       string    `json:"act"`             // the operation's id: quarantine-device
	Target    string    `json:"target,omitempty"`
	Outcome   string    `json:"outcome"` // done or refused
	Detail    string    `json:"detail,omitempty"`
	Before    any       `json:"before,omitempty"`
	After     any       `json:"after,omitempty"`
	Source    string    `json:"source,omitempty"` // address
	RequestID string    `json:"request_id,omitempty"`
}

// Record is a link of the operator log's chain, one message of the stream and
// one line of an export: an entry or a signed head. Prev is the SHA-256 of the
// record before as it was stored, byte for byte.
type Record struct {
	Seq   uint64 `json:"seq"`
	Prev  string `json:"prev"`
	Entry *Entry `json:"entry,omitempty"`
	Head  *Head  `json:"head,omitempty"`
}

// Head is a signature over everything before it: whoever has it can tell
// whether the log up to there is still what it was.
type Head struct {
	At        time.Time `json:"at"`
	Key       string    `json:"key"`       // the public key, hex
	Signature string    `json:"signature"` // Ed25519 over seq, prev and at, hex
}

func (h Head) message(seq uint64, prev string) []byte {
	return fmt.Appendf(nil, "cordon operator log head\n%d\n%s\n%s", seq, prev, h.At.UTC().Format(time.RFC3339Nano))
}

// Valid says whether the signature belongs to the record.
func (h Head) Valid(seq uint64, prev string) bool {
	key, err := hex.DecodeString(h.Key)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return false
	}
	signature, err := hex.DecodeString(h.Signature)
	return err == nil && ed25519.Verify(key, h.message(seq, prev), signature)
}

const (
	headEvery    = time.Minute // at most this long is an entry without a signed head behind it
	headAfter    = 100         // and at most this many entries
	maxLogText   = 64 << 10    // bytes of one record; Before and After are left out of larger ones
	appendTries  = 20
	appendWithin = 5 * time.Second
)

// chain appends to the operator log. The broker takes a record only behind the
// one that it was made for, so two processes can't fork the chain, and a crash
// leaves it whole.
type chain struct {
	mu       sync.Mutex
	known    bool
	stream   uint64 // stream sequence of the newest record
	tail     anchor
	unsigned int // entries behind the newest head
}

// Audit records an act in the operator log.
func (d *Directory) Audit(ctx context.Context, e Entry) error {
	e.At = d.deps.Clock().UTC()
	d.deps.Log.Info("operator act", "actor", e.Actor, "act", e.Act, "target", e.Target, "outcome", e.Outcome, "source", e.Source, "request_id", e.RequestID)
	// The act has happened: the entry must be written even when the caller is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendWithin)
	defer cancel()
	err := d.append(ctx, func(r *Record) { r.Entry = &e })
	if err != nil {
		return fmt.Errorf("write operator log: %w", err)
	}
	if d.deps.LogKey != nil && d.log.waiting() >= headAfter {
		return d.SignHead(ctx)
	}
	return nil
}

func (c *chain) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsigned
}

func (d *Directory) append(ctx context.Context, fill func(*Record)) error {
	c := &d.log
	c.mu.Lock()
	defer c.mu.Unlock()
	var written string // hash of the record of a try whose answer was lost
	for range appendTries {
		if !c.known {
			if err := d.readTail(ctx); err != nil {
				return err
			}
			if written != "" && c.tail.Hash == written {
				return nil
			}
		}
		r := Record{Seq: c.tail.Seq + 1, Prev: c.tail.Hash}
		fill(&r)
		raw, err := encodeRecord(r)
		if err != nil {
			return err
		}
		hash := hashOf(raw)
		ack, err := d.deps.Bus.Core.Publish(ctx, bus.SubjectOperatorLog, raw, jetstream.WithExpectLastSequence(c.stream))
		if err == nil {
			c.stream, c.tail = ack.Sequence, anchor{Seq: r.Seq, Hash: hash}
			if r.Head != nil {
				c.unsigned = 0
				d.saveAnchor(c.tail)
			} else {
				c.unsigned++
			}
			return nil
		}
		c.known, written = false, hash // another process wrote, or the answer was lost: look again
		var refused *jetstream.APIError
		if ctx.Err() != nil || errors.As(err, &refused) && refused.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
			return err
		}
	}
	return fleet.Errorf(fleet.CodeUnavailable, "the operator log is busy; try again")
}

func encodeRecord(r Record) ([]byte, error) {
	raw, err := json.Marshal(r)
	if err == nil && len(raw) > maxLogText && r.Entry != nil {
		short := *r.Entry
		short.Before, short.After, short.Detail = nil, "left out: too long", short.Detail[:min(len(short.Detail), 1000)]
		r.Entry = &short
		raw, err = json.Marshal(r)
	}
	if err != nil {
		return nil, fmt.Errorf("encode operator log entry: %w", err)
	}
	return raw, nil
}

func hashOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// readTail finds the end of the chain.
func (d *Directory) readTail(ctx context.Context) error {
	stream, err := d.deps.Bus.Core.Stream(ctx, bus.StreamOperatorLog)
	if err != nil {
		return fmt.Errorf("open operator log: %w", err)
	}
	c := &d.log
	c.stream, c.tail = stream.CachedInfo().State.LastSeq, anchor{}
	if c.stream > 0 {
		message, err := stream.GetLastMsgForSubject(ctx, bus.SubjectOperatorLog)
		if err != nil {
			return fmt.Errorf("read end of operator log: %w", err)
		}
		var last Record
		if err := json.Unmarshal(message.Data, &last); err != nil {
			return fmt.Errorf("decode end of operator log: %w", err)
		}
		c.stream, c.tail = message.Sequence, anchor{Seq: last.Seq, Hash: hashOf(message.Data)}
		if last.Head == nil {
			c.unsigned = max(c.unsigned, 1)
		}
	}
	c.known = true
	return nil
}

// SignHead signs the log as it is, unless its newest record is a head.
func (d *Directory) SignHead(ctx context.Context) error {
	if d.deps.LogKey == nil {
		return nil
	}
	err := d.append(ctx, func(r *Record) {
		h := Head{At: d.deps.Clock().UTC(), Key: hex.EncodeToString(d.deps.LogKey.Public().(ed25519.PublicKey))}
		h.Signature = hex.EncodeToString(ed25519.Sign(d.deps.LogKey, h.message(r.Seq, r.Prev)))
		r.Head = &h
	})
	if err != nil {
		return fmt.Errorf("sign operator log: %w", err)
	}
	return nil
}

// Run signs the log every minute in which something was written, and at the
// end; it seals secrets anew when the key was rotated.
func (d *Directory) Run(ctx context.Context) error {
	if err := d.Reseal(ctx); err != nil {
		d.deps.Log.Warn("second factors were not sealed with the new key", "error", err)
	}
	tick := time.NewTicker(headEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			d.signWaiting(last)
			return nil
		case <-tick.C:
			d.signWaiting(ctx)
		}
	}
}

func (d *Directory) signWaiting(ctx context.Context) {
	if d.log.waiting() == 0 {
		return
	}
	if err := d.SignHead(ctx); err != nil {
		d.deps.Log.Warn("operator log was not signed", "error", err)
	}
}
