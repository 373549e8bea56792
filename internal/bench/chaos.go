package bench

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/ingest"
	"cordon/internal/agent"
	"cordon/internal/store"
)

// ChaosConfig says how to break things.
type ChaosConfig struct {
	Executable string // of cordon; "" is this program
	Seed       uint64
	Duration   time.Duration
	NATS, MQTT int // producers of each kind
	Log        *slog.Logger
	Progress   io.Writer
}

// ChaosResult is what cordon bench chaos prints.
type ChaosResult struct {
	Seed         uint64         `json:"seed"`
	Sent         uint64         `json:"sent"` // messages
	Receipted    uint64         `json:"receipted"`
	Stored       uint64         `json:"stored"`
	Duplicates   uint64         `json:"duplicates"` // readings and events that are there twice
	Lost         uint64         `json:"lost"`       // messages with a receipt that are not there
	DeadLettered uint64         `json:"dead_lettered"`
	DeadExpected uint64         `json:"dead_expected"` // malformed messages that the broker took
	DeadUnsure   uint64         `json:"dead_unsure"`   // and those whose answer never came
	Resent       int            `json:"resent"`        // old messages sent again at the end
	OutOfOrder   uint64         `json:"out_of_order"`
	RollupsEqual bool           `json:"rollups_equal"`
	Kills        int            `json:"kills"`
	Faults       map[string]int `json:"faults"` // by kind
}

// Err says what is wrong with a result.
func (r ChaosResult) Err() error {
	switch {
	case r.Lost > 0, r.Duplicates > 0, r.Stored != r.Sent, r.Receipted != r.Sent, r.DeadLettered < r.DeadExpected, r.DeadLettered > r.DeadExpected+r.DeadUnsure:
		return fmt.Errorf("sent %d, receipted %d, stored %d, lost %d, twice %d, dead letters %d of %d", r.Sent, r.Receipted, r.Stored, r.Lost, r.Duplicates, r.DeadLettered, r.DeadExpected)
	case !r.RollupsEqual:
		return errors.New("the roll-ups count something else than the readings")
	}
	return nil
}

// chaos is one run.
type chaos struct {
	cfg       ChaosConfig
	dir       string
	random    *rand.Rand
	cordon    *process
	proxies   []*proxy // before NATS and MQTT
	producers []producer
	dead      atomic.Uint64
	unsure    atomic.Uint64
	result    ChaosResult
	points    []string
}

// Chaos runs real processes and real producers, breaks what can be broken and
// counts what is stored. A failure is repeated with its seed, as far as the
// machine's own timing allows.
func Chaos(ctx context.Context, cfg ChaosConfig) (ChaosResult, error) {
	c := &chaos{cfg: cfg, random: rand.New(rand.NewPCG(cfg.Seed, 0)), result: ChaosResult{Seed: cfg.Seed, Faults: map[string]int{}}} //nolint:gosec // repeatable
	err := c.run(ctx)
	for _, p := range c.proxies {
		p.close()
	}
	if c.cordon != nil {
		c.cordon.stop()
	}
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return c.result, err
}

func (c *chaos) say(format string, args ...any) { fmt.Fprintf(c.cfg.Progress, format+"\n", args...) }

