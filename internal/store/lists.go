package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"cordon/internal/fleet"
)

// list runs a query for one page. columns and from make the SELECT; order are
// the columns of the cursor.
func list[T any](ctx context.Context, s *Store, what, columns, from string, c *conditions, order []string, before Cursor, limit int,
	scan func(driver.Rows) (T, error), key func(T) place,
) (fleet.Page[T], error) {
	limit = pageSize(limit)
	p, started, err := before.place()
	if err != nil {
		return fleet.Page[T]{}, err
	}
	all := c.clone()
	total, err := s.count(ctx, "number of "+what, "SELECT count() FROM "+from+all.where(), all.params)
	if err != nil {
		return fleet.Page[T]{}, err
	}
	if started {
		c.after(p, order...)
	}
	query := "SELECT " + columns + " FROM " + from + c.where() + " ORDER BY "
	for i, column := range order {
		if i > 0 {
			query += ", "
		}
		query += column + " DESC"
	}
	query += " LIMIT " + strconv.Itoa(limit+1)
	var rows []T
	err = s.each(ctx, what, query, c.params, func(r driver.Rows) error {
		row, err := scan(r)
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return fleet.Page[T]{}, err
	}
	return pageOf(rows, limit, total, key), nil
}

// Audit returns audit events, newest received first.
func (s *Store) Audit(ctx context.Context, q AuditQuery) (fleet.Page[AuditRow], error) {
	c := newConditions()
	c.equal("device", q.Device)
	c.since("observed_at", q.From)
	c.until("observed_at", q.To)
	if q.Text != "" {
		find := "positionCaseInsensitiveUTF8"
		if !utf8.ValidString(q.Text) {
			find = "positionCaseInsensitive" // of ASCII letters only, but finds every byte
		}
		c.add(fmt.Sprintf("(%[1]s(message, {text:String}) > 0 OR %[1]s(actor, {text:String}) > 0 OR %[1]s(user, {text:String}) > 0)", find))
		c.text("text", q.Text)
	}
	return list(ctx, s, "audit events", auditColumns, "audit", c, []string{"received_at", "stream_seq", "n"}, q.Before, q.Limit,
		scanAudit, func(r AuditRow) place {
			return place{Millis: r.ReceivedAt.UnixMilli(), StreamSeq: r.StreamSeq, N: r.N}
		})
}

const auditColumns = "device, received_at, stream_seq, n, boot, seq, observed_at, class, activity, outcome, program, actor, user, message, fields, repeat"

func scanAudit(rows driver.Rows) (r AuditRow, err error) {
	var repeat int64
	err = rows.Scan(&r.Device, &r.ReceivedAt, &r.StreamSeq, &r.N, &r.Boot, &r.Seq, &r.ObservedAt,
		&r.Class, &r.Activity, &r.Outcome, &r.Program, &r.Actor, &r.User, &r.Message, &r.Fields, &repeat)
	r.Repeat = int(repeat)
	if len(r.Fields) == 0 {
		r.Fields = nil
	}
	return r, err
}

// Findings returns findings, newest received first; one that was published
// again counts once, in its newest form.
func (s *Store) Findings(ctx context.Context, q FindingQuery) (fleet.Page[fleet.Finding], error) {
	if len(q.IDs) > MaxPage {
		return fleet.Page[fleet.Finding]{}, fleet.Errorf(fleet.CodeInvalid, "at most %d finding ids can be asked for at once", MaxPage).On("ids")
	}
	c := newConditions()
	c.equal("device", q.Device)
	c.equal("rule_id", q.Rule)
	c.until("window_start", q.To)
	if !q.From.IsZero() {
		c.add("window_end >= fromUnixTimestamp64Milli({window_end_since:Int64}, 'UTC')")
		c.number("window_end_since", q.From.UnixMilli())
	}
	if len(q.IDs) > 0 {
		ids, err := json.Marshal(q.IDs)
		if err != nil {
			return fleet.Page[fleet.Finding]{}, fmt.Errorf("encode finding ids: %w", err)
		}
		c.add("id IN (SELECT arrayJoin(JSONExtract({ids:String}, 'Array(String)')))")
		c.text("ids", string(ids))
	}
	return list(ctx, s, "findings", "json", "findings FINAL", c, []string{"received_at", "stream_seq", "id"}, q.Before, q.Limit,
		scanJSON[fleet.Finding], func(f fleet.Finding) place {
			return place{Millis: f.ReceivedAt.UnixMilli(), StreamSeq: f.StreamSeq, ID: f.ID}
		})
}

func scanJSON[T any](rows driver.Rows) (v T, err error) {
	var text string
	if err := rows.Scan(&text); err != nil {
		return v, err
	}
	return v, json.Unmarshal([]byte(text), &v)
}

// DeadLetters returns dead letters, newest first, their raw bytes decrypted.
// Raw is nil when they were stored without a key.
func (s *Store) DeadLetters(ctx context.Context, q DeadLetterQuery) (fleet.Page[fleet.DeadLetter], error) {
	c := newConditions()
	c.equal("device", q.Device)
	c.equal("reason", q.Reason)
	c.since("received_at", q.From)
	c.until("received_at", q.To)
	return list(ctx, s, "dead letters", "device, received_at, stream_seq, subject, reason, detail, raw", "dead_letters", c,
		[]string{"received_at", "stream_seq"}, q.Before, q.Limit,
		func(rows driver.Rows) (d fleet.DeadLetter, err error) {
			var sealed string
			if err := rows.Scan(&d.Device, &d.ReceivedAt, &d.StreamSeq, &d.Subject, &d.Reason, &d.Detail, &sealed); err != nil {
				return d, err
			}
			if d.Raw, err = s.seal.open(sealed, d.StreamSeq, d.Device); err != nil {
				d.Detail += " (" + err.Error() + ")"
			}
			return d, nil
		}, func(d fleet.DeadLetter) place {
			return place{Millis: d.ReceivedAt.UnixMilli(), StreamSeq: d.StreamSeq}
		})
}

// DeadLetterCount counts the dead letters received from From until To.
func (s *Store) DeadLetterCount(ctx context.Context, from, to time.Time) (uint64, error) {
	c := newConditions()
	c.since("received_at", from)
	c.until("received_at", to)
	return s.count(ctx, "number of dead letters", "SELECT count() FROM dead_letters"+c.where(), c.params)
}

// QuarantineHistory returns every decision ever made, in its newest state,
// newest request first. An empty device means all.
func (s *Store) QuarantineHistory(ctx context.Context, device string, before Cursor, limit int) (fleet.Page[fleet.Quarantine], error) {
	c := newConditions()
	inner := "deleted = 0"
	if device != "" {
		inner += " AND device = {device:String}"
		c.text("device", device)
	}
	from := "(SELECT id, argMax(json, revision) AS json, argMax(requested_at, revision) AS requested_at FROM (SELECT * FROM quarantines WHERE " +
		inner + ") GROUP BY device, id)"
	return list(ctx, s, "quarantines", "json", from, c, []string{"requested_at", "id"}, before, limit,
		scanJSON[fleet.Quarantine], func(q fleet.Quarantine) place {
			return place{Millis: q.RequestedAt.UnixMilli(), ID: q.ID}
		})
}

// Deliveries returns every notification in its newest state, newest first.
func (s *Store) Deliveries(ctx context.Context, before Cursor, limit int) (fleet.Page[fleet.Delivery], error) {
	from := "(SELECT id, argMax(json, revision) AS json, argMax(created_at, revision) AS created_at FROM (SELECT * FROM deliveries WHERE deleted = 0) GROUP BY id)"
	return list(ctx, s, "deliveries", "json", from, newConditions(), []string{"created_at", "id"}, before, limit,
		scanJSON[fleet.Delivery], func(d fleet.Delivery) place {
			return place{Millis: d.CreatedAt.UnixMilli(), ID: d.ID}
		})
}
