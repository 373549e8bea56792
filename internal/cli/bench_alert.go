package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"cordon/alert/incident"
	"cordon/alert/notify"
	"cordon/detect"
	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// BenchAlertCmd measures alerts: from a reading that the broker has taken to
// the webhook that tells of it, on a broker of its own.
type BenchAlertCmd struct {
	Alerts int           `help:"Devices that go wrong, each once." default:"500"`
	Every  time.Duration `help:"Between two of them." default:"20ms"`
	Within time.Duration `help:"How long the last one is waited for." default:"30s"`
}

// AlertBench is the result of bench alert.
type AlertBench struct {
	Sent       int     `json:"sent"`
	Delivered  int     `json:"delivered"`
	Lost       int     `json:"lost"`
	Duplicates int     `json:"duplicates"`
	Latency    Latency `json:"reading_to_webhook_ms"`
}

// alertSink is the receiver of the measurement.
type alertSink struct {
	mu    sync.Mutex
	at    map[string]time.Time // device → first webhook
	ids   map[string]bool
	twice int
}

func (s *alertSink) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	now := time.Now()
	var e notify.Event
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&e); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := r.Header.Get("Webhook-Id"); s.ids[id] {
		s.twice++
	} else {
		s.ids[id] = true
	}
	if _, known := s.at[e.Data.Incident.Device]; !known {
		s.at[e.Data.Incident.Device] = now
	}
}

func (s *alertSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

// Run measures and prints.
func (c *BenchAlertCmd) Run(ctx context.Context, g *Globals) error {
	dir, err := os.MkdirTemp("", "cordon-bench-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	r := &benchRun{cmd: &BenchQuarantineCmd{}, log: g.Log, dir: dir}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, running := errgroup.WithContext(ctx)
	sink := &alertSink{at: map[string]time.Time{}, ids: map[string]bool{}}
	if err := r.alertParts(running, group, sink); err != nil {
		return err
	}
	sent, err := c.send(ctx, r, sink)
	cancel()
	stopped := group.Wait()
	r.bus.Close()
	r.server.Shutdown()
	if err != nil {
		return err
	}
	if stopped != nil {
		return stopped
	}
	out := AlertBench{Sent: len(sent), Delivered: len(sink.at), Lost: len(sent) - len(sink.at), Duplicates: sink.twice}
	var took []float64
	for device, at := range sink.at {
		if begun, ok := sent[device]; ok {
			took = append(took, float64(at.Sub(begun).Microseconds())/1000)
		}
	}
	if slices.Sort(took); len(took) > 0 {
		out.Latency = Latency{P50: took[len(took)/2], P99: took[len(took)*99/100], Worst: took[len(took)-1]}
	}
	return show(g, out, func(w io.Writer) {
		row(w, "sent, delivered", fmt.Sprintf("%d, %d", out.Sent, out.Delivered))
		row(w, "lost, twice", fmt.Sprintf("%d, %d", out.Lost, out.Duplicates))
		row(w, "reading to webhook", fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, worst %.1f ms", out.Latency.P50, out.Latency.P99, out.Latency.Worst))
	})
}

// alertParts starts detector, incidents, notifications and their receiver.
func (r *benchRun) alertParts(ctx context.Context, group *errgroup.Group, sink http.Handler) error {
	keys, err := bus.NewKeys()
	if err != nil {
		return err
	}
	limits := bus.DefaultLimits()
	limits.FleetBytes, limits.StoreBytes = 1<<30, 8<<30
	if r.server, err = bus.StartServer(bus.ServerConfig{Name: "bench", Dir: filepath.Join(r.dir, "broker"), Keys: keys, Limits: limits}, r.log, nil); err != nil {
		return err
	}
	if r.bus, err = bus.Connect("nats://in-process", keys, r.log, r.server.Option()); err != nil {
		return err
	}
	if err := r.bus.Provision(ctx, limits); err != nil {
		return fmt.Errorf("prepare broker: %w", err)
	}
	rules := filepath.Join(r.dir, "rules")
	if err := os.MkdirAll(rules, 0o700); err != nil {
		return fmt.Errorf("write rule: %w", err)
	}
	alerting := strings.Replace(benchRule, "mode: armed", "mode: alert", 1)
	if err := os.WriteFile(filepath.Join(rules, "bench-hot.yaml"), []byte(alerting), 0o600); err != nil {
		return fmt.Errorf("write rule: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: sink, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })

	detector := detect.New(detect.DefaultConfig(), detect.Deps{
		Bus: r.bus, Log: r.log, Registry: prometheus.NewRegistry(), Clock: time.Now, Rules: []fs.FS{os.DirFS(rules)},
		Decode: func(subject string, header map[string][]string, data []byte, at time.Time, seq uint64, historic bool) (fleet.Record, bool) {
			record, rejection := codec.Decode(subject, header, data, at, seq, historic, codec.DefaultLimits())
			return record, rejection == nil
		},
	})
	cfg := incident.DefaultConfig()
	cfg.GroupDevices, cfg.FloodPerMinute = -1, 1<<30 // each device by itself
	incidents := incident.New(cfg, incident.Deps{Bus: r.bus, Log: r.log, Clock: time.Now})
	told := notify.DefaultConfig()
	told.Receivers = []notify.Receiver{{
		Name: "bench", Kind: notify.KindWebhook, URL: "http://" + listener.Addr().String(), AllowPrivate: true,
		Secret: "whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret for a measurement only")),
	}}
	notices, err := notify.New(told, notify.Deps{Bus: r.bus, Log: r.log, Clock: time.Now})
	if err != nil {
		return err
	}
	for _, run := range []func(context.Context) error{detector.Run, incidents.Run, notices.Run} {
		group.Go(func() error { return run(ctx) })
	}
	return nil
}

// send makes devices go wrong one after the other and says when the broker
// had taken each reading.
func (c *BenchAlertCmd) send(ctx context.Context, r *benchRun, sink *alertSink) (map[string]time.Time, error) {
	hot := func(device string) error {
		raw := fmt.Sprintf(`{"boot":"b","seq":1,"ts":%q,"metrics":{"cpu_temp_celsius":99}}`, time.Now().UTC().Format(time.RFC3339Nano))
		_, err := r.bus.Fleet.Publish(ctx, bus.SubjectTelemetry+"."+device, []byte(raw))
		if err != nil {
			return fmt.Errorf("send reading: %w", err)
		}
		return nil
	}
	for n := 0; sink.count() == 0; n++ { // until everything runs
		if err := hot(fmt.Sprintf("warm-%d", n)); err != nil {
			return nil, err
		}
		if err := pauseFor(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err := pauseFor(ctx, 2*time.Second); err != nil {
		return nil, err
	}
	sink.mu.Lock()
	clear(sink.at)
	sink.mu.Unlock()
	sent := map[string]time.Time{}
	for n := range c.Alerts {
		device := fmt.Sprintf("bench-%d", n)
		if err := hot(device); err != nil {
			return nil, err
		}
		sent[device] = time.Now()
		if err := pauseFor(ctx, c.Every); err != nil {
			return nil, err
		}
	}
	for end := time.Now().Add(c.Within); sink.count() < len(sent) && time.Now().Before(end); {
		if err := pauseFor(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return sent, nil
}

func pauseFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // a signal
	case <-timer.C:
		return nil
	}
}
