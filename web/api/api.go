package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"cordon/internal/fleet"
	"cordon/internal/operator"
	"cordon/internal/seal"
)

// Prefix is where the API lives.
const Prefix = "/api/v1"

// API is stage 4: the HTTP server. Make one with New, call Listen to know the
// address, then Run.
type API struct {
	cfg      Config
	deps     Deps
	engine   *gin.Engine
	huma     huma.API
	origin   *http.CrossOriginProtection
	hub      *hub
	view     *view
	limits   *limits
	metrics  *metrics
	changing striped // one change at a time of what an If-Match names
	listener net.Listener
	files    fs.FS // the dashboard, in tests; nil: the embedded one
}

// route is one operation as its registration states it; who may use it is in
// the access table under the same id.
type route struct {
	id, method, path, summary, tag string
}

// operation adds what every operation has.
func (r route) operation() huma.Operation {
	op := huma.Operation{
		OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, Tags: []string{r.tag},
		MaxBodyBytes: maxBody,
		Errors:       []int{http.StatusTooManyRequests, http.StatusServiceUnavailable},
	}
	need := access[r.id]
	if need.public {
		op.Security = []map[string][]string{{}}
		return op
	}
	op.Security = []map[string][]string{{"session": {}}, {"token": {string(need.role)}}}
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
	op.Description = "Needs role " + string(need.role) + "."
	return op
}

// add registers an operation: its errors become problem documents, and what
// it changed enters the operator log.
func add[I, O any](a *API, r route, handler func(context.Context, *I) (*O, error)) {
	huma.Register(a.huma, r.operation(), func(ctx context.Context, in *I) (*O, error) {
		if r.method == http.MethodGet {
			out, err := handler(ctx, in)
			if err != nil {
				return nil, problem(ctx, a.deps.Log, err)
			}
			return out, nil
		}
		done := &act{actor: caller(ctx).Name}
		out, err := handler(context.WithValue(ctx, keyAct, done), in)
		a.record(ctx, r.id, done, err)
		if err != nil {
			return nil, problem(ctx, a.deps.Log, err)
		}
		return out, nil
	})
}

// record writes the operator log. A refusal by a limit is not recorded, or
// guessing would fill the log.
func (a *API) record(ctx context.Context, id string, done *act, err error) {
	if a.deps.Operators == nil || fleet.CodeOf(err) == fleet.CodeTooMany {
		return
	}
	p := caller(ctx)
	e := operator.Entry{
		Actor: done.actor, Role: p.Role, Token: p.TokenName, Act: id, Target: done.target, Outcome: "done",
		Before: done.before, After: done.after, Source: source(ctx), RequestID: requestID(ctx),
	}
	if err != nil {
		e.Outcome, e.Before, e.After = "refused", nil, nil
		if fleet.CodeOf(err) != "" {
			e.Detail = err.Error()
		}
	}
	if err := a.deps.Operators.Audit(ctx, e); err != nil {
		a.deps.Log.Error("operator log entry was not written", "act", id, "actor", e.Actor, "error", err)
	}
}

// New builds the API; nothing runs yet.
func New(cfg Config, deps Deps) *API {
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if cfg.SilentAfter <= 0 {
		cfg.SilentAfter = DefaultConfig().SilentAfter
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = DefaultConfig().Heartbeat
	}
	if cfg.Rates == (Rates{}) {
		cfg.Rates = DefaultRates()
	}
	if deps.Secrets == nil {
		deps.Secrets = seal.Ephemeral()
	}
	a := &API{cfg: cfg, deps: deps, engine: gin.New(), limits: newLimits(deps.Clock, cfg.Rates), metrics: newMetrics(deps.Registry), origin: http.NewCrossOriginProtection()}
	a.hub = newHub(deps.Clock, a.metrics)
	a.view = newView(a)
	a.engine.HandleMethodNotAllowed = true
	a.engine.Use(a.prepare, a.recoverPanic, a.protect)
	a.huma = humagin.NewWithGroup(a.engine, a.engine.Group(Prefix), humaConfig(cfg))
	a.huma.UseMiddleware(a.authorize)
	a.operatorRoutes()
	a.accountRoutes()
	a.logRoutes()
	a.editRoutes()
	a.exportRoutes()
	a.systemRoutes()
	a.deviceRoutes()
	a.lifecycleRoutes()
	a.quarantineRoutes()
	a.incidentRoutes()
	a.historyRoutes()
	a.alertRoutes()
	a.ruleRoutes()
	a.backtestRoutes()
	a.eventRoutes()
	a.plainRoutes()
	return a
}

func humaConfig(cfg Config) huma.Config {
	config := huma.DefaultConfig("Cordon", cfg.Version)
	config.Info.Description = "Watches a fleet of devices and draws a cordon around those that go wrong. " +
		"Times are RFC 3339 in UTC. Lists are {items, next, total}: pass next as cursor for the page after; it is empty at the end. " +
		"Failures are RFC 9457 problem documents with a stable code."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	config.Servers = []*huma.Server{{URL: Prefix}}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"session": {Type: "apiKey", In: "cookie", Name: plainCookie, Description: "Made by sign-in; named " + secureCookie + " over TLS."},
		"token":   {Type: "http", Scheme: "bearer", BearerFormat: operator.TokenPrefix + "…", Description: "An API token; its scope is its role."},
	}
	aliasEnums(config.Components.Schemas)
	return config
}

// Handler serves everything without a listener, for tests.
func (a *API) Handler() http.Handler { return a.engine }

// Listen binds the address. Plain HTTP is refused anywhere but on loopback.
func (a *API) Listen(ctx context.Context) (net.Addr, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.HTTP)
	if err != nil {
		return nil, fmt.Errorf("listen on --http %s: %w; choose another port with --http HOST:PORT, or port 0 for any", a.cfg.HTTP, err)
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if a.cfg.TLS == nil && (!ok || !address.IP.IsLoopback()) {
		listener.Close()
		return nil, fmt.Errorf("listen on --http %s: without a certificate only loopback is allowed: use 127.0.0.1", a.cfg.HTTP)
	}
	a.listener = listener
	return listener.Addr(), nil
}

// Run serves until ctx ends; then it lets running requests finish, for at
// most 5 s.
func (a *API) Run(ctx context.Context) error {
	if a.listener == nil {
		if _, err := a.Listen(ctx); err != nil {
			return err
		}
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	server := &http.Server{
		Handler: a.engine, TLSConfig: a.cfg.TLS, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    quietLog(a.deps.Log),
	}
	failed := make(chan error, 2)
	go func() { failed <- a.feed(base) }()
	go func() {
		if a.cfg.TLS != nil {
			failed <- server.ServeTLS(a.listener, "", "")
			return
		}
		failed <- server.Serve(a.listener)
	}()
	select {
	case <-ctx.Done():
	case err := <-failed:
		_ = server.Close()
		return fmt.Errorf("serve http: %w", err)
	}
	a.hub.close() // ends the event streams, which would never finish
	stop, release := context.WithTimeout(base, 5*time.Second)
	defer release()
	if err := server.Shutdown(stop); err != nil {
		_ = server.Close()
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("stop http server: %w", err)
		}
	}
	return nil
}

// Status says how the web stage is doing.
func (a *API) Status() fleet.StageStatus {
	clients := a.hub.size()
	return fleet.StageStatus{
		Stage: "web", Healthy: true, Detail: fmt.Sprintf("%d live views open", clients),
		Counters: map[string]float64{"streams": float64(clients)},
	}
}
