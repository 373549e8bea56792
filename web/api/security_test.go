package api

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"cordon/internal/identity"
	"cordon/internal/operator"
)

// The OWASP API Security Top 10 (2023). API1 (object level) and API5 (function
// level authorization) are TestAccess_scopes and TestAccess_matrix; API9
// (inventory) is TestAccess_everyRouteHasARow.

// TestOWASP_API2_guessingIsSlow: one client guesses as fast as Cordon answers,
// for ten minutes of Cordon's clock.
func TestOWASP_API2_guessingIsSlow(t *testing.T) {
	r := start(t)
	r.signedIn("ada", operator.Analyst)
	guesses := 0
	for range 600 {
		if r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "ada", Password: "guess"}, nil).status == http.StatusUnauthorized {
			guesses++
		}
		r.sleep(time.Second)
	}
	require.Less(t, guesses, 100, "fewer than ten a minute")
	t.Logf("%d guesses in ten minutes", guesses)
}

// TestOWASP_API2_sessions: a session that a client brings along is never taken
// over by signing in, and an ended one is worth nothing.
func TestOWASP_API2_sessions(t *testing.T) {
	r := start(t)
	r.signedIn("ada", operator.Analyst)
	planted := "PLANTEDSESSIONPLANTEDSESSIONPLANTEDSESSIONPLANTEDSESS"
	got := r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "ada", Password: ownPassword}, func(req *http.Request) {
		req.AddCookie(&http.Cookie{Name: r.cookieName(), Value: planted})
	})
	require.Equal(t, http.StatusOK, got.status)
	require.NotContains(t, got.header.Get("Set-Cookie"), planted)
	require.Equal(t, http.StatusUnauthorized, r.withSession(planted)(http.MethodGet, "/session", nil).status)
	secret := sessionOf(t, got)
	ada := r.withSession(secret)
	require.Equal(t, http.StatusOK, ada(http.MethodGet, "/session", nil).status)
	require.Equal(t, http.StatusNoContent, ada(http.MethodDelete, "/session", nil).status)
	require.Equal(t, http.StatusUnauthorized, ada(http.MethodGet, "/session", nil).status)
}

func sessionOf(t *testing.T, a answer) string {
	t.Helper()
	res := http.Response{Header: a.header}
	require.NotEmpty(t, res.Cookies(), string(a.body))
	return res.Cookies()[0].Value
}

// TestOWASP_API3_properties: no answer shows a secret property, and nobody
// sets one that is not theirs to set.
func TestOWASP_API3_properties(t *testing.T) {
	r := start(t)
	r.fill()
	admin := r.token(operator.Admin)
	for _, path := range []string{"/operators", "/tokens", "/devices", "/devices/d1", "/sessions", "/export/devices?format=json", "/operator-log"} {
		got := r.as(admin, http.MethodGet, path, nil)
		require.Equal(t, http.StatusOK, got.status, path)
		for _, name := range []string{`"hash"`, `"token_hash"`, `"totp"`, `"recovery"`, `"former"`, `"sources"`, "$argon2id"} {
			if name == `"hash"` && path == "/operator-log" {
				continue // of the chain
			}
			require.NotContains(t, string(got.body), name, path)
		}
	}
	for path, body := range map[string]map[string]any{
		"/devices/d1":          {"state": "retired"},
		"/devices/zz-south":    {"certificate_serial": "1", "owner": "x"},
		"/operators/admin-one": {"hash": "x"},
	} {
		require.Equal(t, http.StatusUnprocessableEntity, r.as(admin, http.MethodPatch, path, body).status, path)
	}
}

