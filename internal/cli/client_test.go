package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/internal/app"
	"cordon/internal/fleet"
)

// server answers the API's paths with canned JSON and keeps what was asked.
type server struct {
	*httptest.Server
	asked []string
	body  string
}

func serve(t *testing.T, answers map[string]string) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read body: %v", err)
		}
		s.body = string(raw)
		s.asked = append(s.asked, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization"))
		answer, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"detail":"no device \"x\"","code":"not_found","status":404}`
		}
		if _, err := io.WriteString(w, answer); err != nil {
			t.Errorf("answer: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// data makes a data directory as a running Cordon leaves it.
func data(t *testing.T, url string) string {
	t.Helper()
	dir := t.TempDir()
	token := filepath.Join(dir, "run", "token")
	require.NoError(t, app.Ready{URL: url, CLITokenFile: token}.WriteFile(app.ReadyPath(dir)))
	require.NoError(t, os.WriteFile(token, []byte("cordon_local_secret\n"), 0o600))
	return dir
}

func globals(dir string, asJSON bool) (*Globals, *bytes.Buffer) {
	out := &bytes.Buffer{}
	return &Globals{Data: dir, JSON: asJSON, Out: out, Err: io.Discard}, out
}

const shownDevice = `{"id":"d1","status":"reporting","state":"active","readings_stored":3,"audit_events_stored":2,"dead_letters":1,"tags":[]}`

func TestDeviceShow_countsAtTopLevel(t *testing.T) {
	s := serve(t, map[string]string{"GET /api/v1/devices/d1": shownDevice})
	g, out := globals(data(t, s.URL), true)
	require.NoError(t, (&DeviceShowCmd{DeviceArg{"d1"}}).Run(t.Context(), g))
	var got map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	require.InDelta(t, 3, got["readings_stored"], 0)
	require.InDelta(t, 2, got["audit_events_stored"], 0)
	require.InDelta(t, 1, got["dead_letters"], 0)
	require.Equal(t, []string{"GET /api/v1/devices/d1 Bearer cordon_local_secret"}, s.asked)

	g, out = globals(data(t, s.URL), false)
	require.NoError(t, (&DeviceShowCmd{DeviceArg{"d1"}}).Run(t.Context(), g))
	require.Contains(t, out.String(), "readings stored      3")
}

func TestDeviceEnroll_tokenAtTopLevel(t *testing.T) {
	s := serve(t, map[string]string{"POST /api/v1/devices": `{"device":{"id":"d1"},"token":"cordon_enroll_x","token_expires_at":"2026-11-25T00:00:00Z","command":"cordon agent"}`})
	g, out := globals(data(t, s.URL), true)
	require.NoError(t, (&DeviceEnrollCmd{ID: "d1", Cohort: "pumps"}).Run(t.Context(), g))
	var got struct{ Token string }
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	require.Equal(t, "cordon_enroll_x", got.Token)
	require.JSONEq(t, `{"id":"d1","cohort":"pumps"}`, s.body)
}

func TestDeviceList_readsEveryPageAndCleansText(t *testing.T) {
	calls := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		answer := `{"items":[{"id":"d1","model":"\u001b[31mred"}],"next":"c2"}`
		if r.URL.Query().Get("cursor") == "c2" {
			answer = `{"items":[{"id":"d2"}],"next":""}`
		}
		if _, err := io.WriteString(w, answer); err != nil {
			t.Errorf("answer: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	g, out := globals(data(t, s.URL), false)
	require.NoError(t, (&DeviceListCmd{Sort: "id"}).Run(t.Context(), g))
	require.Equal(t, 2, calls)
	require.Contains(t, out.String(), "d2")
	require.NotContains(t, out.String(), "\x1b")
}

func TestDeviceQuarantine_unprovenFails(t *testing.T) {
	s := serve(t, map[string]string{"POST /api/v1/devices/d1/quarantine": `{"device":"d1","level":"isolate","state":"applied","reason":"r","proof":{"refused":0}}`})
	g, out := globals(data(t, s.URL), true)
	err := (&DeviceQuarantineCmd{DeviceArg: DeviceArg{"d1"}, Level: "isolate", Reason: "r"}).Run(t.Context(), g)
	require.ErrorContains(t, err, "not yet proven")
	require.Contains(t, out.String(), `"state": "applied"`)
}

func TestClient_refusals(t *testing.T) {
	s := serve(t, nil)
	g, _ := globals(data(t, s.URL), false)
	err := (&DeviceShowCmd{DeviceArg{"x"}}).Run(t.Context(), g)
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
	require.EqualError(t, err, `no device "x"`)

	g, _ = globals(t.TempDir(), false)
	require.ErrorContains(t, (&DeviceShowCmd{DeviceArg{"x"}}).Run(t.Context(), g), "cordon up --data")
	g.URL = s.URL
	require.ErrorContains(t, (&DeviceShowCmd{DeviceArg{"x"}}).Run(t.Context(), g), "needs a token")
	g.Token = "t"
	g.URL = "ftp://x"
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf((&DeviceShowCmd{DeviceArg{"x"}}).Run(t.Context(), g)))
	g.URL = "http://127.0.0.1:1"
	require.Equal(t, fleet.CodeUnavailable, fleet.CodeOf((&DeviceShowCmd{DeviceArg{"x"}}).Run(t.Context(), g)))
}

func TestIncidentPath_takesANumber(t *testing.T) {
	for _, id := range []string{"INC-7", "inc-7", "7"} {
		require.Equal(t, "/incidents/INC-7/acknowledge", IncidentArg{id}.path("/acknowledge"))
	}
	require.False(t, strings.Contains(DeviceArg{"../x"}.path(""), "../"))
}
