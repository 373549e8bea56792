package operator

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// The kinds of faults that a verification finds.
const (
	FaultChanged   = "changed"   // an entry is not what the next one or a head remembers
	FaultMissing   = "missing"   // entries are not there
	FaultReordered = "reordered" // an entry stands where it does not belong
	FaultSignature = "signature" // a head was not signed by a trusted key
)

// Fault is something wrong with the operator log.
type Fault struct {
	Seq    uint64 `json:"seq" doc:"The entry's number in the chain."`
	Kind   string `json:"kind" enum:"changed,missing,reordered,signature"`
	Detail string `json:"detail"`
}

// Verdict is what a verification found.
type Verdict struct {
	OK      bool      `json:"ok"`
	Entries uint64    `json:"entries"`
	Heads   uint64    `json:"heads" doc:"Signed heads among them."`
	FirstAt time.Time `json:"first_at,omitzero"`
	LastAt  time.Time `json:"last_at,omitzero"`
	LastSeq uint64    `json:"last_seq"`
	Hash    string    `json:"hash" doc:"SHA-256 of the newest record: write it down to compare later."`
	Keys    []string  `json:"keys" doc:"Public keys that signed heads."`
	Faults  []Fault   `json:"faults" doc:"The first hundred."`
}

const maxFaults = 100

// Verifier checks records in their stored order.
type Verifier struct {
	trusted []string
	verdict Verdict
	begun   bool
	last    Record
	hash    string
	hashes  map[uint64]string // of places that were asked for
	watch   map[uint64]bool
}

// NewVerifier trusts heads of the given public keys (hex); none: of any.
func NewVerifier(trusted ...string) *Verifier {
	return &Verifier{trusted: trusted, verdict: Verdict{Keys: []string{}, Faults: []Fault{}}, hashes: map[uint64]string{}, watch: map[uint64]bool{}}
}

// Add takes the next record as it was stored.
func (v *Verifier) Add(raw []byte) {
	var r Record
	hash := hashOf(raw)
	if err := json.Unmarshal(raw, &r); err != nil || r.Seq == 0 || (r.Entry == nil) == (r.Head == nil) {
		v.fault(v.last.Seq+1, FaultChanged, "not a record of the operator log")
		v.last.Seq, v.hash, v.begun = v.last.Seq+1, hash, true
		return
	}
	want := v.last.Seq + 1
	switch {
	case r.Seq < want:
		v.fault(r.Seq, FaultReordered, fmt.Sprintf("entry %d stands behind entry %d", r.Seq, v.last.Seq))
	case r.Seq > want:
		v.fault(want, FaultMissing, fmt.Sprintf("entries %d to %d are not there", want, r.Seq-1))
	case v.begun && r.Prev != v.hash:
		v.fault(v.last.Seq, FaultChanged, fmt.Sprintf("entry %d is not what it was when entry %d was written", v.last.Seq, r.Seq))
	case !v.begun && r.Prev != "":
		v.fault(r.Seq, FaultChanged, "the first entry says that there was one before it")
	}
	if r.Head != nil {
		v.head(r)
	} else {
		v.verdict.Entries++
		if v.verdict.FirstAt.IsZero() {
			v.verdict.FirstAt = r.Entry.At
		}
		v.verdict.LastAt = r.Entry.At
	}
	if v.watch[r.Seq] {
		v.hashes[r.Seq] = hash
	}
	v.last, v.hash, v.begun = r, hash, true
}

func (v *Verifier) head(r Record) {
	v.verdict.Heads++
	switch {
	case !r.Head.Valid(r.Seq, r.Prev):
		v.fault(r.Seq, FaultSignature, "the head's signature is wrong")
		return
	case len(v.trusted) > 0 && !slices.Contains(v.trusted, r.Head.Key):
		v.fault(r.Seq, FaultSignature, "the head was signed by an unknown key "+r.Head.Key)
	}
	if !slices.Contains(v.verdict.Keys, r.Head.Key) {
		v.verdict.Keys = append(v.verdict.Keys, r.Head.Key)
	}
}

func (v *Verifier) fault(seq uint64, kind, detail string) {
	if len(v.verdict.Faults) < maxFaults {
		v.verdict.Faults = append(v.verdict.Faults, Fault{seq, kind, detail})
	}
}

// expect compares with a place that is known from elsewhere.
func (v *Verifier) expect(a anchor, from string) {
	switch {
	case a.Seq == 0:
	case v.last.Seq < a.Seq:
		v.fault(v.last.Seq+1, FaultMissing, fmt.Sprintf("the log ends at entry %d, but %s knows entry %d", v.last.Seq, from, a.Seq))
	case v.hashes[a.Seq] != a.Hash && v.hashes[a.Seq] != "":
		v.fault(a.Seq, FaultChanged, fmt.Sprintf("entry %d is not what %s remembers", a.Seq, from))
	}
}

// Verdict ends the verification.
func (v *Verifier) Verdict() Verdict {
	v.verdict.OK = len(v.verdict.Faults) == 0
	v.verdict.LastSeq, v.verdict.Hash = v.last.Seq, v.hash
	return v.verdict
}

