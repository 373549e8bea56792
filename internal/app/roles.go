package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cordon/alert/evidence"
	"cordon/alert/incident"
	"cordon/alert/notify"
	"cordon/alert/quarantine"
	"cordon/detect"
	"cordon/detect/rules"
	"cordon/ingest"
	"cordon/ingest/codec"
	"cordon/ingest/gate"
	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/operator"
	"cordon/internal/seal"
	"cordon/web/api"
)

// startWithin is how long a part may take to load its buckets.
const startWithin = time.Minute

// webRole is how to reach the web role, when this process runs it.
type webRole struct {
	url, adminUser, passwordFile, tokenFile string
}

// startRoles starts the parts of the roles, each after what it needs. Parts
// that the web role only looks at run in it without consuming.
func (p *platform) startRoles(ctx context.Context, life *lifecycle, roles Roles) (webRole, error) {
	devices := identity.NewRegistry(identity.DefaultConfig(), identity.Deps{Bus: p.bus, CA: p.ca, Clock: p.clock, Log: p.part("registry")})
	life.run("registry", devices.Run)
	if err := await(ctx, "registry", devices.Ready()); err != nil {
		return webRole{}, err
	}
	p.devices = devices
	if p.engine != nil {
		p.stage(p.engine.Status)
	}
	if roles.Ingest {
		if err := p.startIngest(ctx, life); err != nil {
			return webRole{}, err
		}
	}
	detector := detect.New(detect.DefaultConfig(), detect.Deps{
		Bus: p.bus, Decode: decode, Log: p.part("detect"), Registry: p.registry, Clock: p.clock, Rules: p.ruleFolders(),
	})
	if roles.Detect {
		if _, err := detector.Pack(); err != nil {
			return webRole{}, fmt.Errorf("read rules: %w", err)
		}
		life.run("detect", detector.Run)
		p.stage(detector.Status)
	}
	services, err := p.startAlert(ctx, life, roles)
	if err != nil {
		return webRole{}, err
	}
	if err := p.answerStatus(life); err != nil {
		return webRole{}, err
	}
	if !roles.Web {
		return webRole{}, nil
	}
	if roles.Detect {
		p.detector = detector
	}
	return p.startWeb(ctx, life, services)
}

func (p *platform) startIngest(ctx context.Context, life *lifecycle) error {
	cfg := ingest.DefaultConfig()
	if faults := os.Getenv("CORDON_BENCH_FAULTS"); faults != "" {
		if err := cfg.ApplyBench(p.dir, faults); err != nil {
			return err
		}
	}
	mover := ingest.New(cfg, ingest.Deps{
		Bus: p.bus, Store: p.store, Device: p.devices.Get, Log: p.part("ingest"), Registry: p.registry, Clock: p.clock,
	})
	life.run("ingest", mover.Run)
	p.stage(mover.Status)
	command, err := p.commands()
	if err != nil {
		return err
	}
	g := gate.New(gate.DefaultConfig(), gate.Deps{
		Command: command,
		Bus:     p.bus, Keys: p.keys, Device: p.devices.Lookup, Registry: p.devices, Clock: p.clock, Log: p.part("gate"), Metrics: p.registry,
	})
	p.refused.Store(&brokerRefused{g.BrokerRefused})
	life.run("gate", g.Run)
	p.stage(g.Status)
	return await(ctx, "gate", g.Ready())
}

// services are what people act through.
type services struct {
	incidents   *incident.Service
	quarantines *quarantine.Service
	notices     *notify.Service
	evidence    *evidence.Service
}

