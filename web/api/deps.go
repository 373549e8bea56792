package api

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/operator"
	"cordon/internal/seal"
	"cordon/internal/store"
)

// Limits of one request and of all.
const (
	maxBody       = 1 << 20 // bytes of a request body
	maxHeader     = 32 << 10
	maxStreams    = 500 // open event streams
	maxStreamsOne = 20  // of one operator
	requestTime   = 30 * time.Second
)

// Config says how the API is served.
type Config struct {
	Version string
	HTTP    string      // listen address; port 0 picks one
	TLS     *tls.Config // nil serves plain HTTP, which is allowed on loopback only
	// NATS and MQTT are the broker's addresses as devices reach them, for the
	// answer to an enrolment.
	NATS, MQTT string
	// URL is where people and devices reach this API; empty: the listener's.
	URL string
	// SilentAfter is how long after its last message a device counts as silent.
	SilentAfter time.Duration
	// Heartbeat keeps idle event streams open.
	Heartbeat time.Duration
	// Rates bound what callers may ask.
	Rates Rates
}

// DefaultConfig listens on loopback.
func DefaultConfig() Config {
	return Config{HTTP: "127.0.0.1:8443", SilentAfter: 10 * time.Minute, Heartbeat: 15 * time.Second, Rates: DefaultRates()}
}

// Deps are what the API stands on.
type Deps struct {
	Bus         *bus.Bus
	Operators   *operator.Directory
	Devices     Devices
	Lifecycle   Lifecycle
	Erasures    Erasures
	Incidents   Incidents
	Quarantines Quarantines
	Rules       Rules
	Notices     Notices
	Alerts      Alerts // nil: not here
	History     History
	Insight     Insight
	CA          []byte // PEM of the authority, for the answer to an enrolment
	Log         *slog.Logger
	Clock       func() time.Time
	Registry    *prometheus.Registry // nil: no /metrics
	// Secrets seals what answers to repeated requests hold; nil: with a key that
	// ends with the process.
	Secrets *seal.Ring
}

// Devices is the registry (identity.Registry).
type Devices interface {
	Get(id string) (fleet.Device, bool)
	Lookup(ctx context.Context, id string) (fleet.Device, error)
	All(visit func(fleet.Device) bool)
	Facets() map[string]map[string]int
	Enroll(ctx context.Context, e identity.Enrolment) (fleet.Device, string, error)
	Redeem(ctx context.Context, token string, csrPEM []byte) (fleet.Device, []byte, error)
	Revoke(ctx context.Context, id, actor, reason string) error
	Retire(ctx context.Context, id, actor, reason string) error
	Update(ctx context.Context, id string, change func(*fleet.Device) error) error
}

// IncidentFilter selects incidents; empty fields select all. It has the
// fields of the incident stage's own filter, so that one converts to the other.
type IncidentFilter struct {
	State    string
	Severity string
	Device   string
	Query    string
	Assignee string
	Scope    string
	Tag      string
	Parent   string
}

// Incidents are what the incident stage offers.
type Incidents interface {
	// List sorts by severity, opened_at or updated_at, worst and newest first;
	// ":asc" behind turns it round.
	List(f IncidentFilter, sort, cursor string, limit int) (fleet.Page[fleet.Incident], error)
	Get(ctx context.Context, id string) (fleet.Incident, error)
	OpenOf(device string) (fleet.Incident, bool)
	Acknowledge(ctx context.Context, id, actor string) (fleet.Incident, error)
	Assign(ctx context.Context, id, actor, assignee string) (fleet.Incident, error)
	Comment(ctx context.Context, id, actor, text string) (fleet.Incident, error)
	Resolve(ctx context.Context, id, actor string, verdict fleet.Verdict, reason string) (fleet.Incident, error)
	Reopen(ctx context.Context, id, actor string) (fleet.Incident, error)
}

// Quarantines are what the quarantine stage offers.
type Quarantines interface {
	Request(ctx context.Context, r fleet.QuarantineRequest) (fleet.Quarantine, error)
	// Wait returns once the decision is confirmed or failed, or ctx ends; then
	// it returns how far it came.
	Wait(ctx context.Context, device, id string) (fleet.Quarantine, error)
	Release(ctx context.Context, device, actor, reason string) (fleet.Quarantine, error)
	// Current is the newest quarantine of a device, active or not.
	Current(device string) (fleet.Quarantine, bool)
	List() []fleet.Quarantine
	Cells
}

// Rules is the catalogue of the detector.
type Rules interface {
	Rules() []fleet.Rule
	SetMode(ctx context.Context, id string, mode fleet.Mode, actor, reason string) (fleet.Rule, error)
}

// Notices are what was sent to whom.
type Notices interface {
	Receivers() []Receiver
	// Deliveries are newest first.
	Deliveries(cursor string, limit int) (fleet.Page[fleet.Delivery], error)
}

// History is what ClickHouse remembers (store.Store).
type History interface {
	Series(ctx context.Context, q store.SeriesQuery) (store.Series, error)
	Metrics(ctx context.Context, device string) ([]store.MetricLast, error)
	Counts(ctx context.Context, device string) (store.DeviceCounts, error)
	LastSeen(ctx context.Context) (map[string]time.Time, error)
	Audit(ctx context.Context, q store.AuditQuery) (fleet.Page[store.AuditRow], error)
	Findings(ctx context.Context, q store.FindingQuery) (fleet.Page[fleet.Finding], error)
	DeadLetters(ctx context.Context, q store.DeadLetterQuery) (fleet.Page[fleet.DeadLetter], error)
	DeadLetterCount(ctx context.Context, from, to time.Time) (uint64, error)
	QuarantineHistory(ctx context.Context, device string, before store.Cursor, limit int) (fleet.Page[fleet.Quarantine], error)
	IncidentsPerHour(ctx context.Context, from, to time.Time) ([]store.HourCount, error)
	IngestRate(ctx context.Context, from, to time.Time, step time.Duration) ([]store.RatePoint, error)
	Size(ctx context.Context) ([]store.TableSize, error)
}

// Band is what a baseline expected at one instant.
type Band struct {
	At                time.Time
	Low, High, Center float64
	Learning          bool
}

// Insight is what other parts know and only the API shows. A nil function
// means that nobody knows.
type Insight struct {
	// Stages says how every stage is doing. Stage "detect" may count
	// devices_learning.
	Stages      func(ctx context.Context) []fleet.StageStatus
	Expected    func(ctx context.Context, device, metric string, from, to time.Time, points int) ([]Band, error)
	Baselines   func(ctx context.Context, device string) ([]fleet.BaselineState, error)
	Connections func(ctx context.Context, device string) ([]fleet.Connection, []fleet.BrokerProof, error)
	// Backtest says what a rule would have done over stored history.
	Backtest Backtest
	// AppliesTo says whether a rule watches a device; nil: every rule does.
	AppliesTo func(rule fleet.Rule, device fleet.Device) bool
}
