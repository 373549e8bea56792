package store

import (
	"context"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"cordon/internal/fleet"
)

// rateStep is the resolution of table ingest_rate.
const rateStep = 10 * time.Second

// IncidentsPerHour counts the incidents opened from From until To by hour and
// by their newest severity.
func (s *Store) IncidentsPerHour(ctx context.Context, from, to time.Time) ([]HourCount, error) {
	c := newConditions()
	c.add("gone = 0")
	c.since("opened_at", from)
	c.until("opened_at", to)
	out := []HourCount{}
	err := s.each(ctx, "incidents per hour", `SELECT toUnixTimestamp64Milli(opened_at) - positiveModulo(toUnixTimestamp64Milli(opened_at), 3600000) AS hour, severity, count()
		FROM (
			SELECT id, argMax(opened_at, revision) AS opened_at, argMax(severity, revision) AS severity, argMax(deleted, revision) AS gone
			FROM (SELECT * FROM incidents) GROUP BY id
		)`+c.where()+" GROUP BY hour, severity ORDER BY hour, severity LIMIT 100000", c.params,
		func(rows driver.Rows) error {
			var hour int64
			var severity string
			var h HourCount
			err := rows.Scan(&hour, &severity, &h.Count)
			h.Hour, h.Severity = time.UnixMilli(hour).UTC(), fleet.Severity(severity)
			out = append(out, h)
			return err
		})
	return out, err
}

// IngestRate counts what was stored of the messages received from From until
// To, in steps: multiples of ten seconds, so many that MaxRateSteps suffice.
// Steps without messages are there, with zeros. A reading is a reading or an
// audit event.
func (s *Store) IngestRate(ctx context.Context, from, to time.Time, step time.Duration) ([]RatePoint, error) {
	if !from.Before(to) {
		return nil, fleet.Errorf(fleet.CodeInvalid, "from must be before to").On("from")
	}
	step = max(step, rateStep, to.Sub(from)/(MaxRateSteps-1))
	step = (step + rateStep - 1) / rateStep * rateStep
	width := int64(step / time.Second)
	first := from.Unix() - ((from.Unix()%width)+width)%width

	c := newConditions()
	c.number("first", first)
	c.number("until", to.Unix())
	c.number("width", width)
	counted := map[int64]RatePoint{}
	err := s.each(ctx, "ingest rate", `SELECT toInt64(intDiv(toUnixTimestamp(at), {width:Int64}) * {width:Int64}) AS bucket, sum(readings) + sum(audit_events), sum(messages)
		FROM ingest_rate WHERE toInt64(toUnixTimestamp(at)) >= {first:Int64} AND toInt64(toUnixTimestamp(at)) < {until:Int64} GROUP BY bucket`, c.params,
		func(rows driver.Rows) error {
			var bucket int64
			var p RatePoint
			err := rows.Scan(&bucket, &p.Readings, &p.Messages)
			counted[bucket] = p
			return err
		})
	if err != nil {
		return nil, err
	}
	out := make([]RatePoint, 0, (to.Unix()-first)/width+1)
	for at := first; at < to.Unix(); at += width {
		p := counted[at]
		p.At = time.Unix(at, 0).UTC()
		out = append(out, p)
	}
	return out, nil
}

// Size returns rows and bytes of every table, the largest first.
func (s *Store) Size(ctx context.Context) ([]TableSize, error) {
	out := []TableSize{}
	err := s.each(ctx, "table sizes", `SELECT name, ifNull(total_rows, 0), ifNull(total_bytes, 0) FROM system.tables
		WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND name NOT LIKE 'goose%'
		ORDER BY 3 DESC, 1 LIMIT `+strconv.Itoa(DefaultPage), nil,
		func(rows driver.Rows) error {
			var t TableSize
			err := rows.Scan(&t.Table, &t.Rows, &t.Bytes)
			out = append(out, t)
			return err
		})
	return out, err
}
