package incident

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// MaxPage is the longest page.
const MaxPage = 500

const defaultPage = 50

// Filter selects incidents; empty fields select all. State and Severity take
// comma lists; the state "unresolved" is open and acknowledged. Query is
// searched in id, device, cohort, title, assignee, rules, techniques and
// actors; all of its words must occur. Assignee "-" means nobody.
type Filter struct {
	State    string
	Severity string
	Device   string
	Query    string
	Assignee string
	Scope    string // device, campaign, cause; a comma list
	Tag      string
	Parent   string // the incidents that became part of this one; "-" leaves out all that are part of another
}

// List returns a page of incidents, without timeline and finding ids. sort is
// severity (then newest; the default), opened_at or updated_at; worst and
// newest come first, with ":asc" behind it they come last. A cursor belongs
// to one sort. CodeInvalid names what is wrong.
func (s *Service) List(f Filter, sort, cursor string, limit int) (fleet.Page[fleet.Incident], error) {
	page := fleet.Page[fleet.Incident]{Items: []fleet.Incident{}}
	match, err := f.compile()
	if err != nil {
		return page, err
	}
	order, name, err := ordering(sort)
	if err != nil {
		return page, err
	}
	var after *entry
	if cursor != "" {
		if after, err = readCursor(cursor, name); err != nil {
			return page, err
		}
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, MaxPage)
	var found []*entry
	for _, e := range s.view.snapshot() {
		if !match(e) {
			continue
		}
		page.Total++
		if after == nil || order(e, after) > 0 {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, order)
	for i, e := range found {
		if i == limit {
			page.Next = writeCursor(found[i-1], name)
			break
		}
		page.Items = append(page.Items, e.Incident)
	}
	return page, nil
}

// Summary counts unresolved incidents for the overview.
type Summary struct {
	Unresolved int                    `json:"unresolved"`
	Unassigned int                    `json:"unassigned"`
	BySeverity map[fleet.Severity]int `json:"by_severity"`
}

// Summary counts what is not resolved.
func (s *Service) Summary() Summary {
	sum := Summary{BySeverity: map[fleet.Severity]int{}}
	s.view.mu.RLock()
	defer s.view.mu.RUnlock()
	for _, e := range s.view.open {
		sum.Unresolved++
		sum.BySeverity[e.Severity]++
		if e.Assignee == "" {
			sum.Unassigned++
		}
	}
	return sum
}

func (f Filter) compile() (func(*entry) bool, error) {
	states, err := words("state", f.State, []string{"open", "acknowledged", "resolved", "unresolved", "all"})
	if err != nil {
		return nil, err
	}
	switch {
	case slices.Contains(states, "all"):
		states = nil
	case slices.Contains(states, "unresolved"):
		states = append(states, "open", "acknowledged")
	}
	var known []string
	for _, s := range fleet.Severities {
		known = append(known, string(s))
	}
	severities, err := words("severity", f.Severity, known)
	if err != nil {
		return nil, err
	}
	scopes, err := words("scope", f.Scope, []string{fleet.ScopeDevice, fleet.ScopeCampaign, fleet.ScopeCause})
	if err != nil {
		return nil, err
	}
	query := strings.Fields(strings.ToLower(f.Query))
	if len(query) > 10 || len(f.Query) > 500 {
		return nil, fleet.Errorf(fleet.CodeInvalid, "search for at most 10 words of 500 bytes together").On("q")
	}
	return func(e *entry) bool {
		if len(states) > 0 && !slices.Contains(states, string(e.State)) ||
			len(severities) > 0 && !slices.Contains(severities, string(e.Severity)) ||
			len(scopes) > 0 && !slices.Contains(scopes, cmp.Or(e.Scope, fleet.ScopeDevice)) ||
			f.Device != "" && !e.about(f.Device) ||
			f.Tag != "" && !slices.Contains(e.Tags, f.Tag) ||
			f.Parent == "-" && e.Parent != "" || f.Parent != "" && f.Parent != "-" && e.Parent != f.Parent ||
			f.Assignee == "-" && e.Assignee != "" ||
			f.Assignee != "" && f.Assignee != "-" && e.Assignee != f.Assignee {
			return false
		}
		for _, word := range query {
			if !strings.Contains(e.text, word) {
				return false
			}
		}
		return true
	}, nil
}

func words(field, list string, known []string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	parts := strings.Split(list, ",")
	for i, p := range parts {
		parts[i] = strings.TrimSpace(p)
		if !slices.Contains(known, parts[i]) {
			return nil, fleet.Errorf(fleet.CodeInvalid, "%s %q is not one of %s", field, clip(p, 40), strings.Join(known, ", ")).On(field)
		}
	}
	return parts, nil
}

func ordering(sort string) (order func(a, b *entry) int, name string, err error) {
	name, direction, _ := strings.Cut(strings.TrimPrefix(sort, "-"), ":")
	newest := func(a, b *entry) int { return cmp.Compare(b.Number, a.Number) }
	switch name {
	case "", "severity":
		name = "severity"
		order = func(a, b *entry) int {
			return cmp.Or(cmp.Compare(b.Severity.Rank(), a.Severity.Rank()), b.OpenedAt.Compare(a.OpenedAt), newest(a, b))
		}
	case "opened_at":
		order = func(a, b *entry) int { return cmp.Or(b.OpenedAt.Compare(a.OpenedAt), newest(a, b)) }
	case "updated_at":
		order = func(a, b *entry) int { return cmp.Or(b.UpdatedAt.Compare(a.UpdatedAt), newest(a, b)) }
	default:
		return nil, "", fleet.Errorf(fleet.CodeInvalid, "sort %q is not one of severity, opened_at, updated_at", clip(sort, 40)).On("sort")
	}
	switch direction {
	case "", "desc":
	case "asc":
		down := order
		order, name = func(a, b *entry) int { return down(b, a) }, name+":asc"
	default:
		return nil, "", fleet.Errorf(fleet.CodeInvalid, "sort direction %q is not asc or desc", clip(direction, 40)).On("sort")
	}
	return order, name, nil
}

// A cursor holds what its sort compares, so that it stays right when entries
// change or go.
func writeCursor(e *entry, sort string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf("%s %d %d %d %d",
		sort, e.Severity.Rank(), e.OpenedAt.UnixNano(), e.UpdatedAt.UnixNano(), e.Number)))
}

func readCursor(cursor, sort string) (*entry, error) {
	bad := fleet.Errorf(fleet.CodeInvalid, "the cursor is not one of this list; start again without it").On("cursor")
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	parts := strings.Fields(string(raw))
	if err != nil || len(parts) != 5 || parts[0] != sort {
		return nil, bad
	}
	var n [4]int64
	for i := range n {
		if n[i], err = strconv.ParseInt(parts[i+1], 10, 64); err != nil {
			return nil, bad
		}
	}
	if n[0] < 0 || n[0] > int64(len(fleet.Severities)) || n[3] < 0 {
		return nil, bad
	}
	e := &entry{}
	if n[0] > 0 {
		e.Severity = fleet.Severities[n[0]-1]
	}
	e.OpenedAt, e.UpdatedAt = time.Unix(0, n[1]).UTC(), time.Unix(0, n[2]).UTC()
	e.Number = uint64(n[3])
	return e, nil
}