func (p *platform) startAlert(ctx context.Context, life *lifecycle, roles Roles) (services, error) {
	var s services
	if !roles.Alert && !roles.Web {
		return s, nil
	}
	s.incidents = incident.New(incident.DefaultConfig(), incident.Deps{
		Bus: p.bus, Log: p.part("incident"), Registry: p.registry, Clock: p.clock, Device: p.devices.Get,
	})
	s.quarantines = quarantine.New(quarantine.DefaultConfig(), quarantine.Deps{
		Bus: p.bus, Log: p.part("quarantine"), Clock: p.clock, Device: p.devices.Get, Fleet: p.devices.Count, Metrics: p.registry,
		Cohort: func(name string) int { return p.devices.Facets()["cohort"][name] },
	})
	var err error
	if s.notices, err = p.notifier(); err != nil {
		return s, err
	}
	if s.evidence, err = p.sealer(s.incidents); err != nil {
		return s, err
	}
	if roles.Alert {
		life.run("notify", s.notices.Run)
		life.run("quarantine", s.quarantines.Run)
		life.run("incident", s.incidents.Run)
		life.run("evidence", s.evidence.Run)
		life.run("watch", p.watcher(s.notices).Run)
		p.stage(s.incidents.Status)
		p.stage(s.quarantines.Status)
		p.stage(s.notices.Status)
	} else {
		life.run("notify", s.notices.Watch)
		life.run("quarantine", s.quarantines.Watch)
		life.run("incident", s.incidents.Watch)
	}
	for name, ready := range map[string]<-chan struct{}{"incidents": s.incidents.Ready(), "quarantines": s.quarantines.Ready(), "deliveries": s.notices.Ready()} {
		if err := await(ctx, name, ready); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (p *platform) startWeb(ctx context.Context, life *lifecycle, s services) (webRole, error) {
	role := webRole{adminUser: "admin", passwordFile: filepath.Join(p.dir, "run", "admin-password"), tokenFile: filepath.Join(p.dir, "run", "token")}
	if err := os.MkdirAll(filepath.Join(p.dir, "run"), 0o700); err != nil {
		return role, fmt.Errorf("make run directory: %w", err)
	}
	keyDir := filepath.Join(p.dir, "keys")
	secrets, err := seal.Load(filepath.Join(keyDir, "secrets.key"), "CORDON_SECRETS_KEY")
	if err != nil {
		return role, fmt.Errorf("load key for secrets at rest: %w", err)
	}
	logKey, err := operator.LogKey(filepath.Join(keyDir, "operator-log.key"))
	if err != nil {
		return role, err
	}
	operators := operator.New(operator.DefaultConfig(), operator.Deps{
		Bus: p.bus, Log: p.part("operator"), Clock: p.clock,
		Secrets: secrets, LogKey: logKey, LogAnchor: filepath.Join(keyDir, "operator-log.place"),
	})
	life.run("operator", operators.Run)
	if p.cfg.Syslog != "" {
		if err := operator.CheckSyslog(p.cfg.Syslog); err != nil {
			return role, fmt.Errorf("--syslog: %w", err)
		}
		life.run("syslog", func(ctx context.Context) error { return operators.Forward(ctx, p.cfg.Syslog, p.cfg.SyslogCA) })
	}
	if _, err := operators.Setup(ctx, role.passwordFile); err != nil {
		return role, fmt.Errorf("make first operator: %w", err)
	}
	if err := operators.LocalToken(ctx, role.tokenFile); err != nil {
		return role, fmt.Errorf("make local token: %w", err)
	}
	cfg := api.DefaultConfig()
	cfg.Version, cfg.HTTP, cfg.NATS, cfg.MQTT = p.cfg.Version, p.cfg.HTTP, p.nats, p.mqtt
	scheme := "http"
	if p.demo == nil {
		if cfg.TLS, err = p.dashboardTLS(); err != nil {
			return role, err
		}
		scheme = "https"
	}
	web := api.New(cfg, api.Deps{
		Bus: p.bus, Operators: operators, Devices: p.devices, Lifecycle: p.devices, Erasures: p.eraser(life), Incidents: incidents{s.incidents}, Quarantines: s.quarantines,
		Rules: p.rules(p.detector), Notices: notices{s.notices}, Alerts: alerts{s.incidents, s.notices, s.evidence}, History: p.store, Insight: p.insight(p.detector),
		CA: p.ca.PEM(), Log: p.part("web"), Clock: p.clock, Registry: p.registry, Secrets: secrets,
	})
	address, err := web.Listen(ctx)
	if err != nil {
		return role, err
	}
	life.run("web", web.Run)
	p.stage(web.Status)
	role.url = p.cfg.reachable(scheme, address.String())
	if p.demo != nil {
		role.url = demoURL(address.String())
	}
	return role, nil
}

// dashboardTLS is the given certificate, read again when its files change, or
// one of Cordon's own authority.
func (p *platform) dashboardTLS() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.cfg.TLSCert != "" || p.cfg.TLSKey != "" {
		source, err := api.LoadCertificate(p.cfg.TLSCert, p.cfg.TLSKey, p.part("web"))
		if err != nil {
			return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
		cfg.GetCertificate = source.Get
		return cfg, nil
	}
	own, err := p.ca.ServerTLS(p.cfg.names()...)
	if err != nil {
		return nil, fmt.Errorf("make dashboard certificate: %w", err)
	}
	return own, nil
}

// ruleFolders are the shipped pack and the operator's own rules, which win.
func (p *platform) ruleFolders() []fs.FS {
	folders := []fs.FS{rules.FS}
	if p.cfg.Rules != "" {
		folders = append(folders, os.DirFS(p.cfg.Rules))
	}
	return folders
}

// decode is the one decoder of the FLEET log, for ingest and for detection.
func decode(subject string, header map[string][]string, data []byte, receivedAt time.Time, seq uint64, historic bool) (fleet.Record, bool) {
	record, rejection := codec.Decode(subject, header, data, receivedAt, seq, historic, codec.DefaultLimits())
	return record, rejection == nil
}

func await(ctx context.Context, name string, ready <-chan struct{}) error {
	timer := time.NewTimer(startWithin)
	defer timer.Stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("start %s: not ready after %s", name, startWithin)
	}
}
