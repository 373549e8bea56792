package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/pressly/goose/v3"

	"cordon/internal/fleet"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Retention says for how many days of receipt tables keep rows. Zero leaves
// what the migrations set, which are the Default constants.
type Retention struct {
	Telemetry int // every reading
	Rollup    int // one-minute roll-ups; counted, as all roll-ups, from the first of the month of receipt
	Hours     int // one-hour roll-ups
	Days      int // one-day roll-ups
	Audit     int // audit events and dead letters
	History   int // findings, incidents, quarantines, deliveries
}

// Days that tables keep rows unless Retention says otherwise.
const (
	DefaultTelemetryDays = 90
	DefaultRollupDays    = 430
	DefaultHoursDays     = 1100
	DefaultDaysDays      = 3650
	DefaultAuditDays     = 400
	DefaultHistoryDays   = 1100
)

// Migrate brings the tables up to date. It refuses, as *fleet.Error that names
// file and reason, when a migration fails or when the database was migrated by
// a newer Cordon.
func (s *Store) Migrate(ctx context.Context) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if err := s.migrate(ctx, sub); err != nil {
		return err
	}
	return s.applyRetention(ctx)
}

func (s *Store) migrate(ctx context.Context, files fs.FS) error {
	opts := *s.opts
	opts.ReadTimeout = 10 * time.Minute // a migration may rewrite a table
	db := clickhouse.OpenDB(&opts)
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectClickHouse, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "a migration file can't be read: %w", err)
	}
	current, err := provider.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read version of the tables: %w", err)
	}
	sources := provider.ListSources()
	newest := sources[len(sources)-1]
	if current > newest.Version {
		return fleet.Errorf(fleet.CodeConflict,
			"the tables in ClickHouse have version %d, this Cordon knows versions up to %d (%s): it is older than the one that wrote them, so use the newer one",
			current, newest.Version, newest.Path)
	}
	results, err := provider.Up(ctx)
	if err != nil {
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			return fleet.Errorf(fleet.CodeInvalid, "migration %s failed: %w", partial.Failed.Source.Path, partial.Err)
		}
		return fleet.Errorf(fleet.CodeInvalid, "the migrations failed: %w", err)
	}
	for _, r := range results {
		s.log.Info("migrated", "file", r.Source.Path, "duration", r.Duration.String())
	}
	return nil
}

func (s *Store) applyRetention(ctx context.Context) error {
	for _, t := range []struct {
		table, column string
		days          int
	}{
		{"telemetry", "toDateTime(received_at)", s.retention.Telemetry},
		{"ingest_rate", "at", s.retention.Telemetry},
		{"telemetry_1m", "received_month", s.retention.Rollup},
		{"telemetry_1h", "received_month", s.retention.Hours},
		{"telemetry_1d", "received_month", s.retention.Days},
		{"audit", "toDateTime(received_at)", s.retention.Audit},
		{"dead_letters", "toDateTime(received_at)", s.retention.Audit},
		{"findings", "toDateTime(received_at)", s.retention.History},
		{"incidents", "toDateTime(at)", s.retention.History},
		{"quarantines", "toDateTime(at)", s.retention.History},
		{"deliveries", "toDateTime(at)", s.retention.History},
	} {
		if t.days <= 0 {
			continue
		}
		ctx := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"materialize_ttl_after_modify": 0}))
		if err := s.conn.Exec(ctx, fmt.Sprintf("ALTER TABLE %s MODIFY TTL %s + INTERVAL %d DAY", t.table, t.column, t.days)); err != nil {
			return fmt.Errorf("set retention of %s: %w", t.table, err)
		}
	}
	return nil
}
