package api

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// statusEvery is how often the pulse of the fleet is sent.
const statusEvery = 5 * time.Second

// feed turns what happens on the bus into live events until ctx ends.
func (a *API) feed(ctx context.Context) error {
	for subject, handle := range map[string]func([]byte) error{
		bus.SubjectIncident + ".>":    a.onIncident,
		bus.SubjectFinding + ".>":     a.onFinding,
		bus.SubjectGateChanges + ".>": a.onGate,
	} {
		sub, err := a.deps.Bus.Cordon.Subscribe(subject, func(m *nats.Msg) {
			if err := handle(m.Data); err != nil {
				a.deps.Log.Warn("live event was not understood", "subject", m.Subject, "error", err)
			}
		})
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		defer sub.Unsubscribe() //nolint:errcheck // the connection may be closed already
	}
	merged := make(chan jetstream.KeyValueEntry, 64)
	for _, name := range []string{bus.BucketQuarantine, bus.BucketDevice, bus.BucketRule} {
		kv, err := a.deps.Bus.Bucket(ctx, name)
		if err != nil {
			return err
		}
		watcher, err := kv.WatchAll(ctx, jetstream.UpdatesOnly())
		if err != nil {
			return fmt.Errorf("watch bucket %s: %w", name, err)
		}
		go forward(ctx, watcher, merged)
	}
	pulse := time.NewTicker(statusEvery)
	defer pulse.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry := <-merged:
			if err := a.onEntry(entry); err != nil {
				a.deps.Log.Warn("live event was not understood", "bucket", entry.Bucket(), "error", err)
			}
		case <-pulse.C:
			if a.hub.size() > 0 {
				a.hub.publish("status", a.status(ctx))
			}
		}
	}
}

func forward(ctx context.Context, watcher jetstream.KeyWatcher, to chan<- jetstream.KeyValueEntry) {
	defer watcher.Stop() //nolint:errcheck // the connection may be closed already
	for {
		select {
		case <-ctx.Done():
			return
		case entry, ok := <-watcher.Updates():
			if !ok {
				return
			}
			if entry == nil {
				continue
			}
			select {
			case to <- entry:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (a *API) onIncident(data []byte) error {
	var change fleet.IncidentChange
	if err := json.Unmarshal(data, &change); err != nil {
		return fmt.Errorf("decode incident change: %w", err)
	}
	a.view.expire()
	a.hub.about(change.Incident.Device, "incident:"+change.Incident.ID, IncidentEvent{Incident: incidentLine(change.Incident)})
	return nil
}

func (a *API) onFinding(data []byte) error {
	var f fleet.Finding
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("decode finding: %w", err)
	}
	// By device and rule: of a rule that fires many times the newest is enough.
	a.hub.about(f.Device, "finding:"+f.Device+"/"+f.RuleID, FindingEvent{
		ID: f.ID, Device: f.Device, RuleID: f.RuleID, RuleTitle: f.RuleTitle, Severity: f.Severity, Mode: f.Mode,
		Sentence: f.Explanation.Sentence, ReceivedAt: f.ReceivedAt, Cleared: f.Cleared,
	})
	return nil
}

// gateChange is what the gate says on cordon.gate.<device>.
type gateChange struct {
	Device string    `json:"device"`
	Event  string    `json:"event"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

func (a *API) onGate(data []byte) error {
	var g gateChange
	if err := json.Unmarshal(data, &g); err != nil {
		return fmt.Errorf("decode gate change: %w", err)
	}
	a.hub.about(g.Device, "gate:"+g.Device, DeviceEvent{ID: g.Device, Event: g.Event, Reason: g.Reason, At: g.At})
	return nil
}

func (a *API) onEntry(entry jetstream.KeyValueEntry) error {
	switch entry.Bucket() {
	case bus.BucketQuarantine:
		var q fleet.Quarantine
		if err := json.Unmarshal(entry.Value(), &q); err != nil {
			return fmt.Errorf("decode quarantine: %w", err)
		}
		a.view.expire()
		a.hub.about(q.Device, "quarantine:"+q.Device, QuarantineEvent{Quarantine: q})
	case bus.BucketDevice:
		a.view.expire()
		a.hub.about(entry.Key(), "device:"+entry.Key(), DeviceEvent{ID: entry.Key(), Event: "changed", At: entry.Created()})
	case bus.BucketRule:
		a.hub.publish("rule:"+entry.Key(), RuleEvent{ID: entry.Key(), At: entry.Created()})
	}
	return nil
}

// status is the pulse: what the top of every page shows.
func (a *API) status(ctx context.Context) StatusEvent {
	p := caller(ctx)
	s := a.view.of(ctx, p)
	in := a.view.ingest(ctx)
	if p.Scoped() {
		in = IngestHealth{} // it is counted for the whole fleet only
	}
	return StatusEvent{
		At: a.deps.Clock().UTC(), Fleet: s.health, Incidents: s.incidents, Quarantined: s.quarantine.Active,
		ReadingsPerSecond: in.ReadingsPerSecond, LagSeconds: in.LagSeconds, Healthy: healthy(a.stages(ctx)),
	}
}

func healthy(stages []fleet.StageStatus) bool {
	for _, s := range stages {
		if !s.Healthy {
			return false
		}
	}
	return true
}
