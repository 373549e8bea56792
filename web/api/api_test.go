package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/operator"
)

const newPassword = "quill anvil tundra mosaic"

func sessionCookie(t *testing.T, a answer) string {
	t.Helper()
	for _, line := range a.header.Values("Set-Cookie") {
		c, err := http.ParseSetCookie(line)
		require.NoError(t, err)
		if c.Name == plainCookie {
			require.True(t, c.HttpOnly)
			require.Equal(t, http.SameSiteStrictMode, c.SameSite)
			return c.Value
		}
	}
	t.Fatal("no session cookie")
	return ""
}

func with(cookie string) func(*http.Request) {
	return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: plainCookie, Value: cookie}) }
}

func TestSession_forcedChangeOfPassword(t *testing.T) {
	r := start(t)
	file := t.TempDir() + "/password"
	made, err := r.deps.Operators.Setup(t.Context(), file)
	require.NoError(t, err)
	require.True(t, made)
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	oneTime := strings.TrimSpace(string(raw))

	signedIn := r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "admin", Password: oneTime}, nil)
	s := decode[Session](t, signedIn)
	require.True(t, s.MustChangePassword)
	require.Equal(t, operator.Admin, s.Operator.Role)
	cookie := sessionCookie(t, signedIn)

	refused := r.request(http.MethodGet, Prefix+"/devices", nil, with(cookie))
	require.Equal(t, http.StatusForbidden, refused.status)
	require.Equal(t, "password_change_required", refused.problem(t).Code)
	require.True(t, decode[Session](t, r.request(http.MethodGet, Prefix+"/session", nil, with(cookie))).MustChangePassword)

	weak := r.request(http.MethodPost, Prefix+"/session/password", PasswordRequest{oneTime, "Password1234"}, with(cookie))
	require.Equal(t, http.StatusUnprocessableEntity, weak.status)
	require.Equal(t, "body.new", weak.problem(t).Errors[0].Location)
	changed := r.request(http.MethodPost, Prefix+"/session/password", PasswordRequest{oneTime, newPassword}, with(cookie))
	require.False(t, decode[Session](t, changed).MustChangePassword)
	fresh := sessionCookie(t, changed)
	require.NotEqual(t, cookie, fresh)
	require.Equal(t, http.StatusUnauthorized, r.request(http.MethodGet, Prefix+"/devices", nil, with(cookie)).status, "the old session ended")
	require.Equal(t, http.StatusOK, r.request(http.MethodGet, Prefix+"/devices", nil, with(fresh)).status)

	out := r.request(http.MethodDelete, Prefix+"/session", nil, with(fresh))
	require.Equal(t, http.StatusNoContent, out.status)
	require.Contains(t, out.header.Get("Set-Cookie"), "Max-Age=0")
	require.Equal(t, http.StatusUnauthorized, r.request(http.MethodGet, Prefix+"/session", nil, with(fresh)).status)
}

func TestSession_guessingIsSlowed(t *testing.T) {
	r := start(t)
	_, password, err := r.deps.Operators.Add(t.Context(), "test", "ann", operator.Viewer)
	require.NoError(t, err)
	statuses := map[int]int{}
	for range 10 {
		got := r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "ann", Password: "guess"}, nil)
		statuses[got.status]++
		if got.status == http.StatusTooManyRequests {
			require.NotEmpty(t, got.header.Get("Retry-After"))
			require.Equal(t, "too_many", got.problem(t).Code)
		} else {
			require.Equal(t, "name or password is wrong", got.problem(t).Detail)
		}
	}
	require.Equal(t, map[int]int{http.StatusUnauthorized: 5, http.StatusTooManyRequests: 5}, statuses)
	r.sleep(3 * time.Second)
	require.Equal(t, http.StatusOK, r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: " Ann ", Password: password}, nil).status, "after the delay, however the name is typed")
}

