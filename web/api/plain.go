package api

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"path"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cordon/web/static"
)

// head is where index.html gets the nonce for style tags: as a meta element
// named csp-nonce, which the dashboard gives to the tags that it makes.
const head = "<head>"

// plainRoutes are the routes that are no operation of the API: health,
// metrics, the OpenAPI document and the dashboard. None shows anything about
// the fleet to somebody who is not signed in.
func (a *API) plainRoutes() {
	document := a.document()
	a.engine.GET(Prefix+"/openapi.json", func(c *gin.Context) {
		c.Header("Cache-Control", "no-cache")
		c.Data(http.StatusOK, "application/vnd.oai.openapi+json", document)
	})
	a.docsRoutes()
	a.engine.GET("/healthz", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"status": "ok"}) })
	a.engine.GET("/readyz", a.readyz)
	if a.deps.Registry != nil {
		a.engine.GET("/metrics", a.metricsAllowed, gin.WrapH(promhttp.HandlerFor(a.deps.Registry, promhttp.HandlerOpts{})))
	}
	a.engine.NoMethod(func(c *gin.Context) {
		a.refuse(c, newProblem(http.StatusMethodNotAllowed, c.Request.Method+" is not possible here; see "+Prefix+"/openapi.json"))
	})
	a.engine.NoRoute(a.dashboard)
}

// document is the OpenAPI document as it is served and tracked.
func (a *API) document() []byte {
	raw, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		a.deps.Log.Error("openapi document was not made", "error", err)
		return []byte("{}")
	}
	return raw
}

// readyz says which stages are not well, by name only.
func (a *API) readyz(c *gin.Context) {
	unwell := []string{}
	for _, s := range a.stages(c.Request.Context()) {
		if !s.Healthy {
			unwell = append(unwell, s.Stage)
		}
	}
	status := http.StatusOK
	if len(unwell) > 0 {
		status = http.StatusServiceUnavailable
	}
	c.JSON(status, gin.H{"ready": len(unwell) == 0, "unwell": unwell})
}

// metricsAllowed lets scrapers of this host in, and others with a token.
func (a *API) metricsAllowed(c *gin.Context) {
	host, _, err := net.SplitHostPort(c.Request.RemoteAddr)
	if ip := net.ParseIP(host); err == nil && ip.IsLoopback() && c.GetHeader("X-Forwarded-For") == "" && c.GetHeader("Forwarded") == "" {
		return
	}
	if _, err := a.authenticate(c.Request.Context(), c.Request); err != nil {
		a.refuse(c, problem(c.Request.Context(), a.deps.Log, err))
	}
}

// dashboard serves the embedded files; every other path is a page of the
// dashboard, which index.html shows.
func (a *API) dashboard(c *gin.Context) {
	name := strings.TrimPrefix(path.Clean(c.Request.URL.Path), "/")
	if strings.HasPrefix(c.Request.URL.Path, "/api/") {
		a.refuse(c, newProblem(http.StatusNotFound, "there is nothing here; see "+Prefix+"/openapi.json"))
		return
	}
	if c.Request.Method != http.MethodGet && c.Request.Method != http.MethodHead {
		a.refuse(c, newProblem(http.StatusMethodNotAllowed, c.Request.Method+" is not possible here"))
		return
	}
	files, built := a.dashboardFiles()
	if !built {
		c.Data(http.StatusOK, "text/html; charset=utf-8", static.Placeholder())
		return
	}
	if info, err := fs.Stat(files, name); err == nil && !info.IsDir() && name != "index.html" {
		c.Header("Cache-Control", "no-cache")
		if strings.HasPrefix(name, "assets/") { // their names hold a hash of their content
			c.Header("Cache-Control", "public, max-age=31536000, immutable")
		}
		http.ServeFileFS(c.Writer, c.Request, files, name)
		return
	}
	if strings.HasPrefix(name, "assets/") {
		// The dashboard would try to run a page as a script.
		a.refuse(c, newProblem(http.StatusNotFound, "there is no such file; reload the page"))
		return
	}
	a.index(c, files)
}

func (a *API) dashboardFiles() (fs.FS, bool) {
	if a.files != nil {
		return a.files, true
	}
	return static.Dashboard()
}

// index serves index.html with a fresh nonce for the style tags that the
// dashboard makes.
func (a *API) index(c *gin.Context, files fs.FS) {
	page, err := fs.ReadFile(files, "index.html")
	if err != nil {
		a.refuse(c, problem(c.Request.Context(), a.deps.Log, err))
		return
	}
	raw := make([]byte, 18)
	rand.Read(raw) // never fails
	nonce := base64.StdEncoding.EncodeToString(raw)
	c.Header("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-"+nonce+"'; img-src 'self' data:; "+
		"font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
	c.Data(http.StatusOK, "text/html; charset=utf-8", bytes.Replace(page, []byte(head), []byte(head+`<meta name="csp-nonce" content="`+nonce+`">`), 1))
}
