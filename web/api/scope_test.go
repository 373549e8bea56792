package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/operator"
)

// How an operation treats callers who see a part of the fleet.
const (
	byPath   = "path"     // the device or incident of its path must lie in scope
	filtered = "filtered" // it answers about the scope only
	neutral  = "neutral"  // it says nothing about devices
	refused  = "refused"  // it concerns the whole fleet
)

// scopeRows has a row for every operation: a new one without a row fails.
var scopeRows = map[string]string{
	"sign-in": neutral, "get-challenge": neutral, "redeem-enrollment": neutral,
	"get-session": neutral, "sign-out": neutral, "change-password": neutral, "prove-session": neutral, "list-sessions": neutral, "end-session": neutral,
	"begin-second-factor": neutral, "confirm-second-factor": neutral, "remove-second-factor": neutral, "make-recovery-codes": neutral,
	"get-policy": neutral, "set-policy": refused, "list-tokens": neutral, "create-token": neutral, "revoke-token": neutral,
	"list-operators": refused, "add-operator": refused, "reset-operator": refused, "modify-operator": refused, "remove-operator": refused,
	"list-operator-sessions": refused, "drop-second-factor": refused,
	"list-operator-log": refused, "verify-operator-log": refused, "export-operator-log": refused,

	"get-overview": filtered, "get-system": neutral, "stream-events": filtered,
	"list-devices": filtered, "device-facets": filtered, "enroll-device": filtered, "edit-devices": filtered, "export-devices": filtered,
	"list-incidents": filtered, "change-incidents": filtered, "export-incidents": filtered,
	"list-findings": filtered, "export-findings": filtered, "list-dead-letters": filtered, "list-deliveries": filtered, "list-quarantines": filtered,
	"list-rules": neutral, "get-rule": neutral, "set-rule-mode": refused,
}

// rowOf is the row of an operation; those below a device or an incident need
// none, because the path decides.
func rowOf(op *huma.Operation) string {
	if strings.HasPrefix(op.Path, "/devices/{id}") || strings.HasPrefix(op.Path, "/incidents/{id}") {
		return byPath
	}
	return scopeRows[op.OperationID]
}

// TestAccess_scopes: every operation × every role × own and foreign scope.
func TestAccess_scopes(t *testing.T) {
	r := start(t)
	r.fill()
	own, foreign := operator.Scope{Sites: []string{"north"}}, operator.Scope{Sites: []string{"south"}, Tags: []string{"south-tag"}}
	type holder struct{ own, foreign string }
	holders := map[operator.Role]holder{}
	for _, role := range operator.Roles {
		holders[role] = holder{r.scopedToken(string(role)+"-own", role, own), r.scopedToken(string(role)+"-foreign", role, foreign)}
	}
	checked := 0
	for id, op := range operations(r.API) {
		row := rowOf(op)
		if row == "" && !access[id].scoped && !access[id].public {
			row = refused // by default nobody with a scope may use it
		}
		require.NotEmpty(t, row, "operation %s has no row in scopeRows", id)
		if id == "stream-events" || access[id].public || access[id].before {
			continue // TestEvents_scoped; sessions
		}
		t.Run(id, func(t *testing.T) {
			path, body := sample(op)
			for _, role := range operator.Roles {
				mine, theirs := r.as(holders[role].own, op.Method, path, body), r.as(holders[role].foreign, op.Method, path, body)
				checked += 2
				if !role.Allows(access[id].role) || row == refused {
					require.Equal(t, http.StatusForbidden, mine.status, role)
					require.Equal(t, http.StatusForbidden, theirs.status, role)
					continue
				}
				switch row {
				case byPath:
					require.NotEqual(t, http.StatusForbidden, mine.status, "%s %s", role, mine.body)
					require.Equal(t, http.StatusNotFound, theirs.status, "%s %s", role, theirs.body)
				case filtered:
					require.NotContains(t, string(theirs.body), `"d1"`, role)
					require.NotContains(t, string(theirs.body), `"INC-1"`, role)
					require.NotContains(t, string(mine.body), "zz-south", role)
					require.NotContains(t, string(mine.body), "INC-2", role)
				}
			}
		})
	}
	t.Logf("%d requests", checked)
}

