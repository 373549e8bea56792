package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/identity"
)

// knowTime bounds what brokers and the detector may take to answer about one
// device; without an answer the page says so.
const knowTime = 1500 * time.Millisecond

func (a *API) listDevices(ctx context.Context, in *listDevicesInput) (*listDevicesOutput, error) {
	s := a.view.get(ctx)
	now := a.deps.Clock()
	match, who := in.matcher(), caller(ctx)
	by := strings.TrimPrefix(in.Sort, "-")
	var all []placed[string]
	a.deps.Devices.All(func(d fleet.Device) bool {
		if match(d) && who.Sees(d) && (in.Status == "" || in.Status == a.deviceStatus(d, s.lastSeen[d.ID], now)) {
			all = append(all, placed[string]{sortKey(by, d, s.lastSeen), d.ID, d.ID})
		}
		return true
	})
	p, err := paged(all, in.Sort, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	out := fleet.Page[DeviceSummary]{Items: make([]DeviceSummary, 0, len(p.Items)), Next: p.Next, Total: p.Total}
	for _, id := range p.Items {
		d, ok := a.deps.Devices.Get(id)
		if !ok {
			continue // gone meanwhile
		}
		seen := s.lastSeen[id]
		line := DeviceSummary{Device: deviceView(d), Status: a.deviceStatus(d, seen, now), LastSeenAt: seen, OpenIncident: a.openIncident(id)}
		if q, held := s.held[id]; held {
			line.Quarantine = &QuarantineMark{Level: q.Level, State: q.State}
		}
		out.Items = append(out.Items, line)
	}
	return &listDevicesOutput{Body: out}, nil
}

func sortKey(by string, d fleet.Device, seen map[string]time.Time) string {
	switch by {
	case "cohort":
		return d.Cohort
	case "site":
		return d.Site
	case "enrolled_at":
		return sortable(d.EnrolledAt)
	case "last_seen_at":
		return sortable(seen[d.ID])
	}
	return "" // by id
}

func (in *listDevicesInput) matcher() func(fleet.Device) bool {
	query := strings.Fields(strings.ToLower(in.Query))
	return func(d fleet.Device) bool { // by value: a pointer would put every device on the heap
		if in.Cohort != "" && d.Cohort != in.Cohort || in.Site != "" && d.Site != in.Site ||
			in.Model != "" && d.Model != in.Model || in.State != "" && string(d.State) != in.State ||
			in.Tag != "" && !slices.Contains(d.Tags, in.Tag) {
			return false
		}
		if len(query) == 0 {
			return true
		}
		text := strings.ToLower(strings.Join([]string{d.ID, d.Owner, d.Site, d.Model, d.Cohort, d.Firmware, strings.Join(d.Tags, "\x00")}, "\x00"))
		for _, word := range query {
			if !strings.Contains(text, word) {
				return false
			}
		}
		return true
	}
}

// sortable is a text that sorts in the order of time, to the millisecond; the
// zero time comes first.
func sortable(t time.Time) string {
	const digits = "0123456789abcdef"
	var text [12]byte
	millis := uint64(max(t.UnixMilli(), 0))
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = digits[millis&15]
		millis >>= 4
	}
	return string(text[:])
}

// placed is an item with its place in a list: the sort key, and the id, which
// breaks ties.
type placed[T any] struct {
	key, id string
	item    T
}

// paged sorts places and cuts a page out of them. A cursor is the place of the
// last item of the page before, so that items which come or go in between
// neither repeat nor hide others.
func paged[T any](places []placed[T], sort, cursor string, limit int) (fleet.Page[T], error) {
	page := fleet.Page[T]{Items: []T{}, Total: uint64(len(places))}
	descending := strings.HasPrefix(sort, "-")
	compare := func(a, b placed[T]) int {
		order := strings.Compare(a.key, b.key)
		if order == 0 {
			order = strings.Compare(a.id, b.id)
		}
		if descending {
			return -order
		}
		return order
	}
	slices.SortFunc(places, compare)
	if cursor != "" {
		raw, err := base64.RawURLEncoding.DecodeString(cursor)
		parts := strings.Split(string(raw), "\x00")
		if err != nil || len(parts) != 3 || parts[0] != sort {
			return page, fleet.Errorf(fleet.CodeInvalid, "the cursor does not belong to this list and sort: start again without it").On("query.cursor")
		}
		start, exact := slices.BinarySearchFunc(places, placed[T]{key: parts[1], id: parts[2]}, compare)
		if exact {
			start++
		}
		places = places[start:]
	}
	for i, p := range places {
		if i == limit {
			last := places[i-1]
			page.Next = base64.RawURLEncoding.EncodeToString([]byte(sort + "\x00" + last.key + "\x00" + last.id))
			break
		}
		page.Items = append(page.Items, p.item)
	}
	return page, nil
}

