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
	// Settle waits until Cordon has stored and judged the past; it may be nil.
	Settle func(ctx context.Context) error
}

// DefaultDemoConfig is 200 devices with three days behind them, measured
// every two minutes: six million readings.
func DefaultDemoConfig() DemoConfig {
	cfg := DemoConfig{Devices: 200, Seed: 1, History: 72 * time.Hour, Driver: DefaultDriverConfig(), Plans: DemoPlans()}
	cfg.Driver.HistoryStep = 2 * time.Minute
	return cfg
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
	since, err := d.since()
	if err != nil {
		return err
	}
	deps := DriverDeps(d.deps)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	host := make(chan struct{})
	hosted := false
	cfg := DefaultRunConfig()
	cfg.Fleet = Config{Devices: d.cfg.Devices, Seed: d.cfg.Seed, Plans: d.cfg.Plans}
	cfg.Driver, cfg.Driver.Dir = d.cfg.Driver, devices
	cfg.History, cfg.Since, cfg.Progress, cfg.Settle, cfg.Saved = d.cfg.History, since, d.cfg.Progress, d.cfg.Settle, d.save
	cfg.Truth = filepath.Join(d.cfg.Dir, "truth.json")
	cfg.Live = func(truth []Attack) {
		hosted = true
		go func() {
			defer close(host)
			d.host(ctx, deps, devices)
		}()
		if live != nil {
			live(truth)
		}
	}
	err = Run(ctx, cfg, deps)
	cancel()
	if hosted {
		<-host
	}
	return err
}

// since is up to when an earlier run has sent the past.
func (d *Demo) since() (time.Time, error) {
	raw, err := os.ReadFile(filepath.Join(d.cfg.Dir, demoStateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	var state demoState
	if err == nil {
		err = json.Unmarshal(raw, &state)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read demo state: %w", err)
	}
	return state.Until, nil
}

func (d *Demo) save(until time.Time) {
	raw, err := json.Marshal(demoState{Until: until.UTC()})
	if err == nil {
		err = os.WriteFile(filepath.Join(d.cfg.Dir, demoStateFile), raw, 0o600)
	}
	if err != nil {
		d.deps.Log.Warn("demo state is not stored, the next start sends the past again", "error", err)
	}
}

// host runs this host's own agent. The demo goes on without it.
func (d *Demo) host(ctx context.Context, deps DriverDeps, devices string) {
	identity, err := identify(ctx, deps, devices, agent.Registration{
		ID: ThisHost, Cohort: "host", Site: "here", Model: "demo host", Owner: "you", Tags: []string{"real"},
	})
	if err != nil {
		d.deps.Log.Warn("the demo runs without this host's own agent", "error", err)
		return
	}
	cfg := agent.DefaultConfig()
	cfg.Dir = filepath.Join(devices, ThisHost)
	if err := agent.New(cfg, agent.Deps{Identity: identity, Log: d.deps.Log, Clock: d.deps.Clock}).Run(ctx); err != nil {
		d.deps.Log.Warn("this host's own agent ended", "error", err)
	}
}
