package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cordon/alert/notify"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/store"
)

// ServeConfig is what cordon serve is told.
type ServeConfig struct {
	NATSURL    string   `help:"Address of the broker." name:"nats-url" default:"tls://127.0.0.1:4222" env:"CORDON_NATS_URL" placeholder:"URL"`
	ClickHouse string   `help:"clickhouse://user:password@host:9000/database." name:"clickhouse" required:"" env:"CORDON_CLICKHOUSE" placeholder:"DSN"`
	Keys       string   `help:"Directory that cordon init made." required:"" env:"CORDON_KEYS" type:"path" placeholder:"DIR"`
	HTTP       string   `help:"Address of the dashboard and API, for role web." default:"127.0.0.1:8443" env:"CORDON_HTTP" placeholder:"HOST:PORT"`
	Host       []string `help:"Names by which others reach this host, for its certificate." env:"CORDON_HOST" placeholder:"NAME"`
	Status     string   `help:"Address of /healthz and /metrics." default:"127.0.0.1:9464" env:"CORDON_STATUS" placeholder:"HOST:PORT"`
	DeviceNATS string   `help:"Where devices connect with NATS, told at enrolment; default: --nats-url." name:"device-nats" env:"CORDON_DEVICE_NATS" placeholder:"URL"`
	DeviceMQTT string   `help:"Where devices connect with MQTT, told at enrolment." name:"device-mqtt" env:"CORDON_DEVICE_MQTT" placeholder:"URL"`
	Rules      string   `help:"Directory with rules of your own (*.yaml)." env:"CORDON_RULES" type:"path" placeholder:"DIR"`
	Link       string   `help:"Address of the dashboard as people reach it, for links in notifications." env:"CORDON_LINK" placeholder:"URL"`
	StoreMB    int64    `help:"Most megabytes that the broker keeps of what devices sent." name:"store-mb" default:"8192" env:"CORDON_STORE_MB" placeholder:"MB"`

	Heartbeat string `help:"Address that is asked every minute while all is well, so that an outside watcher raises the alarm when Cordon falls silent." env:"CORDON_HEARTBEAT" placeholder:"URL"`

	Receivers []notify.Receiver `kong:"-"`
	Policy    notify.Policy     `kong:"-"`
	Version   string            `kong:"-"`
}

// Serve runs roles against external servers until ctx ends. dir is for the
// files of the web role (the one-time password, the local token).
func Serve(ctx context.Context, dir string, cfg ServeConfig, roles Roles, log *slog.Logger) error {
	life := newLifecycle(ctx, log)
	defer life.stop()
	p := &platform{
		cfg: Config{
			HTTP: cfg.HTTP, Host: cfg.Host, Rules: cfg.Rules, Link: cfg.Link, StoreMB: cfg.StoreMB,
			ClickHouse: cfg.ClickHouse, Receivers: cfg.Receivers, Policy: cfg.Policy, Heartbeat: cfg.Heartbeat, Version: cfg.Version,
		},
		log: log, clock: time.Now, registry: prometheus.NewRegistry(), dir: dir,
		nats: cfg.DeviceNATS, mqtt: cfg.DeviceMQTT,
	}
	if p.nats == "" {
		p.nats = cfg.NATSURL
	}
	if err := p.connect(ctx, life, cfg); err != nil {
		return err
	}
	if _, err := p.startRoles(ctx, life, roles); err != nil {
		return err
	}
	if err := p.startStatus(life, cfg.Status); err != nil {
		return err
	}
	log.Info("ready", "status", cfg.Status)
	return life.wait(ctx)
}

func (p *platform) connect(ctx context.Context, life *lifecycle, cfg ServeConfig) error {
	ca, err := openCA(cfg.Keys, p.clock)
	if err != nil {
		return err
	}
	keys, err := bus.LoadOrCreateKeys(filepath.Join(cfg.Keys, "broker.json"))
	if err != nil {
		return err
	}
	certificate, err := ca.Client("cordon")
	if err != nil {
		return fmt.Errorf("make client certificate: %w", err)
	}
	b, err := bus.Connect(cfg.NATSURL, keys, p.log, nats.Secure(&tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: ca.Pool(), Certificates: []tls.Certificate{certificate},
	}))
	if err != nil {
		return err
	}
	life.onStop(b.Close)
	limits := bus.DefaultLimits()
	limits.FleetBytes = cfg.StoreMB << 20
	if err := b.Provision(ctx, limits); err != nil {
		return fmt.Errorf("prepare broker: %w", err)
	}
	rawKey, err := loadOrCreateRawKey(filepath.Join(cfg.Keys, "raw.key"))
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, cfg.ClickHouse, p.log.With("part", "store"), store.Options{RawKey: rawKey})
	if err != nil {
		return err
	}
	life.onStop(func() {
		if err := db.Close(); err != nil {
			p.log.Warn("store did not close cleanly", "error", err)
		}
	})
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	p.ca, p.keys, p.bus, p.store = ca, keys, b, db
	return nil
}

// startStatus serves /healthz and /metrics of this process.
func (p *platform) startStatus(life *lifecycle, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(life.base, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on --status %s: %w; choose another with --status HOST:PORT", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		stages := p.local()
		for _, s := range stages {
			if !s.Healthy {
				w.WriteHeader(http.StatusServiceUnavailable)
				break
			}
		}
		if err := json.NewEncoder(w).Encode(stages); err != nil {
			p.log.Debug("status not sent", "error", err)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}
	life.run("status", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

// CheckHealth asks a process of cordon serve whether its stages are well.
func CheckHealth(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	defer answer.Body.Close()
	var stages []fleet.StageStatus
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&stages); err != nil {
		return fmt.Errorf("read answer of %s: %w", address, err)
	}
	for _, s := range stages {
		if !s.Healthy {
			return fmt.Errorf("%s: %s", s.Stage, s.Detail)
		}
	}
	return nil
}

// Init makes the authority, the broker's keys and certificate, and nats.conf
// in dir. What is there already stays.
func Init(dir string, hosts []string) error {
	ca, err := openCA(dir, time.Now)
	if err != nil {
		return err
	}
	keys, err := bus.LoadOrCreateKeys(filepath.Join(dir, "broker.json"))
	if err != nil {
		return err
	}
	if _, err := loadOrCreateRawKey(filepath.Join(dir, "raw.key")); err != nil {
		return err
	}
	certificate, key, err := ca.ServerPEM(hosts...)
	if err != nil {
		return fmt.Errorf("make broker certificate: %w", err)
	}
	conf, err := bus.ExternalConfig(bus.ServerConfig{Name: "nats-1", Dir: "/data", Keys: keys, Limits: bus.DefaultLimits()}, dir)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"broker-cert.pem": certificate, "broker-key.pem": key, "nats.conf": []byte(conf)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
