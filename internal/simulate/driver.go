package simulate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

// DriverConfig says how a fleet is streamed.
type DriverConfig struct {
	Dir         string        // where identities are kept for the next run; empty: in memory only
	Interval    time.Duration // between measurements of a device
	HistoryStep time.Duration // the same for the past
	Parallel    int           // enrolments at a time
	Buffer      int64         // bytes per device of what is not acknowledged
}

// DefaultDriverConfig measures every ten seconds, and the past every minute.
func DefaultDriverConfig() DriverConfig {
	return DriverConfig{Interval: 10 * time.Second, HistoryStep: time.Minute, Parallel: 8, Buffer: 256 << 10}
}

// DriverDeps of a driver.
type DriverDeps struct {
	Issuer agent.Issuer
	Log    *slog.Logger
	Clock  func() time.Time // nil: time.Now
}

// Driver streams a fleet over one mTLS connection per device.
type Driver struct {
	cfg     DriverConfig
	deps    DriverDeps
	fleet   *Fleet
	devices []*driven
	sent    atomic.Uint64 // readings
}

// driven is a device with its connection.
type driven struct {
	identity *agent.Identity
	conn     *nats.Conn
	sender   *agent.Sender
	stop     context.CancelFunc
	done     chan struct{}
	until    time.Time // what was sent
}

// NewDriver makes a driver; nothing happens before Connect.
func NewDriver(cfg DriverConfig, f *Fleet, deps DriverDeps) *Driver {
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	return &Driver{cfg: cfg, deps: deps, fleet: f, devices: make([]*driven, f.Len())}
}

// Sent is the number of readings handed to the connections.
func (d *Driver) Sent() uint64 { return d.sent.Load() }

