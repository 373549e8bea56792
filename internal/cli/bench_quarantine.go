package cli

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"cordon/alert/quarantine"
	"cordon/detect"
	"cordon/ingest/codec"
	"cordon/ingest/gate"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

const benchRule = `id: bench-hot
title: Processor is too hot
kind: threshold
metric: cpu_temp_celsius
unit: Cel
when: value > 90.0
raise_after: 1
clear_after: 5
mode: armed
evidence: own
severity: high
level: isolate
runbook: None, this is a measurement.
false_positives: [none]
`

// BenchQuarantineCmd measures quarantines.
type BenchQuarantineCmd struct {
	Devices     int           `help:"Devices, half NATS, half MQTT, each with a connection of its own." default:"1000"`
	Quarantines int           `help:"Quarantines by call; half as many more by a reading." default:"200"`
	Children    int           `help:"Processes that the devices live in." default:"4"`
	Every       time.Duration `help:"Between two readings of a device." default:"10s"`
	Pause       time.Duration `help:"Between two quarantines." default:"20ms"`
	Watch       time.Duration `help:"How long reconnects are watched after the last one." default:"5s"`
}

// Latency sums up how long something took, in milliseconds.
type Latency struct {
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Worst float64 `json:"worst"`
}

// QuarantineFigures are what a measurement says of some devices.
type QuarantineFigures struct {
	Devices             int                `json:"devices"`
	Quarantines         int                `json:"quarantines"`
	CallToCut           Latency            `json:"call_to_cut_ms"`
	CallToConfirmed     Latency            `json:"call_to_confirmed_ms"`
	ReadingToConfirmed  Latency            `json:"reading_to_confirmed_ms"`
	BytesAfterConfirmed int                `json:"bytes_after_confirmed"`
	ReconnectsTried     int                `json:"reconnects_tried"`
	ReconnectsAdmitted  int                `json:"reconnects_admitted"`
	Steps               map[string]Latency `json:"steps_ms"`
}

// QuarantineBench is the result of bench quarantine.
type QuarantineBench struct {
	QuarantineFigures
	OthersDisconnected int               `json:"others_disconnected"` // of devices that nobody quarantined
	NotConfirmed       int               `json:"not_confirmed"`
	NATS               QuarantineFigures `json:"nats"`
	MQTT               QuarantineFigures `json:"mqtt"`
}

// benchRun is one measurement.
type benchRun struct {
	cmd      *BenchQuarantineCmd
	log      *slog.Logger
	dir      string
	bus      *bus.Bus
	server   *bus.Server
	ca       *identity.CA
	registry *identity.Registry
	cells    *quarantine.Service
	children []*benchProcess

	mu     sync.Mutex
	events map[string]*benchSeen
	ready  int
}

type benchSeen struct {
	lost            time.Time // first
	hot             time.Time
	tried, admitted int
}

type benchProcess struct {
	stdin io.WriteCloser
	cmd   *exec.Cmd
	owner map[string]bool
}

type benchCell struct {
	id      string
	mqtt    bool
	call    time.Time // zero: by a reading
	settled time.Time // when the caller knew
	q       fleet.Quarantine
}