// TestOWASP_API4_consumption: bodies, pages and rates are bounded.
func TestOWASP_API4_consumption(t *testing.T) {
	r := startConfigured(t, false, slog.New(slog.DiscardHandler), func(c *Config) {
		c.Rates = Rates{Caller: Rate{PerSecond: 1, Burst: 20}, Address: Rate{PerSecond: 1, Burst: 50}}
	})
	ann, bob := r.scopedToken("ann", operator.Admin, operator.Scope{}), r.scopedToken("bob", operator.Viewer, operator.Scope{})
	first := r.as(ann, http.MethodGet, "/rules", nil)
	require.Equal(t, `"caller";r=19;t=1`, first.header.Get("RateLimit"))
	require.Equal(t, `"caller";q=20;w=20`, first.header.Get("RateLimit-Policy"))
	require.Equal(t, http.StatusUnprocessableEntity, r.as(ann, http.MethodGet, "/devices?limit=501", nil).status)
	require.Equal(t, http.StatusRequestEntityTooLarge, r.as(ann, http.MethodPost, "/operators", `{"name":"`+strings.Repeat("a", maxBody)+`"}`).status)
	for range 17 {
		require.NotEqual(t, http.StatusTooManyRequests, r.as(ann, http.MethodGet, "/rules", nil).status)
	}
	limited := r.as(ann, http.MethodGet, "/rules", nil)
	require.Equal(t, http.StatusTooManyRequests, limited.status)
	require.Equal(t, "1", limited.header.Get("Retry-After"))
	require.Equal(t, http.StatusOK, r.as(bob, http.MethodGet, "/rules", nil).status, "another caller is not hit")
	last := 0
	for range 40 {
		last = r.request(http.MethodGet, Prefix+"/rules", nil, nil).status
	}
	require.Equal(t, http.StatusTooManyRequests, last, "an address that is not signed in")
	r.sleep(time.Minute)
	require.Equal(t, http.StatusOK, r.as(ann, http.MethodGet, "/rules", nil).status)
}

// TestOWASP_API4_slowLoris: many clients that send their request a byte at a
// time are cut off and keep nobody else out.
func TestOWASP_API4_slowLoris(t *testing.T) {
	r := start(t)
	address := strings.TrimPrefix(r.url, "http://")
	var open sync.WaitGroup
	begun := time.Now()
	for range 100 {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		_, err = conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "))
		require.NoError(t, err)
		open.Go(func() {
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.Copy(io.Discard, conn) // returns when Cordon closes it
		})
	}
	for range 20 {
		asked := time.Now()
		require.Equal(t, http.StatusOK, r.request(http.MethodGet, "/healthz", nil, nil).status)
		require.Less(t, time.Since(asked), time.Second)
	}
	open.Wait()
	require.Less(t, time.Since(begun), 15*time.Second)

	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	go func() { // the other end stops reading
		_, _ = conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("a", 256<<10)))
	}()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	head := make([]byte, 64)
	n, _ := conn.Read(head)
	require.Contains(t, string(head[:n]), "431", "headers are bounded")
}

// TestOWASP_API6_dangerousActs ask for the password again.
func TestOWASP_API6_dangerousActs(t *testing.T) {
	r := start(t)
	admin := r.signedIn("ann", operator.Admin)
	require.Equal(t, http.StatusOK, admin(http.MethodPost, "/operators", OperatorRequest{Name: "eve", Role: operator.Viewer}).status)
	r.sleep(16 * time.Minute)
	got := admin(http.MethodPatch, "/operators/eve", map[string]any{"role": "admin"})
	require.Equal(t, http.StatusForbidden, got.status)
	require.Equal(t, codeProofRequired, got.problem(t).Code)
	require.Equal(t, http.StatusUnprocessableEntity, admin(http.MethodPost, "/session/proof", ProofRequest{Password: "guess"}).status)
	require.Equal(t, http.StatusNoContent, admin(http.MethodPost, "/session/proof", ProofRequest{Password: ownPassword}).status)
	require.Equal(t, http.StatusOK, admin(http.MethodPatch, "/operators/eve", map[string]any{"role": "admin"}).status)
}

// asksAddresses are the operations whose purpose is an address that Cordon
// then asks; alert/notify refuses private ones.
var asksAddresses = map[string]bool{"set-receiver": true}

// TestOWASP_API7_noAddresses: no other operation takes an address that Cordon
// would then ask.
func TestOWASP_API7_noAddresses(t *testing.T) {
	a := start(t).API
	registry := a.huma.OpenAPI().Components.Schemas
	for id, op := range operations(a) {
		if op.RequestBody == nil {
			continue
		}
		if asksAddresses[id] {
			require.Equal(t, operator.Admin, access[id].role, id)
			continue
		}
		for _, media := range op.RequestBody.Content {
			for _, name := range propertyNames(registry, media.Schema, 0) {
				for _, part := range []string{"url", "uri", "host", "address", "callback"} {
					require.NotContains(t, name, part, id)
				}
			}
		}
	}
}

