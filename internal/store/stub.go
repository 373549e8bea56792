package store

import (
	"context"
	"errors"
	"time"

	"cordon/internal/fleet"
)

var errStub = errors.New("not built yet")

func (s *Store) InsertTelemetry(ctx context.Context, token string, b *TelemetryBlock) error {
	return errStub
}
func (s *Store) InsertAudit(ctx context.Context, token string, b *AuditBlock) error { return errStub }
func (s *Store) InsertDeadLetters(ctx context.Context, token string, b *DeadLetterBlock) error {
	return errStub
}
func (s *Store) InsertHistory(ctx context.Context, h History, token string, rows []HistoryRow) error {
	return errStub
}

// Permanent says whether repeating cannot help.
func Permanent(err error) bool { return false }

func (s *Store) Series(ctx context.Context, q SeriesQuery) (Series, error) { return Series{}, errStub }
func (s *Store) Metrics(ctx context.Context, device string) ([]MetricLast, error) {
	return nil, errStub
}
func (s *Store) Counts(ctx context.Context, device string) (DeviceCounts, error) {
	return DeviceCounts{}, errStub
}
func (s *Store) LastSeen(ctx context.Context) (map[string]time.Time, error) { return nil, errStub }
func (s *Store) Audit(ctx context.Context, q AuditQuery) (fleet.Page[AuditRow], error) {
	return fleet.Page[AuditRow]{}, errStub
}
func (s *Store) Findings(ctx context.Context, q FindingQuery) (fleet.Page[fleet.Finding], error) {
	return fleet.Page[fleet.Finding]{}, errStub
}
func (s *Store) DeadLetters(ctx context.Context, q DeadLetterQuery) (fleet.Page[fleet.DeadLetter], error) {
	return fleet.Page[fleet.DeadLetter]{}, errStub
}
func (s *Store) QuarantineHistory(ctx context.Context, device string, before Cursor, limit int) (fleet.Page[fleet.Quarantine], error) {
	return fleet.Page[fleet.Quarantine]{}, errStub
}
func (s *Store) Deliveries(ctx context.Context, before Cursor, limit int) (fleet.Page[fleet.Delivery], error) {
	return fleet.Page[fleet.Delivery]{}, errStub
}
func (s *Store) DeadLetterCount(ctx context.Context, from, to time.Time) (uint64, error) {
	return 0, errStub
}
func (s *Store) IncidentsPerHour(ctx context.Context, from, to time.Time) ([]HourCount, error) {
	return nil, errStub
}
func (s *Store) IngestRate(ctx context.Context, from, to time.Time, step time.Duration) ([]RatePoint, error) {
	return nil, errStub
}
func (s *Store) Scan(ctx context.Context, q ScanQuery, yield func(fleet.Record) error) error {
	return errStub
}
func (s *Store) Size(ctx context.Context) ([]TableSize, error) { return nil, errStub }
