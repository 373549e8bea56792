package engine_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"cordon/internal/fleet"
)

// synthetic is a seeded fleet: daily cycles, autocorrelated noise, day to day
// differences, bursts of traffic, flat counts with rare steps.
type synthetic struct {
	devices []*synthDevice
	step    time.Duration
	at      time.Time
	seq     uint64
}

type synthDevice struct {
	id     string
	rng    *rand.Rand
	phase  float64
	busy   float64
	noise  [6]float64
	day    float64
	dayNo  int
	attack func(at time.Time, r []fleet.Reading)
}

func newSynthetic(n int, seed uint64, start time.Time) *synthetic {
	s := &synthetic{step: time.Minute, at: start}
	for i := range n {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		s.devices = append(s.devices, &synthDevice{
			id: fmt.Sprintf("dev-%04d", i), rng: rng, phase: rng.Float64() * 2, busy: 0.5 + rng.Float64(), day: 1, dayNo: -1,
		})
	}
	return s
}

// next gives the records of one minute.
func (s *synthetic) next(emit func(fleet.Record)) {
	for i, d := range s.devices {
		s.seq++
		at := s.at.Add(time.Duration(i) * 50 * time.Millisecond)
		readings := d.readings(at)
		if readings == nil {
			continue
		}
		emit(fleet.Record{
			Kind: fleet.TelemetryKind, StreamSeq: s.seq, ReceivedAt: at.Add(200 * time.Millisecond), Device: d.id, Readings: readings,
		})
	}
	s.at = s.at.Add(s.step)
}

func (d *synthDevice) readings(at time.Time) []fleet.Reading {
	if day := at.YearDay(); day != d.dayNo {
		d.dayNo = day
		d.day = 1 + 0.08*d.rng.NormFloat64()
	}
	for i := range d.noise {
		d.noise[i] = 0.8*d.noise[i] + 0.6*d.rng.NormFloat64()
	}
	h := float64(at.Hour()) + float64(at.Minute())/60
	cycle := 0.5 + 0.5*math.Sin((h-8+d.phase)/24*2*math.Pi)
	cpu := math.Min(100, math.Max(0.5, d.busy*(12+18*cycle*d.day)+2.2*d.noise[0]))
	temp := 41 + 0.35*cpu + 0.5*d.noise[1]
	out := 20e3 * d.busy * (0.4 + cycle*d.day) * math.Exp(0.25*d.noise[2])
	in := 60e3 * d.busy * (0.4 + cycle*d.day) * math.Exp(0.3*d.noise[3])
	if d.rng.IntN(700) == 0 {
		out *= 3
	}
	memory := 45 + 4*cycle + 0.4*d.noise[4]
	conns := math.Round(math.Max(0, 14*(0.5+cycle)+1.5*d.noise[5]))
	r := []fleet.Reading{
		{ObservedAt: at, Metric: "cpu_percent", Value: cpu},
		{ObservedAt: at, Metric: "cpu_temp_celsius", Value: temp},
		{ObservedAt: at, Metric: "net_bytes_out_per_second", Value: out},
		{ObservedAt: at, Metric: "net_bytes_in_per_second", Value: in},
		{ObservedAt: at, Metric: "memory_percent", Value: memory},
		{ObservedAt: at, Metric: "tcp_established_connections", Value: conns},
	}
	if d.attack != nil {
		d.attack(at, r)
	}
	return r
}
