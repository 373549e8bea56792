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
	w.Float(m.near)
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
	w.Bool(m.away != nil)
	if m.away != nil {
		m.away.encode(w)
	}
}

// Decode reads a model's state.
func (m *Model) Decode(r *wire.Reader) {
	m.N = uint32(r.Uint())
	m.Started = r.Int()
	m.last = r.Int()
	m.Level = r.Float()
	m.Scale = r.Float()
	m.Slow = r.Float()
	m.near = r.Float()
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
	if r.Bool() {
		m.away = &excursion{}
		m.away.decode(r)
	}
}

func (x *excursion) encode(w *wire.Writer) {
	w.Int(x.First)
	w.Int(x.Last)
	for _, v := range x.floats() {
		w.Float(*v)
	}
	w.Bool(x.Disputed)
	w.Uint(uint64(x.Count))
	for _, v := range x.Kept {
		w.Float32(v)
	}
	w.Float32(x.SlowLow)
	w.Float32(x.SlowHigh)
	w.Uint(uint64(x.Wild))
	w.Uint(uint64(x.Calm))
}

func (x *excursion) decode(r *wire.Reader) {
	x.First = r.Int()
	x.Last = r.Int()
	for _, v := range x.floats() {
		*v = r.Float()
	}
	x.Disputed = r.Bool()
	x.Count = uint32(r.Uint())
	for i := range x.Kept {
		x.Kept[i] = r.Float32()
	}
	x.SlowLow = r.Float32()
	x.SlowHigh = r.Float32()
	x.Wild = uint16(r.Uint())
	x.Calm = uint16(r.Uint())
}

func (x *excursion) floats() []*float64 {
	return []*float64{
		&x.Fast.Low, &x.Fast.High, &x.Fast.Down, &x.Fast.Up, &x.Slow.Low, &x.Slow.High, &x.Slow.Down, &x.Slow.Up, &x.CalmSum,
	}
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
