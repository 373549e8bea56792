package api

import (
	"context"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/store"
)

// proofTime is how long an answer waits for the proof of a quarantine.
const proofTime = 2 * time.Second

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
		Device: in.ID, Level: in.Body.Level, Reason: in.Body.Reason, Actor: caller(ctx).Name, Incident: in.Body.Incident, Until: in.Body.Until.UTC(),
	})
	if err != nil {
		return nil, err
	}
	a.view.expire()
	patience, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	if proven, err := a.deps.Quarantines.Wait(patience, in.ID, q.ID); err == nil || proven.ID == q.ID {
		q = proven
	}
	note(ctx, in.ID, nil, map[string]any{"id": q.ID, "level": q.Level, "state": q.State, "reason": q.Reason, "until": q.Until, "incident": q.Incident})
	return &quarantineOutput{Body: q}, nil
}

func (a *API) releaseDevice(ctx context.Context, in *deviceReasonInput) (*quarantineOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	q, err := a.deps.Quarantines.Release(ctx, in.ID, caller(ctx).Name, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	a.view.expire()
	note(ctx, in.ID, map[string]any{"id": q.ID, "level": q.Level}, map[string]any{"state": q.State, "reason": in.Body.Reason})
	return &quarantineOutput{Body: q}, nil
}

func (a *API) listQuarantines(ctx context.Context, in *listQuarantinesInput) (*listQuarantinesOutput, error) {
	if in.State == "all" {
		rows, err := a.deps.History.QuarantineHistory(ctx, in.Device, store.Cursor(in.Cursor), in.Limit)
		if err != nil {
			return nil, unavailable("quarantine history", err)
		}
		return &listQuarantinesOutput{Body: page(rows)}, nil
	}
	var active []placed[fleet.Quarantine]
	for _, q := range a.deps.Quarantines.List() {
		if q.Active() && (in.Device == "" || q.Device == in.Device) {
			active = append(active, placed[fleet.Quarantine]{sortable(q.RequestedAt), q.ID, q})
		}
	}
	p, err := paged(active, "-requested_at", in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	return &listQuarantinesOutput{Body: p}, nil
}
