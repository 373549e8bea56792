package simulate

import (
	"math"
	"time"
)

// Noise is a hash of where it is asked for, not a sequence: any instant of any
// device can be computed alone.

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// key combines numbers into one hash.
func key(parts ...uint64) uint64 {
	h := uint64(0x2545f4914f6cdd1d)
	for _, p := range parts {
		h = mix(h ^ p)
	}
	return h
}

// uniform is in [0, 1).
func uniform(h uint64) float64 { return float64(h>>11) / (1 << 53) }

// normal is nearly standard normal and never beyond ±3.46 (the sum of four
// uniforms): a healthy device has no outliers.
func normal(h uint64) float64 {
	sum := 0.0
	for range 4 {
		h = mix(h)
		sum += uniform(h)
	}
	return (sum - 2) * math.Sqrt(3)
}

// slow is smooth noise of about unit size that wanders over period.
func slow(h uint64, t time.Time, period time.Duration) float64 {
	p := period.Nanoseconds()
	n := t.UnixNano()
	step := n / p
	x := float64(n-step*p) / float64(p)
	x = x * x * (3 - 2*x)
	return normal(key(h, uint64(step)))*(1-x) + normal(key(h, uint64(step+1)))*x
}

// rhythm is a device's daily curve over the local hour, within [-1, 1].
type rhythm uint8

const (
	flat    rhythm = iota
	day            // warmest in the early afternoon
	evening        // a morning and an evening peak
	office         // from eight to six
	shifts         // from six to ten at night
)

func (r rhythm) at(hour float64) float64 {
	switch r {
	case day:
		return math.Cos((hour - 14) * math.Pi / 12)
	case evening:
		return 0.65*math.Cos((hour-19)*math.Pi/12) + 0.35*math.Cos((hour-7.5)*math.Pi/6)
	case office:
		return 2*plateau(hour, 8, 18) - 1
	case shifts:
		return 2*plateau(hour, 6, 22) - 1
	}
	return 0
}

// plateau is near 1 between two hours and near 0 outside, with soft edges.
func plateau(hour, from, to float64) float64 {
	const soft = 0.5 // hours
	return 1 / (1 + math.Exp((from-hour)/soft)) / (1 + math.Exp((hour-to)/soft))
}
