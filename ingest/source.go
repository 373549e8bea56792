package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// consumerName is the mover's consumer on every stream.
const consumerName = "ingest"

// message is one message of a stream.
type message struct {
	seq        uint64
	subject    string
	header     nats.Header
	data       []byte
	receivedAt time.Time
}

// source reads a stream strictly in order, whatever happens to connections
// and consumers.
type source struct {
	js     jetstream.JetStream
	stream string
	log    *slog.Logger
	check  func(ctx context.Context) error // says ErrFenced when another mover owns the stream
	say    func(trouble string)            // takes the reason why nothing can be read, "" when it can

	reader  jetstream.Consumer
	pull    *puller
	last    uint64    // stream sequence read last, or the one before the start
	lastAt  int64     // its received_at, Unix ns; 0 when it is not known
	counted uint64    // consumer sequence read last
	pending uint64    // messages behind the one read last
	asked   time.Time // when the consumer was last asked whether something was lost
	strikes int       // how often in a row it said so
}

var (
	errIdle = errors.New("nothing to read now")
	errTail = errors.New("the stream ends before what was read of it")
)

// open makes the consumer anew, starting behind s.last. It is not resumed:
// the position, not the consumer, knows what is stored. Reading ends with ctx.
func (s *source) open(ctx context.Context) error {
	s.close()
	stream, err := s.js.Stream(ctx, s.stream)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", s.stream, err)
	}
	if same, err := holds(ctx, stream, s.last, s.lastAt); err != nil {
		return err
	} else if !same {
		return fmt.Errorf("open stream %s: %w", s.stream, errTail)
	}
	if err := s.js.DeleteConsumer(ctx, s.stream, consumerName); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("delete consumer of %s: %w", s.stream, err)
	}
	consumer, err := s.js.CreateConsumer(ctx, s.stream, jetstream.ConsumerConfig{
		Durable:       consumerName,
		Description:   "moves the stream into ClickHouse",
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   s.last + 1,
		AckPolicy:     jetstream.AckNonePolicy, // the position says what is stored; nothing is delivered twice
	})
	if err != nil {
		return fmt.Errorf("create consumer of %s: %w", s.stream, err)
	}
	if s.pull, err = newPuller(s.js.Conn(), s.stream, consumerName); err != nil {
		return fmt.Errorf("read stream %s: %w", s.stream, err)
	}
	s.reader, s.counted, s.pending, s.strikes = consumer, 0, consumer.CachedInfo().NumPending, 0
	return nil
}

// drained says that nothing was behind the message read last.
func (s *source) drained() bool { return s.pending == 0 }

// refresh asks how much is behind the message read last: messages of a bucket
// vanish when newer ones replace them.
func (s *source) refresh(ctx context.Context) {
	if info, err := s.reader.Info(ctx); err == nil && info.Delivered.Consumer == s.counted {
		s.pending = info.NumPending
	}
}

// askEvery is how often an idle source asks whether it missed something.
const askEvery = 2 * time.Second

// lost says that messages were delivered and never arrived, as when a
// connection breaks, and that none came behind them to show it.
func (s *source) lost(ctx context.Context) bool {
	if time.Since(s.asked) < askEvery {
		return false
	}
	s.asked = time.Now()
	info, err := s.reader.Info(ctx)
	if err != nil || info.Delivered.Consumer <= s.counted {
		s.strikes = 0
		return false
	}
	s.strikes++ // the first time they may be on their way
	return s.strikes > 1
}

// holds says whether a stream still holds the message that was read as its
// number seq at a time. A message that was deleted is no reason to say no.
func holds(ctx context.Context, stream jetstream.Stream, seq uint64, at int64) (bool, error) {
	state := stream.CachedInfo().State
	if seq > state.LastSeq {
		return false, nil
	}
	if at == 0 || seq < state.FirstSeq {
		return true, nil
	}
	msg, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read message %d of %s: %w", seq, stream.CachedInfo().Config.Name, err)
	}
	return msg.Time.UnixNano() == at, nil
}

// lastBefore is the last sequence that a stream received until a time.
func lastBefore(ctx context.Context, stream jetstream.Stream, at int64) (uint64, error) {
	after := time.Unix(0, at+1).UTC()
	probe, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &after, AckPolicy: jetstream.AckNonePolicy, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return 0, fmt.Errorf("look for a time in %s: %w", stream.CachedInfo().Config.Name, err)
	}
	last := probe.CachedInfo().Delivered.Stream
	if err := stream.DeleteConsumer(ctx, probe.CachedInfo().Name); err != nil {
		return 0, fmt.Errorf("look for a time in %s: %w", stream.CachedInfo().Config.Name, err)
	}
	return last, nil
}

func (s *source) close() {
	if s.pull != nil {
		s.pull.close()
		s.pull = nil
	}
}

// next returns the message behind the last one; errIdle after wait.
func (s *source) next(ctx context.Context, wait time.Duration) (message, error) {
	for {
		if err := ctx.Err(); err != nil {
			return message{}, err
		}
		if s.pull == nil {
			if err := s.reopen(ctx); err != nil {
				return message{}, err
			}
		}
		msg, err := s.pull.next(ctx.Done(), wait)
		switch {
		case ctx.Err() != nil:
			return message{}, ctx.Err()
		case errors.Is(err, errIdle):
			if s.lost(ctx) {
				s.log.Info("the last messages were lost on the way, reading again", "stream", s.stream, "after", s.last)
				s.close()
				continue
			}
			return message{}, errIdle
		case err != nil:
			s.log.Warn("reading was interrupted", "stream", s.stream, "error", err)
			s.close()
			continue
		}
		at, err := parseAck(msg.Reply)
		if err != nil {
			return message{}, fmt.Errorf("read metadata of a message of %s: %w", s.stream, err)
		}
		if at.consumer != s.counted+1 {
			s.log.Info("messages were lost on the way, reading again", "stream", s.stream, "after", s.last)
			s.close()
			continue
		}
		s.counted++
		if at.stream <= s.last { // delivered again
			continue
		}
		s.last, s.lastAt, s.pending = at.stream, at.at, at.pending
		return message{
			seq: at.stream, subject: msg.Subject, header: msg.Header, data: msg.Data, receivedAt: time.Unix(0, at.at).UTC(),
		}, nil
	}
}

// reopen opens again until it succeeds, the context ends or another mover
// turns out to own the stream.
func (s *source) reopen(ctx context.Context) error {
	pause := 100 * time.Millisecond
	for {
		err := s.check(ctx)
		if errors.Is(err, ErrFenced) {
			return err
		}
		if err == nil {
			if err = s.open(ctx); err == nil {
				s.say("")
				return nil
			}
		}
		if errors.Is(err, errTail) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.Warn("cannot read the stream, trying again", "stream", s.stream, "error", err)
		s.say("the stream " + s.stream + " cannot be read; nothing is lost, see the broker's log")
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 5*time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
