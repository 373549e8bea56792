package api

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/operator"
)

func (f cells) Probation(ctx context.Context, device, actor, reason string, until time.Time) (fleet.Quarantine, error) {
	q, err := f.Release(ctx, device, actor, reason)
	q.Level, q.Until, q.Probation = fleet.Restrict, until, true
	return q, err
}

func (f cells) Extend(_ context.Context, device string, until time.Time, actor string) (fleet.Quarantine, error) {
	q, ok := f.Current(device)
	if !ok {
		return q, fleet.Errorf(fleet.CodeNotFound, "device %s was never quarantined", device)
	}
	q.Until, q.ExtendedBy = until, actor
	return q, nil
}

func (f cells) Plan(r fleet.PlanRequest) (fleet.Plan, error) {
	plan := fleet.Plan{Level: r.Level, Rule: r.Rule, Quarantine: len(r.Devices), Devices: []fleet.Planned{}}
	for _, id := range r.Devices {
		plan.Devices = append(plan.Devices, fleet.Planned{Device: id, Outcome: "quarantine", Guards: []fleet.GuardAnswer{}})
	}
	return plan, nil
}

func (f cells) Approvals() []fleet.Approval {
	return []fleet.Approval{{ID: "r1.1", Rule: "r1", State: fleet.ApprovalPending, Devices: []fleet.ApprovalDevice{}}}
}

func (f cells) Approve(_ context.Context, id, actor, reason string, _ []string) (fleet.Approval, error) {
	return fleet.Approval{ID: id, State: fleet.ApprovalApproved, DecidedBy: actor, Reason: reason, Devices: []fleet.ApprovalDevice{}}, nil
}

func (f cells) Reject(_ context.Context, id, actor, reason string) (fleet.Approval, error) {
	return fleet.Approval{ID: id, State: fleet.ApprovalRejected, DecidedBy: actor, Reason: reason, Devices: []fleet.ApprovalDevice{}}, nil
}

func (f cells) Guards() fleet.Guards {
	return fleet.Guards{Caps: []fleet.GuardCap{}, Breakers: []fleet.Breaker{}, Protected: []string{}, StoppedLast: []fleet.Stopped{}}
}

func (f cells) Resume(_ context.Context, scope, actor, reason string) (fleet.Breaker, error) {
	return fleet.Breaker{Scope: scope, ResumedBy: actor, Reason: reason}, nil
}

func (f cells) Blocklist() []fleet.Block {
	return []fleet.Block{{Address: "192.0.2.1"}, {Address: "2001:db8::1"}}
}

func TestAPI_quarantineGuards(t *testing.T) {
	r := start(t)
	responder, viewer := r.token(operator.Responder), r.token(operator.Viewer)
	r.kiosks("d1", "d2")
	post := func(path string, body map[string]any) answer { return r.as(responder, http.MethodPost, path, body) }
	require.Equal(t, http.StatusOK, post("/devices/d1/quarantine", map[string]any{"level": "isolate", "reason": "x"}).status)
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	extended := decode[fleet.Quarantine](t, post("/devices/d1/quarantine/extend", map[string]any{"until": until, "reason": "more time"}))
	require.Equal(t, "responder-one", extended.ExtendedBy)
	probation := decode[fleet.Quarantine](t, post("/devices/d1/release", map[string]any{"reason": "fixed", "probation_until": until}))
	require.Equal(t, "d1", probation.Device)

	plan := decode[fleet.Plan](t, post("/quarantines/dry-run", map[string]any{"level": "isolate", "cohort": "kiosk", "rule": "r1"}))
	require.Equal(t, 2, plan.Quarantine)
	require.Equal(t, http.StatusUnprocessableEntity, post("/quarantines/dry-run", map[string]any{"level": "isolate"}).status)
	bulk := map[string]any{"level": "isolate", "reason": "x", "cohort": "kiosk", "expect": 1}
	require.Equal(t, http.StatusConflict, post("/quarantines/bulk", bulk).status)
	bulk["expect"] = 2
	done := decode[BulkResult](t, post("/quarantines/bulk", bulk))
	require.Len(t, done.Items, 2)
	require.Equal(t, 2, done.Confirmed)

	require.Len(t, decode[fleet.Page[fleet.Approval]](t, r.as(viewer, http.MethodGet, "/quarantines/approvals", nil)).Items, 1)
	require.Equal(t, http.StatusForbidden, r.as(viewer, http.MethodPost, "/quarantines/approvals/r1.1/approve", map[string]any{"reason": "x"}).status)
	require.Equal(t, fleet.ApprovalApproved, decode[fleet.Approval](t, post("/quarantines/approvals/r1.1/approve", map[string]any{"reason": "x"})).State)
	require.Equal(t, fleet.ApprovalRejected, decode[fleet.Approval](t, post("/quarantines/approvals/r1.1/reject", map[string]any{"reason": "x"})).State)
	require.Equal(t, http.StatusOK, r.as(viewer, http.MethodGet, "/quarantines/guards", nil).status)
	require.Equal(t, "fleet", decode[fleet.Breaker](t, post("/quarantines/guards/resume", map[string]any{"scope": "fleet", "reason": "x"})).Scope)

	list := r.as(viewer, http.MethodGet, "/quarantine/blocklist.txt", nil)
	require.Equal(t, "192.0.2.1\n2001:db8::1\n", string(list.body))
	require.Contains(t, list.header.Get("Content-Type"), "text/plain")
	require.Equal(t, http.StatusUnauthorized, r.request(http.MethodGet, Prefix+"/quarantine/blocklist.txt", nil, nil).status)
	again := r.request(http.MethodGet, Prefix+"/quarantine/blocklist.txt", nil, func(req *http.Request) {
		req.Header.Set("Authorization", "Bearer "+viewer)
		req.Header.Set("If-None-Match", list.header.Get("ETag"))
	})
	require.Equal(t, http.StatusNotModified, again.status)
	require.Empty(t, again.body)
}

// kiosks enrols devices of cohort kiosk.
func (r *rig) kiosks(ids ...string) {
	r.t.Helper()
	for _, id := range ids {
		_, _, err := r.devices.Enroll(r.t.Context(), identity.Enrolment{ID: id, Cohort: "kiosk", Actor: "test"})
		require.NoError(r.t, err)
		require.Eventually(r.t, func() bool { _, ok := r.devices.Get(id); return ok }, 5*time.Second, time.Millisecond)
	}
}
