package api

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"cordon/internal/fleet"
	"cordon/internal/operator"
)

// Names of the session cookie. The __Host- prefix makes browsers refuse it
// from other hosts and without TLS.
const (
	plainCookie  = "cordon_session"
	secureCookie = "__Host-cordon_session"
)

// prepare gives a request its id, its source and its time, and counts it.
func (a *API) prepare(c *gin.Context) {
	raw := make([]byte, 10)
	rand.Read(raw) // never fails
	id := strings.ToLower(base32.StdEncoding.EncodeToString(raw))
	host, _, err := net.SplitHostPort(c.Request.RemoteAddr)
	if err != nil {
		host = c.Request.RemoteAddr
	}
	ctx := context.WithValue(context.WithValue(c.Request.Context(), keyRequestID, id), keySource, host)
	if c.Request.URL.Path == Prefix+"/events" {
		// An event stream has no end; the server's read timeout must not cut it.
		writer := http.NewResponseController(c.Writer)
		if err := writer.SetReadDeadline(time.Time{}); err != nil {
			a.deps.Log.Debug("read timeout of event stream stays", "error", err)
		}
		ctx = context.WithValue(ctx, keyWriter, writer)
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTime)
		defer cancel()
	}
	c.Request = c.Request.WithContext(ctx)
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxBody)
	c.Header("X-Request-Id", id)
	start := a.deps.Clock()
	c.Next()
	a.metrics.request(c.FullPath(), c.Request.Method, c.Writer.Status(), a.deps.Clock().Sub(start))
}

// recoverPanic turns a bug into a problem document and a log entry.
func (a *API) recoverPanic(c *gin.Context) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		if value == http.ErrAbortHandler { //nolint:errorlint // the sentinel of net/http
			panic(value)
		}
		a.deps.Log.Error("request panicked", "request_id", requestID(c.Request.Context()), "panic", value, "stack", string(debug.Stack()))
		if !c.Writer.Written() {
			a.refuse(c, newProblem(http.StatusInternalServerError, "internal error; Cordon's log names it by request id "+requestID(c.Request.Context())))
		}
		c.Abort()
	}()
	c.Next()
}

// protect sets the security headers and, without TLS, answers only to names
// of this host: a page of somebody else whose name resolves to loopback must
// not talk to Cordon.
func (a *API) protect(c *gin.Context) {
	h := c.Writer.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	if a.cfg.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	} else if !localHost(c.Request.Host) {
		a.refuse(c, newProblem(http.StatusMisdirectedRequest, "without TLS Cordon answers only to localhost"))
		return
	}
	if err := a.origin.Check(c.Request); err != nil {
		a.deps.Log.Warn("cross-origin request refused", "origin", c.GetHeader("Origin"), "path", c.Request.URL.Path, "error", err)
		a.refuse(c, newProblem(http.StatusForbidden, "this request came from a page of another site"))
		return
	}
	c.Next()
}

func localHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	switch strings.ToLower(strings.Trim(host, "[]")) {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

func (a *API) refuse(c *gin.Context, p *Problem) {
	p.RequestID = requestID(c.Request.Context())
	writeProblem(c.Writer, p)
	c.Abort()
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// freshFor is how long password and second factor count as just given.
const freshFor = 15 * time.Minute

// authorize finds out who asks and whether limits, the access table and the
// caller's scope allow it.
func (a *API) authorize(ctx huma.Context, next func(huma.Context)) {
	c := humagin.Unwrap(ctx)
	id := ctx.Operation().OperationID
	need, ok := access[id]
	if !ok {
		a.refuse(c, newProblem(http.StatusForbidden, "nobody may do this"))
		return
	}
	deny := func(err error) { a.refuse(c, problem(ctx.Context(), a.deps.Log, err)) }
	if need.public {
		stands, err := a.limits.allow(id, source(ctx.Context()))
		stands.set(c.Writer.Header())
		if err != nil {
			deny(err)
			return
		}
		next(ctx)
		return
	}
	if _, err := a.limits.address(source(ctx.Context())); err != nil {
		deny(err)
		return
	}
	p, err := a.authenticate(ctx.Context(), c.Request)
	if err == nil {
		var stands standing
		stands, err = a.limits.caller(p)
		stands.set(c.Writer.Header())
	}
	if err == nil {
		err = a.permit(need, p)
	}
	if err == nil {
		err = a.inScope(ctx, need, p)
	}
	if err != nil {
		if fleet.CodeOf(err) == fleet.CodeUnauthenticated {
			c.Header("WWW-Authenticate", `Bearer realm="cordon"`)
		}
		deny(err)
		return
	}
	a.conditional(huma.WithValue(ctx, keyCaller, p), next)
}

// permit compares a caller with a row of the access table.
func (a *API) permit(need need, p operator.Principal) error {
	refuse := func(code, detail string) error {
		refused := newProblem(http.StatusForbidden, detail)
		refused.Code = code
		return refused
	}
	switch {
	case need.before:
	case p.MustChange:
		return refuse(codePasswordChangeRequired, "change your password first: POST /api/v1/session/password")
	case p.MustSetUp:
		return refuse(codeSecondFactorRequired, "set up a second factor first: POST /api/v1/session/second-factor")
	}
	if !p.Role.Allows(need.role) {
		return fleet.Errorf(fleet.CodeForbidden, "this needs role %s; yours is %s", need.role, p.Role)
	}
	if need.fresh && p.TokenID == "" && a.deps.Clock().Sub(p.ProvedAt) > freshFor {
		return refuse(codeProofRequired, "give your password again first: POST /api/v1/session/proof")
	}
	return nil
}

func (a *API) authenticate(ctx context.Context, r *http.Request) (operator.Principal, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return operator.Principal{}, fleet.Errorf(fleet.CodeUnauthenticated, "send Authorization: Bearer and an API token")
		}
		return a.deps.Operators.Token(ctx, strings.TrimSpace(token))
	}
	cookie, err := r.Cookie(a.cookieName())
	if err != nil || cookie.Value == "" || len(cookie.Value) > 128 {
		return operator.Principal{}, fleet.Errorf(fleet.CodeUnauthenticated, "sign in first, or send an API token")
	}
	return a.deps.Operators.Session(ctx, cookie.Value)
}

func (a *API) cookieName() string {
	if a.cfg.TLS != nil {
		return secureCookie
	}
	return plainCookie
}

// cookie holds a session; an empty secret removes it.
func (a *API) cookie(secret string, until time.Time) http.Cookie {
	c := http.Cookie{ //nolint:gosec // Secure is left out only without TLS, which is served on loopback alone
		Name: a.cookieName(), Value: secret, Path: "/", HttpOnly: true, Secure: a.cfg.TLS != nil,
		SameSite: http.SameSiteStrictMode, MaxAge: -1,
	}
	if secret != "" {
		c.MaxAge = int(until.Sub(a.deps.Clock()).Seconds())
	}
	return c
}

// quietLog takes what net/http wants to say; handshakes of passers-by are not
// worth more than debug.
func quietLog(to *slog.Logger) *log.Logger { return slog.NewLogLogger(to.Handler(), slog.LevelDebug) }