// Run measures and prints.
func (c *BenchQuarantineCmd) Run(ctx context.Context, g *Globals) error {
	if c.Devices < 2*c.Quarantines {
		c.Quarantines = max(1, c.Devices/2)
	}
	dir, err := os.MkdirTemp("", "cordon-bench-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	r := &benchRun{cmd: c, log: slog.New(slog.DiscardHandler), dir: dir, events: map[string]*benchSeen{}}
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	defer func() {
		for _, child := range r.children {
			child.stdin.Close()
			_ = child.cmd.Process.Kill() // it may be gone
			_ = child.cmd.Wait()         // killed
		}
		cancel()
		_ = group.Wait() // parts end with the context
		if r.bus != nil {
			r.bus.Close()
		}
		if r.server != nil {
			r.server.Shutdown()
		}
	}()
	if err := r.start(ctx, &group); err != nil {
		return err
	}
	fmt.Fprintf(g.Err, "enrolling and connecting %d devices…\n", c.Devices)
	if err := r.fleet(ctx, &group); err != nil {
		return err
	}
	fmt.Fprintf(g.Err, "quarantining %d of them by call and %d by a reading…\n", c.Quarantines, c.Quarantines/2)
	cells, err := r.quarantineAll(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(c.Watch):
	}
	out, err := r.result(ctx, cells)
	if err != nil {
		return err
	}
	return show(&Globals{JSON: g.JSON, Out: g.Out}, out, func(w io.Writer) {
		row(w, "", "CALL → CUT p50/p99/worst ms", "CALL → CONFIRMED", "READING → CONFIRMED", "BYTES AFTER", "RECONNECTS TRIED", "ADMITTED")
		for _, f := range []struct {
			name string
			QuarantineFigures
		}{{"all", out.QuarantineFigures}, {"nats", out.NATS}, {"mqtt", out.MQTT}} {
			row(w, f.name, f.CallToCut, f.CallToConfirmed, f.ReadingToConfirmed, f.BytesAfterConfirmed, f.ReconnectsTried, f.ReconnectsAdmitted)
		}
	})
}

func (l Latency) String() string { return fmt.Sprintf("%.1f / %.1f / %.1f", l.P50, l.P99, l.Worst) }

// start starts broker, registry, gate, detector and quarantine.
func (r *benchRun) start(ctx context.Context, group *errgroup.Group) (err error) {
	if r.ca, err = identity.LoadOrCreateCA(filepath.Join(r.dir, "ca"), time.Now); err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	keys, err := bus.NewKeys()
	if err != nil {
		return err
	}
	tlsConfig, err := r.ca.BrokerTLS("127.0.0.1")
	if err != nil {
		return fmt.Errorf("make broker certificate: %w", err)
	}
	limits := bus.DefaultLimits()
	limits.FleetBytes, limits.StoreBytes = 1<<30, 8<<30
	r.server, err = bus.StartServer(bus.ServerConfig{
		Name: "bench", Dir: filepath.Join(r.dir, "broker"), NATS: "127.0.0.1:0", MQTT: "127.0.0.1:0", TLS: tlsConfig, Keys: keys, Limits: limits,
	}, r.log, nil)
	if err != nil {
		return err
	}
	if r.bus, err = bus.Connect("nats://in-process", keys, r.log, r.server.Option()); err != nil {
		return err
	}
	if err := r.bus.Provision(ctx, limits); err != nil {
		return fmt.Errorf("prepare broker: %w", err)
	}
	r.registry = identity.NewRegistry(identity.DefaultConfig(), identity.Deps{Bus: r.bus, CA: r.ca, Clock: time.Now, Log: r.log})
	metrics := prometheus.NewRegistry()
	gateway := gate.New(gate.DefaultConfig(), gate.Deps{
		Bus: r.bus, Keys: keys, Device: r.registry.Lookup, Registry: r.registry, Clock: time.Now, Log: r.log, Metrics: metrics,
	})
	cfg := quarantine.DefaultConfig()
	cfg.PerRule, cfg.PerFleet, cfg.PerCohort = math.MaxInt32, math.MaxInt32, math.MaxInt32
	r.cells = quarantine.New(cfg, quarantine.Deps{Bus: r.bus, Log: r.log, Clock: time.Now, Device: r.registry.Get, Fleet: r.registry.Count})
	rules := filepath.Join(r.dir, "rules")
	if err := os.MkdirAll(rules, 0o700); err != nil {
		return fmt.Errorf("write rule: %w", err)
	}
	if err := os.WriteFile(filepath.Join(rules, "bench-hot.yaml"), []byte(benchRule), 0o600); err != nil {
		return fmt.Errorf("write rule: %w", err)
	}
	decode := func(subject string, header map[string][]string, data []byte, receivedAt time.Time, seq uint64, historic bool) (fleet.Record, bool) {
		record, rejection := codec.Decode(subject, header, data, receivedAt, seq, historic, codec.DefaultLimits())
		return record, rejection == nil
	}
	detector := detect.New(detect.DefaultConfig(), detect.Deps{
		Bus: r.bus, Decode: decode, Log: r.log, Registry: metrics, Clock: time.Now, Rules: []fs.FS{os.DirFS(rules)},
	})
	if _, err := detector.Pack(); err != nil {
		return fmt.Errorf("read rule: %w", err)
	}
	for _, part := range []func(context.Context) error{r.registry.Run, gateway.Run, r.cells.Run, detector.Run} {
		group.Go(func() error { return part(ctx) })
	}
	for _, ready := range []<-chan struct{}{r.registry.Ready(), gateway.Ready(), r.cells.Ready()} {
		select {
		case <-ready:
		case <-time.After(30 * time.Second):
			return errors.New("start: not ready after 30 s")
		}
	}
	return nil
}

// fleet enrols the devices and starts the processes that they live in.
func (r *benchRun) fleet(ctx context.Context, group *errgroup.Group) error {
	ids := make([]benchIdentity, r.cmd.Devices)
	var enrolling errgroup.Group
	enrolling.SetLimit(16)
	for i := range ids {
		enrolling.Go(func() (err error) {
			ids[i], err = r.enroll(ctx, fmt.Sprintf("bench-%05d", i), i%2 == 1)
			return err
		})
	}
	if err := enrolling.Wait(); err != nil {
		return err
	}
	for i := range r.cmd.Children {
		cfg := benchDevices{NATS: r.server.NATSAddress(), MQTT: r.server.MQTTAddress(), CA: r.ca.PEM(), Every: r.cmd.Every}
		for j := i; j < len(ids); j += r.cmd.Children {
			cfg.Devices = append(cfg.Devices, ids[j])
		}
		if err := r.spawn(ctx, group, cfg); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(10 * time.Minute)
	for {
		r.mu.Lock()
		ready := r.ready
		r.mu.Unlock()
		if ready == r.cmd.Children {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("connect devices: not all connected after 10 minutes")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * time.Second): // let it stream
		return nil
	}
}

func (r *benchRun) enroll(ctx context.Context, id string, overMQTT bool) (benchIdentity, error) {
	_, token, err := r.registry.Enroll(ctx, identity.Enrolment{ID: id, Actor: "bench"})
	if err != nil {
		return benchIdentity{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return benchIdentity{}, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return benchIdentity{}, fmt.Errorf("make certificate request: %w", err)
	}
	_, certificate, err := r.registry.Redeem(ctx, token, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
	if err != nil {
		return benchIdentity{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return benchIdentity{}, fmt.Errorf("encode key: %w", err)
	}
	return benchIdentity{ID: id, MQTT: overMQTT, Certificate: certificate, Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}, nil
}

func (r *benchRun) spawn(ctx context.Context, group *errgroup.Group, cfg benchDevices) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find executable: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "bench", "device")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start devices: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start devices: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start devices: %w", err)
	}
	child := &benchProcess{stdin: stdin, cmd: cmd, owner: map[string]bool{}}
	r.mu.Lock()
	for _, d := range cfg.Devices {
		child.owner[d.ID] = true
		r.events[d.ID] = &benchSeen{}
	}
	r.mu.Unlock()
	r.children = append(r.children, child)
	group.Go(func() error {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var e benchEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				r.take(e)
			}
		}
		return nil
	})
	return json.NewEncoder(stdin).Encode(cfg)
}

