package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Rules whose findings this package publishes.
const (
	RuleDelivery    = "cordon-delivery"    // a receiver takes nothing
	RuleStage       = "cordon-stage"       // a stage is not well
	RuleLag         = "cordon-lag"         // a stage is far behind
	RuleStream      = "cordon-stream"      // a stream is nearly full
	RuleCertificate = "cordon-certificate" // a certificate ends soon
)

// version of the rules, which are code.
const version = "1"

// Config says how patient the watch is. The zero value of every field but
// Heartbeat is DefaultConfig's.
type Config struct {
	Every          time.Duration // between looks
	Lag            uint64        // messages that a stage may be behind
	StreamFull     float64       // share of a stream's bytes
	CertificateFor time.Duration // before the end of a certificate
	NoDelivery     time.Duration // that a receiver may keep a notification waiting
	Heartbeat      string        // address of an outside watcher; empty: none
	HeartbeatEvery time.Duration
}

// DefaultConfig looks every 15 seconds.
func DefaultConfig() Config {
	return Config{
		Every: 15 * time.Second, Lag: 100_000, StreamFull: 0.85, CertificateFor: 14 * 24 * time.Hour,
		NoDelivery: 10 * time.Minute, HeartbeatEvery: time.Minute,
	}
}

// Receiver is how one receiver does.
type Receiver struct {
	Name     string
	Healthy  bool
	Pending  uint64
	Disabled string // why nothing is sent to it
	Error    string
}

// Certificate is one that must not end unnoticed.
type Certificate struct {
	Name     string
	NotAfter time.Time
}

// Deps is what the watch looks at. Functions may be nil.
type Deps struct {
	Bus          *bus.Bus
	Stages       func(ctx context.Context) []fleet.StageStatus
	Receivers    func() []Receiver
	Certificates func() []Certificate
	Log          *slog.Logger
	Clock        func() time.Time
	HTTP         *http.Client // for the heartbeat
}

// Watch looks at Cordon itself.
type Watch struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	seen    map[string]int       // looks in a row that a condition held
	raised  map[string]condition // published and not over
	pending map[string]time.Time // since when a receiver has something waiting
	beatAt  time.Time
}

// condition is something that is wrong.
type condition struct {
	rule, subject string
	severity      fleet.Severity
	sentence      string
	since         time.Time
}

func (c condition) key() string { return c.rule + " " + c.subject }

// New makes a watch; nothing happens before Run.
func New(cfg Config, deps Deps) *Watch {
	def := DefaultConfig()
	for _, part := range []struct {
		to  *time.Duration
		def time.Duration
	}{{&cfg.Every, def.Every}, {&cfg.CertificateFor, def.CertificateFor}, {&cfg.NoDelivery, def.NoDelivery}, {&cfg.HeartbeatEvery, def.HeartbeatEvery}} {
		if *part.to <= 0 {
			*part.to = part.def
		}
	}
	if cfg.Lag == 0 {
		cfg.Lag = def.Lag
	}
	if cfg.StreamFull <= 0 {
		cfg.StreamFull = def.StreamFull
	}
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.HTTP == nil {
		deps.HTTP = &http.Client{Timeout: 10 * time.Second}
	}
	return &Watch{
		cfg: cfg, deps: deps, log: deps.Log.With("stage", "watch"),
		seen: map[string]int{}, raised: map[string]condition{}, pending: map[string]time.Time{},
	}
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	ticker := time.NewTicker(w.cfg.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		w.look(ctx)
	}
}

// look compares what is wrong with what was, and says what changed.
func (w *Watch) look(ctx context.Context) {
	now := w.deps.Clock().UTC()
	found := map[string]condition{}
	for _, c := range w.conditions(ctx, now) {
		c.since = now
		found[c.key()] = c
	}
	for key := range w.seen {
		if _, still := found[key]; !still {
			delete(w.seen, key)
		}
	}
	for key, c := range found {
		w.seen[key]++
		if _, known := w.raised[key]; known || w.seen[key] < 2 {
			continue
		}
		if err := w.publish(ctx, c, now, false); err != nil {
			w.log.Error("Cordon can't report its own trouble", "trouble", c.sentence, "error", err)
			continue
		}
		w.raised[key] = c
		w.log.Warn("Cordon itself is in trouble", "rule", c.rule, "trouble", c.sentence)
	}
	for key, c := range w.raised {
		if _, still := found[key]; still {
			continue
		}
		if err := w.publish(ctx, c, now, true); err == nil {
			delete(w.raised, key)
			w.log.Info("trouble is over", "rule", c.rule, "trouble", c.sentence)
		}
	}
	if len(found) == 0 {
		w.beat(ctx, now)
	}
}

