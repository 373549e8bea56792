package identity

import (
	"cmp"
	"encoding/base64"
	"slices"
	"strings"

	"cordon/internal/fleet"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// Filter selects devices; empty fields select all. Query is found anywhere in
// id, cohort, site, model, firmware, owner and tags, whatever its case; Tags
// must all be there.
type Filter struct {
	Cohort, Site, Model, Query string

	State fleet.DeviceState
	Tags  []string
}

// Get reads a device from memory.
func (r *Registry) Get(id string) (fleet.Device, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	h, ok := r.devices[id]
	if !ok {
		return fleet.Device{}, false
	}
	return h.device, true
}

// Count is the number of devices in memory.
func (r *Registry) Count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.devices)
}

// All calls visit for every device, sorted by id, until it returns false.
// visit must not call the registry.
func (r *Registry) All(visit func(fleet.Device) bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, h := range r.sorted {
		if !visit(h.device) {
			return
		}
	}
}

// List returns a page of devices. sort is id (default), cohort, site, model,
// state or enrolled_at, with a leading - for descending; ties go by id. The
// cursor is opaque. Token hashes are left out. Codes: invalid (sort, cursor).
func (r *Registry) List(filter Filter, sort, cursor string, limit int) (fleet.Page[fleet.Device], error) {
	page := fleet.Page[fleet.Device]{Items: []fleet.Device{}}
	order, err := parseOrder(sort)
	if err != nil {
		return page, err
	}
	after, err := parseCursor(cursor)
	if err != nil {
		return page, err
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	filter.Query = strings.ToLower(filter.Query)

	r.mu.RLock()
	defer r.mu.RUnlock()
	if filter.empty() && (sort == "" || sort == "id") {
		return r.listAll(page, after, limit), nil
	}
	var found []place
	for _, h := range r.sorted {
		if filter.match(h) {
			found = append(found, place{position{order.key(&h.device), h.device.ID}, h})
		}
	}
	page.Total = uint64(len(found))
	if sort != "" && sort != "id" { // else it is sorted already
		slices.SortFunc(found, func(a, b place) int { return order.compare(a.position, b.position) })
	}
	start := 0
	if after != nil {
		at, exact := slices.BinarySearchFunc(found, *after, func(p place, to position) int { return order.compare(p.position, to) })
		start = at
		if exact {
			start++
		}
	}
	end := min(start+limit, len(found))
	for _, p := range found[start:end] {
		page.Items = append(page.Items, Public(p.held.device))
	}
	if end < len(found) {
		page.Next = found[end-1].cursor()
	}
	return page, nil
}

// place is a device at its position.
type place struct {
	position
	held *held
}

// listAll is the page of an unfiltered list by id, whatever the size of the
// fleet.
func (r *Registry) listAll(page fleet.Page[fleet.Device], after *position, limit int) fleet.Page[fleet.Device] {
	start := 0
	if after != nil {
		at, exact := r.search(after.id)
		start = at
		if exact {
			start++
		}
	}
	end := min(start+limit, len(r.sorted))
	for _, h := range r.sorted[start:end] {
		page.Items = append(page.Items, Public(h.device))
	}
	page.Total = uint64(len(r.sorted))
	if end < len(r.sorted) {
		page.Next = position{"", r.sorted[end-1].device.ID}.cursor()
	}
	return page
}

func (f Filter) empty() bool {
	return f.Cohort == "" && f.Site == "" && f.Model == "" && f.Query == "" && f.State == "" && len(f.Tags) == 0
}

// Public is the device without what never leaves the registry.
func Public(d fleet.Device) fleet.Device {
	d.TokenHash = ""
	return d
}

// position is a device's place in an order.
type position struct{ key, id string }

func (p position) cursor() string {
	return base64.RawURLEncoding.EncodeToString([]byte(p.key + "\x00" + p.id))
}

func parseCursor(cursor string) (*position, error) {
	if cursor == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	key, id, ok := strings.Cut(string(raw), "\x00")
	if err != nil || !ok {
		return nil, fleet.Errorf(fleet.CodeInvalid, "cursor was not made by this list").On("cursor")
	}
	return &position{key, id}, nil
}

type order struct {
	key  func(*fleet.Device) string
	sign int
}

func (o order) compare(a, b position) int {
	if c := cmp.Compare(a.key, b.key) * o.sign; c != 0 {
		return c
	}
	if o.sign < 0 {
		return cmp.Compare(b.id, a.id)
	}
	return cmp.Compare(a.id, b.id)
}

func parseOrder(sort string) (order, error) {
	o := order{sign: 1}
	if rest, ok := strings.CutPrefix(sort, "-"); ok {
		sort, o.sign = rest, -1
	}
	switch sort {
	case "", "id":
		o.key = func(*fleet.Device) string { return "" }
	case "cohort":
		o.key = func(d *fleet.Device) string { return d.Cohort }
	case "site":
		o.key = func(d *fleet.Device) string { return d.Site }
	case "model":
		o.key = func(d *fleet.Device) string { return d.Model }
	case "state":
		o.key = func(d *fleet.Device) string { return string(d.State) }
	case "enrolled_at":
		o.key = func(d *fleet.Device) string { return d.EnrolledAt.UTC().Format("2006-01-02T15:04:05.000000000") }
	default:
		return o, fleet.Errorf(fleet.CodeInvalid, "sort %q is not one of id, cohort, site, model, state, enrolled_at, or - and one of them", sort).On("sort")
	}
	return o, nil
}

func (f Filter) match(h *held) bool {
	d := &h.device
	if f.Cohort != "" && f.Cohort != d.Cohort || f.Site != "" && f.Site != d.Site ||
		f.Model != "" && f.Model != d.Model || f.State != "" && f.State != d.State {
		return false
	}
	for _, tag := range f.Tags {
		if !slices.Contains(d.Tags, tag) {
			return false
		}
	}
	return f.Query == "" || strings.Contains(h.text, f.Query)
}

// Facets counts devices by cohort, site, model, state and tag. The maps are
// shared: callers must not change them.
func (r *Registry) Facets() map[string]map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.facets != nil && r.facetsAt == r.version {
		return r.facets
	}
	cohorts, sites, models, states, tags := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	for _, h := range r.devices {
		cohorts[h.device.Cohort]++
		sites[h.device.Site]++
		models[h.device.Model]++
		states[string(h.device.State)]++
		for _, tag := range h.device.Tags {
			tags[tag]++
		}
	}
	facets := map[string]map[string]int{"cohort": cohorts, "site": sites, "model": models, "state": states, "tag": tags}
	for _, counts := range facets {
		delete(counts, "")
	}
	r.facets, r.facetsAt = facets, r.version
	return facets
}
