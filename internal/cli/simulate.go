package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"cordon/internal/simulate"
)

// SimulateCmd streams a fleet that does not exist.
type SimulateCmd struct {
	Devices  int           `help:"Number of devices." default:"20" placeholder:"N"`
	Seed     uint64        `help:"The same seed gives the same fleet, noise and targets." default:"1" placeholder:"S"`
	Attack   []string      `help:"NAME@TIME, NAME@TIME/DURATION, either with :DEVICE behind; may be repeated. Names: brute-force, exfiltration, botnet-scan, cryptominer, tamper, silent, slow-drift, firmware-swap." placeholder:"ATTACK"`
	Interval time.Duration `help:"Time between measurements of a device." default:"10s" placeholder:"DURATION"`
	History  time.Duration `help:"Simulated past to send first, so that baselines are ready." default:"0s" placeholder:"DURATION"`
	Step     time.Duration `help:"Time between measurements of the past." default:"1m" placeholder:"DURATION"`
	Duration time.Duration `help:"End after this long; 0 runs until a signal." default:"0s" placeholder:"DURATION"`
	Truth    string        `help:"Write which device is attacked how and when, as JSON." type:"path" placeholder:"FILE"`
	Keep     string        `help:"Directory to keep the devices' identities in, so that a later run is the same devices." type:"path" placeholder:"DIR"`
}

// Run enrols the fleet and streams it until a signal ends it.
func (c *SimulateCmd) Run(ctx context.Context, g *Globals) error {
	plans := make([]simulate.Plan, 0, len(c.Attack))
	for _, text := range c.Attack {
		p, err := simulate.ParsePlan(text)
		if err != nil {
			return err
		}
		plans = append(plans, p)
	}
	cfg := simulate.DefaultRunConfig()
	cfg.Fleet = simulate.Config{Devices: c.Devices, Seed: c.Seed, Plans: plans}
	cfg.Driver.Interval, cfg.Driver.HistoryStep, cfg.Driver.Dir = c.Interval, c.Step, c.Keep
	cfg.History, cfg.Duration, cfg.Truth = c.History, c.Duration, c.Truth
	cfg.Progress = bars(g.Err)
	client, err := deviceClient(g)
	if err != nil {
		return err
	}
	cfg.Live = func(truth []simulate.Attack) {
		fmt.Fprintf(g.Err, "%d devices stream every %s; stop with Ctrl-C\n", c.Devices, c.Interval)
		for _, a := range truth {
			fmt.Fprintf(g.Err, "  %s  %-14s on %s until %s\n", a.From.Local().Format(time.TimeOnly), a.Attack, a.Device, a.To.Local().Format(time.TimeOnly))
		}
	}
	return simulate.Run(ctx, cfg, simulate.DriverDeps{Issuer: client, Log: g.Log})
}

// bars shows what long work does, one line for each thing it does.
func bars(to io.Writer) func(doing string, done, total uint64) {
	shown := map[string]*progress{}
	return func(doing string, done, total uint64) {
		bar := shown[doing]
		if bar == nil {
			bar = newProgress(to, doing, total)
			shown[doing] = bar
		}
		bar.set("done", done)
		if done >= total {
			bar.end()
		}
	}
}