func propertyNames(registry huma.Registry, s *huma.Schema, depth int) (names []string) {
	if s == nil || depth > 6 {
		return nil
	}
	if s.Ref != "" {
		s = registry.SchemaFromRef(s.Ref)
	}
	for name, property := range s.Properties {
		names = append(append(names, name), propertyNames(registry, property, depth+1)...)
	}
	return append(names, propertyNames(registry, s.Items, depth+1)...)
}

// TestOWASP_API8_configuration: every answer has the headers, other sites get
// nothing, and strange methods and paths neither redirect nor reach files.
func TestOWASP_API8_configuration(t *testing.T) {
	r := startWith(t, true)
	r.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, path := range []string{"/", "/healthz", Prefix + "/devices", Prefix + "/openapi.json", "/api/v9", "/assets/x.js", Prefix + "/docs"} {
		got := r.request(http.MethodGet, path, nil, func(req *http.Request) { req.Header.Set("Origin", "https://evil.example") })
		for name, value := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Strict-Transport-Security": "max-age=31536000",
		} {
			require.Equal(t, value, got.header.Get(name), "%s %s", path, name)
		}
		require.Contains(t, got.header.Get("Content-Security-Policy"), "default-src 'none'")
		require.Contains(t, got.header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
		require.NotContains(t, got.header.Get("Content-Security-Policy"), "unsafe")
		require.NotEmpty(t, got.header.Get("Permissions-Policy"))
		require.Empty(t, got.header.Get("Access-Control-Allow-Origin"))
		require.Empty(t, got.header.Get("Server"))
	}
	for _, method := range []string{"TRACE", "CONNECT", "OPTIONS", "PROPFIND", "DEBUG"} {
		if method == "CONNECT" {
			continue // net/http's client does not send it with a path
		}
		got := r.request(method, Prefix+"/devices", nil, nil)
		require.Contains(t, []int{http.StatusMethodNotAllowed, http.StatusForbidden, http.StatusNotFound}, got.status, method)
	}
	for _, path := range []string{
		"//evil.example/", "//evil.example/%2e%2e", "/\\evil.example", "/%5cevil.example", Prefix + "//evil.example", Prefix + "/devices/", "/https://evil.example",
		"/assets/../../../../etc/passwd", "/assets/..%2f..%2f..%2fetc%2fpasswd", "/..%5c..%5cetc%5cpasswd", "/%2e%2e/%2e%2e/etc/passwd", "/assets/%00", "/.git/config", "/openapi.json",
	} {
		got := r.request(http.MethodGet, path, nil, nil)
		require.NotContains(t, string(got.body), "root:", path)
		require.NotContains(t, got.header.Get("Location"), "evil", path)
		if got.status >= 300 && got.status < 400 {
			require.True(t, strings.HasPrefix(got.header.Get("Location"), Prefix+"/"), "%s → %s", path, got.header.Get("Location"))
		}
	}
	// What a caller sends never becomes a header.
	got := r.request(http.MethodGet, Prefix+"/devices/x%0d%0aSet-Cookie:%20a=b", nil, nil)
	require.Empty(t, got.header.Get("Set-Cookie"))

	state := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11} //nolint:gosec // it must be refused
	conn, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), state)
	if err == nil {
		conn.Close()
	}
	require.Error(t, err, "TLS 1.1 is refused")
}

