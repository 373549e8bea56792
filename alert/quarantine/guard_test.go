package quarantine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/alert/quarantine"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

func TestService_cohortCap(t *testing.T) {
	w := start(t)
	w.size = 10_000
	w.cfg.PerCohort, w.cfg.CohortShare = 3, 0
	w.stop(t)
	w.run(t)
	for i := range 6 {
		id := fmt.Sprintf("k%d", i)
		w.devices[id] = fleet.Device{ID: id, State: fleet.Active, Cohort: "kiosk"}
		require.NoError(t, w.service.Consider(t.Context(), w.finding(id, fmt.Sprintf("r%d", i))))
	}
	require.Equal(t, 2, w.held(), "one of three is kept for critical findings")
	require.Equal(t, quarantine.StopCohortCap, w.service.Stopped()[3].Stopped)
	require.NoError(t, w.service.Consider(t.Context(), w.finding("other", "r9")))
	require.Equal(t, 3, w.held(), "other cohorts never noticed")
	g := w.service.Guards()
	require.Equal(t, "cohort:kiosk", g.Breakers[0].Scope)
	require.True(t, g.Breakers[0].Open)
	require.Equal(t, 4, g.Pending, "one request per rule")
	require.Equal(t, "cohort:kiosk", g.Caps[0].Scope)
	require.Equal(t, 2, g.Caps[0].Used)
}

func TestService_approveAndReject(t *testing.T) {
	w := start(t)
	w.devices["p1"] = fleet.Device{ID: "p1", State: fleet.Active, Tags: []string{"protected"}}
	w.devices["p2"] = fleet.Device{ID: "p2", State: fleet.Active, Tags: []string{"protected"}}
	for _, id := range []string{"p1", "p2"} {
		f := w.finding(id, "r1")
		require.NoError(t, w.service.Consider(t.Context(), f))
		require.NoError(t, w.service.Consider(t.Context(), f), "delivered again")
	}
	require.Zero(t, w.alarms(t), "a protected device opens no breaker")
	list := w.service.Approvals()
	require.Len(t, list, 1)
	require.Len(t, list[0].Devices, 2)

	a, err := w.service.Approve(t.Context(), list[0].ID, "ada", "seen", []string{"p1"})
	require.NoError(t, err)
	require.Equal(t, fleet.ApprovalApproved, a.State)
	require.Equal(t, "p1.1", a.Devices[0].Quarantine)
	require.NotEmpty(t, a.Devices[1].Error)
	q, ok := w.service.Current("p1")
	require.True(t, ok)
	require.Equal(t, "ada", q.Actor)
	require.Equal(t, 1, w.held())
	_, err = w.service.Approve(t.Context(), a.ID, "ada", "again", nil)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))

	require.NoError(t, w.service.Consider(t.Context(), w.finding("p2", "r1")))
	require.Len(t, w.service.Approvals(), 1, "the device was decided on in this request")
	w.devices["p3"] = w.devices["p1"]
	p3 := w.devices["p3"]
	p3.ID = "p3"
	w.devices["p3"] = p3
	require.NoError(t, w.service.Consider(t.Context(), w.finding("p3", "r1")))
	list = w.service.Approvals()
	require.Len(t, list, 2)
	_, err = w.service.Reject(t.Context(), list[0].ID, "ada", "benign")
	require.NoError(t, err)
	require.Equal(t, 1, w.held())
	_, err = w.service.Reject(t.Context(), "nothing.1", "ada", "")
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))

	require.NoError(t, w.service.Consider(t.Context(), w.finding("p2", "r2")))
	w.advance(25 * time.Hour)
	_, err = w.service.Approve(t.Context(), "r2.1", "ada", "late", nil)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
}

