package gate

import (
	"context"
	"net"
	"sync"
	"time"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Clones says what becomes of one identity on two live connections.
type Clones string

// The policies for clones.
const (
	ClonesNewest Clones = "newest" // the newest stays, the others are cut
	ClonesNone   Clones = "none"   // all are cut, and refused for CoolDown
	ClonesAllow  Clones = "allow"  // up to PerDevice may live side by side
)

// limiter remembers who fails, floods or must cool down. It is memory: a
// restart forgives.
type limiter struct {
	g   *Gate
	now func() time.Time

	mu       sync.Mutex
	failures map[string]*budget   // by address and device
	cooling  map[string]time.Time // device → until
	samples  map[key]sample
}

// budget counts what happened since a time.
type budget struct {
	since time.Time
	n     int
}

type sample struct {
	at          time.Time
	msgs, bytes int64
}

// limiterKinds bounds what is remembered; past it everything is forgiven.
const limiterKinds = 100_000

func newLimiter(g *Gate) *limiter {
	return &limiter{g: g, now: g.deps.Clock, failures: map[string]*budget{}, cooling: map[string]time.Time{}, samples: map[key]sample{}}
}

func host(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
}

// failed counts a refusal that the client is to blame for. What a quarantine
// refused does not count, or a released device would have to wait.
func (l *limiter) failed(v verdict, c connection) {
	switch v.refused {
	case quarantined, unavailable, throttled, flooding, clone, tooMany:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) >= limiterKinds {
		clear(l.failures)
	}
	k := host(c.Address) + "/" + v.device
	b := l.failures[k]
	if b == nil || l.now().Sub(b.since) >= l.g.cfg.FailureWindow {
		b = &budget{since: l.now()}
		l.failures[k] = b
	}
	b.n++
}

// before refuses, without asking anybody, a device that failed too often from
// an address or must cool down. Other devices at the address never notice.
func (l *limiter) before(device, address string) reason {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until, ok := l.cooling[device]; ok {
		if l.now().Before(until) {
			return flooding
		}
		delete(l.cooling, device)
	}
	b := l.failures[host(address)+"/"+device]
	if b != nil && b.n >= l.g.cfg.Failures && l.now().Sub(b.since) < l.g.cfg.FailureWindow {
		return throttled
	}
	return ""
}

func (l *limiter) cool(device string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cooling[device] = l.now().Add(l.g.cfg.CoolDown)
}

// room says whether one more connection of the device fits; others are its
// live ones.
func (g *Gate) room(c connection, others []connection) reason {
	if g.cfg.PerDevice > 0 && len(others) >= g.cfg.PerDevice && g.cfg.Clones == ClonesAllow {
		return tooMany
	}
	if g.cfg.PerAddress > 0 && g.table.from(host(c.Address)) > g.cfg.PerAddress {
		return tooMany
	}
	return ""
}

// others are the admitted connections of the device besides c.
func (g *Gate) others(c connection) []connection {
	var list []connection
	for _, o := range g.table.of(c.device) {
		if o.key() != c.key() && !o.open {
			list = append(list, o)
		}
	}
	return list
}

// oust deals with the other live connections of a device that was admitted. A
// connection that the broker no longer has is no clone: the device lost it and
// came back before the gate was told.
func (g *Gate) oust(ctx context.Context, c connection, others []connection) {
	if g.cfg.Clones == ClonesAllow {
		for _, o := range others {
			if host(o.Address) != host(c.Address) {
				g.tell(c, o)
			}
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	var cut []connection
	for _, o := range others {
		if (o.Protocol == "mqtt") != (c.Protocol == "mqtt") {
			if host(o.Address) != host(c.Address) {
				g.tell(c, o) // a device may speak both, but from one place
			}
			continue
		}
		if c.Protocol == "mqtt" {
			continue // the broker replaces an MQTT session by itself
		}
		kicked, err := g.kick(ctx, c.device, []fleet.Connection{o.Connection}, false)
		if err != nil {
			g.deps.Log.Warn("second connection of a device was not cut", "device", c.device, "error", err)
			continue
		}
		if len(kicked) > 0 {
			cut = append(cut, o)
		}
	}
	if len(cut) == 0 {
		return
	}
	if g.cfg.Clones == ClonesNone {
		g.limits.cool(c.device)
		if _, err := g.kick(ctx, c.device, []fleet.Connection{c.Connection}, false); err != nil {
			g.deps.Log.Warn("second connection of a device was not cut", "device", c.device, "error", err)
		}
	}
	for _, o := range cut {
		g.tell(c, o)
	}
}

// tell makes a clone known.
func (g *Gate) tell(c, o connection) {
	g.metrics.clones.Inc()
	if n, ok := g.quiet.allow(c.device + "/" + string(clone)); ok {
		g.deps.Log.Warn("one identity on two live connections", "device", c.device, "policy", string(g.cfg.Clones), "address", c.Address, "other", o.Address, "unlogged", n)
	}
	g.publish(Event{
		Device: c.device, Event: "clone", Reason: string(clone), Address: c.Address, Other: o.Address, Protocol: c.Protocol, At: g.deps.Clock().UTC(),
	})
}

// sample compares the brokers' counters with those of the last time and cuts
// connections that sent more than they may.
func (l *limiter) sample(ctx context.Context, live []bus.Live) {
	now := time.Now()
	next := make(map[key]sample, len(live))
	for _, c := range live {
		k := key{c.ServerID, c.CID}
		next[k] = sample{now, c.InMsgs, c.InBytes}
		l.mu.Lock()
		last, ok := l.samples[k]
		l.mu.Unlock()
		if !ok {
			last = sample{at: c.StartedAt}
		}
		took := now.Sub(last.at).Seconds()
		if took < 1 {
			next[k] = last
			continue
		}
		msgs, bytes := float64(c.InMsgs-last.msgs)/took, float64(c.InBytes-last.bytes)/took
		if msgs <= l.g.cfg.FloodMessages && bytes <= l.g.cfg.FloodBytes || l.g.exempt(ctx, c.Device) {
			continue
		}
		l.cool(c.Device)
		l.g.metrics.floods.Inc()
		l.g.deps.Log.Warn("flood: connection cut", "device", c.Device, "messages_per_second", int(msgs), "bytes_per_second", int(bytes), "cool_down", l.g.cfg.CoolDown)
		if _, err := l.g.kick(ctx, c.Device, []fleet.Connection{c.Connection}, true); err != nil {
			l.g.deps.Log.Warn("flooding connection was not cut", "device", c.Device, "error", err)
		}
		l.g.publish(Event{Device: c.Device, Event: "flood", Reason: string(flooding), Address: c.Address, Protocol: c.Protocol, At: l.g.deps.Clock().UTC()})
	}
	l.mu.Lock()
	l.samples = next
	l.mu.Unlock()
}

// exempt devices may send as fast as they can: they replay the past.
func (g *Gate) exempt(ctx context.Context, device string) bool {
	d, err := g.deps.Device(ctx, device)
	return err != nil || d.Historic
}