// fill enrols one device in each of two sites, with an incident each.
func (r *rig) fill() {
	r.t.Helper()
	for _, e := range []identity.Enrolment{{ID: "d1", Site: "north", Actor: "t"}, {ID: "zz-south", Site: "south", Tags: []string{"south-tag"}, Actor: "t"}} {
		_, _, err := r.devices.Enroll(r.t.Context(), e)
		require.NoError(r.t, err)
		require.Eventually(r.t, func() bool { _, ok := r.devices.Get(e.ID); return ok }, 5*time.Second, 5*time.Millisecond)
	}
	r.alerts.mu.Lock()
	defer r.alerts.mu.Unlock()
	r.alerts.incidents["INC-2"] = fleet.Incident{ID: "INC-2", Number: 2, Device: "zz-south", Severity: fleet.High, State: fleet.Open, Title: "hot", OpenedAt: time.Now()}
	r.alerts.held["zz-south"] = fleet.Quarantine{ID: "zz-south.1", Device: "zz-south", State: fleet.Confirmed, Level: fleet.Isolate, RequestedAt: time.Now()}
}

func TestScope_listsAndActs(t *testing.T) {
	r := start(t)
	r.fill()
	north := r.scopedToken("nora", operator.Admin, operator.Scope{Sites: []string{"north"}})
	devices := decode[fleet.Page[DeviceSummary]](t, r.as(north, http.MethodGet, "/devices", nil))
	require.EqualValues(t, 1, devices.Total)
	require.Equal(t, "d1", devices.Items[0].ID)
	facets := decode[map[string]map[string]int](t, r.as(north, http.MethodGet, "/devices/facets", nil))
	require.Equal(t, map[string]int{"north": 1}, facets["site"])
	incidents := decode[fleet.Page[fleet.Incident]](t, r.as(north, http.MethodGet, "/incidents", nil))
	require.EqualValues(t, 1, incidents.Total)
	overview := decode[Overview](t, r.as(north, http.MethodGet, "/overview", nil))
	require.Equal(t, 1, overview.Fleet.Total)
	require.Equal(t, 1, overview.Incidents.Open)
	require.Zero(t, overview.Quarantine.Active)

	// A device can neither be enrolled outside nor moved out, and one outside
	// can't be taken over.
	require.Equal(t, http.StatusForbidden, r.as(north, http.MethodPost, "/devices", EnrollRequest{ID: "d9", Site: "south"}).status)
	require.Equal(t, http.StatusForbidden, r.as(north, http.MethodPost, "/devices", EnrollRequest{ID: "zz-south", Site: "north"}).status)
	require.Equal(t, http.StatusForbidden, r.as(north, http.MethodPatch, "/devices/d1", map[string]any{"site": "south"}).status)
	bulk := decode[IncidentsChanged](t, r.as(north, http.MethodPost, "/incidents/bulk", IncidentsChange{IDs: []string{"INC-1", "INC-2", "x"}, Action: "acknowledge"}))
	require.Equal(t, []string{"INC-1"}, bulk.Changed)
	require.Equal(t, "not_found", bulk.Failed[0].Code)
	require.Equal(t, fleet.Open, r.alerts.incidents["INC-2"].State)
	imported := decode[DeviceImport](t, r.request(http.MethodPost, Prefix+"/devices/import", "id,owner\nd1,ann\nzz-south,ann\n", func(req *http.Request) {
		req.Header.Set("Authorization", "Bearer "+north)
		req.Header.Set("Content-Type", "text/csv")
	}))
	require.Equal(t, 1, imported.Changed)
	require.Equal(t, "zz-south", imported.Faults[0].Device)

	// A token of a scoped operator can be narrower and never wider.
	made := decode[NewToken](t, r.as(north, http.MethodPost, "/tokens", TokenRequest{Name: "t", Role: operator.Viewer, Days: 1, Scope: operator.Scope{Sites: []string{"south"}}}))
	got := decode[fleet.Page[DeviceSummary]](t, r.as(made.Secret, http.MethodGet, "/devices", nil))
	require.Empty(t, got.Items)
}

func TestEvents_scoped(t *testing.T) {
	r := start(t)
	r.fill()
	north := r.scopedToken("nora", operator.Viewer, operator.Scope{Sites: []string{"north"}})
	p, err := r.deps.Operators.Token(t.Context(), north)
	require.NoError(t, err)
	c, err := r.hub.join("nora", 0, r.sees(p))
	require.NoError(t, err)
	defer r.hub.leave(c)
	r.hub.about("zz-south", "incident:INC-2", "secret")
	r.hub.about("d1", "incident:INC-1", "mine")
	events, _ := c.take()
	require.Len(t, events, 1)
	require.Equal(t, "mine", events[0].data)
}