// A repeat offender is held longer every time, up to a limit, and a device that
// was good for long enough begins anew.
func TestService_escalation(t *testing.T) {
	w := start(t)
	holdOf := func() time.Duration {
		q, ok := w.service.Current("d1")
		require.True(t, ok)
		return q.Until.Sub(q.RequestedAt)
	}
	for _, want := range []time.Duration{4 * time.Hour, 16 * time.Hour, 64 * time.Hour, 7 * 24 * time.Hour, 7 * 24 * time.Hour} {
		require.NoError(t, w.service.Consider(t.Context(), w.finding("d1", "r1")))
		require.Equal(t, want, holdOf())
		_, err := w.service.Release(t.Context(), "d1", "ada", "")
		require.NoError(t, err)
		w.advance(time.Hour)
		w.stop(t) // nothing of it is only in memory
		w.run(t)
	}
	w.advance(8 * 24 * time.Hour)
	require.NoError(t, w.service.Consider(t.Context(), w.finding("d1", "r1")))
	require.Equal(t, 4*time.Hour, holdOf())
	until := w.clock().Add(48 * time.Hour)
	q, err := w.service.Extend(t.Context(), "d1", until, "ada")
	require.NoError(t, err)
	require.Equal(t, until, q.Until)
	require.Equal(t, "ada", q.ExtendedBy)
	_, err = w.service.Extend(t.Context(), "d2", until, "ada")
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
	_, err = w.service.Extend(t.Context(), "d1", w.clock().Add(-time.Hour), "ada")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
}

func TestService_lowerAndProbation(t *testing.T) {
	w := start(t)
	ask := fleet.QuarantineRequest{Device: "d1", Level: fleet.Isolate, Reason: "odd", Actor: "ada"}
	_, err := w.service.Request(t.Context(), ask)
	require.NoError(t, err)
	ask.Level, ask.Lower = fleet.Observe, true
	q, err := w.service.Request(t.Context(), ask)
	require.NoError(t, err)
	require.Equal(t, fleet.Observe, q.Level)
	require.Equal(t, "d1.1", q.Follows)
	until := w.clock().Add(time.Hour)
	_, err = w.service.Probation(t.Context(), "d1", "ada", "fixed", until)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err), "nothing to restrict")
	ask.Level = fleet.Isolate
	_, err = w.service.Request(t.Context(), ask)
	require.NoError(t, err)
	q, err = w.service.Probation(t.Context(), "d1", "ada", "fixed", until)
	require.NoError(t, err)
	require.Equal(t, fleet.Restrict, q.Level)
	require.True(t, q.Probation)
	require.Equal(t, until, q.Until)
	require.Equal(t, fleet.Requested, q.State, "the gate proves it like any other")
}

// Killed between any two steps of a stopped decision or an approval, the next
// try makes one breaker, one finding about the fleet, one request.
func TestService_killedBetweenSteps(t *testing.T) {
	killed := errors.New("killed")
	w := start(t)
	w.cfg.PerRule = 1
	for i, point := range []string{quarantine.FaultRequested, quarantine.FaultTripped, quarantine.FaultAlarmed, quarantine.FaultAsked} {
		w.stop(t)
		rule := fmt.Sprintf("rule%d", i)
		w.cfg.Fault = nil
		w.run(t)
		require.NoError(t, w.service.Consider(t.Context(), w.finding(fmt.Sprintf("a%d", i), rule)))
		w.stop(t)
		w.cfg.Fault = func(p string) error {
			if p == point {
				return killed
			}
			return nil
		}
		w.run(t)
		device, wantHeld := fmt.Sprintf("b%d", i), 1
		f := w.finding(device, rule)
		if point == quarantine.FaultRequested {
			f = w.finding(device, rule+"-free")
			wantHeld = 2
		}
		before := w.held()
		require.ErrorIs(t, w.service.Consider(t.Context(), f), killed)
		w.stop(t)
		w.cfg.Fault = nil
		w.run(t)
		require.NoError(t, w.service.Consider(t.Context(), f), "redelivered")
		require.NoError(t, w.service.Consider(t.Context(), f), "redelivered")
		require.Equal(t, before+wantHeld-1, w.held(), point)
		w.advance(w.cfg.Window)
	}
	require.Equal(t, 3, w.alarms(t))
	require.Len(t, w.service.Approvals(), 3)

	w.stop(t)
	w.cfg.Fault = func(p string) error {
		if p == quarantine.FaultApproved {
			return killed
		}
		return nil
	}
	w.run(t)
	_, err := w.service.Approve(t.Context(), "rule1.1", "ada", "yes", nil)
	require.ErrorIs(t, err, killed)
	w.stop(t)
	w.cfg.Fault = nil
	w.run(t)
	a, err := w.service.Approve(t.Context(), "rule1.1", "ada", "yes", nil)
	require.NoError(t, err)
	require.Equal(t, "b1.1", a.Devices[0].Quarantine, "one decision, however often it is approved")
}

