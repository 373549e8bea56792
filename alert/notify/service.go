package notify

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Deps is what the service works with. Registry and TLS may be nil; TLS
// holds extra trust for receivers with a private certificate authority.
type Deps struct {
	Bus      *bus.Bus
	Log      *slog.Logger
	Registry prometheus.Registerer
	Clock    func() time.Time
	TLS      *tls.Config
	Seal     Sealer // encrypts the secrets of receivers that are added while Cordon runs; nil: none can be
}

// Service routes incident changes to receivers and delivers them. Its
// methods are safe for concurrent use.
type Service struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics metrics
	records records
	rate    fleet.Rate

	silences  *mirror[fleet.Silence]
	incidents *mirror[fleet.Incident] // that are not resolved
	stored    *mirror[storedReceiver]
	marks     *mirror[mark]
	ready     chan struct{}
	readyOnce sync.Once
	poked     chan struct{}

	crewMu    sync.Mutex
	crew      []*worker
	restaffed chan struct{}

	opening sync.Mutex
	opened  *buckets

	mu      sync.Mutex
	lag     uint64
	failure string

	faultHook func(point string) error // tests: dies between two steps
}

// New makes a service; nothing happens before Run. cfg must be valid.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg: cfg, deps: deps, log: deps.Log.With("stage", "notify"),
		metrics: newMetrics(deps.Registry), records: newRecords(cfg.History),
		silences:  newMirror[fleet.Silence](nil),
		incidents: newMirror(func(i fleet.Incident) bool { return i.State != fleet.Resolved }),
		stored:    newMirror[storedReceiver](nil), marks: newMirror[mark](nil),
		ready: make(chan struct{}), poked: make(chan struct{}, 1), restaffed: make(chan struct{}, 1),
	}
	for _, r := range cfg.Receivers {
		if _, err := newSender(r, cfg, deps.TLS, s.now); err != nil {
			return nil, err
		}
	}
	s.staff()
	return s, nil
}

// Run routes and delivers until ctx ends. A process that only shows the
// delivery log calls Watch instead.
func (s *Service) Run(ctx context.Context) error {
	if _, err := s.open(ctx); err != nil {
		return err
	}
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Watch(running) })
	group.Go(func() error {
		select {
		case <-running.Done():
			return nil
		case <-s.ready:
		}
		inner, running := errgroup.WithContext(running)
		inner.Go(func() error { return s.supervise(running) })
		inner.Go(func() error { return s.timekeeper(running) })
		inner.Go(func() error { return s.route(running) })
		inner.Go(func() error { return s.pruneLoop(running) })
		return inner.Wait()
	})
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// Ready is closed once everything that is stored is known.
func (s *Service) Ready() <-chan struct{} { return s.ready }

func (s *Service) now() time.Time { return s.deps.Clock().UTC() }

func (s *Service) fault(point string) error {
	if s.faultHook == nil {
		return nil
	}
	return s.faultHook(point)
}

type buckets struct{ delivery, silence, incident, receiver jetstream.KeyValue }

// open opens the buckets once.
func (s *Service) open(ctx context.Context) (*buckets, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	b := &buckets{}
	for _, part := range []struct {
		to   *jetstream.KeyValue
		name string
	}{{&b.delivery, bus.BucketDelivery}, {&b.silence, bus.BucketSilence}, {&b.incident, bus.BucketIncident}, {&b.receiver, bus.BucketReceiver}} {
		kv, err := s.deps.Bus.Bucket(ctx, part.name)
		if err != nil {
			return nil, err
		}
		*part.to = kv
	}
	s.opened = b
	return b, nil
}

// ReceiverState is a receiver as people may see it: without its address'
// path and its secret.
type ReceiverState struct {
	Name         string         `json:"name"`
	Kind         string         `json:"kind"`
	Host         string         `json:"host"`
	Signed       bool           `json:"signed"`
	Severity     fleet.Severity `json:"severity"`
	Changes      []string       `json:"changes"`
	AllowPrivate bool           `json:"allow_private"`
	Healthy      bool           `json:"healthy"`
	Pending      uint64         `json:"pending"`           // not delivered yet
	Failing      int            `json:"failing"`           // failures in a row
	LastError    string         `json:"last_error"`        // of the newest failure, "" once it works
	LastAt       time.Time      `json:"last_at,omitzero"`  // of the newest success
	RetryAt      time.Time      `json:"retry_at,omitzero"` // while it is left alone
	Delivered    uint64         `json:"delivered"`         // since start
	Failed       uint64         `json:"failed"`            // given up, since start
	Source       string         `json:"source"`            // file or api
	Keys         int            `json:"keys"`              // that sign
	Breaker      string         `json:"breaker"`           // closed, open (left alone until RetryAt), half-open (tried with one at a time)
	DisabledAt   time.Time      `json:"disabled_at,omitzero"`
	Disabled     string         `json:"disabled,omitempty"` // why nothing is sent to it any more
}

// Receivers lists the configured receivers.
func (s *Service) Receivers() []ReceiverState {
	out := []ReceiverState{}
	for _, w := range s.workers() {
		out = append(out, w.state())
	}
	return out
}

// Test sends an example to a receiver, by the same way and with the same
// signature as a real alert, once and without retry. The delivery says how it
// went. CodeNotFound if there is no such receiver.
func (s *Service) Test(ctx context.Context, receiver, actor string) (fleet.Delivery, error) {
	w := s.worker(receiver)
	if w == nil {
		return fleet.Delivery{}, noReceiver(receiver)
	}
	it := testItem(w.receiver, s.now())
	d := newDelivery(it, w.receiver)
	d.Why, d.ActionBy = "a test", actor
	out := w.sender.send(ctx, []item{it}, it.webhookID())
	out.apply(&d, s.now())
	if !out.delivered {
		d.State = stateFailed
	}
	if err := s.store(ctx, d); err != nil {
		s.log.Warn("test delivery is not in the log", "receiver", receiver, "error", err)
	}
	return d, nil
}

// Status says how the stage does.
func (s *Service) Status() fleet.StageStatus {
	s.mu.Lock()
	lag, failure := s.lag, s.failure
	s.mu.Unlock()
	status := fleet.StageStatus{
		Stage: "notify", Healthy: failure == "", PerSecond: s.rate.PerSecond(s.now()), Counters: map[string]float64{},
	}
	var failing []string
	for _, w := range s.workers() {
		st := w.state()
		lag += st.Pending
		status.Counters["pending_"+st.Name] = float64(st.Pending)
		status.Counters["delivered"] += float64(st.Delivered)
		status.Counters["failed"] += float64(st.Failed)
		if !st.Healthy {
			failing = append(failing, fmt.Sprintf("%s (%s)", st.Name, st.LastError))
		}
	}
	status.Lag = lag
	switch {
	case failure != "":
		status.Detail = "notifications wait: " + failure + "; check the broker and its disk"
	case len(failing) > 0:
		status.Healthy = false
		status.Detail = "receivers that don't take notifications: " + strings.Join(failing, ", ") + "; they are tried again"
	case len(s.workers()) == 0:
		status.Detail = "no receiver is configured: nobody is told of incidents"
	default:
		status.Detail = fmt.Sprintf("%d receivers, %d notifications waiting", len(s.workers()), lag)
	}
	return status
}

func (s *Service) setFailure(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = ""
	if err != nil {
		s.failure = err.Error()
	}
}

func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// pause waits, or ends early with ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
