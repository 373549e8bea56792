package baseline

import "cordon/detect/wire"

// Encode appends a model's state.
func (m *Model) Encode(w *wire.Writer) {
	w.Uint(uint64(m.N))
	w.Int(m.Started)
	w.Int(m.last)
	w.Float(m.Level)
	w.Float(m.Scale)
	w.Float(m.Slow)
	for i := range m.Season {
		w.Float32(m.Season[i])
		w.Float32(m.Spread[i])
		w.Uint(uint64(m.Seen[i]))
	}
	w.Int(int64(m.hour))
	w.Float(m.sum)
	w.Float(m.size)
	w.Uint(uint64(m.count))
	w.Uint(uint64(m.days))
	m.fast.encode(w)
	m.slow.encode(w)
	w.Int(m.away.First)
	if m.away.First == 0 {
		return
	}
	w.Int(m.away.Last)
	w.Uint(uint64(m.away.Count))
	for _, v := range m.away.Fast {
		w.Float32(v)
	}
	w.Float32(m.away.SlowLow)
	w.Float32(m.away.SlowHigh)
	w.Uint(uint64(m.away.Wild))
	w.Uint(uint64(m.away.Calm))
	w.Float(m.away.CalmSum)
}

// Decode reads a model's state.
func (m *Model) Decode(r *wire.Reader) {
	m.N = uint32(r.Uint())
	m.Started = r.Int()
	m.last = r.Int()
	m.Level = r.Float()
	m.Scale = r.Float()
	m.Slow = r.Float()
	for i := range m.Season {
		m.Season[i] = r.Float32()
		m.Spread[i] = r.Float32()
		m.Seen[i] = uint8(r.Uint())
	}
	m.hour = int8(r.Int() % hours)
	m.sum = r.Float()
	m.size = r.Float()
	m.count = uint32(r.Uint())
	m.days = uint8(r.Uint())
	m.meanSpread()
	m.fast.decode(r)
	m.slow.decode(r)
	if m.away.First = r.Int(); m.away.First == 0 {
		return
	}
	m.away.Last = r.Int()
	m.away.Count = uint32(r.Uint())
	for i := range m.away.Fast {
		m.away.Fast[i] = r.Float32()
	}
	m.away.SlowLow = r.Float32()
	m.away.SlowHigh = r.Float32()
	m.away.Wild = uint16(r.Uint())
	m.away.Calm = uint16(r.Uint())
	m.away.CalmSum = r.Float()
}

func (h *histogram) encode(w *wire.Writer) {
	w.Uint(uint64(h.N))
	w.Float(h.First)
	w.Float(h.Low)
	w.Float(h.Width)
	for _, c := range h.Count {
		w.Uint(uint64(c))
	}
}

func (h *histogram) decode(r *wire.Reader) {
	h.N = uint32(r.Uint())
	h.First = r.Float()
	h.Low = r.Float()
	h.Width = r.Float()
	for i := range h.Count {
		h.Count[i] = uint16(r.Uint())
	}
}
