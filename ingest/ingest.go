package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/store"
)

// histories are the streams besides FLEET and the tables they fill. The
// buckets of operators and sessions are not among them.
var histories = []struct {
	stream  string
	prefix  string
	history store.History
}{
	{bus.StreamFindings, bus.SubjectFinding + ".", store.HistoryFinding},
	{"KV_" + bus.BucketDevice, "$KV." + bus.BucketDevice + ".", store.HistoryDevice},
	{"KV_" + bus.BucketQuarantine, "$KV." + bus.BucketQuarantine + ".", store.HistoryQuarantine},
	{"KV_" + bus.BucketIncident, "$KV." + bus.BucketIncident + ".", store.HistoryIncident},
	{"KV_" + bus.BucketRule, "$KV." + bus.BucketRule + ".", store.HistoryRule},
	{"KV_" + bus.BucketDelivery, "$KV." + bus.BucketDelivery + ".", store.HistoryDelivery},
}

// Mover moves every stream into ClickHouse.
type Mover struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	workers []*worker
	fleet   *worker
	trim    trimmer
}

// New returns a mover that does nothing until Run. Bus and Store must be set.
func New(cfg Config, deps Deps) *Mover {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if deps.Device == nil {
		deps.Device = func(string) (fleet.Device, bool) { return fleet.Device{}, false }
	}
	if deps.Permanent == nil {
		deps.Permanent = store.Permanent
	}
	m := &Mover{cfg: cfg, deps: deps, metrics: newMetrics(deps.Registry)}
	m.trim = trimmer{cfg: cfg, deps: deps, metrics: m.metrics}
	m.fleet = m.worker(deps.Bus.Fleet, bus.StreamFleet, "")
	filter := fleet.NewSeenFilter()
	fences := fleet.NewFences()
	m.fleet.filter, m.fleet.fences, m.fleet.saved = filter, fences, &checkpoint{js: deps.Bus.Core}
	m.fleet.reader = &fleetReader{limits: cfg.Limits, decoder: codec.NewDecoder(), device: deps.Device, filter: filter, fences: fences, metrics: m.metrics}
	for _, h := range histories {
		w := m.worker(deps.Bus.Core, h.stream, h.history)
		w.reader = &historyReader{prefix: h.prefix}
	}
	return m
}

func (m *Mover) worker(js jetstream.JetStream, stream string, history store.History) *worker {
	w := &worker{
		cfg: m.cfg, deps: m.deps, js: js, stream: stream, history: history, metrics: m.metrics, log: m.deps.Log,
		position: &position{key: "ingest-" + stream, now: m.deps.Clock, current: intent{Stream: stream}},
	}
	w.received = m.metrics.received.WithLabelValues(stream)
	w.source = &source{js: js, stream: stream, log: m.deps.Log, check: w.position.check, say: w.sayRead}
	m.workers = append(m.workers, w)
	return w
}

// Run moves until the context ends. ErrFenced: another mover took over, and
// this one stored nothing since.
func (m *Mover) Run(ctx context.Context) error {
	kv, err := m.deps.Bus.Bucket(ctx, bus.BucketPosition)
	if err != nil {
		return err
	}
	m.trim.positions = kv
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range m.workers {
		w.position.kv = kv
		group.Go(func() error { return w.run(ctx) })
	}
	group.Go(func() error { return m.watch(ctx) })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("run ingest: %w", err)
	}
	return nil
}

// watch measures how far behind the workers are, and trims FLEET.
func (m *Mover) watch(ctx context.Context) error {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		for _, w := range m.workers {
			stream, err := w.js.Stream(ctx, w.stream)
			if err != nil {
				continue // the workers say so
			}
			state := stream.CachedInfo().State
			w.streamLast.Store(state.LastSeq)
			m.metrics.lag.WithLabelValues(w.stream).Set(float64(w.lag()))
			if w.isFleet() {
				m.trim.run(ctx, stream, w.trimmable.Load())
			}
		}
	}
}

// lag is the number of messages that are not stored yet.
func (w *worker) lag() uint64 {
	last, done := max(w.streamLast.Load(), w.read.Load()), w.committed.Load()
	if last <= done {
		return 0
	}
	return last - done
}

// Status is how the mover is doing. The counters are messages not stored yet,
// by stream.
func (m *Mover) Status() fleet.StageStatus {
	now := m.deps.Clock()
	s := fleet.StageStatus{Stage: "ingest", Healthy: true, Counters: make(map[string]float64)}
	var troubles []string
	for _, w := range m.workers {
		s.Counters["lag_"+strings.ToLower(w.stream)] = float64(w.lag())
		for _, t := range []*trouble{&w.storing, &w.reading} {
			if text := t.get(now); text != "" {
				troubles = append(troubles, text)
			}
		}
	}
	w := m.fleet
	s.Lag, s.PerSecond = w.lag(), w.rate.PerSecond(now)
	if oldest := w.oldest.Load(); oldest != 0 {
		s.LagSeconds = max(0, now.Sub(time.Unix(0, oldest)).Seconds())
	}
	if text := m.trim.trouble(); text != "" {
		troubles = append(troubles, text)
	}
	if len(troubles) > 0 {
		s.Healthy, s.Detail = false, troubles[0]
		return s
	}
	s.Detail = fmt.Sprintf("stores %.0f messages per second, %d wait", s.PerSecond, s.Lag)
	return s
}