func (r *benchRun) take(e benchEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.What == "ready" {
		r.ready++
		return
	}
	seen, at := r.events[e.Device], time.Unix(0, e.At)
	switch e.What {
	case "lost":
		if seen.lost.IsZero() {
			seen.lost = at
		}
	case "tried":
		seen.tried++
	case "admitted":
		seen.admitted++
	case "hot":
		seen.hot = at
	}
}

// quarantineAll quarantines devices one after the other, spread over the
// fleet: two by call, one by a reading.
func (r *benchRun) quarantineAll(ctx context.Context) ([]*benchCell, error) {
	total := r.cmd.Quarantines + r.cmd.Quarantines/2
	cells := make([]*benchCell, 0, total)
	for i := range total {
		n := i * r.cmd.Devices / total
		n += (n + i) % 2 // as many of each protocol
		n = min(n, r.cmd.Devices-1)
		cell := &benchCell{id: fmt.Sprintf("bench-%05d", n), mqtt: n%2 == 1}
		cells = append(cells, cell)
		patience, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := r.quarantineOne(patience, cell, i%3 == 2)
		cancel()
		if err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(r.cmd.Pause):
		}
	}
	return cells, nil
}

func (r *benchRun) quarantineOne(ctx context.Context, cell *benchCell, byReading bool) error {
	if byReading {
		for _, child := range r.children {
			if child.owner[cell.id] {
				if _, err := io.WriteString(child.stdin, cell.id+"\n"); err != nil {
					return fmt.Errorf("ask for a hot reading: %w", err)
				}
			}
		}
		for ctx.Err() == nil {
			if q, ok := r.cells.Current(cell.id); ok {
				cell.q, _ = r.cells.Wait(ctx, cell.id, q.ID) //nolint:errcheck // it says how far it came
				cell.settled = time.Now()
				return nil
			}
			<-time.After(200 * time.Microsecond)
		}
		return nil
	}
	cell.call = time.Now()
	q, err := r.cells.Request(ctx, fleet.QuarantineRequest{Device: cell.id, Level: fleet.Isolate, Reason: "measurement", Actor: "bench"})
	if err != nil {
		return err
	}
	cell.q, err = r.cells.Wait(ctx, cell.id, q.ID)
	cell.settled = time.Now()
	return err
}

