package ingest

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/store"
)

// Config tunes the mover. Its zero value is not usable: start from
// DefaultConfig.
type Config struct {
	MaxRows         int           // rows of a block
	MaxMessages     int           // messages of a block
	MaxBytes        int           // payload bytes of a block
	FlushIdle       time.Duration // age at which a block is stored when the stream is drained
	FlushBusy       time.Duration // and when more is waiting
	RetryMin        time.Duration // first pause after a failed insert
	RetryMax        time.Duration // longest pause
	InsertTimeout   time.Duration // of one insert
	StopGrace       time.Duration // how long a block in flight may take to finish when Run is told to stop
	CheckpointEvery time.Duration // how often the filter of resent messages is written
	TrimEvery       time.Duration // how often FLEET's size is looked at
	TrimAbove       float64       // share of FLEET's size limit above which it is trimmed
	MaxPoison       int           // messages of one block that may be refused by the store one by one before that counts as the store's fault
	Limits          codec.Limits

	// Fault is called at every step of the block protocol and ends the worker
	// with the error it returns, as a crash would. For tests.
	Fault func(stream, point string) error
}

// DefaultConfig suits one node.
func DefaultConfig() Config {
	return Config{
		MaxRows:         100_000,
		MaxMessages:     50_000,
		MaxBytes:        32 << 20,
		FlushIdle:       200 * time.Millisecond,
		FlushBusy:       time.Second,
		RetryMin:        100 * time.Millisecond,
		RetryMax:        5 * time.Second,
		InsertTimeout:   time.Minute,
		StopGrace:       5 * time.Second,
		CheckpointEvery: 10 * time.Second,
		TrimEvery:       10 * time.Second,
		TrimAbove:       0.5,
		MaxPoison:       1000,
		Limits:          codec.DefaultLimits(),
	}
}

// Store is what the mover needs of ClickHouse. An insert that failed may or
// may not be stored; one repeated with its token counts once.
type Store interface {
	InsertTelemetry(ctx context.Context, token string, b *store.TelemetryBlock) error
	InsertAudit(ctx context.Context, token string, b *store.AuditBlock) error
	InsertDeadLetters(ctx context.Context, token string, b *store.DeadLetterBlock) error
	InsertHistory(ctx context.Context, h store.History, token string, rows []store.HistoryRow) error
}

// Deps are the parts that the mover works with.
type Deps struct {
	Bus    *bus.Bus
	Store  Store
	Device func(id string) (fleet.Device, bool) // the registry; nil: no device is historic
	// Permanent says whether repeating a failed insert cannot help; nil:
	// store.Permanent.
	Permanent func(error) bool
	Log       *slog.Logger
	Registry  prometheus.Registerer // nil: metrics are kept, not shown
	Clock     func() time.Time      // nil: time.Now
}

// ErrFenced says that another mover took over the stream: there is one active
// mover per stream, and the one that started last wins.
var ErrFenced = errors.New("another mover took over")

// The points at which Config.Fault is called, in order.
const (
	FaultBlock      = "block"      // a block is complete, nothing is written
	FaultIntent     = "intent"     // its intent is written
	FaultTelemetry  = "telemetry"  // its readings are inserted
	FaultAudit      = "audit"      // its audit events are inserted
	FaultInserted   = "inserted"   // all of it is inserted
	FaultAcked      = "receipts"   // and its receipts are sent
	FaultCheckpoint = "checkpoint" // and the filter is written
)
