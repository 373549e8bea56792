package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// watchLag is how far the watch of the registry may be behind.
const watchLag = 10 * time.Second

// devices follows the registry, so that a revoked, retired or re-certified
// device loses its old connections at once.
type devices struct {
	g      *Gate
	loaded chan struct{}
	once   sync.Once

	mu    sync.Mutex
	known map[string]standingOf

	family family
	group  sync.WaitGroup
}

type standingOf struct {
	state  fleet.DeviceState
	serial string
	next   string    // serial of the credential that will replace it
	since  time.Time // when the certificate was made, about
}

func newDevices(g *Gate) *devices {
	return &devices{g: g, loaded: make(chan struct{}), known: map[string]standingOf{}, family: newFamily()}
}

func (d *devices) run(ctx context.Context) error {
	defer d.group.Wait()
	for ctx.Err() == nil {
		if err := d.watch(ctx); ctx.Err() == nil {
			d.g.again(ctx, "registry", err)
		}
	}
	return nil
}

func (d *devices) watch(ctx context.Context) error {
	kv, err := d.g.deps.Bus.Bucket(ctx, bus.BucketDevice)
	if err != nil {
		return err
	}
	watcher, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", bus.BucketDevice, err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	initial := true
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for update := range watcher.Updates() {
		if update == nil {
			initial = false
			d.once.Do(func() { close(d.loaded) })
			continue
		}
		cut, gateways, lost := d.observe(update)
		if initial {
			continue
		}
		for _, gateway := range gateways {
			d.regrant(ctx, gateway, lost)
		}
		if cut {
			if err := d.enforce(ctx, update.Key()); err != nil {
				d.g.deps.Log.Warn("connections of a changed device are not cut yet", "device", update.Key(), "error", err)
			}
		}
	}
	return errors.New("watch closed by the broker")
}

// observe says whether the device may have connections that must go, and which
// gateways have other children than before, maybe fewer.
func (d *devices) observe(update jetstream.KeyValueEntry) (cut bool, gateways []string, lost bool) {
	var device fleet.Device
	if update.Operation() != jetstream.KeyValuePut || json.Unmarshal(update.Value(), &device) != nil {
		device = fleet.Device{State: fleet.Retired}
	}
	now := standingOf{state: device.State, serial: device.CertificateSerial, since: device.CertificateNotBefore}
	if device.Next != nil {
		now.next = device.Next.Serial
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.known[update.Key()]
	d.known[update.Key()] = now
	gateways = d.family.observe(update.Key(), device)
	return old.serial != "" && old != now, gateways, d.family.gateway[update.Key()] == ""
}

// enforce cuts what the registry no longer lets in.
func (d *devices) enforce(ctx context.Context, id string) error {
	live, _, err := d.g.deps.Bus.Live(ctx, id)
	if err != nil {
		return err
	}
	for _, l := range live {
		why, silent := d.objection(l, d.g.table.serial(key{l.ServerID, l.CID}))
		if why == "" && d.g.staleGateway(l) {
			why = "children_changed"
		}
		if why == "" {
			continue
		}
		d.g.deps.Log.Info("connection cut", "device", id, "reason", why, "address", l.Address, "protocol", l.Protocol)
		if _, err := d.g.kick(ctx, id, []fleet.Connection{l.Connection}, silent); err != nil {
			return err
		}
	}
	// A connection whose callout is open is on no broker's list yet. The one on
	// the credential that the change is about may stay.
	for _, c := range d.g.table.of(id) {
		if !c.open {
			continue
		}
		why, _ := d.objection(bus.Live{Connection: c.Connection, Device: id}, c.serial)
		if why == "" && (c.grant == "" || c.grant == grantOf(d.g.speaksFor(id))) {
			continue
		}
		if _, err := d.g.kick(ctx, id, []fleet.Connection{c.Connection}, false); err != nil {
			return err
		}
	}
	return nil
}

// objection says why the registry forbids a live connection. serial is empty
// for connections that an earlier gate admitted: they must be younger than the
// certificate.
func (d *devices) objection(l bus.Live, serial string) (why string, silent bool) {
	d.mu.Lock()
	now, known := d.known[l.Device]
	d.mu.Unlock()
	switch {
	case !known && time.Since(l.StartedAt) < watchLag:
		return "", false // enrolled a moment ago
	case !known:
		return string(unknown), true
	case now.state == fleet.Revoked, now.state == fleet.Retired:
		return string(now.state), true
	case now.state != fleet.Active:
		return string(notActive), true
	case serial == "" && l.StartedAt.Before(now.since), serial != "" && serial != now.serial && serial != now.next:
		// The device may be back on its new certificate and the same MQTT
		// session, which must not be dropped.
		return string(superseded), false
	}
	return "", false
}
