package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/fleet"
)

// SenderConfig bounds a Sender.
type SenderConfig struct {
	Dir        string        // where messages wait on disk; empty: in memory
	Bytes      int64         // size of the buffer
	Block      bool          // a full memory buffer makes callers wait instead of dropping its oldest message
	Window     int           // messages under way at once
	AckTimeout time.Duration // after which a message is sent again
	MaxMessage int           // bytes of one message
}

// DefaultSenderConfig suits one device.
func DefaultSenderConfig() SenderConfig {
	return SenderConfig{Bytes: 256 << 20, Window: 128, AckTimeout: 10 * time.Second, MaxMessage: 900 << 10}
}

// Sender sends messages of one device until each is acknowledged, in order.
type Sender struct {
	cfg    SenderConfig
	device string
	boot   string
	conn   *nats.Conn
	queue  queue
	log    *slog.Logger

	mu       sync.Mutex // orders sequence numbers and pushes
	seq      uint64
	acked    atomic.Uint64
	resent   atomic.Uint64
	rejected atomic.Uint64
	held     atomic.Bool   // by Cordon: nothing is sent
	woken    chan struct{} // held changed
	failure  atomic.Value  // string: why the last attempt failed, "" when it did not
}

// SenderStatus is how far a sender has come.
type SenderStatus struct {
	Buffered  int    // messages not yet acknowledged
	Bytes     int64  // their size
	Acked     uint64 // acknowledged since the start
	Resent    uint64 // sent again since the start
	Dropped   uint64 // lost because the buffer was full, ever
	Rejected  uint64 // larger than the broker takes
	Connected bool
	Failure   string // why messages do not go out, "" when they do
}

// NewSender makes a sender on an open connection. It opens the disk buffer
// and finds in it what an earlier run could not send.
func NewSender(cfg SenderConfig, device string, conn *nats.Conn, log *slog.Logger) (*Sender, error) {
	if err := fleet.CheckDeviceID(device); err != nil {
		return nil, fmt.Errorf("make sender: %w", err)
	}
	var id [6]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("make boot id: %w", err)
	}
	s := &Sender{cfg: cfg, device: device, boot: hex.EncodeToString(id[:]), conn: conn, log: log, woken: make(chan struct{}, 1)}
	s.failure.Store("")
	if cfg.Dir == "" {
		s.queue = newMemoryQueue(cfg.Bytes, cfg.Block)
		return s, nil
	}
	q, err := openDiskQueue(cfg.Dir, cfg.Bytes)
	if err != nil {
		return nil, err
	}
	s.queue = q
	return s, nil
}

// Boot is the id of this run; with a sequence number it names a message.
func (s *Sender) Boot() string { return s.boot }

// Telemetry buffers readings as one message. It blocks only when the buffer
// is full and configured to.
func (s *Sender) Telemetry(ctx context.Context, readings []fleet.Reading) error {
	if len(readings) == 0 {
		return nil
	}
	return s.push(ctx, telemetryMessage, 0, func(seq uint64) ([]byte, error) {
		return fleet.EncodeTelemetry(make([]byte, 0, 64+64*len(readings)), s.boot, seq, readings), nil
	})
}

// Audit buffers audit events as one message.
func (s *Sender) Audit(ctx context.Context, events []fleet.AuditEvent) error {
	if len(events) == 0 {
		return nil
	}
	return s.push(ctx, auditMessage, 0, func(seq uint64) ([]byte, error) {
		return fleet.EncodeAudit(s.boot, seq, events)
	})
}

// Syslog buffers raw syslog lines, separated by line feeds, as one message.
// year is that of times without one; 0 leaves it to the time of receipt.
func (s *Sender) Syslog(ctx context.Context, lines []byte, year int) error {
	if len(lines) == 0 {
		return nil
	}
	return s.push(ctx, syslogMessage, year, func(uint64) ([]byte, error) { return lines, nil })
}

// Block sets SenderConfig.Block of a memory buffer from now on.
func (s *Sender) Block(on bool) {
	if q, ok := s.queue.(*memoryQueue); ok {
		q.setBlock(on)
	}
}

