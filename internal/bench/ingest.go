package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cordon/ingest"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/store"
)

// IngestConfig says what to measure.
type IngestConfig struct {
	Engine   store.EngineConfig
	Readings int      // of each case; 0: what suits it
	Cases    []string // names; none: all
	Devices  int
	Profile  string // file for a CPU profile of the mover, or empty
	Log      *slog.Logger
	Progress io.Writer
}

// IngestCase is the result of one case.
type IngestCase struct {
	Name               string             `json:"name"`
	Readings           int                `json:"readings"`
	ReadingsPerSecond  float64            `json:"readings_per_second"`
	MessagesPerSecond  float64            `json:"messages_per_second"`
	CPUSecondsPerM     float64            `json:"cpu_seconds_per_million"`
	CPUByProcess       map[string]float64 `json:"cpu_seconds_per_million_by_process"` // cordon is broker and mover
	PeakMemoryMiB      float64            `json:"peak_memory_mib"`
	PeakMemoryByProc   map[string]float64 `json:"peak_memory_mib_by_process"`
	Limit              Limit              `json:"limit"`
	RatioToLimit       float64            `json:"ratio_to_limit"`
	RatioToLimitOfCPU  float64            `json:"ratio_to_limit_by_cpu"` // processor time of the bare limits over that of Cordon
	BytesPerReading    float64            `json:"bytes_per_reading"`
	BytesPerMessage    float64            `json:"bytes_per_message"`
	StoredOnce         bool               `json:"stored_once"`
	WithRollups        bool               `json:"with_rollups"`
	ReadingsPerMessage int                `json:"readings_per_message"`
}

// Limit is what the engines do without Cordon, in readings per second.
type Limit struct {
	ConsumeOnly       float64 `json:"consume_only_per_second"`
	InsertOnly        float64 `json:"insert_only_per_second"`
	ConsumeCPU        float64 `json:"consume_cpu_seconds_per_million"`
	InsertCPU         float64 `json:"insert_cpu_seconds_per_million"`
	Processors        float64 `json:"processors_per_second"` // processors over the processor time of both
	ReadingsPerSecond float64 `json:"readings_per_second"`   // the least of the three
}

// IngestResult is what cordon bench ingest prints.
type IngestResult struct {
	Processors int          `json:"processors"`
	Cases      []IngestCase `json:"cases"`
}

type ingestCase struct {
	name     string
	encode   Encoding
	batch    int
	readings int
	rollups  bool
}

var ingestCases = []ingestCase{
	{"columnar-raw", fleet.AppendColumns, 20, 6_000_000, false},
	{"columnar-rollups", fleet.AppendColumns, 20, 4_000_000, true},
	{"json-x20-raw", fleet.EncodeTelemetry, 20, 3_000_000, false},
	{"json-single-raw", fleet.EncodeTelemetry, 1, 500_000, false},
}

// IngestCaseNames lists the cases.
func IngestCaseNames() (names []string) {
	for _, c := range ingestCases {
		names = append(names, c.name)
	}
	return names
}

// Ingest runs the cases side by side with the bare limits.
func Ingest(ctx context.Context, cfg IngestConfig) (IngestResult, error) {
	out := IngestResult{Processors: runtime.NumCPU()}
	r, err := newRig(ctx, cfg.Engine, cfg.Log)
	if err != nil {
		return out, err
	}
	defer r.close()
	for i, c := range ingestCases {
		if !wanted(cfg.Cases, c.name) {
			continue
		}
		if cfg.Readings > 0 {
			c.readings = cfg.Readings
		}
		result, err := r.ingestCase(ctx, cfg, c, fmt.Sprintf("bench_%d", i))
		if err != nil {
			return out, fmt.Errorf("case %s: %w", c.name, err)
		}
		out.Cases = append(out.Cases, result)
	}
	return out, nil
}

func wanted(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return len(names) == 0
}

func (r *rig) ingestCase(ctx context.Context, cfg IngestConfig, c ingestCase, database string) (IngestCase, error) {
	out := IngestCase{Name: c.name, WithRollups: c.rollups, ReadingsPerMessage: c.batch}
	w := workload{encode: c.encode, batch: c.batch, devices: cfg.Devices, readings: c.readings / c.batch * c.batch}
	out.Readings = w.readings
	say := func(format string, args ...any) { fmt.Fprintf(cfg.Progress, c.name+": "+format+"\n", args...) }

	say("publishing %d messages", w.messages())
	if err := r.publish(ctx, w); err != nil {
		return out, err
	}
	stream, err := r.bus.Fleet.Stream(ctx, bus.StreamFleet)
	if err != nil {
		return out, fmt.Errorf("open stream: %w", err)
	}
	out.BytesPerMessage = float64(stream.CachedInfo().State.Bytes) / float64(w.messages())
	perM := func(d time.Duration) float64 { return round(d.Seconds() / float64(w.readings) * 1e6) }

	say("reading only")
	consumed, err := r.consumeOnly(ctx, w.messages())
	if err != nil {
		return out, err
	}
	say("inserting only")
	inserted, rows, err := r.insertOnly(ctx, w, database+"_limit", c.rollups)
	if err != nil {
		return out, err
	}
	out.Limit = limitOf(w.readings, consumed, rows, inserted)
	say("Cordon")
	moved, err := r.move(ctx, cfg, w, database, c.rollups, &out)
	if err != nil {
		return out, err
	}
	out.ReadingsPerSecond = math.Round(float64(w.readings) / moved.took.Seconds())
	out.MessagesPerSecond = math.Round(float64(w.messages()) / moved.took.Seconds())
	out.CPUByProcess = map[string]float64{"cordon": perM(moved.own), "engine": perM(moved.engine)}
	out.CPUSecondsPerM = perM(moved.own + moved.engine)
	out.PeakMemoryByProc = map[string]float64{"cordon": math.Round(moved.ownPeak), "engine": math.Round(moved.enginePeak)}
	out.PeakMemoryMiB = math.Round(moved.ownPeak + moved.enginePeak)
	out.RatioToLimit = round(out.ReadingsPerSecond / out.Limit.ReadingsPerSecond)
	out.RatioToLimitOfCPU = round((out.Limit.ConsumeCPU + out.Limit.InsertCPU) / out.CPUSecondsPerM)
	return out, nil
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }

