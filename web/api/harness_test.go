package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/operator"
	"cordon/internal/seal"
	"cordon/internal/store"
	"cordon/internal/store/storetest"
)

// alerts stands in for the alert and detect stages, which this package may
// not import; their own tests show what they do.
type alerts struct {
	mu        sync.Mutex
	incidents map[string]fleet.Incident
	held      map[string]fleet.Quarantine
	rules     []fleet.Rule
	err       error // what every call answers, when set
}

func (f *alerts) List(filter IncidentFilter, _, _ string, limit int) (fleet.Page[fleet.Incident], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var p fleet.Page[fleet.Incident]
	for _, i := range f.incidents {
		if filter.State == "unresolved" && i.State == fleet.Resolved {
			continue
		}
		p.Items = append(p.Items, i)
	}
	slices.SortFunc(p.Items, func(a, b fleet.Incident) int { return strings.Compare(a.ID, b.ID) })
	p.Total = uint64(len(p.Items))
	p.Items = p.Items[:min(limit, len(p.Items))]
	return p, f.err
}

func (f *alerts) Get(_ context.Context, id string) (fleet.Incident, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return fleet.Incident{}, f.err
	}
	i, ok := f.incidents[id]
	if !ok {
		return i, fleet.Errorf(fleet.CodeNotFound, "there is no incident %s", id)
	}
	return i, nil
}

func (f *alerts) OpenOf(device string) (fleet.Incident, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.incidents {
		if i.Device == device && i.State != fleet.Resolved {
			return i, true
		}
	}
	return fleet.Incident{}, false
}

func (f *alerts) change(id string, do func(*fleet.Incident)) (fleet.Incident, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.incidents[id]
	do(&i)
	f.incidents[id] = i
	return i, nil
}

func (f *alerts) Acknowledge(_ context.Context, id, actor string) (fleet.Incident, error) {
	return f.change(id, func(i *fleet.Incident) { i.State, i.AcknowledgedBy = fleet.Acknowledged, actor })
}

func (f *alerts) Assign(_ context.Context, id, _, assignee string) (fleet.Incident, error) {
	return f.change(id, func(i *fleet.Incident) { i.Assignee = assignee })
}

func (f *alerts) Comment(_ context.Context, id, actor, text string) (fleet.Incident, error) {
	return f.change(id, func(i *fleet.Incident) {
		i.Timeline = append(i.Timeline, fleet.TimelineEntry{Kind: "comment", Actor: actor, Text: text})
	})
}

func (f *alerts) Resolve(_ context.Context, id, actor string, verdict fleet.Verdict, _ string) (fleet.Incident, error) {
	return f.change(id, func(i *fleet.Incident) { i.State, i.ResolvedBy, i.Verdict = fleet.Resolved, actor, verdict })
}

func (f *alerts) Reopen(_ context.Context, id, _ string) (fleet.Incident, error) {
	return f.change(id, func(i *fleet.Incident) { i.State = fleet.Open })
}

func (f *alerts) Rules() []fleet.Rule { return f.rules }

func (f *alerts) SetMode(_ context.Context, id string, mode fleet.Mode, actor, _ string) (fleet.Rule, error) {
	for i := range f.rules {
		if f.rules[i].ID != id {
			continue
		}
		if mode == fleet.Armed && f.rules[i].Evidence == fleet.Outside {
			return fleet.Rule{}, fleet.Errorf(fleet.CodeConflict, "rule %s judges outsiders; it can't be armed", id).On("body.mode")
		}
		f.rules[i].Mode, f.rules[i].ChangedBy = mode, actor
		return f.rules[i], nil
	}
	return fleet.Rule{}, fleet.Errorf(fleet.CodeNotFound, "there is no rule %s", id)
}

func (f *alerts) Receivers() []Receiver { return []Receiver{{Name: "chat", Kind: "slack"}} }

func (f *alerts) Deliveries(string, int) (fleet.Page[fleet.Delivery], error) {
	return fleet.Page[fleet.Delivery]{}, nil
}

// cells is the quarantine part of alerts; its List would clash with incidents.
type cells struct{ *alerts }

