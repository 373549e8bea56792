package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"cordon/internal/fleet"
)

// Config of an agent.
type Config struct {
	Dir      string        // state: buffer, position in the authentication log
	Interval time.Duration // between measurements
	AuthLog  string        // file to follow; empty: the journal, else the usual files
	Buffer   int64         // bytes of the disk buffer
	Renew    time.Duration // between questions whether the certificate is due
}

// DefaultConfig measures every ten seconds.
func DefaultConfig() Config {
	return Config{Interval: 10 * time.Second, Buffer: 256 << 20, Renew: time.Hour}
}

// Deps of an agent.
type Deps struct {
	Identity *Identity
	Log      *slog.Logger
	Clock    func() time.Time // nil: time.Now
}

// Agent streams the metrics and the authentication log of this host.
type Agent struct {
	cfg  Config
	deps Deps
}

// New makes an agent; Run starts it.
func New(cfg Config, deps Deps) *Agent {
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	return &Agent{cfg: cfg, deps: deps}
}

// Run streams until ctx ends. Without a network it goes on measuring into the
// buffer.
func (a *Agent) Run(ctx context.Context) error {
	if a.cfg.Interval <= 0 {
		return fleet.Errorf(fleet.CodeInvalid, "interval %s is not positive", a.cfg.Interval)
	}
	id, log := a.deps.Identity, a.deps.Log
	obey := &obeyer{device: id.Device, authorities: id.authorities, dir: a.cfg.Dir, clock: a.deps.Clock, log: log}
	conn, err := Dial(id, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	cfg := DefaultSenderConfig()
	cfg.Dir, cfg.Bytes = filepath.Join(a.cfg.Dir, "buffer"), a.cfg.Buffer
	sender, err := NewSender(cfg, id.Device, conn, log)
	if err != nil {
		return err
	}
	obey.sender = sender
	if err := obey.listen(conn); err != nil {
		return err
	}
	conn.SetReconnectHandler(func(*nats.Conn) { obey.reconnected() })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	run := func(name string, part func(context.Context) error) {
		wait.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				mu.Unlock()
				cancel()
			}
		})
	}
	keep := &keeper{id: id, conn: conn, dir: a.cfg.Dir, every: a.cfg.Renew, log: log}
	run("renew certificate", keep.run)
	run("measure", func(ctx context.Context) error { return a.measure(ctx, sender) })
	run("follow authentication log", func(ctx context.Context) error { return a.follow(ctx, sender) })
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- sender.Run(sending) }()
	wait.Wait()
	// What was measured last gets a moment to leave; the rest stays on disk.
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	if conn.IsConnected() {
		_ = sender.Wait(grace) // what is not acknowledged by then is sent at the next start
	}
	done()
	stop()
	return errors.Join(append(errs, <-sent)...)
}

func (a *Agent) measure(ctx context.Context, sender *Sender) error {
	var host Host
	now := a.deps.Clock()
	if _, err := host.Measure(ctx, now); err != nil { // rates need a first measurement
		a.deps.Log.Warn("some metrics cannot be measured here", "error", err)
	}
	started := fleet.AuditEvent{
		ObservedAt: now.UTC(), Class: "system", Activity: "start", Outcome: "success", Program: "cordon-agent",
		Message: "agent started, boot " + sender.Boot(),
	}
	if err := sender.Audit(ctx, []fleet.AuditEvent{started}); err != nil {
		return err
	}
	ticker := time.NewTicker(a.cfg.Interval)
	defer ticker.Stop()
	losses := lossReport{path: filepath.Join(a.cfg.Dir, "dropped-reported")}
	losses.load()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		readings, err := host.Measure(ctx, a.deps.Clock())
		if err != nil {
			a.deps.Log.Debug("some metrics were not measured", "error", err)
		}
		if err := sender.Telemetry(ctx, readings); err != nil {
			// A full disk must not end the agent: the next measurement may fit.
			a.deps.Log.Warn("measurement is lost", "error", err)
		}
		if err := losses.report(ctx, sender, a.deps.Clock()); err != nil {
			a.deps.Log.Warn("cannot report dropped messages", "error", err)
		}
	}
}

// lossReport tells Cordon, once the connection is back, how many messages a
// full buffer dropped. What was reported is kept over restarts.
type lossReport struct {
	path     string
	reported uint64
}

func (l *lossReport) load() {
	raw, err := os.ReadFile(l.path)
	if err != nil {
		return // nothing was reported yet
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64); err == nil {
		l.reported = n
	}
}

func (l *lossReport) report(ctx context.Context, sender *Sender, now time.Time) error {
	st := sender.Status()
	if !st.Connected || st.Dropped <= l.reported {
		return nil
	}
	err := sender.Audit(ctx, []fleet.AuditEvent{{
		ObservedAt: now.UTC(), Class: "system", Activity: "drop", Outcome: "failure", Program: "cordon-agent",
		Message: fmt.Sprintf("buffer full: %d messages were dropped", st.Dropped-l.reported),
		Fields:  map[string]string{"dropped": strconv.FormatUint(st.Dropped-l.reported, 10)},
	}})
	if err != nil {
		return err
	}
	l.reported = st.Dropped
	return writeFile(l.path, []byte(strconv.FormatUint(l.reported, 10)))
}

// follow finds the authentication log and sends its lines.
func (a *Agent) follow(ctx context.Context, sender *Sender) error {
	send := func(ctx context.Context, lines []byte) error { return sender.Syslog(ctx, lines, 0) }
	if a.cfg.AuthLog == "" && hasJournal(ctx) {
		return (&journal{dir: a.cfg.Dir, send: send, log: a.deps.Log}).run(ctx)
	}
	path := a.cfg.AuthLog
	for _, usual := range []string{"/var/log/auth.log", "/var/log/secure"} {
		if path != "" {
			break
		}
		if _, err := os.Stat(usual); !errors.Is(err, fs.ErrNotExist) {
			path = usual
		}
	}
	if path == "" {
		a.deps.Log.Warn("this host has no authentication log that the agent knows: name one with --auth-log FILE")
		<-ctx.Done()
		return nil
	}
	return (&follower{path: path, dir: a.cfg.Dir, send: send, log: a.deps.Log}).run(ctx)
}
