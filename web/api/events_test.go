package api

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2/sse"
	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/operator"
	"cordon/internal/store"
)

func csr(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func insert(t *testing.T, r *rig, record fleet.Record) {
	t.Helper()
	var block store.TelemetryBlock
	block.Append(record)
	require.NoError(t, r.store.InsertTelemetry(t.Context(), "test", &block))
}

// frame is one server-sent event.
type frame struct {
	id         uint64
	name, data string
}

// follow reads the live events until the test ends.
func follow(r *rig, token, last string) <-chan frame {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	r.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+Prefix+"/events", nil)
	require.NoError(r.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := r.http.Do(req)
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusOK, res.StatusCode)
	require.Equal(r.t, "text/event-stream", res.Header.Get("Content-Type"))
	out := make(chan frame, 100)
	go func() {
		defer close(out)
		defer res.Body.Close()
		var f frame
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "id":
				f.id, _ = strconv.ParseUint(value, 10, 64)
			case "event":
				f.name = value
			case "data":
				f.data = value
			case "":
				out <- f
				f = frame{}
			}
		}
	}()
	return out
}

func next(t *testing.T, events <-chan frame, name string) frame {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case f, ok := <-events:
			require.True(t, ok, "stream ended")
			if f.name == name {
				return f
			}
		case <-deadline:
			t.Fatalf("no event %s", name)
		}
	}
}

func publish(t *testing.T, b *bus.Bus, subject string, v any) {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	_, err = b.Core.Publish(t.Context(), subject, raw)
	require.NoError(t, err)
}

func TestEvents(t *testing.T) {
	r := start(t)
	viewer := r.token(operator.Viewer)
	events := follow(r, viewer, "")
	var status StatusEvent
	require.NoError(t, json.Unmarshal([]byte(next(t, events, "status").data), &status))
	require.True(t, status.Healthy)
	next(t, events, "heartbeat")

	change := fleet.IncidentChange{ID: "INC-1.1", Change: "opened", Incident: fleet.Incident{ID: "INC-1", Device: "d1", Timeline: []fleet.TimelineEntry{{Text: "long"}}}}
	publish(t, r.bus, bus.SubjectIncident+".INC-1", change)
	f := next(t, events, "incident")
	require.NotContains(t, f.data, "long")
	publish(t, r.bus, bus.SubjectFinding+".d1", fleet.Finding{ID: "f1", Device: "d1", RuleID: "hot"})
	next(t, events, "finding")
	require.NoError(t, r.bus.Cordon.Publish(bus.SubjectGateChanges+".d1", []byte(`{"device":"d1","event":"connected","at":"2026-11-24T00:00:00Z"}`)))
	require.Contains(t, next(t, events, "device").data, "connected")
	kv, err := r.bus.Bucket(t.Context(), bus.BucketQuarantine)
	require.NoError(t, err)
	_, err = kv.Put(t.Context(), "d1", []byte(`{"device":"d1","state":"confirmed"}`))
	require.NoError(t, err)
	last := next(t, events, "quarantine")
	require.Greater(t, last.id, f.id)

	// Who comes back is sent what it missed; who was away too long reloads.
	again := follow(r, viewer, strconv.FormatUint(f.id, 10))
	next(t, again, "finding")
	require.Equal(t, last.id, next(t, again, "quarantine").id)
	stale := follow(r, viewer, "5")
	next(t, stale, "reload")
}

// TestEvents_quietStreamStaysOpen: between two events more time passes than a
// write may take; HTTP/2 must not reset the stream for it.
func TestEvents_quietStreamStaysOpen(t *testing.T) {
	before := sse.WriteTimeout
	sse.WriteTimeout = 50 * time.Millisecond
	t.Cleanup(func() { sse.WriteTimeout = before })
	r := startWith(t, true)
	got := r.request(http.MethodGet, "/healthz", nil, nil)
	require.Equal(t, "HTTP/2.0", got.proto)
	events := follow(r, r.token(operator.Viewer), "")
	for range 4 { // 200 ms apart
		next(t, events, "heartbeat")
	}
}

func TestEvents_endWithTheToken(t *testing.T) {
	r := start(t)
	viewer := r.token(operator.Viewer)
	events := follow(r, viewer, "")
	next(t, events, "heartbeat")
	all, err := r.deps.Operators.Tokens(t.Context())
	require.NoError(t, err)
	_, err = r.deps.Operators.RevokeToken(t.Context(), operator.Principal{Name: "x", Role: operator.Admin}, all[0].ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		select {
		case _, open := <-events:
			return !open
		default:
			return false
		}
	}, 10*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool { return r.hub.size() == 0 }, 10*time.Second, 20*time.Millisecond)
}

func TestHub_slowClientIsToldToReload(t *testing.T) {
	h := newHub(time.Now, newMetrics(nil))
	c, err := h.join("ann", 0, nil)
	require.NoError(t, err)
	for i := range 3 * maxPending {
		h.publish(fmt.Sprintf("finding:%d", i), FindingEvent{})
	}
	events, reload := c.take()
	require.True(t, reload)
	require.Empty(t, events)
	require.LessOrEqual(t, len(h.ring), ringSize)
	for range 1000 {
		h.publish("incident:INC-1", IncidentEvent{})
	}
	events, reload = c.take()
	require.False(t, reload)
	require.Len(t, events, 1, "only the newest of one incident")
	h.leave(c)
	require.Zero(t, h.size())
}

func TestHub_streamsAreBounded(t *testing.T) {
	h := newHub(time.Now, newMetrics(nil))
	for range maxStreamsOne {
		_, err := h.join("ann", 0, nil)
		require.NoError(t, err)
	}
	_, err := h.join("ann", 0, nil)
	require.Equal(t, fleet.CodeTooMany, fleet.CodeOf(err))
	_, err = h.join("bob", 0, nil)
	require.NoError(t, err)
	h.close()
	_, err = h.join("bob", 0, nil)
	require.Equal(t, fleet.CodeUnavailable, fleet.CodeOf(err))
}