func (f cells) List() []fleet.Quarantine {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []fleet.Quarantine
	for _, q := range f.held {
		all = append(all, q)
	}
	return all
}

func (f cells) Current(device string) (fleet.Quarantine, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, ok := f.held[device]
	return q, ok
}

func (f cells) Request(_ context.Context, r fleet.QuarantineRequest) (fleet.Quarantine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := fleet.Quarantine{ID: r.Device + ".1", Device: r.Device, Level: r.Level, State: fleet.Requested, Reason: r.Reason, Actor: r.Actor, RequestedAt: time.Now()}
	f.held[r.Device] = q
	return q, nil
}

func (f cells) Wait(_ context.Context, device, _ string) (fleet.Quarantine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.held[device]
	q.State, q.ConfirmedAt = fleet.Confirmed, time.Now()
	f.held[device] = q
	return q, nil
}

func (f cells) Release(_ context.Context, device, actor, _ string) (fleet.Quarantine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, ok := f.held[device]
	if !ok {
		return q, fleet.Errorf(fleet.CodeNotFound, "device %s was never quarantined", device)
	}
	q.State, q.ReleasedBy = fleet.Released, actor
	f.held[device] = q
	return q, nil
}

// rig is the API over a real broker, registry and ClickHouse.
type rig struct {
	*API
	t       *testing.T
	bus     *bus.Bus
	alerts  *alerts
	store   *store.Store
	devices *identity.Registry
	url     string
	http    *http.Client
	offset  time.Duration
	clockMu sync.Mutex
}

func (r *rig) now() time.Time {
	r.clockMu.Lock()
	defer r.clockMu.Unlock()
	return time.Now().Add(r.offset)
}

func (r *rig) sleep(d time.Duration) {
	r.clockMu.Lock()
	defer r.clockMu.Unlock()
	r.offset += d
}

// start runs it over plain HTTP on loopback.
func start(t *testing.T) *rig {
	t.Helper()
	return startWith(t, false)
}

func startWith(t *testing.T, secure bool) *rig {
	t.Helper()
	return startConfigured(t, secure, slog.New(slog.DiscardHandler), func(*Config) {})
}

func startConfigured(t *testing.T, secure bool, log *slog.Logger, configure func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, bus: bustest.Start(t), store: storetest.Start(t)}
	r.alerts = &alerts{
		incidents: map[string]fleet.Incident{"INC-1": {ID: "INC-1", Number: 1, Device: "d1", Severity: fleet.High, State: fleet.Open, Title: "hot", OpenedAt: time.Now()}},
		held:      map[string]fleet.Quarantine{},
		rules: []fleet.Rule{
			{ID: "hot", Title: "Too hot", Mode: fleet.Alert, Evidence: fleet.Own, Severity: fleet.High, Kind: "threshold"},
			{ID: "guess", Title: "Guessing", Mode: fleet.Alert, Evidence: fleet.Outside, Severity: fleet.Medium, Kind: "count"},
		},
	}
	ca, err := identity.LoadOrCreateCA(t.TempDir()+"/ca", time.Now)
	require.NoError(t, err)
	r.devices = identity.NewRegistry(identity.DefaultConfig(), identity.Deps{Bus: r.bus, CA: ca, Clock: r.now, Log: log})
	r.run(r.devices.Run)
	<-r.devices.Ready()
	people := operator.DefaultConfig()
	people.Hashing = operator.Cost{MemoryKiB: 64, Passes: 1}
	cfg := DefaultConfig()
	cfg.Version, cfg.HTTP, cfg.Heartbeat, cfg.NATS, cfg.MQTT = "test", "127.0.0.1:0", 200*time.Millisecond, "tls://n:4222", "tls://m:8883"
	cfg.Rates = Rates{Caller: Rate{PerSecond: 1e5, Burst: 1e6}, Address: Rate{PerSecond: 1e5, Burst: 1e6}}
	configure(&cfg)
	transport := &http.Transport{ForceAttemptHTTP2: true}
	scheme := "http"
	if secure {
		certificate, err := ca.Server("127.0.0.1")
		require.NoError(t, err)
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ca.Pool()}
		scheme = "https"
	}
	r.API = New(cfg, Deps{
		Bus: r.bus, Operators: operator.New(people, operator.Deps{Bus: r.bus, Log: log, Clock: r.now, Secrets: seal.Ephemeral()}),
		Devices: r.devices, Lifecycle: r.devices, Erasures: identity.NewEraser(identity.EraserDeps{Registry: r.devices, Wiper: r.store, Log: log}), Incidents: r.alerts, Quarantines: cells{r.alerts}, Rules: r.alerts, Notices: r.alerts, Alerts: told{r.alerts}, History: r.store,
		Insight: Insight{Stages: func(context.Context) []fleet.StageStatus {
			return []fleet.StageStatus{{Stage: "ingest", Healthy: true, LagSeconds: 1.5}}
		}},
		CA: ca.PEM(), Log: log, Clock: r.now, Registry: prometheus.NewRegistry(),
	})
	address, err := r.Listen(t.Context())
	require.NoError(t, err)
	r.url = scheme + "://" + address.String()
	r.http = &http.Client{Transport: transport}
	r.run(r.Run)
	t.Cleanup(transport.CloseIdleConnections)
	return r
}

