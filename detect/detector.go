package detect

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"cordon/detect/engine"
	"cordon/detect/rule"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Decode turns a message of the FLEET log into a record; false means that the
// message is none (ingest keeps it as a dead letter). historic lifts the
// limits on the age of a device's data.
type Decode func(subject string, header map[string][]string, data []byte, receivedAt time.Time, streamSeq uint64, historic bool) (fleet.Record, bool)

// Config is how the detector runs.
type Config struct {
	Engine     engine.Config
	Batch      int           // most messages that are applied at once
	Checkpoint time.Duration // how often state is written
	Retry      time.Duration // pause before a failed publish or write is tried again
}

// DefaultConfig suits one node.
func DefaultConfig() Config {
	return Config{Engine: engine.DefaultConfig(), Batch: 1024, Checkpoint: 10 * time.Second, Retry: 500 * time.Millisecond}
}

// Deps are the parts that the detector works with.
type Deps struct {
	Bus      *bus.Bus
	Decode   Decode
	Log      *slog.Logger
	Registry prometheus.Registerer
	Clock    func() time.Time
	Rules    []fs.FS // folders of rules; a later one wins over an earlier one with the same id
}

// Detector is the stage. Its methods are safe for concurrent use.
type Detector struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics

	mu     sync.Mutex // engine and seen
	engine *engine.Engine
	seen   *fleet.SeenFilter
	fences *fleet.Fences

	state sync.Mutex // the fields below
	told  status
	moved chan struct{} // closed and renewed when applied advances
	rate  fleet.Rate

	published map[string]string // last finding id by device, at start
	resume    uint64            // stream sequence of the last finding published before the start
	saved     uint64            // sequence of the last checkpoint
}

type status struct {
	running  bool
	ready    bool
	applied  uint64
	pending  uint64
	received time.Time
	problem  string
	findings uint64
	messages uint64
	snapshot int
	pause    time.Duration
}

// New makes a detector that does nothing until Run.
func New(cfg Config, deps Deps) *Detector {
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &Detector{
		cfg: cfg, deps: deps, log: deps.Log.With("stage", "detect"), metrics: newMetrics(deps.Registry),
		engine: engine.New(cfg.Engine), seen: fleet.NewSeenFilter(), fences: fleet.NewFences(), moved: make(chan struct{}),
	}
}

// Pack reads the rules that the detector was given, by id. Every fault of
// every file is in the error.
func (d *Detector) Pack() ([]*rule.Rule, error) { return merge(d.deps.Rules) }

// Run detects until ctx ends.
func (d *Detector) Run(ctx context.Context) error {
	pack, err := d.Pack()
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	if err := d.restore(ctx); err != nil {
		return err
	}
	if err := d.findPublished(ctx); err != nil {
		return err
	}
	if err := d.offerRules(ctx, pack); err != nil {
		return err
	}
	answers, err := d.deps.Bus.Cordon.Subscribe(bus.SubjectBaselines, d.answerBaselines)
	if err != nil {
		return fmt.Errorf("answer for baselines: %w", err)
	}
	defer func() { _ = answers.Unsubscribe() }()
	return d.consume(ctx)
}

// consume reads the log from behind the checkpoint to its end, for ever.
func (d *Detector) consume(ctx context.Context) error {
	stream, err := d.deps.Bus.Fleet.Stream(ctx, bus.StreamFleet)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", bus.StreamFleet, err)
	}
	from := d.engine.Seq() + 1
	if first := stream.CachedInfo().State.FirstSeq; d.engine.Seq() > 0 && first > from {
		d.log.Error("the log was trimmed beyond the checkpoint: records are missing from detection", "checkpoint", from-1, "first", first)
	}
	// An ordered consumer resumes behind the last message it delivered
	// whenever one is missing: no gap, no redelivery, no acknowledgements. The
	// position is the checkpoint.
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
	})
	if err != nil {
		return fmt.Errorf("create consumer on %s from %d: %w", bus.StreamFleet, from, err)
	}
	queue := make(chan jetstream.Msg, d.cfg.Batch)
	feed, err := consumer.Consume(func(m jetstream.Msg) {
		select {
		case queue <- m:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(2*d.cfg.Batch), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		d.log.Warn("reading the log", "error", err)
	}))
	if err != nil {
		return fmt.Errorf("read stream %s: %w", bus.StreamFleet, err)
	}
	defer feed.Stop()
	d.update(func(s *status) { s.running = true })
	defer d.update(func(s *status) { s.running = false })
	return d.loop(ctx, queue, feed.Closed())
}

func (d *Detector) loop(ctx context.Context, queue <-chan jetstream.Msg, closed <-chan struct{}) error {
	every := time.NewTicker(d.cfg.Checkpoint)
	defer every.Stop()
	batch := make([]jetstream.Msg, 0, d.cfg.Batch)
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := d.checkpoint(last); err != nil {
				d.log.Warn("last checkpoint", "error", err)
			}
			return nil
		case <-closed:
			return fmt.Errorf("read stream %s: the consumer ended", bus.StreamFleet)
		case <-every.C:
			if err := d.checkpoint(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("checkpoint", "error", err)
				d.update(func(s *status) { s.problem = "state can't be written: " + err.Error() })
			}
		case m := <-queue:
			batch = fill(append(batch[:0], m), queue)
			if err := d.apply(ctx, batch); err != nil {
				return err
			}
		}
	}
}

