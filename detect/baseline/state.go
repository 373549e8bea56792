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
		w.Uint(uint64(m.Seen[i]))
	}
	w.Int(int64(m.hour))
	w.Float(m.sum)
	w.Uint(uint64(m.count))
	w.Uint(uint64(m.days))
	m.fast.encode(w)
	m.slow.encode(w)
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
		m.Seen[i] = uint8(r.Uint())
	}
	m.hour = int8(r.Int() % hours)
	m.sum = r.Float()
	m.count = uint32(r.Uint())
	m.days = uint8(r.Uint())
	m.fast.decode(r)
	m.slow.decode(r)
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