func (a *API) openIncident(device string) *IncidentMark {
	i, ok := a.deps.Incidents.OpenOf(device)
	if !ok {
		return nil
	}
	return &IncidentMark{ID: i.ID, Severity: i.Severity}
}

func (a *API) deviceFacets(ctx context.Context, _ *noInput) (*facetsOutput, error) {
	who := caller(ctx)
	if !who.Scoped() {
		return &facetsOutput{Body: a.deps.Devices.Facets()}, nil
	}
	facets := map[string]map[string]int{}
	for name := range a.deps.Devices.Facets() {
		facets[name] = map[string]int{}
	}
	count := func(facet, value string) {
		if counts := facets[facet]; counts != nil && value != "" {
			counts[value]++
		}
	}
	a.deps.Devices.All(func(d fleet.Device) bool {
		if who.Sees(d) {
			count("cohort", d.Cohort)
			count("site", d.Site)
			count("model", d.Model)
			count("state", string(d.State))
			count("firmware", d.Firmware)
			count("owner", d.Owner)
			for _, tag := range d.Tags {
				count("tag", tag)
			}
		}
		return true
	})
	return &facetsOutput{Body: facets}, nil
}

// device finds a device, in memory or, when it is brand new, in the bucket.
func (a *API) device(ctx context.Context, id string) (fleet.Device, error) {
	if d, ok := a.deps.Devices.Get(id); ok {
		return d, nil
	}
	return a.deps.Devices.Lookup(ctx, id)
}

