package app

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"cordon/alert/evidence"
	"cordon/alert/incident"
	"cordon/alert/notify"
	"cordon/alert/watch"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/seal"
	"cordon/internal/store"
	"cordon/web/api"
)

// evidenceRows bounds what a snapshot holds of one device.
const evidenceRows = 50_000

// notifier makes the service that tells people.
func (p *platform) notifier() (*notify.Service, error) {
	secrets, err := seal.Load(filepath.Join(p.dir, "keys", "secrets.key"), "CORDON_SECRETS_KEY")
	if err != nil {
		return nil, fmt.Errorf("load key for secrets at rest: %w", err)
	}
	cfg := notify.DefaultConfig()
	cfg.Receivers, cfg.Policy, cfg.BaseURL = p.cfg.Receivers, p.cfg.Policy, p.cfg.Link
	return notify.New(cfg, notify.Deps{Bus: p.bus, Log: p.part("notify"), Registry: p.registry, Clock: p.clock, Seal: secrets})
}

// sealer makes the service that seals evidence.
func (p *platform) sealer(incidents *incident.Service) (*evidence.Service, error) {
	key, err := evidence.LoadKey(filepath.Join(p.dir, "keys"))
	if err != nil {
		return nil, err
	}
	return evidence.New(evidence.Deps{
		Bus: p.bus, Key: key, Log: p.part("evidence"), Clock: p.clock,
		Sources: evidence.Sources{
			Incident: incidents.Get,
			Findings: func(ctx context.Context, ids []string) ([]fleet.Finding, error) {
				page, err := p.store.Findings(ctx, store.FindingQuery{IDs: ids, Limit: len(ids)})
				return page.Items, err
			},
			Readings: p.evidenceReadings,
			Audit: func(ctx context.Context, device string, from, to time.Time) (any, error) {
				page, err := p.store.Audit(ctx, store.AuditQuery{Device: device, From: from, To: to, Limit: 5000})
				return page.Items, err
			},
			Baselines: func(ctx context.Context, device string) ([]fleet.BaselineState, error) {
				return bus.Baselines(ctx, p.bus, device)
			},
			Connections: p.bus.Connections,
			Rules:       func() []fleet.Rule { return p.rules(p.detector).Rules() },
			Device:      p.devices.Get,
		},
	}), nil
}

// evidenceReadings are the readings of a device, metric by metric.
func (p *platform) evidenceReadings(ctx context.Context, device string, from, to time.Time) (any, error) {
	metrics, err := p.store.Metrics(ctx, device)
	if err != nil {
		return nil, err
	}
	type point struct {
		At    time.Time `json:"at"`
		Value float64   `json:"value"`
	}
	out, rows := map[string][]point{}, 0
	for _, m := range metrics {
		if rows >= evidenceRows {
			break
		}
		series, err := p.store.Series(ctx, store.SeriesQuery{Device: device, Metric: m.Metric, From: from, To: to, Points: 2000})
		if err != nil {
			return nil, err
		}
		for _, s := range series.Points {
			out[m.Metric] = append(out[m.Metric], point{s.At, s.Mean})
			rows++
		}
	}
	return out, nil
}

// watcher looks at Cordon itself.
func (p *platform) watcher(notices *notify.Service) *watch.Watch {
	cfg := watch.DefaultConfig()
	cfg.Heartbeat = p.cfg.Heartbeat
	return watch.New(cfg, watch.Deps{
		Bus: p.bus, Stages: p.stages, Log: p.part("watch"), Clock: p.clock,
		Receivers: func() []watch.Receiver {
			var out []watch.Receiver
			for _, r := range notices.Receivers() {
				out = append(out, watch.Receiver{Name: r.Name, Healthy: r.Healthy, Pending: r.Pending, Disabled: r.Disabled, Error: r.LastError})
			}
			return out
		},
	})
}

// alerts translates between the words of the alert stage and those of the API.
type alerts struct {
	incidents *incident.Service
	notices   *notify.Service
	evidence  *evidence.Service
}

func (a alerts) Route(i fleet.Incident, change string, at time.Time) []api.RoutedTo {
	return routed(a.notices.Route(i, change, at))
}

func routed(list []notify.Told) []api.RoutedTo {
	out := make([]api.RoutedTo, 0, len(list))
	for _, t := range list {
		out = append(out, api.RoutedTo{
			Receiver: t.Receiver, Kind: t.Kind, Route: t.Route, Told: t.Told, Why: t.Why, HeldBy: t.HeldBy,
			AfterSeconds: time.Duration(t.After).Seconds(), TogetherSeconds: time.Duration(t.Together).Seconds(),
		})
	}
	return out
}

// Explain is what the API answers about who would be told, from settings
// alone.
func Explain(receivers []notify.Receiver, policy notify.Policy, i fleet.Incident, change string, at time.Time) []api.RoutedTo {
	return routed(notify.Explain(notify.Config{Receivers: receivers, Policy: policy}, i, change, at))
}

func (a alerts) Policy() map[string]any {
	out := map[string]any{}
	raw, err := json.Marshal(a.notices.Policy())
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return map[string]any{}
	}
	return out
}

func (a alerts) Silences(all bool) []fleet.Silence { return a.notices.Silences(all) }

func (a alerts) AddSilence(ctx context.Context, s fleet.Silence) (fleet.Silence, error) {
	return a.notices.AddSilence(ctx, s)
}

func (a alerts) EndSilence(ctx context.Context, id, actor string) (fleet.Silence, error) {
	return a.notices.EndSilence(ctx, id, actor)
}

func (a alerts) SetReceiver(ctx context.Context, s api.ReceiverSettings, name, actor string) error {
	_, err := a.notices.SetReceiver(ctx, notify.Receiver{
		Name: name, Kind: s.Kind, URL: s.URL, Secret: s.Secret, Secrets: s.Secrets, To: s.To, From: s.From,
		Username: s.Username, Password: s.Password, Severity: s.Severity, Changes: s.Changes, AllowPrivate: s.AllowPrivate,
	}, actor)
	return err
}

func (a alerts) RemoveReceiver(ctx context.Context, name string) error {
	return a.notices.RemoveReceiver(ctx, name)
}

func (a alerts) EnableReceiver(ctx context.Context, name, actor string) error {
	_, err := a.notices.EnableReceiver(ctx, name, actor)
	return err
}

func (a alerts) TestReceiver(ctx context.Context, name, actor string) (fleet.Delivery, error) {
	return a.notices.Test(ctx, name, actor)
}

func (a alerts) Replay(ctx context.Context, delivery, actor string) (fleet.Delivery, error) {
	return a.notices.Replay(ctx, delivery, actor)
}

func (a alerts) SetTags(ctx context.Context, id, actor string, tags []string) (fleet.Incident, error) {
	return a.incidents.SetTags(ctx, id, actor, tags)
}

func (a alerts) SetTicket(ctx context.Context, id, actor, ticket string) (fleet.Incident, error) {
	return a.incidents.SetTicket(ctx, id, actor, ticket)
}

func (a alerts) Handover(from, to time.Time) api.Handover {
	return api.Handover(a.incidents.Handover(from, to))
}

func (a alerts) Risks(limit int) []api.Risk {
	var out []api.Risk
	for _, r := range a.incidents.Risks(limit) {
		out = append(out, api.Risk(r))
	}
	return out
}

func (a alerts) Evidence(ctx context.Context, id, actor string, fresh bool) (name string, archive []byte, err error) {
	return a.evidence.Archive(ctx, id, actor, fresh)
}
