package api

import (
	"context"
	"math"
	"strings"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/store"
)

// longestSeries is the longest period of a series: two years, so that a
// replayed year fits.
const longestSeries = 2 * 366 * 24 * time.Hour

// unavailable keeps the code of a known error and says of a foreign one only
// that history does not answer.
func unavailable(what string, err error) error {
	if fleet.CodeOf(err) != "" {
		return err
	}
	return &fleet.Error{Code: fleet.CodeUnavailable, Message: "history does not answer: " + what + " can't be read now; try again, and see System", Err: err}
}

func (a *API) listMetrics(ctx context.Context, in *deviceInput) (*metricsOutput, error) {
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	rows, err := a.deps.History.Metrics(ctx, in.ID)
	if err != nil {
		return nil, unavailable("metrics", err)
	}
	out := MetricList{Items: make([]MetricLast, 0, len(rows))}
	for _, r := range rows {
		out.Items = append(out.Items, MetricLast{Metric: r.Metric, Unit: unitOf(r.Metric), Value: r.Value, At: r.At, Count: r.Count})
	}
	return &metricsOutput{Body: out}, nil
}

// units are told by the last words of a metric's name.
var units = []struct{ suffix, unit string }{
	{"_celsius", "Cel"},
	{"_fahrenheit", "[degF]"},
	{"_percent", "%"},
	{"_ratio", "1"},
	{"_bytes_per_second", "By/s"},
	{"_packets_per_second", "{packet}/s"},
	{"_per_second", "1/s"},
	{"_bytes", "By"},
	{"_milliseconds", "ms"},
	{"_ms", "ms"},
	{"_seconds", "s"},
	{"_volts", "V"},
	{"_amperes", "A"},
	{"_watts", "W"},
	{"_hertz", "Hz"},
	{"_pascal", "Pa"},
	{"_bar", "bar"},
}

func unitOf(metric string) string {
	for _, u := range units {
		if strings.HasSuffix(metric, u.suffix) {
			return u.unit
		}
	}
	return "1"
}

