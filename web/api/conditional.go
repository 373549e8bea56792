package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Bounds of remembered answers.
const (
	idempotencyFor  = 24 * time.Hour
	maxRemembered   = 256 << 10 // bytes of an answer that is remembered
	maxIdempotency  = 128       // characters of a key
	answeringAtMost = 2 * requestTime
)

// striped are locks by name; a name keeps its lock.
type striped [64]sync.Mutex

func (s *striped) of(name string) *sync.Mutex {
	h := fnv.New32a()
	h.Write([]byte(name))
	return &s[h.Sum32()%uint32(len(s))]
}

// conditional runs an operation under its preconditions: ETag and If-Match
// for what can be changed, and Idempotency-Key for acts.
func (a *API) conditional(ctx huma.Context, next func(huma.Context)) {
	c := humagin.Unwrap(ctx)
	current := a.currentOf(ctx)
	if ctx.Method() == http.MethodGet || ctx.Method() == http.MethodHead {
		if current != nil {
			if tag, err := etag(current(ctx.Context())); err == nil {
				c.Header("ETag", tag)
			}
		}
		next(ctx)
		return
	}
	if wanted := c.GetHeader("If-Match"); wanted != "" {
		if current == nil {
			a.refuse(c, newProblem(http.StatusPreconditionFailed, "nothing here has an ETag: leave If-Match out"))
			return
		}
		lock := a.changing.of(c.Request.URL.Path)
		lock.Lock()
		defer lock.Unlock()
		tag, err := etag(current(ctx.Context()))
		if err != nil {
			a.refuse(c, problem(ctx.Context(), a.deps.Log, err))
			return
		}
		if !matches(wanted, tag) {
			c.Header("ETag", tag)
			a.refuse(c, newProblem(http.StatusPreconditionFailed, "this was changed meanwhile: read it again, then decide anew"))
			return
		}
	}
	a.once(ctx, c, next)
}

// currentOf reads what an ETag stands for: the editable part of a device, an
// incident, a rule or an operator.
func (a *API) currentOf(ctx huma.Context) func(context.Context) (any, error) {
	path := ctx.Operation().Path
	id := ctx.Param("id")
	switch {
	case strings.HasPrefix(path, "/devices/{id}"):
		return func(ctx context.Context) (any, error) {
			d, err := a.deps.Devices.Lookup(ctx, id)
			return deviceView(d), err
		}
	case strings.HasPrefix(path, "/incidents/{id}"):
		return func(ctx context.Context) (any, error) {
			i, err := a.deps.Incidents.Get(ctx, id)
			return incidentView(i), err
		}
	case strings.HasPrefix(path, "/rules/{id}"):
		return func(context.Context) (any, error) { return a.rule(id) }
	case strings.HasPrefix(path, "/operators/{name}"):
		name := ctx.Param("name")
		return func(ctx context.Context) (any, error) {
			o, err := a.deps.Operators.Operator(ctx, name)
			view := operatorView(o)
			view.LastSignInAt = time.Time{} // no change of the operator
			return view, err
		}
	}
	return nil
}

func etag(value any, err error) (string, error) {
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, nil
}

func matches(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		if one = strings.TrimSpace(one); one == tag || one == "*" {
			return true
		}
	}
	return false
}

// remembered is the answer to a request with an Idempotency-Key, in bucket
// "session" under once.<hash>. Body is sealed: it may hold a secret that is
// shown only once.
type remembered struct {
	Request string    `json:"request"` // hash of method, path and body
	At      time.Time `json:"at"`
	Done    bool      `json:"done"`
	Status  int       `json:"status,omitempty"`
	Type    string    `json:"type,omitempty"`
	Body    string    `json:"body,omitempty"`
}

// once runs an act, or answers as it was answered before when the caller
// repeats its Idempotency-Key.
func (a *API) once(ctx huma.Context, c *gin.Context, next func(huma.Context)) {
	key := c.GetHeader("Idempotency-Key")
	if key == "" || a.deps.Bus == nil {
		next(ctx)
		return
	}
	if len(key) > maxIdempotency || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		a.refuse(c, newProblem(http.StatusUnprocessableEntity, "an Idempotency-Key has 1 to 128 visible ASCII characters, for example a UUID"))
		return
	}
	body, err := io.ReadAll(c.Request.Body)
	if err != nil {
		a.refuse(c, newProblem(http.StatusRequestEntityTooLarge, "the body is too large or did not arrive"))
		return
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(body))
	p := caller(ctx.Context())
	name := "once." + hexDigest(p.Name, p.TokenID, ctx.Operation().OperationID, key)
	entry := remembered{Request: hexDigest(c.Request.Method, c.Request.URL.RequestURI(), string(body)), At: a.deps.Clock().UTC()}
	old, revision, err := a.claim(ctx.Context(), name, entry)
	if err != nil {
		a.refuse(c, problem(ctx.Context(), a.deps.Log, err))
		return
	}
	if old != nil {
		a.replay(c, name, *old, entry)
		return
	}
	recorder := &recorder{ResponseWriter: c.Writer}
	c.Writer = recorder
	next(ctx)
	c.Writer = recorder.ResponseWriter
	a.remember(ctx.Context(), name, revision, entry, recorder)
}