func TestDevices_enrolListShow(t *testing.T) {
	r := start(t)
	admin := r.token(operator.Admin)
	for i := range 5 {
		e := decode[Enrolled](t, r.as(admin, http.MethodPost, "/devices", EnrollRequest{ID: fmt.Sprintf("d%d", i), Cohort: "pump", Site: "seoul", Tags: []string{"blue"}}))
		require.True(t, strings.HasPrefix(e.Token, "cordon_enroll_"))
		require.Contains(t, e.Command, e.Token)
	}
	var seen []string
	cursor := ""
	for range 3 {
		p := decode[fleet.Page[DeviceSummary]](t, r.as(admin, http.MethodGet, "/devices?limit=2&sort=-id&cohort=pump&tag=blue&q=SEOUL+d&cursor="+cursor, nil))
		require.EqualValues(t, 5, p.Total)
		for _, d := range p.Items {
			seen = append(seen, d.ID)
			require.Equal(t, StatusNeverSeen, d.Status)
		}
		cursor = p.Next
	}
	require.Equal(t, []string{"d4", "d3", "d2", "d1", "d0"}, seen)
	require.Empty(t, cursor)
	list := decode[fleet.Page[DeviceSummary]](t, r.as(admin, http.MethodGet, "/devices?status=never_seen", nil))
	require.Len(t, list.Items, 5)
	require.Equal(t, "INC-1", list.Items[1].OpenIncident.ID)
	require.Empty(t, decode[fleet.Page[DeviceSummary]](t, r.as(admin, http.MethodGet, "/devices?status=reporting", nil)).Items)

	d := decode[DeviceDetail](t, r.as(admin, http.MethodGet, "/devices/d1", nil))
	require.Zero(t, d.ReadingsStored)
	require.Len(t, d.Rules, 2)
	require.NotContains(t, string(r.as(admin, http.MethodGet, "/devices/d1", nil).body), "token_hash")
	require.NotContains(t, string(r.as(admin, http.MethodGet, "/devices/d1", nil).body), "null")
	facets := decode[map[string]map[string]int](t, r.as(admin, http.MethodGet, "/devices/facets", nil))
	require.Equal(t, 5, facets["cohort"]["pump"])

	require.Equal(t, http.StatusNotFound, r.as(admin, http.MethodGet, "/devices/none", nil).status)
	require.Equal(t, http.StatusUnprocessableEntity, r.as(admin, http.MethodGet, "/devices?cursor=zzz", nil).status)
	require.Equal(t, http.StatusUnprocessableEntity, r.as(admin, http.MethodGet, "/devices?limit=501", nil).status)
	require.Equal(t, fleet.Retired, decode[Device](t, r.as(admin, http.MethodPost, "/devices/d1/retire", ReasonRequest{"sold"})).State)
}

func TestDevices_history(t *testing.T) {
	r := start(t)
	admin := r.token(operator.Admin)
	decode[Enrolled](t, r.as(admin, http.MethodPost, "/devices", EnrollRequest{ID: "d1"}))
	now := time.Now().UTC().Truncate(time.Second)
	record := fleet.Record{Kind: fleet.TelemetryKind, Device: "d1", StreamSeq: 1, ReceivedAt: now}
	for i := range 3 {
		record.Readings = append(record.Readings, fleet.Reading{ObservedAt: now.Add(time.Duration(i-3) * time.Second), Metric: "cpu_temp_celsius", Value: float64(60 + i)})
	}
	insert(t, r, record)

	metrics := decode[MetricList](t, r.as(admin, http.MethodGet, "/devices/d1/metrics", nil))
	require.Len(t, metrics.Items, 1)
	require.Equal(t, "Cel", metrics.Items[0].Unit)
	require.EqualValues(t, 3, metrics.Items[0].Count)
	series := decode[Series](t, r.as(admin, http.MethodGet, "/devices/d1/series?metric=cpu_temp_celsius", nil))
	require.NotEmpty(t, series.T)
	require.Len(t, series.Mean, len(series.T))
	d := decode[DeviceDetail](t, r.as(admin, http.MethodGet, "/devices/d1", nil))
	require.EqualValues(t, 3, d.ReadingsStored)
	require.Equal(t, StatusReporting, d.Status)
	r.sleep(11 * time.Minute)
	require.Equal(t, StatusSilent, decode[DeviceDetail](t, r.as(admin, http.MethodGet, "/devices/d1", nil)).Status)
	require.Equal(t, 1, decode[Overview](t, r.as(admin, http.MethodGet, "/overview", nil)).Fleet.Silent)
	bad := r.as(admin, http.MethodGet, "/devices/d1/series?metric=x&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", nil)
	require.Equal(t, http.StatusUnprocessableEntity, bad.status)
	require.Equal(t, "query.from", bad.problem(t).Errors[0].Location)
	for _, path := range []string{"/devices/d1/audit", "/findings", "/dead-letters", "/quarantines?state=all", "/incidents/INC-1/findings", "/deliveries", "/quarantines"} {
		got := r.as(admin, http.MethodGet, path, nil)
		require.Equal(t, http.StatusOK, got.status, "%s: %s", path, got.body)
		require.Contains(t, string(got.body), `"items":[]`, path)
	}
}

