package simulate

import (
	"context"
	"fmt"
	"time"
)

// RunConfig of a simulated fleet, from enrolment to the last reading.
type RunConfig struct {
	Fleet    Config // its Start is when the live part begins
	Driver   DriverConfig
	History  time.Duration // simulated past to send first
	Since    time.Time     // no past before this: an earlier run sent it
	Duration time.Duration // of the live part; 0: until the context ends
	Truth    string        // file to write the truth to; empty: none
	// Progress is told what is going on and how far it has come, by one
	// caller at a time.
	Progress func(doing string, done, total uint64)
	// Live is told the truth when the live part begins.
	Live func(truth []Attack)
	// Settle waits until Cordon has stored and judged the past, so that the
	// present is not queued behind it; it may be nil.
	Settle func(ctx context.Context) error
	// Saved is told up to when everything was sent.
	Saved func(until time.Time)
}

// DefaultRunConfig has no past and no end.
func DefaultRunConfig() RunConfig {
	return RunConfig{
		Driver:   DefaultDriverConfig(),
		Progress: func(string, uint64, uint64) {}, Live: func([]Attack) {}, Saved: func(time.Time) {},
	}
}

// Run enrols the fleet, sends its past and streams until ctx ends or Duration
// is over.
func Run(ctx context.Context, cfg RunConfig, deps DriverDeps) error {
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	// The past knows no attacks: they count from when somebody can look.
	past, err := New(Config{Devices: cfg.Fleet.Devices, Seed: cfg.Fleet.Seed})
	if err != nil {
		return err
	}
	if _, err := New(cfg.Fleet); err != nil { // refuse bad plans before anything is enrolled
		return err
	}
	driver := NewDriver(cfg.Driver, past, deps)
	defer driver.Close(context.WithoutCancel(ctx))
	err = driver.Connect(ctx, func(done, total int) { cfg.Progress("enrolling devices", uint64(done), uint64(total)) })
	if err != nil {
		return err
	}
	now := deps.Clock().Truncate(time.Second)
	from := now.Add(-cfg.History)
	if cfg.Since.After(from) {
		from = cfg.Since.Truncate(time.Second)
	}
	err = driver.History(ctx, from, now, func(done, total uint64) { cfg.Progress("sending simulated history", done, total) })
	if err != nil {
		return err
	}
	cfg.Saved(now)
	if cfg.Settle != nil {
		if err := cfg.Settle(ctx); err != nil {
			return fmt.Errorf("wait for the past to be stored: %w", err)
		}
	}
	cfg.Fleet.Start = deps.Clock().Truncate(time.Second)
	if driver.fleet, err = New(cfg.Fleet); err != nil {
		return err
	}
	if cfg.Truth != "" {
		if err := driver.fleet.WriteTruth(cfg.Truth); err != nil {
			return err
		}
	}
	cfg.Live(driver.fleet.Truth())
	if cfg.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Duration)
		defer cancel()
	}
	err = driver.Live(ctx)
	cfg.Saved(deps.Clock())
	return err
}
