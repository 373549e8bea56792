package operator

import (
	"slices"
	"strings"

	"cordon/internal/fleet"
)

// Scope narrows what an operator or token sees and touches. Within a list one
// match is enough; every list that is not empty must match. The empty scope is
// the whole fleet.
type Scope struct {
	Sites   []string `json:"sites,omitempty" maxItems:"100"`
	Cohorts []string `json:"cohorts,omitempty" maxItems:"100"`
	Tags    []string `json:"tags,omitempty" maxItems:"100"`
}

// Whole says whether the scope is the whole fleet.
func (s Scope) Whole() bool { return len(s.Sites) == 0 && len(s.Cohorts) == 0 && len(s.Tags) == 0 }

// Allows says whether a device lies within the scope.
func (s Scope) Allows(d fleet.Device) bool {
	return (len(s.Sites) == 0 || slices.Contains(s.Sites, d.Site)) &&
		(len(s.Cohorts) == 0 || slices.Contains(s.Cohorts, d.Cohort)) &&
		(len(s.Tags) == 0 || slices.ContainsFunc(d.Tags, func(tag string) bool { return slices.Contains(s.Tags, tag) }))
}

// String is the scope for people.
func (s Scope) String() string {
	if s.Whole() {
		return "the whole fleet"
	}
	var parts []string
	for _, p := range []struct {
		name string
		list []string
	}{{"site", s.Sites}, {"cohort", s.Cohorts}, {"tag", s.Tags}} {
		if len(p.list) > 0 {
			parts = append(parts, p.name+" "+strings.Join(p.list, " or "))
		}
	}
	return strings.Join(parts, ", ")
}

func (s Scope) check() error {
	for _, list := range [][]string{s.Sites, s.Cohorts, s.Tags} {
		for _, name := range list {
			if name == "" || len(name) > 128 {
				return fleet.Errorf(fleet.CodeInvalid, "a scope names sites, cohorts and tags of 1 to 128 characters").On("body.scope")
			}
		}
	}
	return nil
}

// Scoped says whether the caller sees only a part of the fleet.
func (p Principal) Scoped() bool { return !p.Scope.Whole() || !p.TokenScope.Whole() }

// Sees says whether a device lies within the caller's scope: the operator's
// and, with a token, the token's as well.
func (p Principal) Sees(d fleet.Device) bool { return p.Scope.Allows(d) && p.TokenScope.Allows(d) }