func (c *chaos) run(ctx context.Context) (err error) {
	c.say("seed %d", c.cfg.Seed)
	executable := c.cfg.Executable
	if executable == "" {
		if executable, err = os.Executable(); err != nil {
			return fmt.Errorf("find own executable: %w", err)
		}
	}
	if c.dir, err = os.MkdirTemp("", "cordon-chaos-"); err != nil {
		return fmt.Errorf("make directory of bench: %w", err)
	}
	if c.cordon, err = newProcess(ctx, executable, c.dir); err != nil {
		return err
	}
	if err := c.cordon.start(ctx, ingest.BenchFaults{}); err != nil {
		return err
	}
	if err := c.enrol(ctx); err != nil {
		return err
	}
	if err := c.breakThings(ctx); err != nil {
		return err
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	return c.count(ctx)
}

// enrol makes the producers, each behind a proxy.
func (c *chaos) enrol(ctx context.Context) error {
	pem, err := os.ReadFile(c.cordon.ready.CA)
	if err != nil {
		return fmt.Errorf("read authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	token, err := os.ReadFile(c.cordon.ready.CLITokenFile)
	if err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	client, err := agent.NewClient(c.cordon.ready.URL, strings.TrimSpace(string(token)), pool)
	if err != nil {
		return err
	}
	addresses := make([]string, 2)
	for i, target := range []string{c.cordon.ready.NATS, c.cordon.ready.MQTT} {
		u, err := url.Parse(target)
		if err != nil {
			return fmt.Errorf("read address: %w", err)
		}
		p, err := newProxy(ctx, u.Host)
		if err != nil {
			return err
		}
		c.proxies = append(c.proxies, p)
		u.Host = p.address()
		addresses[i] = u.String()
	}
	for i := range c.cfg.NATS + c.cfg.MQTT {
		device := fmt.Sprintf("chaos-%d", i)
		ticket, err := client.Register(ctx, agent.Registration{ID: device, Cohort: "chaos"})
		if err != nil {
			return err
		}
		id, err := agent.NewIdentity(ctx, client, ticket)
		if err != nil {
			return err
		}
		id.NATS, id.MQTT = addresses[0], addresses[1]
		seed := c.random.Uint64()
		if i < c.cfg.NATS {
			c.producers = append(c.producers, newNATSProducer(id, c.dir, seed, c.cfg.Log))
		} else {
			c.producers = append(c.producers, newMQTTProducer(id, seed, c.cfg.Log))
		}
	}
	return nil
}

// pace is how often a producer sends.
const pace = 5 * time.Millisecond

// breakThings lets the producers send for the time given, and one fault after
// the other happen.
func (c *chaos) breakThings(ctx context.Context) error {
	running, stop := context.WithTimeout(ctx, c.cfg.Duration)
	defer stop()
	var wait sync.WaitGroup
	failed := make(chan error, len(c.producers)+1)
	for _, p := range c.producers {
		wait.Go(func() {
			if err := p.run(running, pace); err != nil {
				failed <- err
			}
		})
	}
	wait.Go(func() { c.malformed(running) })
	defer wait.Wait()
	defer stop()
	for running.Err() == nil {
		if err := c.fault(running); err != nil {
			if running.Err() != nil {
				return nil //nolint:nilerr // the time is over
			}
			return err
		}
		select {
		case err := <-failed:
			return err
		default:
		}
	}
	return nil
}

// malformed sends messages that must become dead letters, and counts those
// that the broker took.
func (c *chaos) malformed(ctx context.Context) {
	p, ok := c.producers[0].(*natsProducer)
	if !ok {
		return
	}
	conn, err := agent.Dial(p.id, c.cfg.Log)
	if err != nil {
		return
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return
	}
	for i := 0; ctx.Err() == nil; i++ {
		// The broker knows a copy by its id, so that a message whose answer was
		// lost may be sent again until there is one.
		body, msgID := fmt.Appendf(nil, `{"metrics":{"a":%d`, i), fmt.Sprintf("malformed-%d-%d", c.cfg.Seed, i)
		for {
			once, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			_, err := js.Publish(once, "fleet.telemetry."+p.id.Device, body, jetstream.WithMsgID(msgID))
			cancel()
			if err == nil {
				c.dead.Add(1)
				break
			}
			if pause(ctx, 100*time.Millisecond) != nil {
				c.unsure.Add(1) // it may have been taken
				return
			}
		}
		if pause(ctx, 250*time.Millisecond) != nil {
			return
		}
	}
}

// faultPoints are where a process kills itself between two steps of storing a
// block.
var faultPoints = []string{
	ingest.FaultBlock, ingest.FaultIntent, ingest.FaultTelemetry, ingest.FaultAudit, ingest.FaultInserted, ingest.FaultAcked, ingest.FaultCheckpoint,
}

// nextPoint goes through the points in random order, again and again.
func (c *chaos) nextPoint() string {
	if len(c.points) == 0 {
		for _, i := range c.random.Perm(len(faultPoints)) {
			c.points = append(c.points, faultPoints[i])
		}
	}
	point := c.points[0]
	c.points = c.points[1:]
	return point
}

// fault lets one thing go wrong, and mends it.
func (c *chaos) fault(ctx context.Context) error {
	if err := pause(ctx, time.Duration(300+c.random.IntN(1500))*time.Millisecond); err != nil {
		return err
	}
	switch k := c.random.IntN(10); {
	case k < 5:
		return c.restart(ctx)
	case k < 6:
		c.note("engine killed")
		return c.signalEngine(syscall.SIGKILL)
	case k < 7:
		c.note("engine away")
		if err := c.signalEngine(syscall.SIGSTOP); err != nil {
			return err
		}
		err := pause(ctx, time.Duration(500+c.random.IntN(3000))*time.Millisecond)
		return errors.Join(err, c.signalEngine(syscall.SIGCONT))
	case k < 8:
		c.note("connections cut")
		c.proxies[c.random.IntN(len(c.proxies))].cut()
	case k < 9:
		c.note("broker out of reach")
		p := c.proxies[c.random.IntN(len(c.proxies))]
		p.down.Store(true)
		p.cut()
		err := pause(ctx, time.Duration(200+c.random.IntN(2000))*time.Millisecond)
		p.down.Store(false)
		return err
	default:
		c.note("slow network")
		p := c.proxies[c.random.IntN(len(c.proxies))]
		p.delay.Store(int64(time.Duration(1+c.random.IntN(50)) * time.Millisecond))
		err := pause(ctx, time.Duration(200+c.random.IntN(2000))*time.Millisecond)
		p.delay.Store(0)
		return err
	}
	return nil
}

func (c *chaos) note(kind string) {
	c.result.Faults[kind]++
	c.say("%s", kind)
}

// restart kills Cordon, and starts it so that it kills itself at a point of
// the block protocol, with another size of blocks each time; then without.
func (c *chaos) restart(ctx context.Context) error {
	c.note("killed at random")
	c.cordon.kill()
	c.result.Kills++
	faults := ingest.BenchFaults{Point: c.nextPoint(), After: 1 + c.random.IntN(3), Rows: 50 + c.random.IntN(3000)}
	err := c.cordon.start(context.WithoutCancel(ctx), faults)
	if err != nil && !errors.Is(err, errKilled) {
		return err
	}
	select {
	case <-c.cordon.ended:
		c.note("killed at " + faults.Point)
		c.result.Kills++
	case <-time.After(15 * time.Second): // the point was not reached
		c.say("still alive: %s", faults)
		c.cordon.kill()
	case <-ctx.Done():
		c.cordon.kill()
	}
	return c.cordon.start(context.WithoutCancel(ctx), ingest.BenchFaults{Rows: 50 + c.random.IntN(3000)})
}

func (c *chaos) signalEngine(sig syscall.Signal) error {
	pid := c.cordon.engine()
	if pid == 0 {
		return nil // being started again
	}
	if sig == syscall.SIGKILL {
		c.result.Kills++
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal engine: %w", err)
	}
	return nil
}

// settleWithin is how long everything may take to come to rest.
const settleWithin = 3 * time.Minute

// settle mends everything, waits for every receipt, then lets devices send
// old messages again.
func (c *chaos) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	if c.cordon.running() { // maybe with a fault to come
		c.cordon.kill()
	}
	if err := c.cordon.start(ctx, ingest.BenchFaults{}); err != nil {
		return err
	}
	c.say("waiting for receipts")
	for _, p := range c.producers {
		if err := p.drain(ctx); err != nil {
			return err
		}
	}
	c.say("restarting, and sending old messages again")
	c.cordon.kill()
	c.result.Kills++
	if err := c.cordon.start(ctx, ingest.BenchFaults{}); err != nil {
		return err
	}
	for _, p := range c.producers {
		n, err := p.resend(ctx)
		c.result.Resent += n
		if err != nil {
			return err
		}
	}
	return nil
}

// count compares what was sent with what is stored.
func (c *chaos) count(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	for _, p := range c.producers {
		c.result.Sent += p.sent()
		c.result.Receipted += p.receipted()
	}
	c.result.DeadExpected, c.result.DeadUnsure = c.dead.Load(), c.unsure.Load()
	s, err := store.Open(ctx, c.cordon.ready.ClickHouse, c.cfg.Log, store.Options{RawKey: make([]byte, 32)})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	for calm := 0; ; {
		v, err := s.Verify(ctx)
		if err != nil {
			return err
		}
		before := c.result
		c.take(v)
		if c.result.Err() == nil && before.Stored == c.result.Stored && before.DeadLettered == c.result.DeadLettered {
			if calm++; calm == 3 {
				return nil
			}
		} else {
			calm = 0
		}
		if pause(ctx, 500*time.Millisecond) != nil {
			return nil // the result says what is missing
		}
	}
}

func (c *chaos) take(v store.Verification) {
	r := &c.result
	r.Stored, r.Duplicates, r.DeadLettered, r.OutOfOrder = v.Identified, v.Twice, v.DeadLetters, v.OutOfOrder
	r.Duplicates += v.DeadLetters - v.DeadDistinct
	r.Lost = r.Receipted - min(r.Stored, r.Receipted)
	r.RollupsEqual = true
	for _, n := range v.RollupReadings {
		r.RollupsEqual = r.RollupsEqual && n == v.Readings
	}
}
