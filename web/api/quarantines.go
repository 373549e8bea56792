package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/store"
)

// proofTime is how long an answer waits for the proof of a quarantine.
const proofTime = 2 * time.Second

// bulkMost is how many devices one bulk action may hold.
const bulkMost = 10_000

func (a *API) quarantineDevice(ctx context.Context, in *quarantineInput) (*quarantineOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	if !in.Body.Until.IsZero() && !in.Body.Until.After(a.deps.Clock()) {
		return nil, fleet.Errorf(fleet.CodeInvalid, "until %s has passed", in.Body.Until.UTC().Format(time.RFC3339)).On("body.until")
	}
	if in.Body.Incident != "" {
		i, err := a.deps.Incidents.Get(ctx, in.Body.Incident)
		if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
			return nil, err
		}
		if err != nil || i.Device != in.ID {
			return nil, fleet.Errorf(fleet.CodeInvalid, "device %s has no incident %s", in.ID, in.Body.Incident).On("body.incident")
		}
	}
	q, err := a.deps.Quarantines.Request(ctx, fleet.QuarantineRequest{
		Device: in.ID, Level: in.Body.Level, Reason: in.Body.Reason, Actor: caller(ctx).Name, Incident: in.Body.Incident,
		Until: in.Body.Until.UTC(), Lower: in.Body.Lower,
	})
	if err != nil {
		return nil, err
	}
	return a.proven(ctx, q), nil
}

// proven waits a moment for the proof of a decision.
func (a *API) proven(ctx context.Context, q fleet.Quarantine) *quarantineOutput {
	a.view.expire()
	patience, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	if proven, err := a.deps.Quarantines.Wait(patience, q.Device, q.ID); err == nil || proven.ID == q.ID {
		q = proven
	}
	note(ctx, q.Device, nil, map[string]any{"id": q.ID, "level": q.Level, "state": q.State, "reason": q.Reason, "until": q.Until, "incident": q.Incident})
	return &quarantineOutput{Body: q}
}