func TestQuarantine_andOperatorLog(t *testing.T) {
	r := start(t)
	admin, responder := r.token(operator.Admin), r.token(operator.Responder)
	decode[Enrolled](t, r.as(admin, http.MethodPost, "/devices", EnrollRequest{ID: "d1"}))
	q := decode[fleet.Quarantine](t, r.as(responder, http.MethodPost, "/devices/d1/quarantine", map[string]any{"level": "isolate", "reason": "scans", "incident": "INC-1"}))
	require.Equal(t, fleet.Confirmed, q.State)
	require.Equal(t, "responder-one", q.Actor)
	o := decode[Overview](t, r.as(admin, http.MethodGet, "/overview", nil))
	require.Equal(t, 1, o.Fleet.Quarantined)
	require.Equal(t, 1, o.Quarantine.Confirmed)
	require.Equal(t, 1, o.Incidents.BySeverity.High)
	require.NotEmpty(t, o.Todo)
	require.NotEmpty(t, o.Changes)
	require.InDelta(t, 1.5, o.Ingest.LagSeconds, 0)
	require.Len(t, decode[fleet.Page[fleet.Quarantine]](t, r.as(admin, http.MethodGet, "/quarantines", nil)).Items, 1)
	require.Equal(t, fleet.Released, decode[fleet.Quarantine](t, r.as(responder, http.MethodPost, "/devices/d1/release", ReasonRequest{"clean"})).State)

	for field, body := range map[string]map[string]any{
		"body.until":    {"level": "isolate", "reason": "x", "until": "2020-01-01T00:00:00Z"},
		"body.incident": {"level": "isolate", "reason": "x", "incident": "INC-9"},
		"body.level":    {"level": "nuke", "reason": "x"},
		"body":          {"level": "isolate"},
	} {
		got := r.as(responder, http.MethodPost, "/devices/d1/quarantine", body)
		require.Equal(t, http.StatusUnprocessableEntity, got.status)
		require.Equal(t, field, got.problem(t).Errors[0].Location, string(got.body))
	}

	stream, err := r.bus.Core.Stream(t.Context(), bus.StreamOperatorLog)
	require.NoError(t, err)
	var acts []string
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	for seq := uint64(1); seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		require.NoError(t, err)
		require.NotContains(t, string(m.Data), "cordon_", "no secret in the operator log")
		var link operator.Record
		require.NoError(t, json.Unmarshal(m.Data, &link))
		e := link.Entry
		require.Equal(t, "127.0.0.1", e.Source)
		acts = append(acts, e.Actor+" "+e.Act+" "+e.Target+" "+e.Outcome)
	}
	require.Equal(t, []string{"admin-one enroll-device d1 done", "responder-one quarantine-device d1 done", "responder-one release-device d1 done"}, acts[:3])
	require.Contains(t, acts[3:], "responder-one quarantine-device d1 refused")
}

