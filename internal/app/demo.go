package app

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"cordon/alert/notify"
	"cordon/internal/agent"
	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/simulate"
)

// demoArmed are the rules that may quarantine in the demo.
var demoArmed = []string{"unusual-upload", "destination-scan", "processor-use-unusual", "tamper"}

// DemoConfig is what cordon up --demo shows.
type DemoConfig struct {
	Devices int
	History time.Duration
	// Progress is told what is going on and how far it has come.
	Progress func(doing string, done, total uint64)
	// Begun is told the address of the chat before the past is sent.
	Begun func(chat string)
}

// demo is a chat on this host and a simulated fleet.
type demo struct {
	cfg  DemoConfig
	log  *slog.Logger
	chat string
}

// startDemo starts the chat and makes it a receiver.
func startDemo(life *lifecycle, cfg *Config, demoCfg DemoConfig, log *slog.Logger) (*demo, error) {
	host, port, err := net.SplitHostPort(cfg.HTTP)
	if err != nil {
		return nil, fmt.Errorf("read --http %s: %w", cfg.HTTP, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("the demo serves http://localhost on loopback only; --http %s is another address: leave it out, or run cordon up without --demo", cfg.HTTP)
	}
	if host == "localhost" {
		cfg.HTTP = net.JoinHostPort("127.0.0.1", port)
	}
	key := make([]byte, 24)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make webhook secret: %w", err)
	}
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	chat, err := simulate.NewChatReceiver(secret, time.Now)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(life.base, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the demo chat: %w", err)
	}
	server := &http.Server{Handler: chat, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	life.run("chat", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	d := &demo{cfg: demoCfg, log: log, chat: "http://" + listener.Addr().String()}
	cfg.Receivers = append(cfg.Receivers,
		notify.Receiver{Name: "demo-webhook", Kind: "webhook", URL: d.chat + simulate.ChatWebhookPath, Secret: secret, Severity: fleet.Low, AllowPrivate: true},
		notify.Receiver{Name: "demo-chat", Kind: "slack", URL: d.chat + simulate.ChatSlackPath, Severity: fleet.Low, AllowPrivate: true},
	)
	return d, nil
}

// begin arms some rules, sends the fleet's past, and lets it live in the
// background. It returns when the past is stored and judged.
func (d *demo) begin(ctx context.Context, life *lifecycle, p *platform) error {
	if d.cfg.Begun != nil {
		d.cfg.Begun(d.chat)
	}
	cfg := simulate.DefaultDemoConfig()
	cfg.Dir, cfg.Progress = filepath.Join(p.dir, "demo"), d.cfg.Progress
	if d.cfg.Devices > 0 {
		cfg.Devices = d.cfg.Devices
	}
	if d.cfg.History > 0 {
		cfg.History = d.cfg.History
	}
	cfg.Settle = p.settle
	fleetOf := simulate.NewDemo(cfg, simulate.DemoDeps{Issuer: issuer{p}, Log: p.part("demo"), Clock: p.clock})
	live := make(chan struct{})
	var once sync.Once
	failed := make(chan error, 1)
	life.run("demo", func(ctx context.Context) error {
		err := fleetOf.Run(ctx, func([]simulate.Attack) { once.Do(func() { close(live) }) })
		if err != nil && ctx.Err() == nil {
			failed <- err
		}
		return err
	})
	select {
	case <-live:
	case err := <-failed:
		return fmt.Errorf("start demo fleet: %w", err)
	case <-ctx.Done():
		return nil
	}
	for _, id := range demoArmed {
		if _, err := p.rules(p.detector).SetMode(ctx, id, fleet.Armed, "demo", "the demo shows an automatic quarantine"); err != nil {
			return fmt.Errorf("arm rule %s for the demo: %w", id, err)
		}
	}
	return nil
}

// issuer enrols simulated devices without going through HTTP.
type issuer struct{ p *platform }

func (i issuer) Register(ctx context.Context, r agent.Registration) (string, error) {
	_, token, err := i.p.devices.Enroll(ctx, identity.Enrolment{
		ID: r.ID, Cohort: r.Cohort, Site: r.Site, Model: r.Model, Firmware: r.Firmware, Owner: r.Owner, Tags: r.Tags,
		TimeZone: r.TimeZone, Historic: r.Historic, Actor: "demo",
	})
	return token, err
}

func (i issuer) Redeem(ctx context.Context, token string, csr []byte) (agent.Credentials, error) {
	device, certificate, err := i.p.devices.Redeem(ctx, token, csr)
	if err != nil {
		return agent.Credentials{}, err
	}
	return agent.Credentials{Device: device.ID, Certificate: certificate, CA: i.p.ca.PEM(), NATS: i.p.nats, MQTT: i.p.mqtt}, nil
}

// demoURL names localhost, which browsers treat as secure without TLS.
func demoURL(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://" + address
	}
	return "http://localhost:" + port
}

// settle waits until what was sent is stored and judged.
func (p *platform) settle(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		var waiting uint64
		for _, s := range p.local() {
			if s.Stage == "ingest" || s.Stage == "detect" {
				waiting += s.Lag
			}
		}
		if waiting == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