func (w *Watch) publish(ctx context.Context, c condition, now time.Time, cleared bool) error {
	f := fleet.Finding{
		ID: fleet.FindingID(c.rule, version, fleet.SystemDevice, c.subject, c.since), Device: fleet.SystemDevice,
		RuleID: c.rule, RuleVersion: version, RuleTitle: "Cordon itself is in trouble", Mode: fleet.Alert, Evidence: fleet.Outside,
		Severity: c.severity, WindowStart: c.since, WindowEnd: now, ReceivedAt: now, DetectedAt: now,
		Explanation: fleet.Explanation{Sentence: c.sentence, Basis: "rule"}, Cleared: cleared,
	}
	id := f.ID
	if cleared {
		f.Explanation.Sentence, id = "over: "+c.sentence, id+".over"
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode finding: %w", err)
	}
	msg := &nats.Msg{Subject: bus.SubjectFinding + "." + fleet.SystemDevice, Data: raw, Header: nats.Header{}}
	msg.Header.Set(jetstream.MsgIDHeader, id)
	if _, err := w.deps.Bus.Core.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("publish finding: %w", err)
	}
	return nil
}

func (w *Watch) conditions(ctx context.Context, now time.Time) []condition {
	var out []condition
	if w.deps.Stages != nil {
		for _, s := range w.deps.Stages(ctx) {
			if !s.Healthy && s.Stage != "notify" { // receivers are told one by one
				out = append(out, condition{rule: RuleStage, subject: s.Stage, severity: fleet.High, sentence: fmt.Sprintf("Part %s of Cordon is not well: %s", s.Stage, s.Detail)})
			}
			if s.Lag > w.cfg.Lag {
				out = append(out, condition{rule: RuleLag, subject: s.Stage, severity: fleet.High, sentence: fmt.Sprintf("Part %s of Cordon is %d messages behind; what devices send is judged late.", s.Stage, s.Lag)})
			}
		}
	}
	out = append(out, w.receivers(now)...)
	out = append(out, w.streams(ctx)...)
	if w.deps.Certificates != nil {
		for _, c := range w.deps.Certificates() {
			left := c.NotAfter.Sub(now)
			if c.NotAfter.IsZero() || left > w.cfg.CertificateFor {
				continue
			}
			severity := fleet.Medium
			if left < 3*24*time.Hour {
				severity = fleet.Critical
			}
			out = append(out, condition{rule: RuleCertificate, subject: c.Name, severity: severity, sentence: fmt.Sprintf("The certificate of %s ends on %s.", c.Name, c.NotAfter.UTC().Format("2006-01-02 15:04 UTC"))})
		}
	}
	return out
}

func (w *Watch) receivers(now time.Time) []condition {
	if w.deps.Receivers == nil {
		return nil
	}
	var out []condition
	for _, r := range w.deps.Receivers() {
		if r.Pending == 0 || r.Healthy {
			delete(w.pending, r.Name)
		} else if w.pending[r.Name].IsZero() {
			w.pending[r.Name] = now
		}
		switch {
		case r.Disabled != "":
			out = append(out, condition{rule: RuleDelivery, subject: r.Name, severity: fleet.High, sentence: fmt.Sprintf("Receiver %s is disabled: %s. Nothing is sent to it until it is enabled again.", r.Name, r.Disabled)})
		case !w.pending[r.Name].IsZero() && now.Sub(w.pending[r.Name]) >= w.cfg.NoDelivery:
			out = append(out, condition{rule: RuleDelivery, subject: r.Name, severity: fleet.High, sentence: fmt.Sprintf("Receiver %s has taken no notification for %s; %d wait. Last failure: %s", r.Name, w.cfg.NoDelivery, r.Pending, r.Error)})
		}
	}
	return out
}

// watched are the streams that must not fill up.
var watched = []string{bus.StreamFleet, bus.StreamFindings, bus.StreamIncidents, bus.StreamDeliveries, bus.StreamOperatorLog}

func (w *Watch) streams(ctx context.Context) []condition {
	var out []condition
	for _, name := range watched {
		js := w.deps.Bus.Core
		if name == bus.StreamFleet {
			js = w.deps.Bus.Fleet
		}
		stream, err := js.Stream(ctx, name)
		if err != nil {
			if ctx.Err() == nil {
				out = append(out, condition{rule: RuleStage, subject: "broker", severity: fleet.Critical, sentence: "The broker does not answer about stream " + name + "."})
			}
			continue
		}
		info := stream.CachedInfo()
		if limit := info.Config.MaxBytes; limit > 0 && float64(info.State.Bytes) >= w.cfg.StreamFull*float64(limit) {
			out = append(out, condition{rule: RuleStream, subject: name, severity: fleet.High, sentence: fmt.Sprintf("Stream %s is %d %% full; when it is full, what devices send is refused.", name, int(100*float64(info.State.Bytes)/float64(limit)))})
		}
	}
	return out
}

// beat tells the outside watcher that all is well.
func (w *Watch) beat(ctx context.Context, now time.Time) {
	if w.cfg.Heartbeat == "" || now.Sub(w.beatAt) < w.cfg.HeartbeatEvery {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.cfg.Heartbeat, nil)
	if err != nil {
		w.log.Error("heartbeat address can't be used")
		return
	}
	resp, err := w.deps.HTTP.Do(req)
	if err != nil {
		w.log.Warn("heartbeat was not taken; the address is not shown, it may be a secret")
		return
	}
	_ = resp.Body.Close()
	if resp.StatusCode < 300 {
		w.beatAt = now
	}
}
