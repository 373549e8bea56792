package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"cordon/internal/agent"
)

// ThisHost is the device id of the host that the demo runs on.
const ThisHost = "this-host"

// DemoPlans are the demo's attacks, counted from the start of the live part.
func DemoPlans() []Plan {
	return []Plan{
		{Attack: BruteForce, After: 45 * time.Second},
		{Attack: Exfiltration, After: 75 * time.Second},
		{Attack: Cryptominer, After: 2 * time.Minute},
		{Attack: BotnetScan, After: 3 * time.Minute},
		{Attack: Tamper, After: 4 * time.Minute},
		{Attack: FirmwareSwap, After: 5 * time.Minute},
		{Attack: Silent, After: 6 * time.Minute},
		{Attack: SlowDrift, After: 7 * time.Minute, Lasts: time.Hour},
		{Attack: BruteForce, After: 9 * time.Minute},
		{Attack: Exfiltration, After: 12 * time.Minute},
	}
}

// DemoConfig of the demo fleet.
type DemoConfig struct {
	Dir     string // where identities, the host's agent and the truth are kept
	Devices int
	Seed    uint64
	History time.Duration // simulated past
	Driver  DriverConfig
	Plans   []Plan
	// Progress is told what is going on and how far it has come; it may be nil.
	Progress func(doing string, done, total uint64)
}

// DefaultDemoConfig is 200 devices with three days behind them.
func DefaultDemoConfig() DemoConfig {
	return DemoConfig{Devices: 200, Seed: 1, History: 72 * time.Hour, Driver: DefaultDriverConfig(), Plans: DemoPlans()}
}

// DemoDeps of the demo.
type DemoDeps struct {
	Issuer agent.Issuer
	Log    *slog.Logger
	Clock  func() time.Time // nil: time.Now
}

// Demo is a simulated fleet and this host's own agent.
type Demo struct {
	cfg  DemoConfig
	deps DemoDeps
}

// NewDemo makes a demo; Run starts it.
func NewDemo(cfg DemoConfig, deps DemoDeps) *Demo {
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, uint64, uint64) {}
	}
	return &Demo{cfg: cfg, deps: deps}
}

// demoState survives a restart: the past is sent only once.
type demoState struct {
	Until time.Time `json:"until"`
}

const demoStateFile = "demo.json"

// Run enrols the fleet, sends its past, calls live (which may be nil) and
// streams until ctx ends.
func (d *Demo) Run(ctx context.Context, live func(truth []Attack)) error {
	devices := filepath.Join(d.cfg.Dir, "devices")
	if err := os.MkdirAll(devices, 0o700); err != nil {
		return fmt.Errorf("make demo directory: %w", err)
	}
	cfg := d.cfg.Driver
	cfg.Dir = devices
	deps := DriverDeps(d.deps)
	past, err := New(Config{Devices: d.cfg.Devices, Seed: d.cfg.Seed})
	if err != nil {
		return err
	}
	driver := NewDriver(cfg, past, deps)
	defer driver.Close(context.WithoutCancel(ctx))
	err = driver.Connect(ctx, func(done, total int) { d.cfg.Progress("enrolling devices", uint64(done), uint64(total)) })
	if err != nil {
		return err
	}
	if err := d.history(ctx, driver); err != nil {
		return err
	}
	// The attacks count from now, when somebody can look.
	now, err := New(Config{Devices: d.cfg.Devices, Seed: d.cfg.Seed, Plans: d.cfg.Plans, Start: d.deps.Clock()})
	if err != nil {
		return err
	}
	if err := now.WriteTruth(filepath.Join(d.cfg.Dir, "truth.json")); err != nil {
		return err
	}
	driver.fleet = now
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	host := make(chan error, 1)
	go func() { host <- d.host(ctx, deps, devices) }()
	if live != nil {
		live(now.Truth())
	}
	err = driver.Live(ctx)
	d.save(driver)
	cancel()
	return errors.Join(err, <-host)
}

// history sends the past that an earlier run has not sent.
func (d *Demo) history(ctx context.Context, driver *Driver) error {
	now := d.deps.Clock().Truncate(time.Second)
	from := now.Add(-d.cfg.History)
	raw, err := os.ReadFile(filepath.Join(d.cfg.Dir, demoStateFile))
	if err == nil {
		var state demoState
		if err := json.Unmarshal(raw, &state); err != nil {
			return fmt.Errorf("read demo state: %w", err)
		}
		if state.Until.After(from) {
			from = state.Until
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read demo state: %w", err)
	}
	err = driver.History(ctx, from, now, func(done, total uint64) { d.cfg.Progress("sending three days of history", done, total) })
	if err != nil {
		return err
	}
	d.save(driver)
	return nil
}

func (d *Demo) save(driver *Driver) {
	raw, err := json.Marshal(demoState{Until: d.deps.Clock().UTC()})
	if err == nil {
		err = os.WriteFile(filepath.Join(d.cfg.Dir, demoStateFile), raw, 0o600)
	}
	if err != nil {
		d.deps.Log.Warn("demo state is not stored, the next start sends the past again", "error", err, "sent", driver.Sent())
	}
}

// host runs this host's own agent. The demo goes on without it.
func (d *Demo) host(ctx context.Context, deps DriverDeps, devices string) error {
	identity, err := identify(ctx, deps, devices, agent.Registration{
		ID: ThisHost, Cohort: "host", Site: "here", Model: "demo host", Owner: "you", Tags: []string{"real"},
	})
	if err != nil {
		d.deps.Log.Warn("the demo runs without this host's own agent", "error", err)
		return nil
	}
	cfg := agent.DefaultConfig()
	cfg.Dir = filepath.Join(devices, ThisHost)
	if err := agent.New(cfg, agent.Deps{Identity: identity, Log: d.deps.Log, Clock: d.deps.Clock}).Run(ctx); err != nil {
		d.deps.Log.Warn("this host's own agent ended", "error", err)
	}
	return nil
}
