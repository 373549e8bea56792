package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

// perMessage is how many readings or events a producer's message has.
const perMessage = 5

func chaosReadings(at time.Time, seq uint64) []fleet.Reading {
	readings := make([]fleet.Reading, perMessage)
	for i := range readings {
		readings[i] = fleet.Reading{ObservedAt: at.UTC().Truncate(time.Millisecond), Metric: fmt.Sprintf("metric_%d", i), Value: float64(seq) + float64(i)/8}
	}
	return readings
}

func chaosEvents(at time.Time, seq uint64) []fleet.AuditEvent {
	events := make([]fleet.AuditEvent, perMessage)
	for i := range events {
		events[i] = fleet.AuditEvent{ObservedAt: at.UTC(), Class: "file", Activity: "change", Message: fmt.Sprintf("%d.%d", seq, i)}
	}
	return events
}

// producer is a device of the chaos bench: it keeps every message until its
// receipt.
type producer interface {
	// run sends at a pace until ctx ends; nothing is lost by that.
	run(ctx context.Context, pace time.Duration) error
	// drain returns when every message has its receipt.
	drain(ctx context.Context) error
	// resend sends old messages once more, as a device does that forgot what it
	// was told.
	resend(ctx context.Context) (int, error)
	sent() uint64
	receipted() uint64
}

// natsProducer is the agent's sender with its buffer on disk. Now and then it
// starts anew, as after a restart of the device.
type natsProducer struct {
	id  *agent.Identity
	dir string
	log *slog.Logger

	mu       sync.Mutex
	sender   *agent.Sender
	boots    map[string]uint64 // last seq of every boot
	acked    uint64            // of senders that ended
	restarts int
	random   *rand.Rand
}

func newNATSProducer(id *agent.Identity, dir string, seed uint64, log *slog.Logger) *natsProducer {
	return &natsProducer{id: id, dir: filepath.Join(dir, "buffer-"+id.Device), log: log, boots: map[string]uint64{}, random: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // repeatable
}

func (p *natsProducer) run(ctx context.Context, pace time.Duration) error {
	for ctx.Err() == nil {
		life := time.Duration(3+p.random.IntN(8)) * time.Second
		once, cancel := context.WithTimeout(ctx, life)
		err := p.once(once, ctx, pace)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// once is one run of the device; it ends with ctx in the middle of what it
// does.
func (p *natsProducer) once(ctx, all context.Context, pace time.Duration) error {
	s, stop, err := p.open()
	if err != nil {
		return err
	}
	defer stop()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		p.mu.Lock()
		seq := p.boots[s.Boot()] + 1
		if seq%10 == 0 {
			err = s.Audit(all, chaosEvents(time.Now(), seq))
		} else {
			err = s.Telemetry(all, chaosReadings(time.Now(), seq))
		}
		if err == nil {
			p.boots[s.Boot()] = seq
		}
		p.mu.Unlock()
		if err != nil {
			if all.Err() != nil {
				return nil //nolint:nilerr // told to end
			}
			return fmt.Errorf("device %s: %w", p.id.Device, err)
		}
	}
}

// open starts a sender on the buffer.
func (p *natsProducer) open() (*agent.Sender, func(), error) {
	conn, err := agent.Dial(p.id, p.log, nats.ReconnectWait(100*time.Millisecond), nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond))
	if err != nil {
		return nil, nil, err
	}
	cfg := agent.DefaultSenderConfig()
	cfg.Dir, cfg.AckTimeout = p.dir, 3*time.Second
	s, err := agent.NewSender(cfg, p.id.Device, conn, p.log)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			p.log.Warn("sender ended", "device", p.id.Device, "error", err)
		}
	}()
	p.mu.Lock()
	p.sender = s
	p.restarts++
	p.mu.Unlock()
	return s, func() {
		cancel()
		<-done
		conn.Close()
		p.mu.Lock()
		p.acked += s.Status().Acked
		p.sender = nil
		p.mu.Unlock()
	}, nil
}

func (p *natsProducer) drain(ctx context.Context) error {
	s, stop, err := p.open()
	if err != nil {
		return err
	}
	defer stop()
	if err := s.Wait(ctx); err != nil {
		return fmt.Errorf("device %s still has %d messages (%s): %w", p.id.Device, s.Status().Buffered, s.Status().Failure, err)
	}
	return nil
}

// resend sends the last messages of every boot again, past the buffer.
func (p *natsProducer) resend(ctx context.Context) (int, error) {
	conn, err := agent.Dial(p.id, p.log)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return 0, fmt.Errorf("open jetstream: %w", err)
	}
	n := 0
	boots := slices.Sorted(maps.Keys(p.boots))
	for _, boot := range boots {
		last := p.boots[boot]
		for seq := last - min(last, 200) + 1; seq <= last; seq++ {
			kind, body := "telemetry", fleet.EncodeTelemetry(nil, boot, seq, chaosReadings(time.Now(), seq))
			if seq%10 == 0 {
				kind = "audit"
				if body, err = fleet.EncodeAudit(boot, seq, chaosEvents(time.Now(), seq)); err != nil {
					return n, err
				}
			}
			if _, err := js.Publish(ctx, "fleet."+kind+"."+p.id.Device, body); err != nil {
				return n, fmt.Errorf("send again: %w", err)
			}
			n++
		}
	}
	return n, nil
}

func (p *natsProducer) sent() (n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, last := range p.boots {
		n += last
	}
	return n
}

