package replay

import (
	"context"
	"fmt"
	"time"

	"cordon/detect/baseline"
	"cordon/internal/fleet"
)

// Scan calls yield with stored records in stream order: of one metric of one
// device, or, with those empty, of all. Zero times are open.
type Scan func(ctx context.Context, device, metric string, from, to time.Time, yield func(fleet.Record) error) error

// lookBack is how much history before a chart teaches its expected band.
const lookBack = 35 * 24 * time.Hour

// maxPoints bounds the points of a band.
const maxPoints = 5000

// Query asks for the expected band of a chart.
type Query struct {
	Device   string
	Metric   string
	Zone     *time.Location // of the device; nil is UTC
	From, To time.Time
	Points   int
}

// Band is what the baseline expected at a time.
type Band struct {
	At     time.Time
	Low    float64
	Center float64
	High   float64
	State  string // learning, ready
}

// Expected runs the baseline over stored history and returns what it expected
// at evenly spaced times, each from readings before that time only. While the
// stream has no reading at all there is no band.
func Expected(ctx context.Context, scan Scan, q Query) ([]Band, error) {
	if q.Points < 1 || q.Points > maxPoints || !q.To.After(q.From) {
		return nil, fleet.Errorf(fleet.CodeInvalid, "expected band from %s to %s in %d points: want an interval and 1 to %d points", q.From, q.To, q.Points, maxPoints)
	}
	if q.Zone == nil {
		q.Zone = time.UTC
	}
	r := &band{query: q, settings: baseline.DefaultSettings(), step: q.To.Sub(q.From) / time.Duration(q.Points)}
	err := scan(ctx, q.Device, q.Metric, q.From.Add(-lookBack), q.To, func(record fleet.Record) error {
		for i := range record.Readings {
			r.read(&record.Readings[i])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read history of %s: %w", q.Device, err)
	}
	r.upTo(q.To)
	return r.out, nil
}

type band struct {
	query    Query
	settings baseline.Settings
	step     time.Duration
	model    baseline.Model
	last     time.Time
	out      []Band
}

func (b *band) read(r *fleet.Reading) {
	if r.Metric != b.query.Metric {
		return
	}
	if r.ObservedAt.After(b.last) {
		b.last = r.ObservedAt
	}
	b.upTo(b.last)
	b.model.Observe(&b.settings, b.last.Unix(), b.local(b.last), r.Value, true)
}

// upTo adds the points up to a time from what is known before it.
func (b *band) upTo(until time.Time) {
	for len(b.out) < b.query.Points {
		at := b.query.From.Add(time.Duration(len(b.out)) * b.step)
		if at.After(until) || at.After(b.query.To) {
			return
		}
		point := Band{At: at, State: "learning"}
		if b.model.Samples() > 0 {
			point.Low, point.Center, point.High = b.model.Band(at.Unix(), b.local(at))
		}
		if b.model.Ready(&b.settings) {
			point.State = "ready"
		}
		b.out = append(b.out, point)
	}
}

func (b *band) local(at time.Time) int32 {
	_, offset := at.In(b.query.Zone).Zone()
	return int32(offset)
}
