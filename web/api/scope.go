package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"cordon/internal/fleet"
	"cordon/internal/operator"
)

// inScope keeps callers who see a part of the fleet to that part. What lies
// outside looks as if it were not there.
func (a *API) inScope(ctx huma.Context, need need, p operator.Principal) error {
	if !p.Scoped() {
		return nil
	}
	switch path := ctx.Operation().Path; {
	case path == "/devices/{id}" || strings.HasPrefix(path, "/devices/{id}/"):
		return a.deviceInScope(ctx.Context(), p, ctx.Param("id"))
	case path == "/incidents/{id}" || strings.HasPrefix(path, "/incidents/{id}/"):
		return a.incidentInScope(ctx.Context(), p, ctx.Param("id"))
	case need.scoped:
		return nil
	}
	return fleet.Errorf(fleet.CodeForbidden, "this concerns the whole fleet; your scope is %s", scopeText(p))
}

func scopeText(p operator.Principal) string {
	if p.TokenScope.Whole() {
		return p.Scope.String()
	}
	if p.Scope.Whole() {
		return p.TokenScope.String()
	}
	return p.Scope.String() + " and " + p.TokenScope.String()
}

func (a *API) deviceInScope(ctx context.Context, p operator.Principal, id string) error {
	d, err := a.device(ctx, id)
	if err == nil && !p.Sees(d) {
		err = fleet.Errorf(fleet.CodeNotFound, "no device %s in the registry", id)
	}
	return err
}

func (a *API) incidentInScope(ctx context.Context, p operator.Principal, id string) error {
	i, err := a.deps.Incidents.Get(ctx, id)
	if err == nil && !a.sees(p)(i.Device) {
		err = fleet.Errorf(fleet.CodeNotFound, "there is no incident %s", id).On("id")
	}
	return err
}

// sees says of a device's id whether it lies within the caller's scope. What
// belongs to no known device is for those who see the whole fleet.
func (a *API) sees(p operator.Principal) func(device string) bool {
	if !p.Scoped() {
		return func(string) bool { return true }
	}
	known := map[string]bool{}
	return func(device string) bool {
		seen, ok := known[device]
		if !ok {
			d, found := a.deps.Devices.Get(device)
			seen = found && p.Sees(d)
			known[device] = seen
		}
		return seen
	}
}

// kept drops what lies outside of the caller's scope. The total is what is
// left of the page: more would tell of what lies outside.
func kept[T any](a *API, p operator.Principal, page fleet.Page[T], device func(T) string) fleet.Page[T] {
	if !p.Scoped() {
		return page
	}
	sees := a.sees(p)
	items := page.Items[:0:0]
	for _, item := range page.Items {
		if sees(device(item)) {
			items = append(items, item)
		}
	}
	page.Items, page.Total = filled(items), uint64(len(items))
	return page
}

// requireVisible refuses a filter that names a device out of scope, so that an
// empty answer can't be told from one about nothing.
func (a *API) requireVisible(ctx context.Context, device string) error {
	p := caller(ctx)
	if device == "" || !p.Scoped() {
		return nil
	}
	return a.deviceInScope(ctx, p, device)
}

// mayTouch says whether a device with these attributes lies in scope.
func mayTouch(p operator.Principal, d fleet.Device) error {
	if p.Sees(d) {
		return nil
	}
	refused := newProblem(http.StatusForbidden, "the device would lie outside of your scope: "+scopeText(p))
	return refused
}

// visibleIncidents reads a list of the incident stage to its end and keeps what the
// caller sees, at most maxOpen.
func (a *API) visibleIncidents(p operator.Principal, f IncidentFilter, sort string) ([]fleet.Incident, error) {
	sees := a.sees(p)
	var all []fleet.Incident
	for cursor := ""; len(all) < maxOpen; {
		page, err := a.deps.Incidents.List(f, sort, cursor, 500)
		if err != nil {
			return nil, err
		}
		for _, i := range page.Items {
			if sees(i.Device) {
				all = append(all, i)
			}
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	return all, nil
}

// afterID cuts a page out of a list whose cursor is the id of the last item.
func afterID[T any](all []T, id func(T) string, cursor string, limit int) (fleet.Page[T], error) {
	page := fleet.Page[T]{Items: []T{}, Total: uint64(len(all))}
	if cursor != "" {
		at := -1
		for i, item := range all {
			if id(item) == cursor {
				at = i
				break
			}
		}
		if at < 0 {
			return page, fleet.Errorf(fleet.CodeInvalid, "the cursor does not belong to this list: start again without it").On("query.cursor")
		}
		all = all[at+1:]
	}
	page.Items = append(page.Items, all[:min(limit, len(all))]...)
	if len(all) > limit {
		page.Next = id(all[limit-1])
	}
	return page, nil
}
