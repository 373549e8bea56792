package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/store"
)

// rig is a broker and an engine of a bench's own.
type rig struct {
	dir    string
	log    *slog.Logger
	server *bus.Server
	bus    *bus.Bus
	engine *store.Engine
	closer []func()
}

func newRig(ctx context.Context, engine store.EngineConfig, log *slog.Logger) (*rig, error) {
	r := &rig{log: log}
	if err := r.start(ctx, engine); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rig) start(ctx context.Context, engine store.EngineConfig) (err error) {
	log := r.log
	if r.dir, err = os.MkdirTemp("", "cordon-bench-"); err != nil {
		return fmt.Errorf("make directory of bench: %w", err)
	}
	r.closer = append(r.closer, func() { _ = os.RemoveAll(r.dir) })
	engine.Dir = filepath.Join(r.dir, "engine")
	if r.engine, err = store.StartEngine(ctx, engine, log); err != nil {
		return err
	}
	r.closer = append(r.closer, func() { _ = r.engine.Stop() })
	keys, err := bus.NewKeys()
	if err != nil {
		return err
	}
	limits := bus.DefaultLimits()
	if r.server, err = bus.StartServer(bus.ServerConfig{Name: "bench", Dir: filepath.Join(r.dir, "broker"), Keys: keys, Limits: limits}, log, nil); err != nil {
		return err
	}
	r.closer = append(r.closer, r.server.Shutdown)
	if r.bus, err = bus.Connect("nats://in-process", keys, log, r.server.Option()); err != nil {
		return err
	}
	r.closer = append(r.closer, r.bus.Close)
	return r.bus.Provision(ctx, limits)
}

func (r *rig) close() {
	for i := len(r.closer) - 1; i >= 0; i-- {
		r.closer[i]()
	}
	r.closer = nil
}

// fresh opens a store with an empty database.
func (r *rig) fresh(ctx context.Context, name string, rollups bool) (*store.Store, error) {
	dsn, err := store.WithDatabase(r.engine.DSN(), name)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, dsn, r.log, store.Options{RawKey: make([]byte, 32)})
	if err != nil {
		return nil, err
	}
	if err := s.Migrate(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if !rollups {
		if err := s.DropRollups(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Encoding is how a bench's devices write their messages.
type Encoding func(dst []byte, boot string, seq uint64, readings []fleet.Reading) []byte

// workload is a fleet that sends.
type workload struct {
	encode   Encoding
	batch    int // readings per message
	devices  int
	readings int
}

const instants = 2 // instants per message of more than one reading

func (w workload) messages() int { return w.readings / w.batch }

// message is message i: every device sends in turn, once a second. Its values
// are rounded as sensors' are.
func (w workload) message(i int, start time.Time, into []fleet.Reading) (device string, seq uint64, readings []fleet.Reading) {
	d, round := i%w.devices, i/w.devices
	readings = into[:0]
	per := max(w.batch/instants, 1)
	for k := range w.batch {
		at := start.Add(time.Duration(round*instants+k/per) * time.Second)
		value := 50 + 10*math.Sin(float64(round*instants+k/per)/60+float64(d+k%per)) + float64((i*7+k*13)%10)/10
		readings = append(readings, fleet.Reading{ObservedAt: at, Metric: metricNames[k%per], Value: math.Round(value*100) / 100})
	}
	return fmt.Sprintf("device-%05d", d), uint64(round + 1), readings
}

var metricNames = func() (names [64]string) {
	for i := range names {
		names[i] = fmt.Sprintf("sensor_%02d_celsius", i)
	}
	return names
}()

// publish fills the FLEET stream, which is emptied first. Messages have times
// that end about now.
func (r *rig) publish(ctx context.Context, w workload) error {
	stream, err := r.bus.Fleet.Stream(ctx, bus.StreamFleet)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	if err := stream.Purge(ctx); err != nil {
		return fmt.Errorf("empty stream: %w", err)
	}
	js, err := jetstream.New(r.bus.Devices, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	rounds := w.messages()/w.devices + 1
	start := time.Now().UTC().Truncate(time.Second).Add(-time.Duration(rounds*instants) * time.Second)
	readings := make([]fleet.Reading, w.batch)
	for i := range w.messages() {
		device, seq, list := w.message(i, start, readings)
		payload := w.encode(nil, fmt.Sprintf("boot-%d", start.Unix()), seq, list)
		if _, err := js.PublishAsync(bus.SubjectTelemetry+"."+device, payload, jetstream.WithStallWait(time.Minute)); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("read stream: %w", err)
	}
	if info.State.Msgs != uint64(w.messages()) {
		return fmt.Errorf("the stream has %d messages of %d", info.State.Msgs, w.messages())
	}
	runtime.GC()
	return nil
}
