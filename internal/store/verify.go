package store

import (
	"context"
	"fmt"
	"net/url"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"cordon/internal/fleet"
)

// Verification compares what is stored with itself: readings that are there
// twice, roll-ups that count something else than the readings.
type Verification struct {
	Readings        uint64
	Distinct        uint64 // readings that differ in message or place in it
	Messages        uint64 // telemetry messages
	AuditEvents     uint64
	AuditDistinct   uint64
	DeadLetters     uint64
	DeadDistinct    uint64
	Identified      uint64            // messages with boot and seq, of both kinds, by device, boot and seq
	Twice           uint64            // readings and events whose device, boot, seq and place are there already
	OutOfOrder      uint64            // messages with a lower seq than the one before of their boot
	RollupReadings  map[string]uint64 // by table; equal to Readings unless rows expired
	BytesPerReading float64           // of the table of readings, all columns, after merging
}

// Verify reads every row: it is for tests and benches.
func (s *Store) Verify(ctx context.Context) (Verification, error) {
	v := Verification{RollupReadings: map[string]uint64{}}
	for _, q := range []struct {
		to    []any
		query string
	}{
		{[]any{&v.Readings, &v.Distinct, &v.Messages}, "SELECT count(), uniqExact(stream_seq, n), uniqExact(stream_seq) FROM telemetry"},
		{[]any{&v.AuditEvents, &v.AuditDistinct}, "SELECT count(), uniqExact(stream_seq, n) FROM audit"},
		{[]any{&v.DeadLetters, &v.DeadDistinct}, "SELECT count(), uniqExact(stream_seq) FROM dead_letters"},
		{[]any{&v.Identified}, "SELECT count() FROM (SELECT DISTINCT device, boot, seq FROM telemetry WHERE seq > 0 UNION DISTINCT SELECT DISTINCT device, boot, seq FROM audit WHERE seq > 0)"},
		{[]any{&v.Twice}, "SELECT toUInt64((SELECT count() - uniqExact(device, boot, seq, n) FROM telemetry WHERE seq > 0) + (SELECT count() - uniqExact(device, boot, seq, n) FROM audit WHERE seq > 0))"},
		{[]any{&v.OutOfOrder}, `SELECT countIf(seq < before) FROM (
			SELECT seq, lagInFrame(seq) OVER (PARTITION BY device, boot ORDER BY stream_seq ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before
			FROM (SELECT DISTINCT device, boot, seq, stream_seq FROM telemetry WHERE seq > 0 UNION ALL SELECT DISTINCT device, boot, seq, stream_seq FROM audit WHERE seq > 0))`},
		{[]any{&v.BytesPerReading}, "SELECT if(sum(rows) = 0, 0., sum(bytes_on_disk) / sum(rows)) FROM system.parts WHERE active AND database = currentDatabase() AND table = 'telemetry'"},
	} {
		if err := s.each(ctx, "verification", q.query, nil, func(rows driver.Rows) error { return rows.Scan(q.to...) }); err != nil {
			return v, err
		}
	}
	for _, table := range rollupTables {
		n, err := s.count(ctx, "verification", "SELECT sum(readings) FROM "+table, nil)
		if err != nil {
			return v, err
		}
		v.RollupReadings[table] = n
	}
	return v, nil
}

// rollupTables count readings a second time.
var rollupTables = []string{"telemetry_1m", "telemetry_1h", "telemetry_1d", "device_last", "ingest_rate"}

// DropRollups removes the views that fill the roll-ups, so that a bench can
// measure the readings' table alone.
func (s *Store) DropRollups(ctx context.Context) error {
	var views []string
	err := s.each(ctx, "views", "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'MaterializedView'", nil, func(rows driver.Rows) error {
		var name string
		err := rows.Scan(&name)
		views = append(views, name)
		return err
	})
	if err != nil {
		return err
	}
	for _, view := range views {
		if err := s.conn.Exec(ctx, "DROP VIEW "+quoteName(view)); err != nil {
			return fmt.Errorf("drop view %s: %w", view, err)
		}
	}
	return nil
}

// Settle merges the readings' table into one part per partition, as it will be
// after a while.
func (s *Store) Settle(ctx context.Context) error {
	for _, table := range []string{"telemetry", "telemetry_1m"} {
		if err := s.conn.Exec(ctx, "OPTIMIZE TABLE "+table+" FINAL"); err != nil {
			return fmt.Errorf("merge %s: %w", table, err)
		}
	}
	return nil
}

// WithDatabase is a ClickHouse address with another database.
func WithDatabase(dsn, name string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fleet.Errorf(fleet.CodeInvalid, "the ClickHouse address is no URL").On("clickhouse")
	}
	u.Path = "/" + name
	return u.String(), nil
}