func TestIncidents_theStory(t *testing.T) {
	r := start(t)
	analyst := r.token(operator.Analyst)
	require.Equal(t, fleet.Acknowledged, decode[fleet.Incident](t, r.as(analyst, http.MethodPost, "/incidents/INC-1/acknowledge", nil)).State)
	require.Equal(t, "analyst-one", decode[fleet.Incident](t, r.as(analyst, http.MethodPost, "/incidents/INC-1/assign", AssignRequest{"analyst-one"})).Assignee)
	require.Equal(t, http.StatusUnprocessableEntity, r.as(analyst, http.MethodPost, "/incidents/INC-1/assign", AssignRequest{"nobody"}).status)
	require.Len(t, decode[fleet.Incident](t, r.as(analyst, http.MethodPost, "/incidents/INC-1/comment", CommentRequest{"looks bad"})).Timeline, 1)
	require.Equal(t, fleet.Resolved, decode[fleet.Incident](t, r.as(analyst, http.MethodPost, "/incidents/INC-1/resolve", ResolveRequest{fleet.Benign, "planned"})).State)
	require.Equal(t, fleet.Open, decode[fleet.Incident](t, r.as(analyst, http.MethodPost, "/incidents/INC-1/reopen", nil)).State)
	list := r.as(analyst, http.MethodGet, "/incidents?state=unresolved", nil)
	require.Len(t, decode[fleet.Page[fleet.Incident]](t, list).Items, 1)
	require.Contains(t, string(list.body), `"timeline":[]`)
	require.Equal(t, http.StatusNotFound, r.as(analyst, http.MethodGet, "/incidents/INC-7", nil).status)
}

func TestRules_armingOutsideEvidenceIsRefused(t *testing.T) {
	r := start(t)
	responder := r.token(operator.Responder)
	require.Equal(t, fleet.Armed, decode[fleet.Rule](t, r.as(responder, http.MethodPut, "/rules/hot/mode", ModeRequest{fleet.Armed, "tested"})).Mode)
	got := r.as(responder, http.MethodPut, "/rules/guess/mode", ModeRequest{fleet.Armed, "try"})
	require.Equal(t, http.StatusConflict, got.status)
	require.Equal(t, "conflict", got.problem(t).Code)
}

func TestProblems(t *testing.T) {
	r := start(t)
	viewer := r.token(operator.Viewer)
	r.alerts.err = errors.New("secret detail of a driver")
	got := r.as(viewer, http.MethodGet, "/incidents/INC-1", nil)
	require.Equal(t, http.StatusInternalServerError, got.status)
	require.NotContains(t, string(got.body), "secret")
	require.Equal(t, got.header.Get("X-Request-Id"), got.problem(t).RequestID)
	require.Contains(t, got.problem(t).Detail, got.problem(t).RequestID)
	r.alerts.err = fmt.Errorf("read: %w", fleet.Errorf(fleet.CodeUnavailable, "the broker does not answer"))
	got = r.as(viewer, http.MethodGet, "/incidents/INC-1", nil)
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Equal(t, "the broker does not answer", got.problem(t).Detail)
	r.alerts.err = nil

	admin := r.token(operator.Admin)
	for _, c := range []struct {
		method, path string
		body         any
		status       int
	}{
		{http.MethodGet, Prefix + "/nothing", nil, http.StatusNotFound},
		{http.MethodPatch, Prefix + "/devices", nil, http.StatusMethodNotAllowed},
		{http.MethodPost, Prefix + "/devices", "{", http.StatusUnprocessableEntity},
		{http.MethodPost, Prefix + "/devices", `{"id":"a b"}`, http.StatusUnprocessableEntity},
		{http.MethodPost, Prefix + "/devices", `{"id":"a","colour":"red"}`, http.StatusUnprocessableEntity},
		{http.MethodPost, Prefix + "/devices", `{"id":"` + strings.Repeat("a", 2<<20) + `"}`, http.StatusRequestEntityTooLarge},
		{http.MethodGet, Prefix + "/devices/..%2f..%2fetc", nil, http.StatusUnprocessableEntity},
		{http.MethodGet, Prefix + "/devices?limit=x", nil, http.StatusUnprocessableEntity},
	} {
		got := r.request(c.method, c.path, c.body, func(req *http.Request) { req.Header.Set("Authorization", "Bearer "+admin) })
		require.Contains(t, []int{c.status, http.StatusBadRequest, http.StatusNotFound}, got.status, "%s %s: %s", c.method, c.path, got.body)
		require.NotEmpty(t, got.problem(t).Code, c.path)
	}
}

