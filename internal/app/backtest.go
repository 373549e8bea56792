package app

import (
	"context"
	"time"

	"cordon/detect/replay"
	"cordon/detect/rule"
	"cordon/internal/fleet"
	"cordon/internal/store"
	"cordon/web/api"
)

// backtestsAtOnce keeps trials from taking what detection needs.
const backtestsAtOnce = 2

// backtest runs rules over ClickHouse with the detector's own engine.
func (p *platform) backtest(catalogue api.Rules) api.Backtest {
	running := make(chan struct{}, backtestsAtOnce)
	return func(ctx context.Context, in fleet.BacktestRequest) (fleet.BacktestReport, error) {
		select {
		case running <- struct{}{}:
			defer func() { <-running }()
		default:
			return fleet.BacktestReport{}, fleet.Errorf(fleet.CodeTooMany, "%d backtests are running: try again when one has ended", backtestsAtOnce)
		}
		began := p.clock()
		trial := replay.Trial{Rule: in.Source, Device: in.Device, From: in.From, To: in.To}
		id := in.ID
		if in.Source != "" && id == "" {
			r, err := rule.Parse("source", []byte(in.Source))
			if err != nil {
				return fleet.BacktestReport{}, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("source")
			}
			id = r.ID
		}
		for _, r := range catalogue.Rules() {
			if r.ID == id {
				trial.Live = r.Source
			}
		}
		if trial.Rule == "" {
			if trial.Rule = trial.Live; trial.Rule == "" {
				return fleet.BacktestReport{}, fleet.Errorf(fleet.CodeNotFound, "there is no rule %q", id).On("id")
			}
		}
		p.devices.All(func(d fleet.Device) bool {
			trial.Devices = append(trial.Devices, fleet.DeviceChange{
				ID: d.ID, Cohort: d.Cohort, Tags: d.Tags, TimeZone: d.TimeZone, Historic: d.Historic, Retired: d.State == fleet.Retired || d.State == fleet.Revoked,
			})
			return true
		})
		scan := func(ctx context.Context, device, metric string, from, to time.Time, yield func(fleet.Record) error) error {
			return p.store.Scan(ctx, store.ScanQuery{Device: device, Metric: metric, From: from, To: to}, yield)
		}
		report, err := replay.Backtest(ctx, scan, trial)
		report.Seconds = p.clock().Sub(began).Seconds()
		return report, err
	}
}
