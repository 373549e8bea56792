package simulate

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

// The attacks.
const (
	BruteForce   = "brute-force"   // failed logins from an outside address, in the audit log
	Exfiltration = "exfiltration"  // much more leaves than usual, to one new destination
	BotnetScan   = "botnet-scan"   // hundreds of destinations
	Cryptominer  = "cryptominer"   // processor at its limit, heat
	Tamper       = "tamper"        // the enclosure was opened, files changed: integrity events
	Silent       = "silent"        // the device stops
	SlowDrift    = "slow-drift"    // memory creeps up
	FirmwareSwap = "firmware-swap" // other firmware, badly signed: an integrity event
)

// kindOfAttack says how long an attack lasts unless told and which cohorts it
// suits best.
type kindOfAttack struct {
	lasts   time.Duration
	cohorts []string
}

var kinds = map[string]kindOfAttack{
	BruteForce:   {5 * time.Minute, []string{"gateway", "camera"}},
	Exfiltration: {15 * time.Minute, []string{"gateway", "plc", "camera"}},
	BotnetScan:   {15 * time.Minute, []string{"camera"}},
	Cryptominer:  {30 * time.Minute, []string{"camera", "gateway", "plc"}},
	Tamper:       {2 * time.Minute, []string{"meter", "plc"}},
	Silent:       {30 * time.Minute, []string{"meter", "camera", "plc"}},
	SlowDrift:    {6 * time.Hour, []string{"plc", "gateway"}},
	FirmwareSwap: {time.Minute, []string{"meter", "plc"}},
}

// Attacks lists every attack by name.
var Attacks = []string{BruteForce, Exfiltration, BotnetScan, Cryptominer, Tamper, Silent, SlowDrift, FirmwareSwap}

// Plan is an attack to come, on a device that the seed chooses.
type Plan struct {
	Attack string
	After  time.Duration // the start of the fleet
	Lasts  time.Duration // 0: as long as such an attack usually does
	Device string        // empty: the seed chooses
}

// ParsePlan reads NAME@TIME, NAME@TIME/DURATION or either with :DEVICE behind,
// such as exfiltration@10m/5m.
func ParsePlan(text string) (Plan, error) {
	rest, device, _ := strings.Cut(text, ":")
	name, when, ok := strings.Cut(rest, "@")
	if _, known := kinds[name]; !known {
		return Plan{}, fleet.Errorf(fleet.CodeInvalid, "attack %q is not one of %s", name, strings.Join(Attacks, ", ")).On("attack")
	}
	wrong := fleet.Errorf(fleet.CodeInvalid, "attack %q: want NAME@TIME or NAME@TIME/DURATION, such as exfiltration@10m/5m", text).On("attack")
	if !ok {
		return Plan{}, wrong
	}
	when, lasts, timed := strings.Cut(when, "/")
	p := Plan{Attack: name, Device: device}
	var err error
	if p.After, err = time.ParseDuration(when); err != nil || p.After < 0 {
		return Plan{}, wrong
	}
	if timed {
		if p.Lasts, err = time.ParseDuration(lasts); err != nil || p.Lasts <= 0 {
			return Plan{}, wrong
		}
	}
	return p, nil
}

