package incident

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Config bounds the work. The zero value is DefaultConfig.
type Config struct {
	Batch          int           // findings applied together
	FloodPerMinute int           // openings in a minute that count as a flood
	ReopenWithin   time.Duration // how long a resolved incident can be opened again
	RetryWait      time.Duration // first wait after the broker failed; doubles up to 30 times it
	Sweep          time.Duration // how often unpublished changes are looked for
	AckWait        time.Duration // after a crash, findings in hand come again after this

	GroupWindow  time.Duration // within which findings of several devices belong together
	GroupDevices int           // devices that make a campaign or a common cause; below 0: never
	ActorDevices int           // devices that one actor makes a campaign with
	SilenceRules []string      // rules that speak of silence: Cordon's own trouble explains those
}

// DefaultConfig suits one node.
func DefaultConfig() Config {
	return Config{
		Batch: 256, FloodPerMinute: 100, ReopenWithin: 7 * 24 * time.Hour,
		RetryWait: 100 * time.Millisecond, Sweep: 30 * time.Second, AckWait: 10 * time.Second,
		GroupWindow: 15 * time.Minute, GroupDevices: 5, ActorDevices: 3, SilenceRules: []string{"device-silent"},
	}
}

// Deps is what the service works with. Device may be nil: then no device is
// taken for historic. Registry may be nil.
type Deps struct {
	Bus      *bus.Bus
	Log      *slog.Logger
	Registry prometheus.Registerer
	Clock    func() time.Time
	Device   func(id string) (fleet.Device, bool)
}

// Service turns findings into incidents and takes what people decide about
// them. Its methods are safe for concurrent use.
type Service struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics metrics
	view    view
	rate    fleet.Rate

	locks   [64]sync.Mutex // one writer per device at a time
	opening sync.Mutex
	buckets *buckets

	pending   atomic.Uint64 // findings that wait on the stream
	failure   atomic.Pointer[string]
	opened    openings
	seen      sightings
	faultHook func(point string) error // tests: dies between two steps
}

type buckets struct {
	incident, counter, quarantine jetstream.KeyValue
	stream                        jetstream.Stream // INCIDENTS
}

// New makes a service; nothing happens before Run or Watch.
func New(cfg Config, deps Deps) *Service {
	def := DefaultConfig()
	if cfg.Batch <= 0 {
		cfg.Batch = def.Batch
	}
	if cfg.FloodPerMinute <= 0 {
		cfg.FloodPerMinute = def.FloodPerMinute
	}
	if cfg.ReopenWithin <= 0 {
		cfg.ReopenWithin = def.ReopenWithin
	}
	if cfg.RetryWait <= 0 {
		cfg.RetryWait = def.RetryWait
	}
	if cfg.Sweep <= 0 {
		cfg.Sweep = def.Sweep
	}
	if cfg.AckWait <= 0 {
		cfg.AckWait = def.AckWait
	}
	if cfg.GroupWindow <= 0 {
		cfg.GroupWindow = def.GroupWindow
	}
	if cfg.GroupDevices == 0 {
		cfg.GroupDevices = def.GroupDevices
	}
	if cfg.ActorDevices == 0 {
		cfg.ActorDevices = def.ActorDevices
	}
	if cfg.SilenceRules == nil {
		cfg.SilenceRules = def.SilenceRules
	}
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{
		cfg: cfg, deps: deps, log: deps.Log.With("stage", "incident"),
		metrics: newMetrics(deps.Registry), view: newView(),
	}
}

// Run consumes findings and quarantine changes until ctx ends. A process
// that only shows incidents and takes decisions calls Watch instead.
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
		case <-s.view.ready:
		}
		s.recall()
		inner, running := errgroup.WithContext(running)
		inner.Go(func() error { return s.consume(running) })
		inner.Go(func() error { return s.watchQuarantines(running) })
		inner.Go(func() error { return s.sweepLoop(running) })
		return inner.Wait()
	})
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// Ready is closed once List knows every stored incident.
func (s *Service) Ready() <-chan struct{} { return s.view.ready }

func (s *Service) now() time.Time { return s.deps.Clock().UTC() }

func (s *Service) lock(device string) *sync.Mutex {
	h := fnv.New32a()
	h.Write([]byte(device))
	return &s.locks[h.Sum32()%uint32(len(s.locks))]
}

func (s *Service) fault(point string) error {
	if s.faultHook == nil {
		return nil
	}
	return s.faultHook(point)
}

// open opens buckets and stream once.
func (s *Service) open(ctx context.Context) (*buckets, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.buckets != nil {
		return s.buckets, nil
	}
	b := &buckets{}
	for _, part := range []struct {
		to   *jetstream.KeyValue
		name string
	}{{&b.incident, bus.BucketIncident}, {&b.counter, bus.BucketCounter}, {&b.quarantine, bus.BucketQuarantine}} {
		kv, err := s.deps.Bus.Bucket(ctx, part.name)
		if err != nil {
			return nil, err
		}
		*part.to = kv
	}
	stream, err := s.deps.Bus.Core.Stream(ctx, bus.StreamIncidents)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", bus.StreamIncidents, err)
	}
	b.stream, s.buckets = stream, b
	return b, nil
}

// Status says how the stage does.
func (s *Service) Status() fleet.StageStatus {
	now := s.now()
	total, unresolved := s.view.counts()
	status := fleet.StageStatus{
		Stage: "incident", Healthy: true, Lag: s.pending.Load(), PerSecond: s.rate.PerSecond(now),
		Detail: fmt.Sprintf("%d unresolved incidents of %d", unresolved, total),
		Counters: map[string]float64{
			"incidents": float64(total), "unresolved": float64(unresolved),
			"opened_last_minute": float64(s.opened.lastMinute(now)),
		},
	}
	if n := s.opened.lastMinute(now); n > s.cfg.FloodPerMinute {
		status.Detail = fmt.Sprintf("flood: %d incidents opened in the last minute; look for one cause before handling them singly", n)
	}
	if text := s.failure.Load(); text != nil {
		status.Healthy = false
		status.Detail = "findings wait: " + *text + "; check the broker and its disk"
	}
	return status
}

// openings counts incidents opened in the last minute, second by second.
type openings struct {
	mu    sync.Mutex
	slots [60]int
	at    [60]int64
}

func (o *openings) add(now time.Time) int {
	o.mu.Lock()
	second := now.Unix()
	i := second % int64(len(o.slots))
	if o.at[i] != second {
		o.at[i], o.slots[i] = second, 0
	}
	o.slots[i]++
	o.mu.Unlock()
	return o.lastMinute(now)
}

func (o *openings) lastMinute(now time.Time) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	sum := 0
	for i, at := range o.at {
		if age := now.Unix() - at; age >= 0 && age < int64(len(o.slots)) {
			sum += o.slots[i]
		}
	}
	return sum
}

func encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode incident: %w", err)
	}
	return raw, nil
}
