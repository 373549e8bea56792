package baseline

import "math"

// bins is the size of a histogram. Between half and all of them are in use.
const bins = 64

// histogram counts values in equal bins over a range that is learned on line:
// the first two different values land on bins K/4 and K/2, a value outside
// doubles the range to its side by merging neighbouring pairs.
type histogram struct {
	N     uint32 // values counted, halved with the counters
	First float64
	Low   float64 // lower edge of bin 0
	Width float64 // of a bin; 0 until two different values were seen
	Count [bins]uint16
}

// memory is how many values are remembered: at this count all are halved.
const memory = 16000

func (h *histogram) bin(x float64) int {
	if h.Width == 0 {
		return 0
	}
	return int(math.Floor((x - h.Low) / h.Width))
}

// add counts a value.
func (h *histogram) add(x float64) {
	switch {
	case h.N == 0:
		h.First = x
	case h.Width == 0 && x != h.First:
		h.open(x)
	}
	b := 0
	if h.Width > 0 {
		b = h.fit(x)
	}
	if h.Count[b] == math.MaxUint16 {
		h.halve()
	}
	h.Count[b]++
	h.N++
	if h.N >= memory {
		h.halve()
	}
}

func (h *histogram) open(x float64) {
	gap := math.Abs(x - h.First)
	width := gap / (bins / 4)
	if width == 0 || math.IsInf(width, 0) || width < math.Abs(h.First)*1e-12 {
		return
	}
	h.Width = width
	h.Low = min(x, h.First) - (bins/4+0.5)*width
	old := h.Count[0]
	h.Count[0] = 0
	h.Count[min(max(h.bin(h.First), 0), bins-1)] = old
}

// fit widens the range until x is inside and returns its bin.
func (h *histogram) fit(x float64) int {
	for range 1100 {
		b := h.bin(x)
		if b >= 0 && b < bins {
			return b
		}
		var merged [bins]uint16
		shift := 0
		if b < 0 {
			shift = bins / 2
			h.Low -= bins * h.Width
		}
		for i := range bins / 2 {
			merged[shift+i] = addSaturated(h.Count[2*i], h.Count[2*i+1])
		}
		h.Count = merged
		h.Width *= 2
	}
	if x < h.Low {
		return 0
	}
	return bins - 1
}

func addSaturated(a, b uint16) uint16 {
	if uint32(a)+uint32(b) > math.MaxUint16 {
		return math.MaxUint16
	}
	return a + b
}

// halve forgets half of everything. When afterwards fewer than a quarter of
// the bins are in use, one absurd value has made them too wide: the range is
// halved around what is left.
func (h *histogram) halve() {
	var n uint32
	low, high := bins, -1
	for i := range h.Count {
		h.Count[i] /= 2
		n += uint32(h.Count[i])
		if h.Count[i] > 0 {
			low, high = min(low, i), i
		}
	}
	h.N = n
	if h.Width == 0 || high < 0 || high-low >= bins/4 {
		return
	}
	start := min(max(low-bins/8, 0), bins/2)
	var split [bins]uint16
	for i := range bins / 2 {
		c := h.Count[start+i]
		split[2*i], split[2*i+1] = c-c/2, c/2
	}
	h.Low += float64(start) * h.Width
	h.Width /= 2
	h.Count = split
}

// surprise is how improbable a value is: minus the decimal logarithm of its
// tail probability, in two parts.
type surprise struct {
	inside  float64 // by rank among what was seen
	beyond  float64 // by distance from all of it
	outside bool    // nothing like it was seen before
}

// novelty compresses the part that rests on the tail's form: it ranks values
// of streams whose tails differ.
func (s surprise) novelty() float64 {
	if s.beyond == 0 {
		return s.inside
	}
	return s.inside + math.Log10(1+10*s.beyond)
}

// surprise of x; floor is the least scale of the tail.
func (h *histogram) surprise(x, floor float64) surprise {
	if h.N == 0 {
		return surprise{}
	}
	n := float64(h.N)
	if h.Width == 0 {
		if x == h.First {
			return surprise{}
		}
		return surprise{math.Log10(n + 1), tail(math.Abs(x-h.First), floor), true}
	}
	b := h.bin(x)
	if b >= 0 && b < bins {
		if uint32(h.Count[b])*common > h.N {
			return surprise{}
		}
		if s := h.rarer(b); s > 0 {
			return surprise{inside: math.Log10((n + 1) / (float64(s) + 0.5))}
		}
	}
	gap, scale := h.outside(b)
	return surprise{math.Log10(2 * (n + 1)), tail(float64(gap)*h.Width, max(scale*h.Width, floor)), true}
}

// common: a bin with over one of so many values is no surprise, and need not be
// ranked among the others.
const common = 50

// mostTail bounds what the tail adds: beyond it numbers say nothing more.
const mostTail = 100

// tail continues a distribution outside its support.
func tail(distance, scale float64) float64 {
	if scale <= 0 {
		return mostTail
	}
	return min(distance/scale*math.Log10E, mostTail)
}

// rarer is the mass of the bins that are at least as thin as bin b.
func (h *histogram) rarer(b int) uint32 {
	var dense [bins]uint32
	for i := range h.Count {
		f := 2 * uint32(h.Count[i])
		if i > 0 {
			f += uint32(h.Count[i-1])
		}
		if i < bins-1 {
			f += uint32(h.Count[i+1])
		}
		dense[i] = f
	}
	limit, s := dense[b], uint32(0)
	for i, f := range dense {
		if f <= limit {
			s += uint32(h.Count[i])
		}
	}
	return s
}

// outside returns how many bins lie between bin b and the nearest used one,
// and the mean excess, in bins, over the outer fiftieth on that side.
func (h *histogram) outside(b int) (gap int, scale float64) {
	below, above := -1, bins
	for i := min(b, bins-1); i >= 0; i-- {
		if h.Count[i] > 0 {
			below = i
			break
		}
	}
	for i := max(b, 0); i < bins; i++ {
		if h.Count[i] > 0 {
			above = i
			break
		}
	}
	up := above == bins || below >= 0 && b-below < above-b // the value is above what is near it
	edge := above
	if up {
		edge = below
	}
	gap = max(b-edge, edge-b)
	return gap, h.excess(edge, up)
}

// excess is the mean distance of the outermost values, walking inwards from
// an edge, to where a fiftieth of all lies outside.
func (h *histogram) excess(edge int, up bool) float64 {
	step := 1
	if up {
		step = -1
	}
	need := max(h.N/50, 2)
	var mass uint32
	var moment float64
	i := edge
	for ; i >= 0 && i < bins && mass < need; i += step {
		c := uint32(h.Count[i])
		mass += c
		moment += float64(c) * math.Abs(float64(i))
	}
	if mass == 0 {
		return 1
	}
	mean := moment / float64(mass)
	return max(math.Abs(mean-float64(i-step))+0.5, 0.5)
}

// quantile returns the value below which a share of the mass lies.
func (h *histogram) quantile(share float64) float64 {
	if h.Width == 0 {
		return h.First
	}
	goal, sum := share*float64(h.N), 0.0
	for i, c := range h.Count {
		if next := sum + float64(c); c > 0 && next >= goal {
			return h.Low + (float64(i)+(goal-sum)/float64(c))*h.Width
		}
		sum += float64(c)
	}
	return h.Low + bins*h.Width
}