// run runs a part until the test ends.
func (r *rig) run(part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		require.NoError(r.t, <-done)
	})
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
	proto  string
}

func (a answer) problem(t *testing.T) Problem {
	t.Helper()
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"), string(a.body))
	var p Problem
	require.NoError(t, json.Unmarshal(a.body, &p))
	return p
}

func (r *rig) request(method, path string, body any, change func(*http.Request)) answer {
	r.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		require.NoError(r.t, err)
		reader = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, reader)
	require.NoError(r.t, err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(req)
	}
	res, err := r.http.Do(req)
	require.NoError(r.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(r.t, err)
	return answer{res.StatusCode, res.Header, raw, res.Proto}
}

// as sends a request with a token of the role.
func (r *rig) as(token, method, path string, body any) answer {
	r.t.Helper()
	return r.request(method, Prefix+path, body, func(req *http.Request) { req.Header.Set("Authorization", "Bearer "+token) })
}

// signedIn makes an operator with a password of their own and signs in; the
// function sends requests with that session.
func (r *rig) signedIn(name string, role operator.Role) func(method, path string, body any) answer {
	r.t.Helper()
	_, once, err := r.deps.Operators.Add(r.t.Context(), "test", name, role)
	require.NoError(r.t, err)
	p, _, err := r.deps.Operators.SignIn(r.t.Context(), name, once, "127.0.0.1")
	require.NoError(r.t, err)
	_, secret, err := r.deps.Operators.ChangePassword(r.t.Context(), p, once, ownPassword, "127.0.0.1")
	require.NoError(r.t, err)
	return r.withSession(secret)
}

func (r *rig) withSession(secret string) func(method, path string, body any) answer {
	return func(method, path string, body any) answer {
		r.t.Helper()
		return r.request(method, Prefix+path, body, func(req *http.Request) { req.AddCookie(&http.Cookie{Name: r.cookieName(), Value: secret}) })
	}
}

const ownPassword = "quill anvil tundra mosaic"

// token makes an operator of the role and a token of theirs.
func (r *rig) token(role operator.Role) string {
	r.t.Helper()
	return r.scopedToken(string(role)+"-one", role, operator.Scope{})
}

func (r *rig) scopedToken(name string, role operator.Role, scope operator.Scope) string {
	r.t.Helper()
	_, _, err := r.deps.Operators.AddScoped(r.t.Context(), "test", name, role, scope)
	require.NoError(r.t, err)
	_, secret, err := r.deps.Operators.CreateToken(r.t.Context(), operator.Principal{Name: name, Role: role}, "test", role, time.Hour)
	require.NoError(r.t, err)
	return secret
}

func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, string(a.body))
	var v T
	require.NoError(t, json.Unmarshal(a.body, &v), string(a.body))
	return v
}
