package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"cordon/internal/fleet"
)

const defaultPoints = 500

// widths are the buckets that a chart's axis can live with.
var widths = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	24 * time.Hour, 48 * time.Hour, 7 * 24 * time.Hour,
}

// widthFor returns the least width that needs no more than points buckets.
func widthFor(span time.Duration, points int) time.Duration {
	least := span/time.Duration(points) + 1
	for _, w := range widths {
		if w >= least {
			return w
		}
	}
	week := widths[len(widths)-1]
	return (least + week - 1) / week * week
}

func widthName(w time.Duration) string {
	switch {
	case w%(24*time.Hour) == 0:
		return strconv.Itoa(int(w/(24*time.Hour))) + "d"
	case w%time.Hour == 0:
		return strconv.Itoa(int(w/time.Hour)) + "h"
	case w%time.Minute == 0:
		return strconv.Itoa(int(w/time.Minute)) + "m"
	}
	return strconv.Itoa(int(w/time.Second)) + "s"
}

// extent is what a range of a metric holds.
type extent struct {
	count    uint64
	min, max time.Time
}

// level is a table that holds a metric's course, readings or a roll-up.
type level struct {
	table, column            string
	width                    time.Duration // of its rows
	count, mean, least, most string
}

// levels are ordered from fine to coarse; every width divides the next one.
var levels = []level{
	{"telemetry", "observed_at", 0, "count()", "avg(value)", "min(value)", "max(value)"},
	{"telemetry_1m", "minute", time.Minute, "sum(readings)", "sum(sum_value) / sum(readings)", "min(min_value)", "max(max_value)"},
	{"telemetry_1h", "hour", time.Hour, "sum(readings)", "sum(sum_value) / sum(readings)", "min(min_value)", "max(max_value)"},
	{"telemetry_1d", "day", 24 * time.Hour, "sum(readings)", "sum(sum_value) / sum(readings)", "min(min_value)", "max(max_value)"},
}

// Series returns one metric of one device: every reading when that makes no
// more points than asked for, else buckets. They are made from the coarsest
// roll-up that is fine enough, or from the finest one that reaches back as far
// as any: readings expire first, then minutes, then hours.
func (s *Store) Series(ctx context.Context, q SeriesQuery) (Series, error) {
	if q.Device == "" || q.Metric == "" {
		return Series{}, fleet.Errorf(fleet.CodeInvalid, "a series needs a device and a metric").On("metric")
	}
	if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
		return Series{}, fleet.Errorf(fleet.CodeInvalid, "from must be before to").On("from")
	}
	if q.Points <= 0 {
		q.Points = defaultPoints
	}
	q.Points = min(max(q.Points, 2), MaxPoints)
	extents := make([]extent, len(levels))
	for i, l := range levels {
		whole := q
		if l.width > 0 && !q.From.IsZero() { // rows that begin before the range hold more than it
			whole.From = ceil(q.From, l.width)
		}
		var err error
		if extents[i], err = s.extent(ctx, whole, l.table, l.column, l.count); err != nil {
			return Series{}, err
		}
	}
	finest := reaching(extents)
	first, last := extents[finest].min, extents[finest].max
	if finest > 0 && extents[0].max.After(last) {
		last = extents[0].max
	}
	if finest == 0 && extents[0].count <= uint64(q.Points) {
		return s.rawSeries(ctx, q)
	}
	// One bucket more than the quotient may be touched.
	w := max(widthFor(last.Sub(first), q.Points-1), levels[finest].width)
	use := levels[finest]
	for _, l := range levels[finest:] {
		if l.width <= w {
			use = l
		}
	}
	if use.width > 0 {
		q.From = q.From.Truncate(use.width)
	}
	return s.bucketSeries(ctx, q, w, use.table, use.column, use.count, use.mean, use.least, use.most)
}

func ceil(t time.Time, w time.Duration) time.Time { return t.Add(w - 1).Truncate(w) }

// reaching is the finest level that no coarser one reaches further back than.
func reaching(extents []extent) int {
	best := 0
	for i := 1; i < len(extents); i++ {
		e, b := extents[i], extents[best]
		if e.count > 0 && (b.count == 0 || b.min.Sub(e.min) >= levels[i].width) {
			best = i
		}
	}
	return best
}

func seriesConditions(q SeriesQuery, column string) *conditions {
	c := newConditions()
	c.equal("device", q.Device)
	c.equal("metric", q.Metric)
	c.since(column, q.From)
	c.until(column, q.To)
	return c
}

