package engine

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"cordon/detect/baseline"
	"cordon/detect/threshold"
	"cordon/detect/wire"
	"cordon/internal/fleet"
)

// stateVersion names the format; state of another version is refused.
const stateVersion = 5

// magic begins every snapshot.
const magic = "cordon-detect"

// Snapshot returns the whole state. The same state gives the same bytes.
func (e *Engine) Snapshot() []byte {
	w := &wire.Writer{Bytes: make([]byte, 0, 4096)}
	w.String(magic)
	w.Uint(stateVersion)
	w.Uint(e.seq)
	w.Int(e.healthy)
	w.Int(e.tickAt)
	w.Bool(e.tickOK)
	w.Uint(e.rejected)
	w.Uint(uint64(len(e.rules)))
	for _, a := range e.rules {
		for _, s := range []string{a.change.ID, a.change.Source, string(a.change.Mode), a.change.Actor, a.change.Reason} {
			w.String(s)
		}
		w.Int(a.at.UnixNano())
	}
	w.Uint(uint64(len(e.fleet)))
	for _, id := range slices.Sorted(maps.Keys(e.fleet)) {
		f := e.fleet[id]
		w.String(id)
		w.Int(f.start)
		w.Int(f.crossed)
		w.Int(f.returned)
		w.Uint(uint64(f.members))
	}
	w.Uint(uint64(len(e.order)))
	for _, d := range e.order {
		e.encodeDevice(w, d)
	}
	return w.Bytes
}

func (e *Engine) encodeDevice(w *wire.Writer, d *device) {
	w.String(d.id)
	w.String(d.cohort)
	w.String(d.zoneName)
	w.Uint(uint64(len(d.tags)))
	for _, t := range d.tags {
		w.String(t)
	}
	for _, b := range []bool{d.historic, d.retired, d.held, d.heardAny, d.live} {
		w.Bool(b)
	}
	w.String(string(d.level))
	w.Int(d.clock)
	w.Int(d.heard)
	w.Bool(d.young)
	w.Int(d.asked)
	w.Int(d.received)
	w.Uint(uint64(len(d.streams)))
	for _, s := range d.streams {
		if s.gen != e.gen {
			e.bind(d, s)
		}
		encodeStream(w, s)
	}
	w.Uint(uint64(len(d.episodes)))
	for _, key := range slices.Sorted(maps.Keys(d.episodes)) {
		w.String(key)
		encodeEpisode(w, d.episodes[key])
	}
	w.Uint(uint64(len(d.silences)))
	for _, id := range slices.Sorted(maps.Keys(d.silences)) {
		s := d.silences[id]
		w.String(id)
		w.Int(s.crossed)
		w.Int(s.start)
		w.Bool(s.decided)
		w.Bool(s.alone)
	}
	d.encodeTogether(w)
}

func encodeStream(w *wire.Writer, s *stream) {
	w.String(s.metric)
	w.Bool(s.model != nil)
	if s.model != nil {
		s.model.Encode(w)
		w.Bool(s.prior != nil)
		if s.prior != nil {
			s.prior.Encode(w)
		}
	}
	w.Uint(uint64(s.filled))
	for _, p := range s.recent[:s.filled] {
		w.Int(p.at)
		w.Float(p.value)
	}
	w.Uint(uint64(len(s.bound)))
	for i := range s.bound {
		b := &s.bound[i]
		w.String(b.rule.ID)
		w.Uint(uint64(b.latch.Run))
		w.Bool(b.latch.Raised)
		w.Int(b.latch.Start)
		w.Int(b.last)
		w.Float(b.peak)
	}
}

func encodeEpisode(w *wire.Writer, ep *episode) {
	w.Int(ep.Last)
	w.Bool(ep.Met)
	w.Int(int64(ep.Total))
	w.Uint(uint64(len(ep.Moments)))
	for _, m := range ep.Moments {
		w.Int(m.At)
		w.Int(int64(m.Count))
	}
	w.Int(ep.raised)
	w.Bool(ep.known)
	w.String(ep.value)
	w.Int(ep.distinct.Last)
	w.Bool(ep.distinct.Met)
	w.Uint(uint64(len(ep.distinct.Seen)))
	for _, s := range ep.distinct.Seen {
		w.Uint(s.Hash)
		w.Int(s.At)
	}
	w.Uint(uint64(len(ep.sequence.Starts)))
	for _, at := range ep.sequence.Starts {
		w.Int(at)
	}
	w.Uint(uint64(len(ep.events)))
	for i := range ep.events {
		v := &ep.events[i]
		w.Int(v.ObservedAt.UnixMilli())
		for _, s := range []string{v.Class, v.Activity, v.Outcome, v.Program, v.Actor, v.User, v.Message} {
			w.String(s)
		}
		w.Int(int64(v.Repeat))
		w.Uint(uint64(len(v.Fields)))
		for _, k := range slices.Sorted(maps.Keys(v.Fields)) {
			w.String(k)
			w.String(v.Fields[k])
		}
	}
}