// Connect enrols every device that has no identity yet and opens its
// connection. progress is called with the number of connected devices and may
// be nil.
func (d *Driver) Connect(ctx context.Context, progress func(done, total int)) error {
	next := make(chan int)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range max(d.cfg.Parallel, 1) {
		wait.Go(func() {
			for i := range next {
				if err := d.connect(ctx, i); err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				if done++; progress != nil {
					progress(done, len(d.devices))
				}
				mu.Unlock()
			}
		})
	}
feed:
	for i := range d.devices {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

func (d *Driver) connect(ctx context.Context, i int) error {
	identity, err := identify(ctx, d.deps, d.cfg.Dir, d.fleet.Registration(i))
	if err != nil {
		return err
	}
	d.devices[i] = &driven{identity: identity}
	return d.open(ctx, d.devices[i])
}

// identify loads a device's identity or enrols it.
func identify(ctx context.Context, deps DriverDeps, dir string, r agent.Registration) (*agent.Identity, error) {
	if dir != "" {
		id, err := agent.Load(filepath.Join(dir, r.ID))
		if err == nil && !id.Expired(deps.Clock()) {
			return id, nil
		}
		if err != nil && !errors.Is(err, agent.ErrNoIdentity) {
			return nil, err
		}
	}
	token, err := deps.Issuer.Register(ctx, r)
	if fleet.CodeOf(err) == fleet.CodeConflict {
		return nil, fmt.Errorf("%w: a simulated fleet needs a Cordon that does not know its devices, or the directory that an earlier run kept them in", err)
	}
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return agent.NewIdentity(ctx, deps.Issuer, token)
	}
	return agent.EnrollWith(ctx, deps.Issuer, token, filepath.Join(dir, r.ID))
}

func (d *Driver) open(ctx context.Context, dev *driven) error {
	conn, err := agent.Dial(dev.identity, d.deps.Log)
	if err != nil {
		return err
	}
	cfg := agent.DefaultSenderConfig()
	cfg.Bytes, cfg.Block, cfg.Window = d.cfg.Buffer, true, 32
	sender, err := agent.NewSender(cfg, dev.identity.Device, conn, d.deps.Log)
	if err != nil {
		conn.Close()
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	dev.conn, dev.sender, dev.stop, dev.done = conn, sender, stop, make(chan struct{})
	go func() {
		defer close(dev.done)
		if err := sender.Run(running); err != nil {
			d.deps.Log.Warn("simulated device stopped", "device", dev.identity.Device, "error", err)
		}
	}()
	return nil
}

func (dev *driven) shut() {
	if dev == nil || dev.conn == nil {
		return
	}
	dev.stop()
	<-dev.done
	dev.conn.Close()
	dev.conn = nil
}

// Close gives what is under way a moment to be acknowledged and closes every
// connection.
func (d *Driver) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, dev := range d.devices {
		if dev != nil && dev.conn != nil && dev.conn.IsConnected() {
			_ = dev.sender.Wait(ctx) // the rest is lost with the simulation
		}
		dev.shut()
	}
}

// One message of the past holds at most this much of it.
const (
	historyChunk = 30 * time.Minute
	historySteps = 200
)

// History sends the past, from from to to, as fast as Cordon takes it, and
// returns once all of it is acknowledged. progress is called with the number
// of readings sent and to send; it may be nil.
func (d *Driver) History(ctx context.Context, from, to time.Time, progress func(done, total uint64)) error {
	step := d.cfg.HistoryStep
	if step <= 0 || !from.Before(to) {
		return nil
	}
	var perStep uint64
	for i := range d.devices {
		perStep += uint64(len(d.fleet.Next(i, from)))
	}
	total := perStep * uint64(to.Sub(from)/step)
	var sent uint64
	var readings []fleet.Reading
	chunk := min(historyChunk, historySteps*step)
	for start := from; start.Before(to); start = start.Add(chunk) {
		end := start.Add(chunk)
		if end.After(to) {
			end = to
		}
		for i, dev := range d.devices {
			readings = readings[:0]
			for at := start; at.Before(end); at = at.Add(step) {
				readings = d.fleet.AppendNext(readings, i, at)
			}
			if err := dev.send(ctx, readings, d.fleet.Events(i, start, end)); err != nil {
				return fmt.Errorf("send history: %w", err)
			}
			dev.until = end
			sent += uint64(len(readings))
			d.sent.Add(uint64(len(readings)))
		}
		if progress != nil {
			progress(sent, max(total, sent))
		}
	}
	for _, dev := range d.devices {
		if err := dev.sender.Wait(ctx); err != nil {
			return fmt.Errorf("send history: %w", err)
		}
	}
	return nil
}

// send hands over readings and log entries.
func (dev *driven) send(ctx context.Context, readings []fleet.Reading, log Log) error {
	if err := dev.sender.Telemetry(ctx, readings); err != nil {
		return err
	}
	if log.empty() {
		return nil
	}
	return errors.Join(dev.sender.Syslog(ctx, log.Lines, 0), dev.sender.Audit(ctx, log.Events))
}

// Live streams until ctx ends. Devices take turns within the interval, and a
// silent one hangs up.
func (d *Driver) Live(ctx context.Context) error {
	const beats = 20 // per interval
	beat := max(d.cfg.Interval/beats, 10*time.Millisecond)
	now := d.deps.Clock()
	due := make([]time.Time, len(d.devices))
	for i, dev := range d.devices {
		dev.sender.Block(false) // a quarantined device must not hold up the others
		if dev.until.IsZero() {
			dev.until = now
		}
		due[i] = now.Add(time.Duration(uniform(key(d.fleet.devices[i].seed, 11)) * float64(d.cfg.Interval)))
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		for i, dev := range d.devices {
			if now.Before(due[i]) {
				continue
			}
			due[i] = due[i].Add(d.cfg.Interval)
			if due[i].Before(now) { // the process slept: no burst
				due[i] = now.Add(d.cfg.Interval)
			}
			if err := d.measure(ctx, i, dev, now); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			now = d.deps.Clock()
		}
	}
}

func (d *Driver) measure(ctx context.Context, i int, dev *driven, now time.Time) error {
	silent := d.fleet.Silent(i, now)
	switch {
	case silent && dev.conn != nil:
		dev.shut()
	case !silent && dev.conn == nil:
		if err := d.open(ctx, dev); err != nil {
			return err
		}
		dev.sender.Block(false)
	}
	from := dev.until
	dev.until = now
	if silent {
		return nil
	}
	readings := d.fleet.Next(i, now)
	d.sent.Add(uint64(len(readings)))
	if err := dev.send(ctx, readings, d.fleet.Events(i, from, now)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}
