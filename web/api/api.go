package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

// Prefix is where the API lives.
const Prefix = "/api/v1"

// API is stage 4: the HTTP server. Make one with New.
type API struct {
	cfg    Config
	deps   Deps
	engine *gin.Engine
	huma   huma.API
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

// add registers an operation whose errors become problem documents.
func add[I, O any](a *API, r route, handler func(context.Context, *I) (*O, error)) {
	huma.Register(a.huma, r.operation(), func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, problem(ctx, a.deps.Log, err)
		}
		return out, nil
	})
}

// New builds the API; nothing runs yet.
func New(cfg Config, deps Deps) *API {
	gin.SetMode(gin.ReleaseMode)
	huma.DefaultArrayNullable = false
	a := &API{cfg: cfg, deps: deps, engine: gin.New()}
	config := huma.DefaultConfig("Cordon", cfg.Version)
	config.Info.Description = "Watches a fleet of devices and draws a cordon around those that go wrong."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	config.Servers = []*huma.Server{{URL: Prefix}}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"session": {Type: "apiKey", In: "cookie", Name: "cordon_session", Description: "Made by sign-in; named __Host-cordon_session over TLS."},
		"token":   {Type: "http", Scheme: "bearer", BearerFormat: "cordon_…", Description: "An API token; its scope is its role."},
	}
	aliasEnums(config.Components.Schemas)
	a.huma = humagin.NewWithGroup(a.engine, a.engine.Group(Prefix), config)
	a.operatorRoutes()
	a.systemRoutes()
	a.deviceRoutes()
	a.quarantineRoutes()
	a.incidentRoutes()
	a.historyRoutes()
	a.ruleRoutes()
	a.eventRoutes()
	return a
}