func (p *natsProducer) receipted() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sender != nil {
		return p.acked + p.sender.Status().Acked
	}
	return p.acked
}

// mqttProducer keeps what has no receipt in memory and sends it again.
type mqttProducer struct {
	id   *agent.Identity
	boot string
	log  *slog.Logger

	mu      sync.Mutex
	seq     uint64
	waiting map[uint64][]byte
	old     map[uint64][]byte // sent and receipted, to send again
	changed chan struct{}
	got     atomic.Uint64
}

func newMQTTProducer(id *agent.Identity, seed uint64, log *slog.Logger) *mqttProducer {
	return &mqttProducer{id: id, boot: fmt.Sprintf("boot-%x", seed), log: log, waiting: map[uint64][]byte{}, old: map[uint64][]byte{}, changed: make(chan struct{}, 1)}
}

const mqttWindow = 1000 // messages without receipt, above which it stops measuring

func (p *mqttProducer) run(ctx context.Context, pace time.Duration) error {
	fresh := make(chan uint64, mqttWindow)
	go p.measure(ctx, pace, fresh)
	p.stay(ctx, fresh)
	return nil
}

// stay connects again and again until ctx ends.
func (p *mqttProducer) stay(ctx context.Context, fresh <-chan uint64) {
	for ctx.Err() == nil {
		if err := p.connected(ctx, fresh); err != nil {
			p.log.Debug("mqtt device", "device", p.id.Device, "error", err)
			_ = pause(ctx, 200*time.Millisecond) // the loop looks at ctx
		}
	}
}

// measure makes messages: columns and JSON in turn.
func (p *mqttProducer) measure(ctx context.Context, pace time.Duration, fresh chan<- uint64) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		if len(p.waiting) < mqttWindow {
			p.seq++
			encode := fleet.AppendColumns
			if p.seq%2 == 0 {
				encode = fleet.EncodeTelemetry
			}
			p.waiting[p.seq] = encode(nil, p.boot, p.seq, chaosReadings(time.Now(), p.seq))
			select {
			case fresh <- p.seq:
			default: // the next connection finds it
			}
		}
		p.mu.Unlock()
	}
}

// connected is one connection: everything without receipt is sent, then what
// is measured, and what has no receipt after a while again.
func (p *mqttProducer) connected(ctx context.Context, fresh <-chan uint64) error {
	lost := make(chan error, 1)
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(p.id.MQTT).SetClientID(p.id.Device).SetTLSConfig(p.id.TLS()).
		SetAutoReconnect(false).SetConnectTimeout(3 * time.Second).SetWriteTimeout(3 * time.Second).SetKeepAlive(5 * time.Second).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost <- err }))
	if err := settled(client.Connect()); err != nil {
		return err
	}
	defer client.Disconnect(0)
	if err := settled(client.Subscribe("fleet/receipt/"+p.id.Device, 1, func(_ mqtt.Client, m mqtt.Message) { p.receipt(m.Payload()) })); err != nil {
		return err
	}
	again := time.NewTicker(4 * time.Second)
	defer again.Stop()
	if err := p.sendAll(client); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			return err
		case <-again.C:
			if err := p.sendAll(client); err != nil {
				return err
			}
		case seq := <-fresh:
			p.mu.Lock()
			body := p.waiting[seq]
			p.mu.Unlock()
			if body != nil {
				if err := settled(client.Publish("fleet/telemetry/"+p.id.Device, 1, false, body)); err != nil {
					return err
				}
			}
		}
	}
}

func (p *mqttProducer) sendAll(client mqtt.Client) error {
	p.mu.Lock()
	list := slices.Sorted(maps.Keys(p.waiting))
	bodies := make([][]byte, len(list))
	for i, seq := range list {
		bodies[i] = p.waiting[seq]
	}
	p.mu.Unlock()
	for _, body := range bodies {
		if err := settled(client.Publish("fleet/telemetry/"+p.id.Device, 1, false, body)); err != nil {
			return err
		}
	}
	return nil
}

var errNoAnswer = errors.New("no answer from the broker")

func settled(token mqtt.Token) error {
	if !token.WaitTimeout(5 * time.Second) {
		return errNoAnswer
	}
	return token.Error()
}

func (p *mqttProducer) receipt(raw []byte) {
	var r struct {
		Boot string `json:"boot"`
		Seq  uint64 `json:"seq"`
	}
	if json.Unmarshal(raw, &r) != nil || r.Boot != p.boot {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	body, ok := p.waiting[r.Seq]
	if !ok {
		return
	}
	delete(p.waiting, r.Seq)
	p.got.Add(1)
	if len(p.old) < 1000 {
		p.old[r.Seq] = body
	}
	if len(p.waiting) == 0 {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

func (p *mqttProducer) drain(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.stay(ctx, nil)
	for {
		p.mu.Lock()
		left := len(p.waiting)
		p.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-p.changed:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("device %s still waits for %d receipts: %w", p.id.Device, left, ctx.Err())
		}
	}
}

// resend treats old messages as if they had no receipt.
func (p *mqttProducer) resend(ctx context.Context) (int, error) {
	p.mu.Lock()
	n := len(p.old)
	maps.Copy(p.waiting, p.old)
	before := p.got.Load()
	p.mu.Unlock()
	err := p.drain(ctx)
	p.got.Store(before)
	return n, err
}

func (p *mqttProducer) sent() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seq
}

func (p *mqttProducer) receipted() uint64 { return p.got.Load() }