// Attack is what happens to one device: a line of the truth.
type Attack struct {
	Device string    `json:"device"`
	Attack string    `json:"attack"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	seed   uint64
}

func (a *Attack) active(t time.Time) bool { return !t.Before(a.From) && t.Before(a.To) }

// Truth is every attack on the fleet, earliest first.
func (f *Fleet) Truth() []Attack { return slices.Clone(f.attacks) }

// truthFile is the truth as a file.
type truthFile struct {
	Seed    uint64   `json:"seed"`
	Devices int      `json:"devices"`
	Attacks []Attack `json:"attacks"`
}

// WriteTruth writes {"seed","devices","attacks":[{"device","attack","from","to"}]}.
func (f *Fleet) WriteTruth(path string) error {
	t := truthFile{Seed: f.cfg.Seed, Devices: len(f.devices), Attacks: f.attacks}
	if t.Attacks == nil {
		t.Attacks = []Attack{}
	}
	raw, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("encode truth: %w", err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil { //nolint:gosec // no secret: for scorers
		return fmt.Errorf("write truth: %w", err)
	}
	return nil
}

// plan draws a target for every planned attack, no device twice while others
// are free.
func (f *Fleet) plan() error {
	taken := map[int]bool{}
	for n, p := range f.cfg.Plans {
		kind, ok := kinds[p.Attack]
		if !ok {
			return fleet.Errorf(fleet.CodeInvalid, "attack %q is not one of %s", p.Attack, strings.Join(Attacks, ", ")).On("attack")
		}
		target, err := f.target(p, kind, n, taken)
		if err != nil {
			return err
		}
		taken[target] = true
		lasts := p.Lasts
		if lasts == 0 {
			lasts = kind.lasts
		}
		from := f.cfg.Start.Add(p.After).UTC()
		d := &f.devices[target]
		a := Attack{Device: d.registration.ID, Attack: p.Attack, From: from, To: from.Add(lasts), seed: key(d.seed, 7, uint64(n))}
		d.attacks = append(d.attacks, a)
		f.attacks = append(f.attacks, a)
	}
	slices.SortStableFunc(f.attacks, func(a, b Attack) int { return a.From.Compare(b.From) })
	return nil
}

func (f *Fleet) target(p Plan, kind kindOfAttack, n int, taken map[int]bool) (int, error) {
	if p.Device != "" {
		for i := range f.devices {
			if f.devices[i].registration.ID == p.Device {
				return i, nil
			}
		}
		return 0, fleet.Errorf(fleet.CodeInvalid, "attack %s: the simulated fleet has no device %q", p.Attack, p.Device).On("attack")
	}
	var best, free []int
	for i := range f.devices {
		if taken[i] {
			continue
		}
		free = append(free, i)
		if slices.Contains(kind.cohorts, f.devices[i].profile.cohort) {
			best = append(best, i)
		}
	}
	if len(best) > 0 {
		free = best
	}
	h := key(f.cfg.Seed, 8, uint64(n))
	if len(free) == 0 {
		return int(h % uint64(len(f.devices))), nil
	}
	return free[h%uint64(len(free))], nil
}

// disturb changes what a device measures while it is under attack.
func (a *Attack) disturb(d *device, readings []fleet.Reading, t time.Time) {
	elapsed := t.Sub(a.From)
	jitter := 1 + 0.08*normal(key(a.seed, uint64(t.UnixNano())))
	change := func(metric string, by func(float64) float64) {
		for i := range readings {
			if readings[i].Metric == metric {
				readings[i].Value = d.profile.signals[i].limit(by(readings[i].Value))
			}
		}
	}
	add := func(metric string, amount float64) {
		change(metric, func(v float64) float64 { return v + amount })
	}
	strength := 0.8 + 0.4*uniform(key(a.seed, 9))
	switch a.Attack {
	case Exfiltration:
		bytes := 3.2e6 * strength * jitter
		add(agent.NetBytesOut, bytes)
		add(agent.NetPacketsOut, bytes/1350)
		add(agent.NetPacketsIn, bytes/2900)
		add(agent.TCPEstablished, 2)
		add(agent.DistinctAddresses, 1)
		add(agent.CPUPercent, 5*jitter)
	case BotnetScan:
		probes := 420 * strength * jitter
		add(agent.DistinctAddresses, 260*strength*jitter)
		add(agent.TCPEstablished, 55*strength*jitter)
		add(agent.NetPacketsOut, probes)
		add(agent.NetPacketsIn, 0.3*probes)
		add(agent.NetBytesOut, 60*probes)
		add(agent.CPUPercent, 14*jitter)
	case Cryptominer:
		busy := 96.5 + 1.5*normal(key(a.seed, uint64(t.UnixNano()), 1))
		change(agent.CPUPercent, func(v float64) float64 { return max(v, busy) })
		add(agent.Load1, 3.4*strength*jitter*(1-math.Exp(-elapsed.Seconds()/60)))
		add(agent.CPUTemperature, 42*(1-math.Exp(-elapsed.Seconds()/90)))
		add(agent.NetBytesOut, 1800*jitter)
		add(agent.TCPEstablished, 1)
		add(agent.DistinctAddresses, 1)
	case SlowDrift:
		progress := elapsed.Seconds() / a.To.Sub(a.From).Seconds()
		add(agent.MemoryPercent, 32*strength*progress)
		add(agent.Load1, 0.3*strength*progress)
	}
}