func TestService_plan(t *testing.T) {
	w := start(t)
	w.size = 10_000
	w.devices["d03"] = fleet.Device{ID: "d03", State: fleet.Active, Tags: []string{"protected"}}
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprintf("d%02d", i))
	}
	_, err := w.service.Request(context.Background(), fleet.QuarantineRequest{Device: "d00", Level: fleet.Isolate, Reason: "x", Actor: "ada"})
	require.NoError(t, err)
	plan, err := w.service.Plan(fleet.PlanRequest{Devices: append(ids, "nobody"), Level: fleet.Isolate, Rule: "botched"})
	require.NoError(t, err)
	require.Equal(t, w.cfg.PerRule, plan.Quarantine)
	require.Equal(t, 1, plan.Already)
	require.Equal(t, 9, plan.Approval, "the protected one and those behind the cap")
	require.Equal(t, 1, plan.Stopped)
	require.Equal(t, "rule:botched", plan.Breaker)
	require.Len(t, plan.Devices, 21)
	require.Equal(t, 1, w.held(), "nothing was done")
	plan, err = w.service.Plan(fleet.PlanRequest{Devices: ids, Level: fleet.Isolate})
	require.NoError(t, err)
	require.Equal(t, 19, plan.Quarantine, "operators are not bound by caps")
	_, err = w.service.Plan(fleet.PlanRequest{Devices: ids, Level: "destroy"})
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
}

// A brute force from outside against 50 devices holds none of them and puts the
// attacker on the block list.
func TestService_bruteForceFillsTheBlockList(t *testing.T) {
	w := start(t)
	for i := range 50 {
		f := w.finding(fmt.Sprintf("d%02d", i), "ssh-brute-force")
		f.Evidence, f.Mode, f.Actor, f.Level = fleet.Outside, fleet.Alert, "203.0.113.9", ""
		if i%2 == 0 {
			f.Mode, f.Level = fleet.Armed, fleet.Isolate // were it armed by mistake
		}
		if i == 49 {
			f.Actor = "127.0.0.1"
		}
		w.publish(t, f)
	}
	require.Eventually(t, func() bool {
		list := w.service.Blocklist()
		return len(list) == 1 && list[0].Devices == 49
	}, patience, poll)
	w.settled(t)
	require.Zero(t, w.held())
	require.Empty(t, w.service.Approvals())
	require.Zero(t, w.alarms(t))
	require.Equal(t, "203.0.113.9", w.service.Blocklist()[0].Address)
	w.stop(t)
	w.run(t)
	require.Len(t, w.service.Blocklist(), 1, "it is in the bucket")
	w.advance(25 * time.Hour)
	require.Empty(t, w.service.Blocklist())

	q, err := w.service.Request(t.Context(), fleet.QuarantineRequest{Device: "d1", Level: fleet.Isolate, Reason: "x", Actor: "ada"})
	require.NoError(t, err)
	require.Empty(t, w.service.Blocklist())
	q.Proof.Kicked = []fleet.Connection{{Address: "198.51.100.7:4711"}, {Address: "[2001:db8::5]:1"}}
	data, err := json.Marshal(q)
	require.NoError(t, err)
	kv, err := w.bus.Bucket(t.Context(), bus.BucketQuarantine)
	require.NoError(t, err)
	_, err = kv.Put(t.Context(), "d1", data)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(w.service.Blocklist()) == 2 }, patience, poll)
	require.Equal(t, "198.51.100.7", w.service.Blocklist()[0].Address)
}
