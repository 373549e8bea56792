package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// A gateway speaks for its children: its permissions name each of them. They
// are made when it connects, so a change among the children (one more, one
// retired, one quarantined) cuts the gateway's connections, and it comes back
// with the permissions of now.

// regrantAfter collects changes among a gateway's children: enrolling many
// must not cut it many times.
const regrantAfter = 250 * time.Millisecond

// family is what the registry's watch knows of gateways and children. The
// mutex of devices guards it.
type family struct {
	gateway  map[string]string          // of each active child
	children map[string]map[string]bool // active ones of each gateway
	changed  map[string]time.Time       // when the children of a gateway last changed
	planned  map[string]bool            // a regrant of the gateway is under way
}

func newFamily() family {
	return family{gateway: map[string]string{}, children: map[string]map[string]bool{}, changed: map[string]time.Time{}, planned: map[string]bool{}}
}

// observe takes a device over and returns the gateways whose children changed.
func (f *family) observe(id string, device fleet.Device) []string {
	old, now := f.gateway[id], ""
	if device.State == fleet.Active {
		now = device.Gateway
	}
	at := device.EnrolledAt
	if device.StateAt.After(at) {
		at = device.StateAt
	}
	if device.Gateway != "" && at.After(f.changed[device.Gateway]) {
		f.changed[device.Gateway] = at
	}
	if old == now {
		return nil
	}
	var changed []string
	if old != "" {
		delete(f.children[old], id)
		if len(f.children[old]) == 0 {
			delete(f.children, old)
		}
		delete(f.gateway, id)
		changed = append(changed, old)
	}
	if now != "" {
		if f.children[now] == nil {
			f.children[now] = map[string]bool{}
		}
		f.children[now][id], f.gateway[id] = true, now
		changed = append(changed, now)
	}
	return changed
}

// gatewayOf is the device that speaks for an active child, "" for none.
func (d *devices) gatewayOf(child string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.family.gateway[child]
}

// speaksFor lists the children for which a gateway may speak now, sorted.
func (g *Gate) speaksFor(gateway string) []string {
	g.devices.mu.Lock()
	all := slices.Sorted(maps.Keys(g.devices.family.children[gateway]))
	g.devices.mu.Unlock()
	return slices.DeleteFunc(all, func(child string) bool {
		q := g.enforcer.current(child).q
		return q.Active() && q.Level != fleet.Observe
	})
}

// grantOf names a set of children.
func grantOf(children []string) string {
	if len(children) == 0 {
		return "none"
	}
	sum := sha256.Sum256([]byte(strings.Join(children, ".")))
	return hex.EncodeToString(sum[:8])
}

// stale says whether a gateway's connection carries permissions from before a
// change among its children. Of one that another gate admitted only its age is
// known.
func (g *Gate) stale(l bus.Live, since time.Time) bool {
	if grant := g.table.grant(key{l.ServerID, l.CID}); grant != "" {
		return grant != grantOf(g.speaksFor(l.Device))
	}
	return l.StartedAt.Before(since)
}

// staleGateway is stale for the reconciler.
func (g *Gate) staleGateway(l bus.Live) bool {
	g.devices.mu.Lock()
	since, known := g.devices.family.changed[l.Device]
	g.devices.mu.Unlock()
	return known && !l.Restricted && g.stale(l, since)
}

// regrant cuts a gateway soon, so that it comes back with new permissions;
// at once when it lost a child.
func (d *devices) regrant(ctx context.Context, gateway string, lost bool) {
	if lost {
		d.regrantNow(ctx, gateway)
		return
	}
	d.mu.Lock()
	planned := d.family.planned[gateway]
	d.family.planned[gateway] = true
	d.mu.Unlock()
	if planned {
		return
	}
	d.group.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(regrantAfter):
		}
		d.mu.Lock()
		delete(d.family.planned, gateway)
		d.mu.Unlock()
		d.regrantNow(ctx, gateway)
	})
}

func (d *devices) regrantNow(ctx context.Context, gateway string) {
	if err := d.enforce(ctx, gateway); err != nil && ctx.Err() == nil {
		d.g.deps.Log.Warn("a gateway has not got the permissions of its children yet", "device", gateway, "error", err)
	}
}

// cutGateway kicks the connections on which a quarantined child's gateway may
// still speak for it. restrict means isolate here: a child has no connection
// of its own for repairs.
func (e *enforcer) cutGateway(ctx context.Context, q fleet.Quarantine) ([]fleet.Connection, error) {
	gateway := e.g.devices.gatewayOf(q.Device)
	if gateway == "" || !q.Active() || q.Level == fleet.Observe {
		return nil, nil
	}
	now := grantOf(e.g.speaksFor(gateway))
	var targets []fleet.Connection
	for _, c := range e.g.table.of(gateway) {
		if c.open || c.grant != now {
			targets = append(targets, c.Connection)
		}
	}
	return e.g.kick(ctx, gateway, targets, false)
}

// lookGateway lists and kicks what cutGateway left.
func (e *enforcer) lookGateway(ctx context.Context, q fleet.Quarantine, since time.Time) (bad, kicked []fleet.Connection, pending bool, err error) {
	gateway := e.g.devices.gatewayOf(q.Device)
	if gateway == "" || !q.Active() || q.Level == fleet.Observe {
		return nil, nil, false, nil
	}
	live, _, err := e.g.deps.Bus.Live(ctx, gateway) // the child's own look says which broker is silent
	if err != nil {
		return nil, nil, false, err
	}
	for _, l := range live {
		if !l.Restricted && e.g.stale(l, since) {
			bad = append(bad, l.Connection)
		}
	}
	kicked, err = e.g.kick(ctx, gateway, bad, false)
	return bad, kicked, e.g.table.pending(gateway, since), err
}
