package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"cordon/internal/operator"
)

// operations lists every operation of the document by id.
func operations(a *API) map[string]*huma.Operation {
	all := map[string]*huma.Operation{}
	for _, item := range a.huma.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				all[op.OperationID] = op
			}
		}
	}
	return all
}

// plain are the routes that are no operation: none shows anything about the
// fleet to somebody who is not signed in.
var plain = map[string]bool{
	"GET /healthz": true, "GET /readyz": true, "GET /metrics": true, "GET " + Prefix + "/openapi.json": true,
	"GET " + Prefix + "/docs": true, "GET " + Prefix + "/docs.css": true,
}

func TestAccess_everyRouteHasARow(t *testing.T) {
	a := start(t).API
	known := operations(a)
	for id, op := range known {
		require.Contains(t, access, id, "operation without a row in the access table")
		require.NotEmpty(t, op.Security, "operation %s does not state its security", id)
		if row := access[id]; !row.public {
			require.Contains(t, operator.Roles, row.role, id)
		} else {
			require.Contains(t, publicRates, id, "a public operation needs a rate")
		}
	}
	for id := range access {
		require.Contains(t, known, id, "row without an operation")
	}
	served := map[string]bool{}
	for _, op := range known {
		served[op.Method+" "+Prefix+strings.NewReplacer("{", ":", "}", "").Replace(op.Path)] = true
	}
	for _, route := range a.engine.Routes() {
		name := route.Method + " " + route.Path
		require.True(t, served[name] || plain[name], "route %s is not in the document", name)
		delete(served, name)
	}
	require.Empty(t, served, "documented, but not served")
}

// sample fills a path and gives a body that passes validation.
func sample(op *huma.Operation) (path string, body any) {
	id := "d1"
	switch {
	case strings.HasPrefix(op.Path, "/incidents"):
		id = "INC-1"
	case strings.HasPrefix(op.Path, "/rules"):
		id = "hot"
	case strings.HasPrefix(op.Path, "/tokens"):
		id = "nosuchtoken"
	}
	path = strings.NewReplacer("{id}", id, "{name}", "nobody").Replace(op.Path)
	if op.OperationID == "get-series" {
		path += "?metric=cpu"
	}
	bodies := map[string]any{
		"enroll-device":     EnrollRequest{ID: "d2"},
		"revoke-device":     ReasonRequest{Reason: "r"},
		"retire-device":     ReasonRequest{Reason: "r"},
		"release-device":    ReasonRequest{Reason: "r"},
		"quarantine-device": map[string]any{"level": "observe", "reason": "r"},
		"assign-incident":   AssignRequest{},
		"comment-incident":  CommentRequest{Text: "t"},
		"resolve-incident":  ResolveRequest{Verdict: "benign", Reason: "r"},
		"set-rule-mode":     ModeRequest{Mode: "shadow", Reason: "r"},
		"change-password":   PasswordRequest{Current: "x", New: "y"},
		"add-operator":      OperatorRequest{Name: "newone", Role: operator.Viewer},
		"create-token":      TokenRequest{Name: "t", Role: operator.Viewer, Days: 1},
		"sign-in":           SignInRequest{Name: "nobody", Password: "x"},
		"redeem-enrollment": CertificateRequest{Token: "x", CSR: "y"},

		"enroll-devices":     "id\n",
		"rotate-device":      ReasonRequest{Reason: "r"},
		"erase-device":       EraseRequest{Confirm: "x", Reason: "r"},
		"create-fleet-token": FleetTokenRequest{Prefix: "p-", Most: 1, Hours: 1},
		"trust-maker":        MakerRequest{Name: "m", Prefix: "p-", Certificate: "x"},
		"distrust-maker":     ReasonRequest{Reason: "r"},
		"retire-key":         RetireKeyRequest{Reason: "r"},
	}
	return path, bodies[op.OperationID]
}

// ownSession are what a token may not do: it has no session.
var ownSession = map[string]bool{
	"change-password": true, "prove-session": true, "begin-second-factor": true, "confirm-second-factor": true,
}

func TestAccess_matrix(t *testing.T) {
	r := start(t)
	tokens := map[operator.Role]string{}
	for _, role := range operator.Roles {
		tokens[role] = r.token(role)
	}
	for id, op := range operations(r.API) {
		if id == "stream-events" {
			continue // TestEvents
		}
		t.Run(id, func(t *testing.T) {
			path, body := sample(op)
			row := access[id]
			nobody := r.request(op.Method, Prefix+path, body, nil)
			if row.public {
				require.NotEqual(t, http.StatusForbidden, nobody.status)
				return
			}
			require.Equal(t, http.StatusUnauthorized, nobody.status, "without a session")
			require.Equal(t, "unauthenticated", nobody.problem(t).Code)
			for _, role := range operator.Roles {
				got := r.as(tokens[role], op.Method, path, body)
				if role.Allows(row.role) {
					if !ownSession[id] {
						require.NotEqual(t, http.StatusForbidden, got.status, "%s: %s", role, got.body)
					}
					require.NotEqual(t, http.StatusUnauthorized, got.status, role)
					require.Less(t, got.status, 500, "%s: %s", role, got.body)
				} else {
					require.Equal(t, http.StatusForbidden, got.status, role)
				}
			}
		})
	}
}

func TestAccess_wrongTokens(t *testing.T) {
	r := start(t)
	for _, header := range []string{"Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Bearer cordon_abc_def", "Bearer " + strings.Repeat("a", 5000)} {
		got := r.request(http.MethodGet, Prefix+"/devices", nil, func(req *http.Request) { req.Header.Set("Authorization", header) })
		require.Equal(t, http.StatusUnauthorized, got.status, header)
		require.NotEmpty(t, got.header.Get("WWW-Authenticate"))
	}
}