func (r *benchRun) result(ctx context.Context, cells []*benchCell) (QuarantineBench, error) {
	bytes := map[string]int{}
	stream, err := r.bus.Fleet.Stream(ctx, bus.StreamFleet)
	if err != nil {
		return QuarantineBench{}, fmt.Errorf("open stream: %w", err)
	}
	for _, cell := range cells {
		if bytes[cell.id], err = bytesAfter(ctx, stream, cell.q); err != nil {
			return QuarantineBench{}, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	held := map[string]bool{}
	out := QuarantineBench{}
	for _, cell := range cells {
		held[cell.id] = true
		if cell.q.State != fleet.Confirmed {
			out.NotConfirmed++
		}
	}
	for id, seen := range r.events {
		if !held[id] && !seen.lost.IsZero() {
			out.OthersDisconnected++
		}
	}
	figures := func(devices int, keep func(*benchCell) bool) QuarantineFigures {
		return r.figures(devices, slices.DeleteFunc(slices.Clone(cells), func(c *benchCell) bool { return !keep(c) }), bytes)
	}
	n := r.cmd.Devices
	out.QuarantineFigures = figures(n, func(*benchCell) bool { return true })
	out.NATS = figures((n+1)/2, func(c *benchCell) bool { return !c.mqtt })
	out.MQTT = figures(n/2, func(c *benchCell) bool { return c.mqtt })
	return out, nil
}

func (r *benchRun) figures(devices int, cells []*benchCell, bytes map[string]int) QuarantineFigures {
	f := QuarantineFigures{Devices: devices, Quarantines: len(cells), Steps: map[string]Latency{}}
	var cut, confirmed, reading []float64
	steps := map[string][]float64{}
	ms := func(d time.Duration) float64 { return math.Round(d.Seconds()*1e5) / 100 }
	for _, c := range cells {
		seen := r.events[c.id]
		if c.call.IsZero() {
			if !seen.hot.IsZero() {
				reading = append(reading, ms(c.q.ConfirmedAt.Sub(seen.hot)))
			}
		} else {
			confirmed = append(confirmed, ms(c.settled.Sub(c.call)))
			if !seen.lost.IsZero() {
				cut = append(cut, ms(seen.lost.Sub(c.call)))
			}
		}
		for _, s := range c.q.Proof.Steps {
			steps[s.Name] = append(steps[s.Name], s.TookMS)
		}
		f.BytesAfterConfirmed += bytes[c.id]
		f.ReconnectsTried += seen.tried
		f.ReconnectsAdmitted += seen.admitted
	}
	f.CallToCut, f.CallToConfirmed, f.ReadingToConfirmed = latency(cut), latency(confirmed), latency(reading)
	for name, list := range steps {
		f.Steps[name] = latency(list)
	}
	return f
}

func latency(list []float64) Latency {
	if len(list) == 0 {
		return Latency{}
	}
	slices.Sort(list)
	at := func(q float64) float64 { return list[min(len(list)-1, int(math.Ceil(q*float64(len(list))))-1)] }
	return Latency{P50: at(0.5), P99: at(0.99), Worst: list[len(list)-1]}
}

// bytesAfter counts what of a device is on the log behind the record that says
// that its quarantine is confirmed.
func bytesAfter(ctx context.Context, stream jetstream.Stream, q fleet.Quarantine) (int, error) {
	fence, err := stream.GetLastMsgForSubject(ctx, bus.SubjectControl+".quarantine."+q.Device)
	if err != nil {
		return 0, fmt.Errorf("read fence of %s: %w", q.Device, err)
	}
	last, err := stream.GetLastMsgForSubject(ctx, bus.SubjectTelemetry+"."+q.Device)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read last message of %s: %w", q.Device, err)
	}
	if last.Sequence > fence.Sequence || last.Time.After(q.ConfirmedAt) {
		return len(last.Data), nil // of the last one; there may be more
	}
	return 0, nil
}