func (s *Sender) push(ctx context.Context, k kind, year int, body func(seq uint64) ([]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, err := body(s.seq + 1)
	if err != nil {
		return err
	}
	if len(raw) > s.cfg.MaxMessage {
		return fleet.Errorf(fleet.CodeInvalid, "message has %d bytes, the limit is %d", len(raw), s.cfg.MaxMessage)
	}
	if err := s.queue.push(ctx, entry{kind: k, boot: s.boot, seq: s.seq + 1, year: year, body: raw}); err != nil {
		return fmt.Errorf("buffer message: %w", err)
	}
	s.seq++
	return nil
}

// Status says how far the sender has come.
func (s *Sender) Status() SenderStatus {
	q := s.queue.stats()
	return SenderStatus{
		Buffered: q.messages, Bytes: q.bytes, Dropped: q.dropped,
		Acked: s.acked.Load(), Resent: s.resent.Load(), Rejected: s.rejected.Load(),
		Connected: s.conn.IsConnected(), Failure: s.failure.Load().(string),
	}
}

// Wait returns once everything buffered is acknowledged.
func (s *Sender) Wait(ctx context.Context) error {
	for {
		changed := s.queue.changed()
		if s.queue.stats().messages == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for acknowledgements: %w", ctx.Err())
		}
	}
}

// flight is a message under way.
type flight struct {
	generation uint64
	future     jetstream.PubAckFuture
}

// Run sends until ctx ends. What is not acknowledged then stays in a disk
// buffer for the next run.
func (s *Sender) Run(ctx context.Context) error {
	js, err := jetstream.New(s.conn,
		jetstream.WithPublishAsyncMaxPending(2*s.cfg.Window),
		jetstream.WithPublishAsyncTimeout(s.cfg.AckTimeout))
	if err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	var wait time.Duration
	for ctx.Err() == nil {
		err := s.stream(ctx, js)
		if ctx.Err() != nil {
			break
		}
		s.failure.Store(err.Error())
		s.log.Debug("sending failed, trying again", "device", s.device, "error", err)
		wait = min(max(2*wait, 100*time.Millisecond), 2*time.Second)
		if s.queue.stats().messages == 0 {
			wait = 100 * time.Millisecond
		}
		sleep(ctx, wait)
		s.queue.rewind()
	}
	if err := s.queue.close(); err != nil {
		return fmt.Errorf("close buffer: %w", err)
	}
	return nil
}

// stream sends message after message until one fails.
func (s *Sender) stream(ctx context.Context, js jetstream.JetStream) error {
	var flying []flight
	for {
		changed := s.queue.changed()
		full, err := s.fill(js, &flying)
		if err != nil {
			s.settle(ctx, flying)
			return err
		}
		if full {
			changed = nil // nothing more can be sent before an acknowledgement
		}
		var ok <-chan *jetstream.PubAck
		var failed <-chan error
		if len(flying) > 0 {
			ok, failed = flying[0].future.Ok(), flying[0].future.Err()
		}
		select {
		case <-ctx.Done():
			s.settle(ctx, flying)
			return ctx.Err()
		case <-changed:
		case <-s.woken:
		case <-ok:
			if err := s.queue.ack(flying[0].generation); err != nil {
				return err
			}
			s.acked.Add(1)
			s.failure.Store("")
			flying[0] = flight{}
			flying = flying[1:]
		case err := <-failed:
			s.settle(ctx, flying[1:]) // this one has its answer
			s.resent.Add(uint64(len(flying)))
			return fmt.Errorf("publish: %w", err)
		}
	}
}

// fill puts messages under way until the window is full or none is left.
func (s *Sender) fill(js jetstream.JetStream, flying *[]flight) (full bool, err error) {
	for len(*flying) < s.cfg.Window && !s.held.Load() {
		e, generation, ok, err := s.queue.next()
		if err != nil {
			return false, fmt.Errorf("read buffer: %w", err)
		}
		if !ok {
			return false, nil
		}
		future, err := js.PublishMsgAsync(e.message(s.device))
		if errors.Is(err, nats.ErrMaxPayload) && len(*flying) == 0 {
			// It will never be taken, and must not hold up the others.
			s.rejected.Add(1)
			s.log.Warn("message is larger than the broker takes, dropped", "device", s.device, "bytes", len(e.body))
			if err := s.queue.ack(generation); err != nil {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, fmt.Errorf("publish: %w", err)
		}
		*flying = append(*flying, flight{generation, future})
	}
	return !s.held.Load(), nil
}

// Hold keeps messages in the buffer, or lets them go again.
func (s *Sender) Hold(on bool) {
	s.held.Store(on)
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// settle waits until every message under way has its answer, so that a resend
// starts with an empty window. The library's timeout bounds the wait.
func (s *Sender) settle(ctx context.Context, flying []flight) {
	for _, f := range flying {
		select {
		case <-f.future.Ok():
		case <-f.future.Err(): //nolint:errcheck // it is sent again either way
		case <-ctx.Done():
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
