package api

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"cordon/internal/fleet"
	"cordon/internal/store"
)

func (a *API) listIncidents(ctx context.Context, in *listIncidentsInput) (*listIncidentsOutput, error) {
	// The incident stage sorts descending unless told otherwise.
	sort, descending := strings.CutPrefix(in.Sort, "-")
	if !descending {
		sort += ":asc"
	}
	filter := IncidentFilter{State: in.State, Severity: in.Severity, Device: in.Device, Query: in.Query, Assignee: in.Assignee}
	var p fleet.Page[fleet.Incident]
	var err error
	if who := caller(ctx); who.Scoped() {
		var all []fleet.Incident
		if all, err = a.visibleIncidents(who, filter, sort); err == nil {
			p, err = afterID(all, func(i fleet.Incident) string { return i.ID }, in.Cursor, in.Limit)
		}
	} else {
		p, err = a.deps.Incidents.List(filter, sort, in.Cursor, in.Limit)
	}
	if err != nil {
		return nil, err
	}
	p = page(p)
	for i := range p.Items {
		p.Items[i] = incidentLine(p.Items[i])
	}
	return &listIncidentsOutput{Body: p}, nil
}

func (a *API) getIncident(ctx context.Context, in *incidentInput) (*incidentOutput, error) {
	return incidentAnswer(a.deps.Incidents.Get(ctx, in.ID))
}

func incidentAnswer(i fleet.Incident, err error) (*incidentOutput, error) {
	if err != nil {
		return nil, err
	}
	return &incidentOutput{Body: incidentView(i)}, nil
}

// incidentFindings reads an incident's findings by their ids, newest first,
// a page at a time. The cursor is an offset: the list only grows at its end.
func (a *API) incidentFindings(ctx context.Context, in *incidentFindingsInput) (*findingsOutput, error) {
	i, err := a.deps.Incidents.Get(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	seen := 0
	if in.Cursor != "" {
		if seen, err = strconv.Atoi(in.Cursor); err != nil || seen < 0 {
			return nil, fleet.Errorf(fleet.CodeInvalid, "the cursor does not belong to this list: start again without it").On("query.cursor")
		}
	}
	out := fleet.Page[fleet.Finding]{Items: []fleet.Finding{}, Total: uint64(len(i.FindingIDs))}
	ids := slices.Clone(i.FindingIDs)
	slices.Reverse(ids)
	ids = ids[min(seen, len(ids)):]
	if len(ids) > in.Limit {
		ids = ids[:in.Limit]
		out.Next = strconv.Itoa(seen + in.Limit)
	}
	if len(ids) == 0 {
		return &findingsOutput{Body: out}, nil
	}
	rows, err := a.deps.History.Findings(ctx, store.FindingQuery{IDs: ids, Limit: len(ids)})
	if err != nil {
		return nil, unavailable("findings", err)
	}
	out.Items = filled(rows.Items)
	return &findingsOutput{Body: out}, nil
}

// change runs an act on an incident and notes it for the operator log.
func (a *API) change(ctx context.Context, id string, detail any, do func(actor string) (fleet.Incident, error)) (*incidentOutput, error) {
	note(ctx, id, nil, detail)
	before, err := a.deps.Incidents.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	after, err := do(caller(ctx).Name)
	if err != nil {
		return nil, err
	}
	a.view.expire()
	state := func(i fleet.Incident) map[string]any {
		return map[string]any{"state": i.State, "assignee": i.Assignee, "verdict": i.Verdict}
	}
	now := state(after)
	if detail != nil {
		now["said"] = detail
	}
	note(ctx, id, state(before), now)
	return incidentAnswer(after, nil)
}

func (a *API) acknowledgeIncident(ctx context.Context, in *incidentInput) (*incidentOutput, error) {
	return a.change(ctx, in.ID, nil, func(actor string) (fleet.Incident, error) {
		return a.deps.Incidents.Acknowledge(ctx, in.ID, actor)
	})
}

func (a *API) assignIncident(ctx context.Context, in *assignInput) (*incidentOutput, error) {
	return a.change(ctx, in.ID, in.Body, func(string) (fleet.Incident, error) { return a.assign(ctx, in.ID, in.Body.Assignee) })
}

// assign hands an incident to an operator who may see it.
func (a *API) assign(ctx context.Context, id, assignee string) (fleet.Incident, error) {
	if assignee != "" {
		if _, err := a.deps.Operators.Operator(ctx, assignee); err != nil {
			if fleet.CodeOf(err) == fleet.CodeNotFound {
				return fleet.Incident{}, fleet.Errorf(fleet.CodeInvalid, "there is no operator %q", assignee).On("body.assignee")
			}
			return fleet.Incident{}, err
		}
	}
	return a.deps.Incidents.Assign(ctx, id, caller(ctx).Name, assignee)
}

func (a *API) commentIncident(ctx context.Context, in *commentInput) (*incidentOutput, error) {
	return a.change(ctx, in.ID, in.Body, func(actor string) (fleet.Incident, error) {
		return a.deps.Incidents.Comment(ctx, in.ID, actor, in.Body.Text)
	})
}

func (a *API) resolveIncident(ctx context.Context, in *resolveInput) (*incidentOutput, error) {
	return a.change(ctx, in.ID, in.Body, func(actor string) (fleet.Incident, error) {
		return a.deps.Incidents.Resolve(ctx, in.ID, actor, in.Body.Verdict, in.Body.Reason)
	})
}

func (a *API) reopenIncident(ctx context.Context, in *incidentInput) (*incidentOutput, error) {
	return a.change(ctx, in.ID, nil, func(actor string) (fleet.Incident, error) {
		return a.deps.Incidents.Reopen(ctx, in.ID, actor)
	})
}