func limitOf(readings int, consumed measured, rows int, inserted measured) Limit {
	l := Limit{
		ConsumeOnly: math.Round(float64(readings) / consumed.took.Seconds()),
		InsertOnly:  math.Round(float64(rows) / inserted.took.Seconds()),
		ConsumeCPU:  round((consumed.own + consumed.engine).Seconds() / float64(readings) * 1e6),
		InsertCPU:   round((inserted.own + inserted.engine).Seconds() / float64(rows) * 1e6),
	}
	l.Processors = math.Round(float64(runtime.NumCPU()) / (l.ConsumeCPU + l.InsertCPU) * 1e6)
	l.ReadingsPerSecond = min(l.ConsumeOnly, l.InsertOnly, l.Processors)
	return l
}

// limitBlock is the size of the blocks that are inserted without Cordon: that
// of the mover's.
var limitBlock = ingest.DefaultConfig().MaxRows

// insertOnly inserts prepared columns of the same readings.
func (r *rig) insertOnly(ctx context.Context, w workload, database string, rollups bool) (measured, int, error) {
	s, err := r.fresh(ctx, database, rollups)
	if err != nil {
		return measured{}, 0, err
	}
	defer func() { _ = s.Close() }()
	blocks := prepared(w)
	m, err := startMeter(r.engine.PID())
	if err != nil {
		return measured{}, 0, err
	}
	rows := 0
	for i := 0; rows < w.readings; i++ {
		b := blocks[i%len(blocks)]
		if err := s.InsertTelemetry(ctx, fmt.Sprintf("limit-%d", i), b); err != nil {
			return measured{}, 0, err
		}
		rows += b.Len()
	}
	out, err := m.stop()
	return out, rows, err
}

// prepared makes some blocks, which are inserted again and again.
func prepared(w workload) (blocks []*store.TelemetryBlock) {
	start := time.Now().UTC().Truncate(time.Second)
	readings := make([]fleet.Reading, w.batch)
	i := 0
	for range min(max(w.readings/limitBlock, 1), 10) {
		b := &store.TelemetryBlock{}
		for b.Len()+w.batch <= limitBlock && i < w.messages() {
			device, seq, list := w.message(i, start, readings)
			i++
			b.Append(fleet.Record{StreamSeq: uint64(i), ReceivedAt: start.Add(time.Duration(i) * 10 * time.Microsecond), Device: device, Boot: "b", Seq: seq, Readings: list})
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// move runs the mover until everything is stored.
func (r *rig) move(ctx context.Context, cfg IngestConfig, w workload, database string, rollups bool, out *IngestCase) (measured, error) {
	s, err := r.fresh(ctx, database, rollups)
	if err != nil {
		return measured{}, err
	}
	defer func() { _ = s.Close() }()
	registry := prometheus.NewRegistry()
	mover := ingest.New(ingest.DefaultConfig(), ingest.Deps{Bus: r.bus, Store: s, Log: r.log, Registry: registry})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	runtime.GC()
	if cfg.Profile != "" {
		f, err := os.Create(cfg.Profile + "." + out.Name)
		if err != nil {
			return measured{}, fmt.Errorf("make profile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return measured{}, fmt.Errorf("start profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	m, err := startMeter(r.engine.PID())
	if err != nil {
		return measured{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- mover.Run(ctx) }()
	if err := await(ctx, ended, func() (bool, error) {
		n, err := counter(registry, "cordon_ingest_rows_stored_total", "telemetry")
		return n >= float64(w.readings), err
	}); err != nil {
		return measured{}, err
	}
	got, err := m.stop()
	cancel()
	if endErr := <-ended; endErr != nil && err == nil {
		err = endErr
	}
	if err != nil {
		return measured{}, err
	}
	check, err := s.Verify(context.WithoutCancel(ctx))
	if err != nil {
		return measured{}, err
	}
	out.StoredOnce = check.Readings == uint64(w.readings) && check.Distinct == check.Readings
	out.BytesPerReading = round(check.BytesPerReading)
	if !out.StoredOnce {
		return measured{}, fmt.Errorf("%d readings sent, %d stored, %d of them distinct", w.readings, check.Readings, check.Distinct)
	}
	return got, nil
}

// await polls until done says so.
func await(ctx context.Context, ended <-chan error, done func() (bool, error)) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return fmt.Errorf("the mover ended: %w", err)
		case <-tick.C:
		}
	}
}

// counter reads a counter by one label.
func counter(registry *prometheus.Registry, name, label string) (float64, error) {
	families, err := registry.Gather()
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue(), nil
			}
		}
	}
	return 0, nil
}