func (a *API) releaseDevice(ctx context.Context, in *releaseInput) (*quarantineOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	if !in.Body.ProbationUntil.IsZero() {
		q, err := a.deps.Quarantines.Probation(ctx, in.ID, caller(ctx).Name, in.Body.Reason, in.Body.ProbationUntil)
		if err != nil {
			return nil, err
		}
		return a.proven(ctx, q), nil
	}
	q, err := a.deps.Quarantines.Release(ctx, in.ID, caller(ctx).Name, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	a.view.expire()
	note(ctx, in.ID, map[string]any{"id": q.ID, "level": q.Level}, map[string]any{"state": q.State, "reason": in.Body.Reason})
	return &quarantineOutput{Body: q}, nil
}

func (a *API) extendQuarantine(ctx context.Context, in *extendInput) (*quarantineOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	q, err := a.deps.Quarantines.Extend(ctx, in.ID, in.Body.Until, caller(ctx).Name)
	if err != nil {
		return nil, err
	}
	a.view.expire()
	note(ctx, in.ID, nil, map[string]any{"id": q.ID, "until": q.Until, "reason": in.Body.Reason})
	return &quarantineOutput{Body: q}, nil
}

func (a *API) listQuarantines(ctx context.Context, in *listQuarantinesInput) (*listQuarantinesOutput, error) {
	if err := a.requireVisible(ctx, in.Device); err != nil {
		return nil, err
	}
	if in.State == "all" {
		rows, err := a.deps.History.QuarantineHistory(ctx, in.Device, store.Cursor(in.Cursor), in.Limit)
		if err != nil {
			return nil, unavailable("quarantine history", err)
		}
		return &listQuarantinesOutput{Body: kept(a, caller(ctx), page(rows), func(q fleet.Quarantine) string { return q.Device })}, nil
	}
	var active []placed[fleet.Quarantine]
	sees := a.sees(caller(ctx))
	for _, q := range a.deps.Quarantines.List() {
		if sees(q.Device) && q.Active() && (in.Device == "" || q.Device == in.Device) {
			active = append(active, placed[fleet.Quarantine]{sortable(q.RequestedAt), q.ID, q})
		}
	}
	p, err := paged(active, "-requested_at", in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	return &listQuarantinesOutput{Body: p}, nil
}

// chosen lists the devices that a selection names, by id.
func (a *API) chosen(s DeviceSelection) ([]string, error) {
	if len(s.Devices) == 0 && s.empty() {
		return nil, fleet.Errorf(fleet.CodeInvalid, "name devices, or select by cohort, site, model or tag").On("body.devices")
	}
	if len(s.Devices) > 0 && !s.empty() {
		return nil, fleet.Errorf(fleet.CodeInvalid, "either name devices or select them").On("body.devices")
	}
	if len(s.Devices) > 0 {
		return s.Devices, nil
	}
	var ids []string
	a.deps.Devices.All(func(d fleet.Device) bool {
		if d.State != fleet.Retired && d.State != fleet.Revoked && s.matches(d) {
			ids = append(ids, d.ID)
		}
		return len(ids) <= bulkMost
	})
	if len(ids) > bulkMost {
		return nil, fleet.Errorf(fleet.CodeInvalid, "more than %d devices are selected: narrow it", bulkMost)
	}
	return ids, nil
}

func (a *API) planQuarantine(_ context.Context, in *planInput) (*planOutput, error) {
	ids, err := a.chosen(in.Body.DeviceSelection)
	if err != nil {
		return nil, err
	}
	plan, err := a.deps.Quarantines.Plan(fleet.PlanRequest{Devices: ids, Level: in.Body.Level, Rule: in.Body.Rule, Severity: in.Body.Severity})
	if err != nil {
		return nil, err
	}
	return &planOutput{Body: plan}, nil
}

func (a *API) bulkQuarantine(ctx context.Context, in *bulkInput) (*bulkOutput, error) {
	note(ctx, "fleet", nil, in.Body)
	ids, err := a.chosen(in.Body.DeviceSelection)
	if err != nil {
		return nil, err
	}
	if len(ids) != in.Body.Expect {
		return nil, fleet.Errorf(fleet.CodeConflict, "%d devices are selected, not %d: look at a dry run first", len(ids), in.Body.Expect).On("body.expect")
	}
	out := BulkResult{Items: make([]fleet.Quarantine, 0, len(ids)), Failed: []BulkFailure{}}
	for _, id := range ids {
		q, err := a.deps.Quarantines.Request(ctx, fleet.QuarantineRequest{
			Device: id, Level: in.Body.Level, Reason: in.Body.Reason, Actor: caller(ctx).Name, Until: in.Body.Until.UTC(),
		})
		if err != nil {
			out.Failed = append(out.Failed, BulkFailure{Device: id, Code: string(fleet.CodeOf(err)), Detail: problem(ctx, a.deps.Log, err).Error()})
			continue
		}
		out.Items = append(out.Items, q)
	}
	patience, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	for i, q := range out.Items {
		if proven, err := a.deps.Quarantines.Wait(patience, q.Device, q.ID); err == nil || proven.ID == q.ID {
			out.Items[i] = proven
		}
		if out.Items[i].State == fleet.Confirmed {
			out.Confirmed++
		}
	}
	a.view.expire()
	note(ctx, "fleet", nil, map[string]any{"level": in.Body.Level, "reason": in.Body.Reason, "devices": ids, "confirmed": out.Confirmed, "failed": len(out.Failed)})
	return &bulkOutput{Body: out}, nil
}

func (a *API) listApprovals(context.Context, *struct{}) (*approvalsOutput, error) {
	list := a.deps.Quarantines.Approvals()
	return &approvalsOutput{Body: fleet.Page[fleet.Approval]{Items: list, Total: uint64(len(list))}}, nil
}

func (a *API) approveQuarantines(ctx context.Context, in *approveInput) (*approvalOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	approval, err := a.deps.Quarantines.Approve(ctx, in.ID, caller(ctx).Name, in.Body.Reason, in.Body.Devices)
	if err != nil {
		return nil, err
	}
	a.view.expire()
	return &approvalOutput{Body: approval}, nil
}

func (a *API) rejectQuarantines(ctx context.Context, in *rejectInput) (*approvalOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	approval, err := a.deps.Quarantines.Reject(ctx, in.ID, caller(ctx).Name, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	return &approvalOutput{Body: approval}, nil
}

func (a *API) getGuards(context.Context, *struct{}) (*guardsOutput, error) {
	return &guardsOutput{Body: a.deps.Quarantines.Guards()}, nil
}

func (a *API) resumeGuard(ctx context.Context, in *resumeInput) (*breakerOutput, error) {
	note(ctx, in.Body.Scope, nil, in.Body)
	b, err := a.deps.Quarantines.Resume(ctx, in.Body.Scope, caller(ctx).Name, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	return &breakerOutput{Body: b}, nil
}

// getBlocklist answers with a list whose tag changes when it does, so that a
// firewall may ask often.
func (a *API) getBlocklist(_ context.Context, in *blocklistInput) (*blocklistOutput, error) {
	var text strings.Builder
	for _, b := range a.deps.Quarantines.Blocklist() {
		text.WriteString(b.Address)
		text.WriteByte('\n')
	}
	sum := sha256.Sum256([]byte(text.String()))
	out := &blocklistOutput{
		Status: http.StatusOK, ContentType: "text/plain; charset=utf-8", ETag: `"` + hex.EncodeToString(sum[:12]) + `"`, CacheControl: "private, no-cache",
		Body: []byte(text.String()),
	}
	for tag := range strings.SplitSeq(in.IfNoneMatch, ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == out.ETag || tag == "*" {
			out.Status, out.Body = http.StatusNotModified, nil
		}
	}
	return out, nil
}