// fill takes what is waiting, without waiting.
func fill(batch []jetstream.Msg, queue <-chan jetstream.Msg) []jetstream.Msg {
	for len(batch) < cap(batch) {
		select {
		case m := <-queue:
			batch = append(batch, m)
		default:
			return batch
		}
	}
	return batch
}

// apply runs the engine over a batch and publishes what it found. It returns
// only when everything is published: until then the state must not be
// written, or findings would be lost.
func (d *Detector) apply(ctx context.Context, batch []jetstream.Msg) error {
	started := time.Now()
	found, last := d.applyAll(batch)
	d.metrics.seconds.Observe(time.Since(started).Seconds())
	d.publish(ctx, found)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Run ends by its context; the rest is redone after the restart
	}
	d.rate.Add(d.deps.Clock(), uint64(len(batch)))
	d.state.Lock()
	d.told.messages += uint64(len(batch))
	d.told.findings += uint64(len(found))
	d.told.applied, d.told.pending, d.told.received = last.Sequence.Stream, last.NumPending, last.Timestamp
	d.told.ready = d.told.ready || last.NumPending == 0
	close(d.moved)
	d.moved = make(chan struct{})
	d.state.Unlock()
	d.metrics.lag.Set(float64(last.NumPending))
	return nil
}

func (d *Detector) applyAll(batch []jetstream.Msg) (found []fleet.Finding, last *jetstream.MsgMetadata) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range batch {
		at, err := m.Metadata()
		if err != nil || at.Sequence.Stream <= d.engine.Seq() {
			continue
		}
		last = at
		subject := m.Subject()
		if d.fences.Void(subject) {
			d.metrics.skipped.WithLabelValues("quarantined").Inc()
			continue
		}
		record, ok := d.deps.Decode(subject, m.Headers(), m.Data(), at.Timestamp, at.Sequence.Stream, d.engine.Historic(bus.Device(subject)))
		if !ok {
			d.metrics.skipped.WithLabelValues("undecodable").Inc()
			continue
		}
		if record.Device != "" && d.seen.Seen(record.Device, record.Boot, record.Seq) {
			d.metrics.skipped.WithLabelValues("resent").Inc()
			continue
		}
		if record.Control.Quarantine != nil {
			d.fences.Apply(*record.Control.Quarantine)
		}
		if gone := record.Control.Device; gone != nil && gone.Erased {
			d.seen.Forget(gone.ID)
		}
		d.metrics.count(&record)
		found = append(found, d.engine.Apply(record)...)
	}
	if last == nil {
		last = &jetstream.MsgMetadata{}
		last.Sequence.Stream = d.engine.Seq()
	} else {
		d.engine.Skip(last.Sequence.Stream)
	}
	return found, last
}

// publish puts findings on the bus and waits until the broker has them. It
// tries until ctx ends: findings are never dropped.
func (d *Detector) publish(ctx context.Context, found []fleet.Finding) {
	for i := range found {
		f := &found[i]
		d.metrics.findings.WithLabelValues(f.RuleID, string(f.Mode)).Inc()
		if d.alreadyPublished(f) {
			continue
		}
		data, err := json.Marshal(f)
		if err != nil {
			d.log.Error("encode finding", "rule", f.RuleID, "device", f.Device, "error", err)
			continue
		}
		msg := nats.NewMsg(bus.SubjectFinding + "." + f.Device)
		msg.Data = data
		for {
			_, err := d.deps.Bus.Core.PublishMsg(ctx, msg, jetstream.WithMsgID(f.ID))
			if err == nil {
				d.update(func(s *status) { s.problem = "" })
				break
			}
			if ctx.Err() != nil {
				return
			}
			d.log.Warn("publish finding", "rule", f.RuleID, "device", f.Device, "error", err)
			d.update(func(s *status) { s.problem = "findings can't be published: " + err.Error() })
			select {
			case <-ctx.Done():
				return
			case <-time.After(d.cfg.Retry):
			}
		}
	}
}

func (d *Detector) update(change func(*status)) {
	d.state.Lock()
	defer d.state.Unlock()
	change(&d.told)
}

// answerBaselines answers a request {"device"} with []fleet.BaselineState.
func (d *Detector) answerBaselines(m *nats.Msg) {
	var request struct {
		Device string `json:"device"`
	}
	states := []fleet.BaselineState{}
	if err := json.Unmarshal(m.Data, &request); err == nil {
		states = append(states, d.Baselines(request.Device)...)
	}
	data, err := json.Marshal(states)
	if err != nil {
		d.log.Error("encode baselines", "device", request.Device, "error", err)
		return
	}
	if err := m.Respond(data); err != nil {
		d.log.Warn("answer for baselines", "error", err)
	}
}

// Baselines says how far the expectations of a device have been learned.
func (d *Detector) Baselines(device string) []fleet.BaselineState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engine.Baselines(device)
}
