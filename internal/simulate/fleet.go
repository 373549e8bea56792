package simulate

import (
	"fmt"
	"math"
	"strings"
	"time"
	_ "time/tzdata" // sites have local time on hosts without zone files too

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

// MaxDevices bounds one simulated fleet.
const MaxDevices = 100_000

// Config of a fleet.
type Config struct {
	Devices int
	Seed    uint64
	Plans   []Plan    // attacks to come
	Start   time.Time // what the plans' times count from
}

// Fleet computes what its devices measure and log. It is immutable and safe
// for concurrent use.
type Fleet struct {
	cfg     Config
	devices []device
	attacks []Attack
}

type device struct {
	registration agent.Registration
	profile      *profile
	zone         *time.Location
	seed         uint64
	phase        float64   // hours by which its day is shifted
	levels       []float64 // of its signals
	attacks      []Attack
}

// New makes a fleet and draws the targets of its attacks.
func New(cfg Config) (*Fleet, error) {
	if cfg.Devices < 1 || cfg.Devices > MaxDevices {
		return nil, fleet.Errorf(fleet.CodeInvalid, "number of devices %d is not between 1 and %d", cfg.Devices, MaxDevices).On("devices")
	}
	zones := make([]*time.Location, len(sites))
	for i, s := range sites {
		zone, err := time.LoadLocation(s.zone)
		if err != nil {
			return nil, fmt.Errorf("load time zone of %s: %w", s.name, err)
		}
		zones[i] = zone
	}
	f := &Fleet{cfg: cfg, devices: make([]device, cfg.Devices)}
	for i := range f.devices {
		where := i % len(sites)
		f.devices[i] = newDevice(cfg.Seed, i, sites[where], zones[where])
	}
	return f, f.plan()
}

func newDevice(seed uint64, index int, at site, zone *time.Location) device {
	// Cohorts rotate through blocks of twenty, offset so that every site has
	// every cohort.
	slot := (index/len(sites) + index) % 20
	p := &profiles[0]
	for i := range profiles {
		p = &profiles[i]
		if slot < p.share {
			break
		}
		slot -= p.share
	}
	h := key(seed, uint64(index))
	d := device{
		profile: p, zone: zone, seed: h, phase: 0.5 * normal(key(h, 1)),
		registration: agent.Registration{
			ID:       fmt.Sprintf("%s-%s-%03d", p.cohort, strings.ToLower(at.name), index+1),
			Cohort:   p.cohort,
			Site:     at.name,
			Model:    p.models[key(h, 2)%uint64(len(p.models))],
			Firmware: p.release[key(h, 3)%uint64(len(p.release))],
			Owner:    "operations-" + strings.ToLower(at.name),
			TimeZone: at.zone,
			Tags:     []string{"simulated"},
		},
	}
	model := 1 + 0.15*float64(len(d.registration.Model)%3) // models of a cohort differ
	for i, s := range p.signals {
		level := s.base
		if s.spread > 0 {
			level *= math.Exp(s.spread * normal(key(h, 4, uint64(i))))
			if s.most == 0 && s.metric != agent.CPUTemperature && s.metric != voltage {
				level *= model
			}
		}
		d.levels = append(d.levels, level)
	}
	return d
}

// Len is the number of devices.
func (f *Fleet) Len() int { return len(f.devices) }

// Registration is what a device is enrolled as.
func (f *Fleet) Registration(device int) agent.Registration { return f.devices[device].registration }

// Silent says whether a device is switched off at t.
func (f *Fleet) Silent(device int, t time.Time) bool {
	for _, a := range f.devices[device].attacks {
		if a.Attack == Silent && a.active(t) {
			return true
		}
	}
	return false
}

// Next is what a device measures at t: every metric of its cohort, nothing
// while it is silent.
func (f *Fleet) Next(device int, t time.Time) []fleet.Reading {
	return f.AppendNext(nil, device, t)
}

// AppendNext is Next, into a slice of the caller's.
func (f *Fleet) AppendNext(to []fleet.Reading, device int, t time.Time) []fleet.Reading {
	if f.Silent(device, t) {
		return to
	}
	d := &f.devices[device]
	from := len(to)
	local := t.In(d.zone)
	hour := float64(local.Hour()) + float64(local.Minute())/60 + float64(local.Second())/3600 + d.phase
	// What a device is busy with moves several of its metrics together.
	busy := slow(key(d.seed, 5), t, 40*time.Minute)
	at := t.UTC()
	for i, s := range d.profile.signals {
		h := key(d.seed, 6, uint64(i))
		level := d.levels[i]
		v := level * (1 + s.daily*s.rhythm.at(hour))
		if s.noise > 0 {
			wander := 0.5*busy + 0.3*slow(h, t, 25*time.Minute)
			v += level * s.noise * (0.25*wander + 0.95*normal(key(h, uint64(t.UnixNano()))))
		}
		to = append(to, fleet.Reading{ObservedAt: at, Metric: s.metric, Value: s.limit(v)})
	}
	for _, a := range d.attacks {
		if a.active(t) {
			a.disturb(d, to[from:], t)
		}
	}
	return to
}

// limit keeps a value possible and its digits few.
func (s *signal) limit(v float64) float64 {
	v = max(v, 0)
	if s.most > 0 {
		v = min(v, s.most)
	}
	switch {
	case s.whole:
		return math.Round(v)
	case v >= 1000:
		return math.Round(v)
	case v >= 10:
		return math.Round(v*100) / 100
	}
	return math.Round(v*1000) / 1000
}
