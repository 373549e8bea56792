package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cordon/detect"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/store"
)

// platform is what every role stands on, wherever broker and ClickHouse run.
type platform struct {
	cfg      Config
	log      *slog.Logger
	clock    func() time.Time
	registry *prometheus.Registry
	bus      *bus.Bus
	keys     bus.Keys
	store    *store.Store
	ca       *identity.CA
	engine   *store.Engine // nil with a ClickHouse of one's own
	dir      string        // for files of the web role
	nats     string        // where devices connect
	mqtt     string
	demo     *demo // nil outside the demo
	alone    bool  // every role runs in this process
	process  string
	devices  *identity.Registry
	detector *detect.Detector
	statuses []func() fleet.StageStatus
	refused  atomic.Pointer[brokerRefused] // who counts handshakes that failed
}

// brokerRefused takes the broker's words about a client that never reached
// the gate. The broker starts before the gate does.
type brokerRefused struct{ tell func(message string) }

// Up runs every role in this process, with an embedded broker and, unless cfg
// names another, an embedded ClickHouse, until ctx ends. With show, it runs a
// demo fleet too. ready is called once everything answers.
func Up(ctx context.Context, dir string, cfg Config, show *DemoConfig, log *slog.Logger, ready func(context.Context, Ready) error) (err error) {
	unlock, err := lockData(dir)
	if err != nil {
		return err
	}
	defer unlock()
	life := newLifecycle(ctx, log)
	defer life.stop()

	p := &platform{cfg: cfg, log: log, clock: time.Now, registry: prometheus.NewRegistry(), dir: dir, alone: true}
	if show != nil {
		if p.demo, err = startDemo(life, &p.cfg, *show, log); err != nil {
			return err
		}
	}
	if err := p.startBroker(life); err != nil {
		return err
	}
	if err := p.startStore(ctx, life); err != nil {
		return err
	}
	web, err := p.startRoles(ctx, life, Roles{Ingest: true, Detect: true, Alert: true, Web: true})
	if err != nil {
		return err
	}
	r := Ready{
		URL: web.url, NATS: p.nats, MQTT: p.mqtt, CA: filepath.Join(dir, "keys", identity.CertFile),
		AdminUser: web.adminUser, AdminPasswordFile: web.passwordFile, CLITokenFile: web.tokenFile,
	}
	if p.engine != nil {
		r.ClickHouse = p.engine.DSN()
	} else {
		r.ClickHouse = cfg.ClickHouse
	}
	if err := r.WriteFile(ReadyPath(dir)); err != nil {
		return err
	}
	defer os.Remove(ReadyPath(dir))
	if p.demo != nil {
		if err := p.demo.begin(ctx, life, p); err != nil {
			return err
		}
	}
	if err := ready(ctx, r); err != nil {
		return err
	}
	return life.wait(ctx)
}

func (p *platform) startBroker(life *lifecycle) error {
	keyDir := filepath.Join(p.dir, "keys")
	ca, err := openCA(keyDir, p.clock)
	if err != nil {
		return err
	}
	keys, err := bus.LoadOrCreateKeys(filepath.Join(keyDir, "broker.json"))
	if err != nil {
		return err
	}
	tlsConfig, err := ca.BrokerTLS(p.cfg.names()...)
	if err != nil {
		return fmt.Errorf("make broker certificate: %w", err)
	}
	limits := bus.DefaultLimits()
	limits.FleetBytes = p.cfg.StoreMB << 20
	limits.StoreBytes = limits.FleetBytes + 8<<30
	storeKey, err := p.storeKey()
	if err != nil {
		return err
	}
	srv, err := bus.StartServer(bus.ServerConfig{
		Name: "cordon", Dir: filepath.Join(p.dir, "broker"), NATS: p.cfg.NATS, MQTT: p.cfg.MQTT, WebSocket: p.cfg.WebSocket, TLS: tlsConfig, Keys: keys, Limits: limits,
		StoreKey: storeKey,
	}, p.log.With("part", "broker"), func(message string) {
		if r := p.refused.Load(); r != nil {
			r.tell(message)
		}
	})
	if err != nil {
		return err
	}
	life.onStop(srv.Shutdown)
	b, err := bus.Connect("nats://in-process", keys, p.log, srv.Option())
	if err != nil {
		return err
	}
	life.onStop(b.Close)
	ctx, cancel := context.WithTimeout(life.base, 30*time.Second)
	defer cancel()
	if err := b.Provision(ctx, limits); err != nil {
		return fmt.Errorf("prepare broker: %w", err)
	}
	p.ca, p.keys, p.bus = ca, keys, b
	p.nats, p.mqtt = p.cfg.reachable("tls", srv.NATSAddress()), p.cfg.reachable("mqtts", srv.MQTTAddress())
	return nil
}

func (p *platform) startStore(ctx context.Context, life *lifecycle) error {
	dsn := p.cfg.ClickHouse
	if dsn == "" {
		engine, err := store.StartEngine(ctx, store.EngineConfig{Dir: filepath.Join(p.dir, "clickhouse"), Library: p.cfg.EngineLibrary}, p.log.With("part", "engine"))
		if err != nil {
			return err
		}
		life.onStop(func() {
			if err := engine.Stop(); err != nil {
				p.log.Error("engine did not stop cleanly", "error", err)
			}
		})
		p.engine, dsn = engine, engine.DSN()
	}
	rawKey, err := loadOrCreateRawKey(filepath.Join(p.dir, "keys", "raw.key"))
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, dsn, p.log.With("part", "store"), store.Options{RawKey: rawKey})
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
	p.store = db
	return nil
}