func (s *Store) extent(ctx context.Context, q SeriesQuery, table, column, count string) (e extent, err error) {
	c := seriesConditions(q, column)
	err = s.each(ctx, "extent of a series", fmt.Sprintf("SELECT %s, min(%s), max(%s) FROM %s", count, column, column, table)+c.where(), c.params,
		func(rows driver.Rows) error { return rows.Scan(&e.count, &e.min, &e.max) })
	return e, err
}

func (s *Store) rawSeries(ctx context.Context, q SeriesQuery) (Series, error) {
	c := seriesConditions(q, "observed_at")
	out := Series{Resolution: "raw", Points: []SeriesPoint{}}
	err := s.each(ctx, "series", "SELECT observed_at, value FROM telemetry"+c.where()+
		" ORDER BY observed_at, stream_seq, n LIMIT "+strconv.Itoa(q.Points), c.params,
		func(rows driver.Rows) error {
			p := SeriesPoint{Count: 1}
			err := rows.Scan(&p.At, &p.Mean)
			p.Min, p.Max = p.Mean, p.Mean
			out.Points = append(out.Points, p)
			return err
		})
	return out, err
}

func (s *Store) bucketSeries(ctx context.Context, q SeriesQuery, w time.Duration, table, column, count, mean, least, most string) (Series, error) {
	c := seriesConditions(q, column)
	c.number("width", w.Milliseconds())
	ms := "toUnixTimestamp64Milli(" + column + ")"
	out := Series{Resolution: widthName(w), Points: []SeriesPoint{}}
	query := fmt.Sprintf("SELECT %s - positiveModulo(%s, {width:Int64}) AS bucket, %s, %s, %s, %s FROM %s", ms, ms, mean, least, most, count, table) +
		c.where() + " GROUP BY bucket ORDER BY bucket LIMIT " + strconv.Itoa(MaxPoints)
	err := s.each(ctx, "series", query, c.params, func(rows driver.Rows) error {
		var at int64
		var p SeriesPoint
		err := rows.Scan(&at, &p.Mean, &p.Min, &p.Max, &p.Count)
		p.At = time.UnixMilli(at).UTC()
		out.Points = append(out.Points, p)
		return err
	})
	return out, err
}

// Metrics returns the newest reading of every metric of a device, by name.
func (s *Store) Metrics(ctx context.Context, device string) ([]MetricLast, error) {
	c := newConditions()
	c.add("device = {device:String}")
	c.text("device", device)
	out := []MetricLast{}
	err := s.each(ctx, "metrics", "SELECT metric, max(observed_at), argMax(value, (observed_at, stream_seq, n)), count() FROM telemetry"+
		c.where()+" GROUP BY metric ORDER BY metric LIMIT "+strconv.Itoa(MaxMetrics), c.params,
		func(rows driver.Rows) error {
			var m MetricLast
			err := rows.Scan(&m.Metric, &m.At, &m.Value, &m.Count)
			out = append(out, m)
			return err
		})
	return out, err
}

// Counts says what is stored of a device.
func (s *Store) Counts(ctx context.Context, device string) (DeviceCounts, error) {
	c := newConditions()
	c.text("device", device)
	var n DeviceCounts
	var last time.Time
	err := s.each(ctx, "counts", `SELECT
		(SELECT count() FROM telemetry WHERE device = {device:String}),
		(SELECT count() FROM audit WHERE device = {device:String}),
		(SELECT count() FROM dead_letters WHERE device = {device:String}),
		(SELECT max(last_received_at) FROM device_last WHERE device = {device:String})`, c.params,
		func(rows driver.Rows) error { return rows.Scan(&n.Readings, &n.AuditEvents, &n.DeadLetters, &last) })
	if last.UnixMilli() > 0 {
		n.LastReceivedAt = last
	}
	return n, err
}

// LastSeen returns for every device when its newest stored message was
// received.
func (s *Store) LastSeen(ctx context.Context) (map[string]time.Time, error) {
	out := map[string]time.Time{}
	err := s.each(ctx, "last seen", "SELECT device, max(last_received_at) FROM device_last GROUP BY device", nil,
		func(rows driver.Rows) error {
			var device string
			var at time.Time
			err := rows.Scan(&device, &at)
			out[device] = at
			return err
		})
	return out, err
}