func hexDigest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// claim takes a key for this request; old is the entry of an earlier one.
func (a *API) claim(ctx context.Context, name string, entry remembered) (old *remembered, revision uint64, err error) {
	kv, err := a.deps.Bus.Bucket(ctx, bus.BucketSession)
	if err != nil {
		return nil, 0, err
	}
	raw, err := json.Marshal(entry)
	if err != nil {
		return nil, 0, err
	}
	for range 3 {
		revision, err = kv.Create(ctx, name, raw, jetstream.KeyTTL(idempotencyFor))
		if err == nil || !errors.Is(err, jetstream.ErrKeyExists) {
			return nil, revision, err
		}
		found, err := kv.Get(ctx, name)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		old = &remembered{}
		if err := json.Unmarshal(found.Value(), old); err != nil {
			return nil, 0, err
		}
		age := entry.At.Sub(old.At)
		if age < idempotencyFor && (old.Done || age < answeringAtMost) {
			return old, 0, nil
		}
		// It has ended, or the process that answered it died.
		if err := kv.Purge(ctx, name, jetstream.LastRevision(found.Revision())); err != nil {
			continue
		}
	}
	return nil, 0, fleet.Errorf(fleet.CodeConflict, "another request with this Idempotency-Key runs; try again")
}

func (a *API) replay(c *gin.Context, name string, old, asked remembered) {
	switch {
	case old.Request != asked.Request:
		a.refuse(c, newProblem(http.StatusUnprocessableEntity, "this Idempotency-Key was used for another request: take a new one"))
		return
	case !old.Done:
		c.Header("Retry-After", "1")
		a.refuse(c, newProblem(http.StatusConflict, "the first request with this Idempotency-Key still runs; try again"))
		return
	}
	body, err := a.deps.Secrets.Open(name, old.Body)
	if err != nil {
		a.refuse(c, newProblem(http.StatusConflict, "this was done already, and its answer is not kept any more"))
		return
	}
	c.Header("Idempotency-Replayed", "true")
	c.Data(old.Status, old.Type, body)
	c.Abort()
}

// remember keeps the answer; failures of Cordon are forgotten, so that trying
// again helps.
func (a *API) remember(ctx context.Context, name string, revision uint64, entry remembered, r *recorder) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	kv, err := a.deps.Bus.Bucket(ctx, bus.BucketSession)
	if err == nil && (r.Status() >= http.StatusInternalServerError || r.Status() == http.StatusTooManyRequests) {
		err = kv.Purge(ctx, name, jetstream.LastRevision(revision))
	} else if err == nil {
		entry.Done, entry.Status, entry.Type = true, r.Status(), r.Header().Get("Content-Type")
		if !r.tooLong {
			entry.Body, err = a.deps.Secrets.Seal(name, r.body.Bytes())
		}
		var raw []byte
		if err == nil {
			raw, err = json.Marshal(entry)
		}
		if err == nil {
			// Update of a bucket would take the time to live away.
			_, err = a.deps.Bus.Core.Publish(ctx, "$KV."+bus.BucketSession+"."+name, raw,
				jetstream.WithExpectLastSequencePerSubject(revision), jetstream.WithMsgTTL(idempotencyFor))
		}
	}
	if err != nil {
		a.deps.Log.Warn("answer to a request with Idempotency-Key was not kept", "request_id", requestID(ctx), "error", err)
	}
}

// recorder keeps a copy of an answer.
type recorder struct {
	gin.ResponseWriter
	body    bytes.Buffer
	tooLong bool
}

func (r *recorder) Write(data []byte) (int, error) {
	if r.body.Len()+len(data) > maxRemembered {
		r.tooLong = true
		r.body.Reset()
	} else if !r.tooLong {
		r.body.Write(data)
	}
	return r.ResponseWriter.Write(data)
}

func (r *recorder) WriteString(text string) (int, error) { return r.Write([]byte(text)) }