func TestProtect(t *testing.T) {
	r := start(t)
	got := r.request(http.MethodGet, "/healthz", nil, func(req *http.Request) { req.Host = "evil.example:80" })
	require.Equal(t, http.StatusMisdirectedRequest, got.status, "DNS rebinding")
	got = r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "a", Password: "b"}, func(req *http.Request) { req.Header.Set("Origin", "https://evil.example") })
	require.Equal(t, http.StatusForbidden, got.status, "cross-site request")
	got = r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "a", Password: "b"}, func(req *http.Request) { req.Header.Set("Sec-Fetch-Site", "cross-site") })
	require.Equal(t, http.StatusForbidden, got.status)
	got = r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "a", Password: "b"}, func(req *http.Request) { req.Header.Set("Origin", r.url) })
	require.Equal(t, http.StatusUnauthorized, got.status, "same origin reaches the sign-in")
	for name, value := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
	} {
		require.Equal(t, value, got.header.Get(name))
	}
	require.Empty(t, got.header.Get("Strict-Transport-Security"))
	require.Equal(t, http.StatusOK, r.request(http.MethodGet, "/metrics", nil, nil).status)
	require.Equal(t, http.StatusUnauthorized, r.request(http.MethodGet, "/metrics", nil, func(req *http.Request) { req.Header.Set("X-Forwarded-For", "8.8.8.8") }).status)
	require.Equal(t, http.StatusOK, r.request(http.MethodGet, "/readyz", nil, nil).status)
}

func TestListen_plainOnlyOnLoopback(t *testing.T) {
	cfg := DefaultConfig()
	cfg.HTTP = "0.0.0.0:0"
	a := New(cfg, Deps{})
	_, err := a.Listen(t.Context())
	require.ErrorContains(t, err, "loopback")
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	b := New(cfg, Deps{})
	_, err = b.Listen(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.listener.Close())
	require.Equal(t, secureCookie, b.cookieName())
	c := b.cookie("x", time.Now().Add(time.Hour))
	require.True(t, c.Secure)
	require.Equal(t, "/", c.Path)
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "https://cordon.example/healthz", nil))
	require.Equal(t, http.StatusOK, w.Code)
	require.NotEmpty(t, w.Header().Get("Strict-Transport-Security"))
}

func TestDashboard(t *testing.T) {
	r := start(t)
	r.files = fstest.MapFS{
		"index.html":           {Data: []byte(`<html><head><title>Cordon</title></head></html>`)},
		"assets/app-1a2b3c.js": {Data: []byte("let a")},
		"favicon.svg":          {Data: []byte("<svg/>")},
	}
	for _, path := range []string{"/", "/incidents/INC-1", "/index.html", "/devices?status=silent"} {
		got := r.request(http.MethodGet, path, nil, nil)
		require.Equal(t, http.StatusOK, got.status, path)
		csp := got.header.Get("Content-Security-Policy")
		_, rest, ok := strings.Cut(csp, "'nonce-")
		require.True(t, ok, csp)
		nonce, _, _ := strings.Cut(rest, "'")
		require.Contains(t, string(got.body), `<head><meta name="csp-nonce" content="`+nonce+`">`)
		require.NotContains(t, csp, "unsafe")
		require.Equal(t, "no-store", got.header.Get("Cache-Control"))
	}
	asset := r.request(http.MethodGet, "/assets/app-1a2b3c.js", nil, nil)
	require.Contains(t, asset.header.Get("Cache-Control"), "immutable")
	require.Contains(t, asset.header.Get("Content-Type"), "javascript")
	require.Equal(t, http.StatusNotFound, r.request(http.MethodGet, "/assets/gone.js", nil, nil).status)
	require.Equal(t, http.StatusOK, r.request(http.MethodGet, "/favicon.svg", nil, nil).status)
	require.Equal(t, http.StatusMethodNotAllowed, r.request(http.MethodPost, "/incidents", nil, nil).status)
}

func TestEnrollment_tokenForCertificate(t *testing.T) {
	r := start(t)
	e := decode[Enrolled](t, r.as(r.token(operator.Admin), http.MethodPost, "/devices", EnrollRequest{ID: "d9"}))
	body := CertificateRequest{Token: e.Token, CSR: csr(t)}
	c := decode[Certificate](t, r.request(http.MethodPost, Prefix+"/enrollments", body, nil))
	require.Equal(t, "d9", c.Device)
	require.Contains(t, c.Certificate, "BEGIN CERTIFICATE")
	require.Equal(t, "tls://n:4222", c.NATS)
	again := r.request(http.MethodPost, Prefix+"/enrollments", body, nil)
	require.Equal(t, http.StatusUnauthorized, again.status, "once only")
}