// lockedBuffer collects a log.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestSecrets_appearNowhere plants secrets wherever Cordon takes or makes one
// and then searches the log (at debug level), the operator log, every list and
// every export.
func TestSecrets_appearNowhere(t *testing.T) {
	var log lockedBuffer
	r := startConfigured(t, false, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), func(*Config) {})
	r.fill()
	admin := r.token(operator.Admin)
	secrets := map[string]string{"admin token": admin}
	keep := func(name, secret string) {
		require.Greater(t, len(secret), 5, name)
		secrets[name] = secret
	}
	added := decode[NewOperator](t, r.as(admin, http.MethodPost, "/operators", OperatorRequest{Name: "ada", Role: operator.Analyst}))
	keep("one-time password", added.Password)
	signed := r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "ada", Password: added.Password}, nil)
	keep("session", sessionOf(t, signed))
	changed := r.withSession(sessionOf(t, signed))(http.MethodPost, "/session/password", PasswordRequest{Current: added.Password, New: "planted velvet harbor cactus"})
	require.Equal(t, http.StatusOK, changed.status, string(changed.body))
	keep("password", "planted velvet harbor cactus")
	keep("second session", sessionOf(t, changed))
	ada := r.withSession(sessionOf(t, changed))
	factor := decode[SecondFactor](t, ada(http.MethodPost, "/session/second-factor", nil))
	keep("totp secret", factor.Secret)
	code, err := totp.GenerateCode(factor.Secret, r.now())
	require.NoError(t, err)
	codes := decode[RecoveryCodes](t, ada(http.MethodPost, "/session/second-factor/confirm", CodeRequest{Code: code}))
	keep("recovery code", codes.Codes[0])
	token := decode[NewToken](t, ada(http.MethodPost, "/tokens", TokenRequest{Name: "t", Role: operator.Viewer, Days: 1}))
	keep("API token", token.Secret)
	keyed := r.request(http.MethodPost, Prefix+"/devices", EnrollRequest{ID: "d7"}, func(req *http.Request) {
		req.Header.Set("Authorization", "Bearer "+admin)
		req.Header.Set("Idempotency-Key", "plant-1")
	})
	keep("enrolment token", decode[Enrolled](t, keyed).Token)
	for name, secret := range map[string]string{"wrong password": "PLANTEDwrongpassword", "wrong token": "cordon_planted_token0123456789", "wrong enrolment": "cordon_enroll_PLANTED0123456789"} {
		keep(name, secret)
	}
	r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "ada", Password: secrets["wrong password"], Code: secrets["recovery code"]}, nil)
	r.as(secrets["wrong token"], http.MethodGet, "/devices", nil)
	r.request(http.MethodPost, Prefix+"/enrollments", CertificateRequest{Token: secrets["wrong enrolment"], CSR: "PLANTED CSR"}, nil)

	shown := map[string]string{"log": log.String()}
	require.Contains(t, shown["log"], "operator act", "the log was caught")
	for id, op := range operations(r.API) {
		if op.Method == http.MethodGet && id != "stream-events" {
			path, _ := sample(op)
			shown[id] = string(r.as(admin, op.Method, path, nil).body)
		}
	}
	shown["metrics"] = string(r.request(http.MethodGet, "/metrics", nil, nil).body)
	for name, secret := range secrets {
		for where, text := range shown {
			require.NotContains(t, text, secret, "%s in %s", name, where)
		}
	}
	for _, bucket := range []string{"operator", "session", "device"} {
		kv, err := r.bus.Bucket(t.Context(), bucket)
		require.NoError(t, err)
		keys, err := kv.Keys(t.Context())
		require.NoError(t, err)
		for _, key := range keys {
			entry, err := kv.Get(t.Context(), key)
			require.NoError(t, err)
			for name, secret := range secrets {
				require.NotContains(t, string(entry.Value())+key, secret, "%s in bucket %s", name, bucket)
			}
		}
	}
	t.Logf("%d secrets searched in %d places", len(secrets), len(shown)+3)
}

// TestCertificate_isReadAgain replaces the files of a given certificate while
// Cordon serves.
func TestCertificate_isReadAgain(t *testing.T) {
	dir := t.TempDir()
	ca, err := identity.LoadOrCreateCA(filepath.Join(dir, "ca"), time.Now)
	require.NoError(t, err)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	issue := func() {
		certificate, key, err := ca.ServerPEM("cordon.example")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(certFile, certificate, 0o600))
		require.NoError(t, os.WriteFile(keyFile, key, 0o600))
	}
	_, err = LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	require.Error(t, err)
	issue()
	source, err := LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	serial := func() string {
		source.mu.Lock()
		source.looked = time.Time{}
		source.mu.Unlock()
		c, err := source.Get(nil)
		require.NoError(t, err)
		return fmt.Sprintf("%x", c.Certificate[0])
	}
	first := serial()
	require.Equal(t, first, serial())
	require.NoError(t, os.WriteFile(certFile, []byte("rubbish"), 0o600))
	require.Equal(t, first, serial(), "rubbish does not replace it")
	issue()
	require.NotEqual(t, first, serial())
}
