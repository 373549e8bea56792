package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"cordon/internal/fleet"
)

// Scan calls yield with the stored records in stream order, each message once
// and with its readings or events in their order, until yield returns an
// error, which Scan returns. It reads one day of receipt after the other, so
// that sorting stays small.
func (s *Store) Scan(ctx context.Context, q ScanQuery, yield func(fleet.Record) error) error {
	days, err := s.scanDays(ctx, q)
	if err != nil {
		return err
	}
	for _, day := range days {
		if err := s.scanDay(ctx, q, day, yield); err != nil {
			return err
		}
	}
	return nil
}

func scanConditions(q ScanQuery, withMetric bool) *conditions {
	c := newConditions()
	c.equal("device", q.Device)
	if withMetric {
		c.equal("metric", q.Metric)
	}
	c.since("observed_at", q.From)
	c.until("observed_at", q.To)
	return c
}

// scanDays lists the days on which something of the wanted was received.
func (s *Store) scanDays(ctx context.Context, q ScanQuery) ([]time.Time, error) {
	c := scanConditions(q, true)
	query := "SELECT DISTINCT toDate(received_at) AS day FROM telemetry" + c.where()
	if q.Metric == "" {
		query += " UNION DISTINCT SELECT DISTINCT toDate(received_at) AS day FROM audit" + c.where()
	}
	var days []time.Time
	err := s.each(ctx, "days of history", "SELECT day FROM ("+query+") ORDER BY day", c.params, func(rows driver.Rows) error {
		var day time.Time
		err := rows.Scan(&day)
		days = append(days, day)
		return err
	})
	return days, err
}

// scanDay merges the telemetry and the audit messages of a day.
func (s *Store) scanDay(ctx context.Context, q ScanQuery, day time.Time, yield func(fleet.Record) error) (err error) {
	telemetry, err := s.openCursor(ctx, "SELECT device, received_at, stream_seq, boot, seq, metric, observed_at, value FROM telemetry", scanConditions(q, true), day, nextReading)
	if err != nil {
		return err
	}
	defer telemetry.close(&err)
	audit := &recordCursor{done: true}
	if q.Metric == "" {
		if audit, err = s.openCursor(ctx, "SELECT "+auditColumns+" FROM audit", scanConditions(q, false), day, nextEvent); err != nil {
			return err
		}
	}
	defer audit.close(&err)
	for {
		if err := telemetry.fill(); err != nil {
			return err
		}
		if err := audit.fill(); err != nil {
			return err
		}
		next := telemetry
		if !audit.done && (telemetry.done || audit.record.StreamSeq < telemetry.record.StreamSeq) {
			next = audit
		}
		if next.done {
			return nil
		}
		r := next.record
		next.full = false
		if err := yield(r); err != nil {
			return err
		}
	}
}

// recordCursor turns rows, sorted by message, into records.
type recordCursor struct {
	rows    driver.Rows
	next    func(driver.Rows) (fleet.Record, error) // a row as a record of one reading or event
	record  fleet.Record
	full    bool // record is a whole message that was not handed out yet
	pending fleet.Record
	has     bool // pending is the first row of the next message
	done    bool
}

func (s *Store) openCursor(ctx context.Context, query string, c *conditions, day time.Time, next func(driver.Rows) (fleet.Record, error)) (*recordCursor, error) {
	c.since("received_at", day)
	c.until("received_at", day.AddDate(0, 0, 1))
	rows, err := s.conn.Query(bounded(ctx, c.params, scanTimeout), query+c.where()+" ORDER BY stream_seq, n")
	if err != nil {
		return nil, explain("history", err)
	}
	return &recordCursor{rows: rows, next: next}, nil
}

// fill makes record a whole message, or sets done.
func (c *recordCursor) fill() error {
	if c.done || c.full {
		return nil
	}
	c.record, c.full = c.pending, c.has
	c.has = false
	for c.rows.Next() {
		r, err := c.next(c.rows)
		if err != nil {
			return fmt.Errorf("read history: %w", err)
		}
		if c.full && r.StreamSeq != c.record.StreamSeq {
			c.pending, c.has = r, true
			return nil
		}
		if !c.full {
			c.record, c.full = r, true
			continue
		}
		c.record.Readings = append(c.record.Readings, r.Readings...)
		c.record.Audit = append(c.record.Audit, r.Audit...)
	}
	if err := c.rows.Err(); err != nil {
		return explain("history", err)
	}
	c.done = !c.full
	return nil
}

func (c *recordCursor) close(err *error) {
	if c.rows == nil {
		return
	}
	if closeErr := c.rows.Close(); closeErr != nil && *err == nil {
		*err = fmt.Errorf("query history: %w", closeErr)
	}
}

func nextReading(rows driver.Rows) (fleet.Record, error) {
	r := fleet.Record{Kind: fleet.TelemetryKind, Readings: make([]fleet.Reading, 1)}
	v := &r.Readings[0]
	err := rows.Scan(&r.Device, &r.ReceivedAt, &r.StreamSeq, &r.Boot, &r.Seq, &v.Metric, &v.ObservedAt, &v.Value)
	return r, err
}

func nextEvent(rows driver.Rows) (fleet.Record, error) {
	row, err := scanAudit(rows)
	return fleet.Record{
		Kind: fleet.AuditKind, Device: row.Device, ReceivedAt: row.ReceivedAt, StreamSeq: row.StreamSeq,
		Boot: row.Boot, Seq: row.Seq, Audit: []fleet.AuditEvent{row.AuditEvent},
	}, err
}