// VerifyExport checks an export: one record a line.
func VerifyExport(in io.Reader, trusted ...string) (Verdict, error) {
	v := NewVerifier(trusted...)
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), 2<<20)
	for lines.Scan() {
		if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
			v.Add(line)
		}
	}
	if err := lines.Err(); err != nil {
		return Verdict{}, fmt.Errorf("read export: %w", err)
	}
	return v.Verdict(), nil
}

// VerifyLog checks the whole log, and that it still holds what this process
// and the anchor file know of it.
func (d *Directory) VerifyLog(ctx context.Context, trusted ...string) (Verdict, error) {
	d.log.mu.Lock()
	tail, known := d.log.tail, d.log.known
	d.log.mu.Unlock()
	if !known {
		tail = anchor{}
	}
	written := d.readAnchor()
	v := NewVerifier(trusted...)
	v.watch[tail.Seq], v.watch[written.Seq] = true, true
	if err := d.eachRecord(ctx, func(_ uint64, raw []byte) error {
		v.Add(raw)
		return nil
	}); err != nil {
		return Verdict{}, err
	}
	v.expect(written, "the file beside the signing key")
	v.expect(tail, "the running Cordon")
	return v.Verdict(), nil
}

// ExportLog writes every record, one a line, as stored: what VerifyExport
// reads.
func (d *Directory) ExportLog(ctx context.Context, out io.Writer) error {
	return d.eachRecord(ctx, func(_ uint64, raw []byte) error {
		if _, err := out.Write(append(raw, '\n')); err != nil {
			return fmt.Errorf("write export: %w", err)
		}
		return nil
	})
}

// eachRecord visits every record that is there now, in stored order.
func (d *Directory) eachRecord(ctx context.Context, visit func(stream uint64, raw []byte) error) error {
	stream, err := d.deps.Bus.Core.Stream(ctx, bus.StreamOperatorLog)
	if err != nil {
		return fmt.Errorf("open operator log: %w", err)
	}
	last := stream.CachedInfo().State.LastSeq
	if stream.CachedInfo().State.Msgs == 0 {
		return nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return fmt.Errorf("read operator log: %w", err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(500))
	if err != nil {
		return fmt.Errorf("read operator log: %w", err)
	}
	defer messages.Stop()
	for {
		message, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read operator log: %w", err)
		}
		meta, err := message.Metadata()
		if err != nil {
			return fmt.Errorf("read operator log: %w", err)
		}
		if err := visit(meta.Sequence.Stream, message.Data()); err != nil {
			return err
		}
		if meta.Sequence.Stream >= last {
			return nil
		}
	}
}

// LogFilter selects entries; empty fields select all.
type LogFilter struct {
	Actor, Act, Target, Outcome, Query string
	From, To                           time.Time
	Heads                              bool // signed heads too
}

func (f LogFilter) match(r Record, raw []byte) bool {
	if r.Head != nil {
		return f.Heads && f == LogFilter{Heads: true}
	}
	e := r.Entry
	return e != nil &&
		(f.Actor == "" || e.Actor == f.Actor) && (f.Act == "" || e.Act == f.Act) &&
		(f.Target == "" || e.Target == f.Target) && (f.Outcome == "" || e.Outcome == f.Outcome) &&
		(f.From.IsZero() || !e.At.Before(f.From)) && (f.To.IsZero() || e.At.Before(f.To)) &&
		(f.Query == "" || strings.Contains(strings.ToLower(string(raw)), strings.ToLower(f.Query)))
}

// LogLine is a record with its own hash.
type LogLine struct {
	Record
	Hash string
}

// scanned bounds how far one page of the log looks back.
const scanned = 3000

// Log lists records, newest first. before is the stream place that the page
// before ended at, 0 for the newest; next is 0 at the end. A page may hold
// fewer than limit and still not be the last: a filter looks back only so far.
func (d *Directory) Log(ctx context.Context, f LogFilter, before uint64, limit int) (lines []LogLine, next, total uint64, err error) {
	stream, err := d.deps.Bus.Core.Stream(ctx, bus.StreamOperatorLog)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("open operator log: %w", err)
	}
	state := stream.CachedInfo().State
	at := state.LastSeq
	if before > 0 {
		at = min(at, before-1)
	}
	lines = []LogLine{}
	for looked := 0; at >= max(state.FirstSeq, 1) && at > 0; at-- {
		if looked++; looked > scanned || len(lines) >= limit {
			return lines, at + 1, state.Msgs, nil
		}
		message, err := stream.GetMsg(ctx, at)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, 0, 0, fleet.Errorf(fleet.CodeUnavailable, "the operator log does not answer: %w", err)
		}
		var r Record
		if json.Unmarshal(message.Data, &r) == nil && f.match(r, message.Data) {
			lines = append(lines, LogLine{r, hashOf(message.Data)})
		}
	}
	return lines, 0, state.Msgs, nil
}