func (a *API) getDevice(ctx context.Context, in *deviceInput) (*deviceOutput, error) {
	d, err := a.device(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	counts, err := a.deps.History.Counts(ctx, d.ID)
	if err != nil {
		return nil, unavailable("counts of device "+d.ID, err)
	}
	out := DeviceDetail{
		Device: deviceView(d), Status: a.deviceStatus(d, counts.LastReceivedAt, a.deps.Clock()), LastSeenAt: counts.LastReceivedAt,
		OpenIncident: a.openIncident(d.ID), ReadingsStored: counts.Readings, AuditEventsStored: counts.AuditEvents, DeadLetters: counts.DeadLetters,
		Rules: a.rulesFor(d),
	}
	if q, ok := a.deps.Quarantines.Current(d.ID); ok {
		out.Quarantine = &q
	}
	a.askAbout(ctx, &out)
	return &deviceOutput{Body: out}, nil
}

// askAbout asks brokers and detector at the same time.
func (a *API) askAbout(ctx context.Context, out *DeviceDetail) {
	ctx, cancel := context.WithTimeout(ctx, knowTime)
	defer cancel()
	var asking sync.WaitGroup
	out.ConnectionsUnknown, out.BaselinesUnknown = "not known to this process", "not known to this process"
	if ask := a.deps.Insight.Connections; ask != nil {
		out.ConnectionsUnknown = ""
		asking.Go(func() {
			var err error
			if out.Connections, out.Brokers, err = ask(ctx, out.ID); err != nil {
				out.ConnectionsUnknown = "the broker did not answer in time"
				a.deps.Log.Warn("connections were not listed", "device", out.ID, "error", err)
			}
		})
	}
	if ask := a.deps.Insight.Baselines; ask != nil {
		out.BaselinesUnknown = ""
		asking.Go(func() {
			var err error
			if out.Baselines, err = ask(ctx, out.ID); err != nil {
				out.BaselinesUnknown = "the detector did not answer in time"
				a.deps.Log.Warn("baselines were not read", "device", out.ID, "error", err)
			}
		})
	}
	asking.Wait()
	out.Connections, out.Brokers, out.Baselines = filled(out.Connections), filled(out.Brokers), filled(out.Baselines)
}

func (a *API) rulesFor(d fleet.Device) []DeviceRule {
	rules := []DeviceRule{}
	for _, r := range a.deps.Rules.Rules() {
		if r.Mode == fleet.Off || a.deps.Insight.AppliesTo != nil && !a.deps.Insight.AppliesTo(r, d) {
			continue
		}
		rules = append(rules, DeviceRule{ID: r.ID, Title: r.Title, Kind: r.Kind, Mode: r.Mode, Severity: r.Severity})
	}
	return rules
}

func (a *API) enrollDevice(ctx context.Context, in *enrollInput) (*enrollOutput, error) {
	note(ctx, in.Body.ID, nil, nil)
	if err := mayTouch(caller(ctx), fleet.Device{ID: in.Body.ID, Cohort: cmp.Or(in.Body.Cohort, "default"), Site: in.Body.Site, Tags: in.Body.Tags}); err != nil {
		return nil, err
	}
	if d, err := a.device(ctx, in.Body.ID); err == nil && !caller(ctx).Sees(d) {
		return nil, mayTouch(caller(ctx), d)
	}
	return a.enroll(ctx, identity.Enrolment{
		ID: in.Body.ID, Cohort: in.Body.Cohort, Site: in.Body.Site, Model: in.Body.Model, Firmware: in.Body.Firmware,
		Owner: in.Body.Owner, TimeZone: in.Body.TimeZone, Tags: in.Body.Tags, Historic: in.Body.Historic,
		Credential: fleet.Credential(in.Body.Credential), Maker: in.Body.Maker, Gateway: in.Body.Gateway, HardwareID: in.Body.HardwareID,
	})
}

// renewToken lets a device in again: it replaces its certificate.
func (a *API) renewToken(ctx context.Context, in *deviceInput) (*enrollOutput, error) {
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	return a.enroll(ctx, identity.Enrolment{ID: in.ID, Reissue: true})
}

func (a *API) enroll(ctx context.Context, e identity.Enrolment) (*enrollOutput, error) {
	e.Actor = caller(ctx).Name
	d, token, err := a.deps.Devices.Enroll(ctx, e)
	if err != nil {
		note(ctx, e.ID, nil, nil)
		return nil, err
	}
	view := deviceView(d)
	note(ctx, e.ID, nil, view)
	return &enrollOutput{Body: Enrolled{
		Device: view, Token: token, TokenExpiresAt: d.TokenExpiresAt, Command: a.enrolled(d, token),
	}}, nil
}

// url is where this API is reached.
func (a *API) url() string {
	switch {
	case a.cfg.URL != "":
		return strings.TrimSuffix(a.cfg.URL, "/")
	case a.listener != nil && a.cfg.TLS != nil:
		return "https://" + a.listener.Addr().String()
	case a.listener != nil:
		return "http://" + a.listener.Addr().String()
	}
	return "https://" + a.cfg.HTTP
}

func (a *API) revokeDevice(ctx context.Context, in *deviceReasonInput) (*deviceEntryOutput, error) {
	return a.endDevice(ctx, in, a.deps.Devices.Revoke)
}

func (a *API) retireDevice(ctx context.Context, in *deviceReasonInput) (*deviceEntryOutput, error) {
	return a.endDevice(ctx, in, a.deps.Devices.Retire)
}

func (a *API) endDevice(ctx context.Context, in *deviceReasonInput, end func(ctx context.Context, id, actor, reason string) error) (*deviceEntryOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	before, err := a.device(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := end(ctx, in.ID, caller(ctx).Name, in.Body.Reason); err != nil {
		return nil, err
	}
	after, err := a.deps.Devices.Lookup(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, map[string]any{"state": before.State}, map[string]any{"state": after.State, "reason": in.Body.Reason})
	return &deviceEntryOutput{Body: deviceView(after)}, nil
}
