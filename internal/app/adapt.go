package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"cordon/alert/incident"
	"cordon/alert/notify"
	"cordon/detect"
	"cordon/detect/replay"
	"cordon/detect/rule"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/store"
	"cordon/web/api"
)

func (p *platform) part(name string) *slog.Logger { return p.log.With("part", name) }

// incidents and notices translate between the words of a stage and those of
// the API, which may not import each other.
type incidents struct{ *incident.Service }

func (i incidents) List(f api.IncidentFilter, sort, cursor string, limit int) (fleet.Page[fleet.Incident], error) {
	return i.Service.List(incident.Filter(f), sort, cursor, limit)
}

type notices struct{ *notify.Service }

func (n notices) Receivers() []api.Receiver {
	states := n.Service.Receivers()
	out := make([]api.Receiver, len(states))
	for i, s := range states {
		out[i] = api.Receiver{
			Name: s.Name, Kind: s.Kind, Host: s.Host, Severity: s.Severity, Changes: s.Changes, Healthy: s.Healthy,
			Pending: s.Pending, Delivered: s.Delivered, Failed: s.Failed, LastError: s.LastError, LastAt: s.LastAt,
			Source: s.Source, Signed: s.Signed, Keys: s.Keys, Breaker: s.Breaker, RetryAt: s.RetryAt, DisabledAt: s.DisabledAt, Disabled: s.Disabled,
		}
	}
	return out
}

// rules is the detector's catalogue, or the bucket's where another process
// detects.
func (p *platform) rules(d *detect.Detector) api.Rules {
	if d != nil {
		return d
	}
	return &catalogue{p: p}
}

// catalogue reads and changes rules through bucket "rule" alone.
type catalogue struct {
	p *platform

	mu   sync.Mutex
	list []fleet.Rule
	at   time.Time
}

// catalogueFor is how long a read of the bucket serves.
const catalogueFor = 2 * time.Second

// Rules is the newest list that could be read.
func (c *catalogue) Rules() []fleet.Rule {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.p.clock(); now.Sub(c.at) > catalogueFor {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		list, err := c.read(ctx)
		if err != nil {
			c.p.log.Warn("rules cannot be read", "error", err)
			return c.list
		}
		c.list, c.at = list, now
	}
	return c.list
}

func (c *catalogue) read(ctx context.Context) ([]fleet.Rule, error) {
	kv, err := c.p.bus.Bucket(ctx, bus.BucketRule)
	if err != nil {
		return nil, err
	}
	watch, err := kv.WatchAll(ctx)
	if err != nil {
		return nil, fmt.Errorf("read bucket %s: %w", bus.BucketRule, err)
	}
	defer func() { _ = watch.Stop() }()
	var list []fleet.Rule
	for entry := range watch.Updates() {
		if entry == nil {
			break
		}
		var change fleet.RuleChange
		if err := json.Unmarshal(entry.Value(), &change); err != nil || change.Source == "" {
			continue
		}
		r, err := rule.Parse(change.ID, []byte(change.Source))
		if err != nil {
			continue
		}
		shown := r.Fleet()
		shown.Mode, shown.ChangedBy, shown.Reason, shown.ChangedAt = change.Mode, change.Actor, change.Reason, entry.Created()
		list = append(list, shown)
	}
	slices.SortFunc(list, func(a, b fleet.Rule) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// SetMode puts a change on the log, where the detector that runs finds it.
func (c *catalogue) SetMode(ctx context.Context, id string, mode fleet.Mode, actor, reason string) (fleet.Rule, error) {
	c.mu.Lock()
	c.at = time.Time{}
	c.mu.Unlock()
	d := detect.New(detect.DefaultConfig(), detect.Deps{Bus: c.p.bus, Decode: decode, Log: c.p.part("detect"), Clock: c.p.clock})
	return d.SetMode(ctx, id, mode, actor, reason)
}

// insight is what the API shows of other parts.
func (p *platform) insight(d *detect.Detector) api.Insight {
	in := api.Insight{
		Stages:      p.stages,
		Expected:    p.expected,
		AppliesTo:   appliesTo(),
		Backtest:    p.backtest(p.rules(d)),
		Connections: p.bus.Connections,
		Baselines: func(ctx context.Context, device string) ([]fleet.BaselineState, error) {
			if d != nil {
				return d.Baselines(device), nil
			}
			return bus.Baselines(ctx, p.bus, device)
		},
	}
	return in
}

// appliesTo says whether a rule's scope holds a device. Rules are parsed once
// a version.
func appliesTo() func(fleet.Rule, fleet.Device) bool {
	var parsed sync.Map // version → *rule.Rule
	return func(r fleet.Rule, d fleet.Device) bool {
		known, ok := parsed.Load(r.Version)
		if !ok {
			fresh, err := rule.Parse(r.ID, []byte(r.Source))
			if err != nil {
				return false // the detector does not run it either
			}
			known, _ = parsed.LoadOrStore(r.Version, fresh)
		}
		return known.(*rule.Rule).Scope.Contains(d.ID, d.Cohort, d.Tags)
	}
}

// expected is the band of a chart: the device's own baseline, run over its
// stored history.
func (p *platform) expected(ctx context.Context, device, metric string, from, to time.Time, points int) ([]api.Band, error) {
	zone := time.UTC
	if d, ok := p.devices.Get(device); ok && d.TimeZone != "" {
		if known, err := time.LoadLocation(d.TimeZone); err == nil {
			zone = known
		}
	}
	scan := func(ctx context.Context, device, metric string, from, to time.Time, yield func(fleet.Record) error) error {
		return p.store.Scan(ctx, store.ScanQuery{Device: device, Metric: metric, From: from, To: to}, yield)
	}
	bands, err := replay.Expected(ctx, scan, replay.Query{Device: device, Metric: metric, Zone: zone, From: from, To: to, Points: points})
	if err != nil {
		return nil, err
	}
	out := make([]api.Band, len(bands))
	for i, b := range bands {
		out[i] = api.Band{At: b.At, Low: b.Low, High: b.High, Center: b.Center, Learning: b.State != "ready"}
	}
	return out, nil
}