// Restore replaces the state by a snapshot. On an error the engine is as it
// was.
func (e *Engine) Restore(snapshot []byte) error {
	r := wire.NewReader(snapshot)
	if r.String() != magic {
		return fmt.Errorf("restore detector state: %w", wire.ErrCorrupt)
	}
	if v := r.Uint(); v != stateVersion {
		return fmt.Errorf("restore detector state: version %d, this program reads version %d", v, stateVersion)
	}
	n := New(e.cfg)
	n.seq = r.Uint()
	n.healthy = r.Int()
	n.tickAt = r.Int()
	n.tickOK = r.Bool()
	n.rejected = r.Uint()
	for range r.Count() {
		c := fleet.RuleChange{ID: r.String(), Source: r.String(), Mode: fleet.Mode(r.String()), Actor: r.String(), Reason: r.String()}
		a, err := activate(c, time.Unix(0, r.Int()).UTC())
		if err != nil {
			return fmt.Errorf("restore rule %s: %w", c.ID, err)
		}
		if a != nil {
			n.rules = append(n.rules, a)
		}
	}
	n.arrange()
	for range r.Count() {
		id := r.String()
		n.fleet[id] = &fleetSilence{start: r.Int(), crossed: r.Int(), returned: r.Int(), members: int(r.Uint())}
	}
	for range r.Count() {
		n.decodeDevice(r)
		if r.Err() != nil {
			break
		}
	}
	if r.Err() != nil {
		return fmt.Errorf("restore detector state: %w", r.Err())
	}
	*e = *n
	return nil
}

func (e *Engine) decodeDevice(r *wire.Reader) {
	d := &device{id: r.String(), cohort: r.String(), episodes: map[string]*episode{}, silences: map[string]*silence{}}
	d.setZone(r.String())
	for range r.Count() {
		d.tags = append(d.tags, r.String())
	}
	for _, b := range []*bool{&d.historic, &d.retired, &d.held, &d.heardAny, &d.live} {
		*b = r.Bool()
	}
	d.level = fleet.Level(r.String())
	d.clock = r.Int()
	d.heard = r.Int()
	d.young = r.Bool()
	d.asked = r.Int()
	d.received = r.Int()
	for range r.Count() {
		d.streams = append(d.streams, e.decodeStream(r))
		d.reindex()
	}
	for range r.Count() {
		key := r.String()
		d.episodes[key] = decodeEpisode(r)
	}
	for range r.Count() {
		id := r.String()
		d.silences[id] = &silence{crossed: r.Int(), start: r.Int(), decided: r.Bool(), alone: r.Bool()}
	}
	d.decodeTogether(r)
	e.devices[d.id] = d
	e.order = append(e.order, d)
}

func (e *Engine) decodeStream(r *wire.Reader) *stream {
	s := &stream{metric: r.String(), gen: math.MaxUint32}
	if r.Bool() {
		s.model = &baseline.Model{}
		s.model.Decode(r)
		if r.Bool() {
			s.prior = &baseline.Prior{}
			s.prior.Decode(r)
		}
	}
	s.filled = uint8(min(r.Uint(), recentReadings))
	for i := range s.recent[:s.filled] {
		s.recent[i] = point{r.Int(), r.Float()}
	}
	for range r.Count() {
		a := e.rule(r.String())
		b := bound{rule: a, latch: threshold.Latch{Run: uint32(r.Uint()), Raised: r.Bool(), Start: r.Int()}, last: r.Int(), peak: r.Float()}
		if a != nil {
			s.bound = append(s.bound, b)
		}
	}
	return s
}

func decodeEpisode(r *wire.Reader) *episode {
	ep := &episode{}
	ep.Last = r.Int()
	ep.Met = r.Bool()
	ep.Total = int(r.Int())
	for range r.Count() {
		ep.Moments = append(ep.Moments, threshold.Moment{At: r.Int(), Count: int(r.Int())})
	}
	ep.raised, ep.known, ep.value = r.Int(), r.Bool(), r.String()
	ep.distinct.Last, ep.distinct.Met = r.Int(), r.Bool()
	for range r.Count() {
		ep.distinct.Seen = append(ep.distinct.Seen, threshold.Sighting{Hash: r.Uint(), At: r.Int()})
	}
	for range r.Count() {
		ep.sequence.Starts = append(ep.sequence.Starts, r.Int())
	}
	for range r.Count() {
		v := fleet.AuditEvent{ObservedAt: time.UnixMilli(r.Int()).UTC()}
		for _, s := range []*string{&v.Class, &v.Activity, &v.Outcome, &v.Program, &v.Actor, &v.User, &v.Message} {
			*s = r.String()
		}
		v.Repeat = int(r.Int())
		if n := r.Count(); n > 0 {
			v.Fields = make(map[string]string, n)
			for range n {
				k := r.String()
				v.Fields[k] = r.String()
			}
		}
		ep.events = append(ep.events, v)
	}
	return ep
}
