package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	pullMessages = 10_000
	pullBytes    = 8 << 20
	pullExpires  = 30 * time.Second
	pullsAhead   = 2 // requests under way, so that the broker never waits for one
)

// puller asks a consumer for messages and hands them on. It does what
// jetstream's Messages does, without a timer and a lock per message: with one
// reading per message those cost as much as decoding.
type puller struct {
	conn       *nats.Conn
	subject    string // of requests
	inbox      string // of answers, without the number of the request
	sub        *nats.Subscription
	arrived    chan *nats.Msg
	timer      *time.Timer
	reconnects uint64 // of the connection, at the start: requests do not survive one

	asked    int // number of the last request
	requests []pullRequest
}

// pullRequest is a request that is under way.
type pullRequest struct {
	inbox string
	left  int
	at    time.Time
}

var errPull = errors.New("the broker ended a request")

func newPuller(conn *nats.Conn, stream, consumer string) (*puller, error) {
	p := &puller{
		conn: conn, subject: "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer, inbox: nats.NewInbox(),
		arrived: make(chan *nats.Msg, pullsAhead*pullMessages+64), timer: time.NewTimer(time.Hour), reconnects: conn.Stats().Reconnects,
	}
	var err error
	if p.sub, err = conn.ChanSubscribe(p.inbox+".*", p.arrived); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return p, p.ask()
}

func (p *puller) close() {
	p.timer.Stop()
	_ = p.sub.Unsubscribe() // a closed connection has no subscriptions
}

// ask keeps enough requests under way.
func (p *puller) ask() error {
	for len(p.requests) < pullsAhead {
		raw, err := json.Marshal(struct {
			Batch   int           `json:"batch"`
			Bytes   int           `json:"max_bytes"`
			Expires time.Duration `json:"expires"`
		}{pullMessages, pullBytes, pullExpires})
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		p.asked++
		inbox := fmt.Sprintf("%s.%d", p.inbox, p.asked)
		if err := p.conn.PublishRequest(p.subject, inbox, raw); err != nil {
			return fmt.Errorf("ask for messages: %w", err)
		}
		p.requests = append(p.requests, pullRequest{inbox: inbox, left: pullMessages, at: time.Now()})
	}
	return nil
}

// next returns the next message; errIdle when none comes within wait or until
// done is closed.
func (p *puller) next(done <-chan struct{}, wait time.Duration) (*nats.Msg, error) {
	timed := false
	for {
		var msg *nats.Msg
		select {
		case msg = <-p.arrived:
		default:
			if !timed {
				p.timer.Reset(wait)
				timed = true
			}
			select {
			case msg = <-p.arrived:
			case <-p.timer.C:
				return nil, p.idle()
			case <-done:
				return nil, errIdle
			}
		}
		if strings.HasPrefix(msg.Reply, "$JS.ACK.") {
			p.count()
			return msg, p.ask()
		}
		if err := p.status(msg); err != nil {
			return nil, err
		}
	}
}

// idle says errIdle, or that the requests under way cannot be answered any
// more.
func (p *puller) idle() error {
	if p.conn.Stats().Reconnects != p.reconnects {
		return fmt.Errorf("the connection was made anew: %w", errPull)
	}
	if len(p.requests) > 0 && time.Since(p.requests[0].at) > pullExpires+10*time.Second {
		return fmt.Errorf("no answer: %w", errPull)
	}
	return errIdle
}

// count takes a message as an answer to the oldest request.
func (p *puller) count() {
	if len(p.requests) == 0 {
		return
	}
	if p.requests[0].left--; p.requests[0].left == 0 {
		p.requests = append(p.requests[:0], p.requests[1:]...)
	}
}

// status takes what the broker says about a request: it is over, or the
// consumer is.
func (p *puller) status(msg *nats.Msg) error {
	status, text := msg.Header.Get("Status"), msg.Header.Get("Description")
	over := status == "408" || status == "409" && (strings.Contains(text, "MaxBytes") || strings.Contains(text, "Batch Completed"))
	switch {
	case status == "100": // heartbeat
		return nil
	case !over:
		return fmt.Errorf("%w: %s %s", errPull, status, text)
	}
	for i, r := range p.requests {
		if r.inbox == msg.Subject {
			p.requests = append(p.requests[:i], p.requests[i+1:]...)
			break
		}
	}
	return p.ask()
}

// ackInfo is what the reply subject of a message says.
type ackInfo struct {
	stream, consumer uint64 // sequences
	at               int64  // Unix ns
	pending          uint64
}

var errAckSubject = errors.New("the reply subject is not one of JetStream's")

// parseAck reads $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.
// <consumer seq>.<time>.<pending>, and the longer form, which has domain and
// account in front and more behind.
func parseAck(reply string) (a ackInfo, err error) {
	var at [16]int // ends of the tokens
	n := 0
	for i := 0; i < len(reply) && n < len(at)-1; i++ {
		if reply[i] == '.' {
			at[n] = i
			n++
		}
	}
	at[n] = len(reply)
	n++
	first := 5 // token of the stream sequence
	switch {
	case n == 9:
	case n >= 11:
		first = 7
	default:
		return a, errAckSubject
	}
	var v [4]uint64
	for k := range v {
		token := reply[at[first+k-1]+1 : at[first+k]]
		if token == "" || len(token) > 20 {
			return a, errAckSubject
		}
		for _, c := range []byte(token) {
			if c < '0' || c > '9' {
				return a, errAckSubject
			}
			v[k] = v[k]*10 + uint64(c-'0')
		}
	}
	return ackInfo{stream: v[0], consumer: v[1], at: int64(v[2]), pending: v[3]}, nil
}