func (a *API) getSeries(ctx context.Context, in *seriesInput) (*seriesOutput, error) {
	from, to, err := in.bounds(a.deps.Clock(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	if to.Sub(from) > longestSeries {
		return nil, fleet.Errorf(fleet.CodeInvalid, "the period is longer than two years; ask for less").On("query.from")
	}
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	s, err := a.deps.History.Series(ctx, store.SeriesQuery{Device: in.ID, Metric: in.Metric, From: from, To: to, Points: in.Points})
	if err != nil {
		return nil, unavailable("the series", err)
	}
	out := Series{
		Metric: in.Metric, Unit: unitOf(in.Metric), Resolution: s.Resolution,
		T: make([]int64, 0, len(s.Points)), Mean: make([]float64, 0, len(s.Points)), Min: make([]float64, 0, len(s.Points)), Max: make([]float64, 0, len(s.Points)),
	}
	for _, p := range s.Points {
		if !finite(p.Mean, p.Min, p.Max) {
			continue
		}
		out.T = append(out.T, p.At.UnixMilli())
		out.Mean, out.Min, out.Max = append(out.Mean, p.Mean), append(out.Min, p.Min), append(out.Max, p.Max)
	}
	out.Expected = a.expected(ctx, in.ID, in.Metric, from, to, in.Points)
	return &seriesOutput{Body: out}, nil
}

// expected is the band of the baseline; a chart without it is better than no
// chart.
func (a *API) expected(ctx context.Context, device, metric string, from, to time.Time, points int) *Expected {
	if a.deps.Insight.Expected == nil {
		return nil
	}
	bands, err := a.deps.Insight.Expected(ctx, device, metric, from, to, points)
	if err != nil {
		a.deps.Log.Warn("expected band was not made", "device", device, "metric", metric, "error", err)
		return nil
	}
	out := Expected{T: []int64{}, Low: []float64{}, High: []float64{}, Center: []float64{}}
	for _, b := range bands {
		if b.Learning {
			out.LearningUntil = b.At.UTC()
		}
		if b.Learning || !finite(b.Low, b.High, b.Center) {
			continue
		}
		out.T = append(out.T, b.At.UnixMilli())
		out.Low, out.High, out.Center = append(out.Low, b.Low), append(out.High, b.High), append(out.Center, b.Center)
	}
	if len(bands) == 0 {
		return nil
	}
	return &out
}

func finite(values ...float64) bool {
	for _, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

func (a *API) listAudit(ctx context.Context, in *auditInput) (*auditOutput, error) {
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	if _, _, err := in.bounds(a.deps.Clock(), 0); err != nil && !in.From.IsZero() && !in.To.IsZero() {
		return nil, err
	}
	rows, err := a.deps.History.Audit(ctx, store.AuditQuery{
		Device: in.ID, From: in.From, To: in.To, Text: in.Query, Before: store.Cursor(in.Cursor), Limit: in.Limit,
	})
	if err != nil {
		return nil, unavailable("audit events", err)
	}
	out := fleet.Page[AuditLine]{Items: make([]AuditLine, 0, len(rows.Items)), Next: rows.Next, Total: rows.Total}
	for _, r := range rows.Items {
		out.Items = append(out.Items, AuditLine{
			Device: r.Device, ReceivedAt: r.ReceivedAt, StreamSeq: r.StreamSeq, At: r.ObservedAt, Class: r.Class, Activity: r.Activity,
			Outcome: r.Outcome, Program: r.Program, Actor: r.Actor, User: r.User, Message: r.Message, Fields: r.Fields, Repeat: r.Count(),
		})
	}
	return &auditOutput{Body: out}, nil
}

func (a *API) listFindings(ctx context.Context, in *listFindingsInput) (*findingsOutput, error) {
	if !in.From.IsZero() && !in.To.IsZero() && in.From.After(in.To) {
		return nil, fleet.Errorf(fleet.CodeInvalid, "from is after to").On("query.from")
	}
	if err := a.requireVisible(ctx, in.Device); err != nil {
		return nil, err
	}
	rows, err := a.deps.History.Findings(ctx, store.FindingQuery{
		Device: in.Device, Rule: in.Rule, From: in.From, To: in.To, Before: store.Cursor(in.Cursor), Limit: in.Limit,
	})
	if err != nil {
		return nil, unavailable("findings", err)
	}
	return &findingsOutput{Body: kept(a, caller(ctx), page(rows), func(f fleet.Finding) string { return f.Device })}, nil
}

func (a *API) listDeadLetters(ctx context.Context, in *listDeadLettersInput) (*listDeadLettersOutput, error) {
	if err := a.requireVisible(ctx, in.Device); err != nil {
		return nil, err
	}
	rows, err := a.deps.History.DeadLetters(ctx, store.DeadLetterQuery{Device: in.Device, Before: store.Cursor(in.Cursor), Limit: in.Limit})
	if err != nil {
		return nil, unavailable("dead letters", err)
	}
	return &listDeadLettersOutput{Body: kept(a, caller(ctx), page(rows), func(l fleet.DeadLetter) string { return l.Device })}, nil
}

func (a *API) listDeliveries(ctx context.Context, in *listDeliveriesInput) (*listDeliveriesOutput, error) {
	p, err := a.deps.Notices.Deliveries(in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	if who := caller(ctx); who.Scoped() {
		device := map[string]string{}
		for _, d := range p.Items {
			if i, err := a.deps.Incidents.Get(ctx, d.Incident); err == nil {
				device[d.Incident] = i.Device
			}
		}
		p = kept(a, who, p, func(d fleet.Delivery) string { return device[d.Incident] })
	}
	receivers := filled(a.deps.Notices.Receivers())
	for i := range receivers {
		receivers[i].Changes = filled(receivers[i].Changes)
	}
	return &listDeliveriesOutput{Body: Deliveries{Items: filled(p.Items), Next: p.Next, Total: p.Total, Receivers: receivers}}, nil
}
