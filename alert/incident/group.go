package incident

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"cordon/internal/fleet"
)

// Words that a group's key begins with.
const (
	groupActor     = "actor:"
	groupTechnique = "technique:"
	groupSite      = "site:"
	groupFirmware  = "firmware:"
	groupGateway   = "gateway:"
	groupCohort    = "cohort:"
	groupRule      = "rule:"
	groupFlood     = "flood:all"
)

// Prefixes of device tags that this package reads.
const (
	tagCriticality = "criticality:"
	tagGateway     = "gateway:"
)

// maxSightings bounds the memory of what was seen lately.
const (
	maxSightings = 20_000
	maxSeenAt    = 2_000 // devices of one key
)

// group is what findings of several devices have in common.
type group struct {
	key   string
	scope string
	words string // completes "RULE on 12 devices …"
}

// sightings remembers which devices showed which key within the window. It
// only proposes groups: what was applied stands in the incidents, so that a
// restart can forget nothing that counts. At start it is filled from them.
type sightings struct {
	mu     sync.Mutex
	byKey  map[string]map[string]time.Time
	pruned time.Time
}

func (s *sightings) add(key, device string, at time.Time, window time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey == nil {
		s.byKey = map[string]map[string]time.Time{}
	}
	if at.Sub(s.pruned) > window/4 {
		s.pruned = at
		for k, devices := range s.byKey {
			for d, seen := range devices {
				if at.Sub(seen) > window {
					delete(devices, d)
				}
			}
			if len(devices) == 0 {
				delete(s.byKey, k)
			}
		}
	}
	devices := s.byKey[key]
	if devices == nil {
		if len(s.byKey) >= maxSightings {
			return
		}
		devices = map[string]time.Time{}
		s.byKey[key] = devices
	}
	if _, known := devices[device]; known || len(devices) < maxSeenAt {
		devices[device] = at
	}
}

// of returns the devices that showed the key within the window before at.
func (s *sightings) of(key string, at time.Time, window time.Duration) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for d, seen := range s.byKey[key] {
		if age := at.Sub(seen); age <= window && age >= -window {
			out = append(out, d)
		}
	}
	slices.Sort(out)
	return out
}

func (s *Service) device(id string) fleet.Device {
	if s.deps.Device != nil {
		if d, ok := s.deps.Device(id); ok {
			return d
		}
	}
	return fleet.Device{ID: id}
}

// tagValue is what stands behind a prefix among a device's tags.
func tagValue(d fleet.Device, prefix string) string {
	for _, tag := range d.Tags {
		if value, ok := strings.CutPrefix(tag, prefix); ok {
			return value
		}
	}
	return ""
}

// shared are the things that devices can have in common, the narrowest first.
var shared = []struct {
	prefix string
	value  func(fleet.Device) string
	words  string
}{
	{groupGateway, func(d fleet.Device) string { return tagValue(d, tagGateway) }, "behind gateway %s"},
	{groupSite, func(d fleet.Device) string { return d.Site }, "at site %s"},
	{groupFirmware, func(d fleet.Device) string { return d.Firmware }, "with firmware %s"},
	{groupCohort, func(d fleet.Device) string { return d.Cohort }, "of cohort %s"},
}

// silence says whether a finding only says that nothing was heard.
func (s *Service) silence(f fleet.Finding) bool { return slices.Contains(s.cfg.SilenceRules, f.RuleID) }

// candidates are the groups that a finding could belong to, the best first.
func (s *Service) candidates(f fleet.Finding) []group {
	var out []group
	if actor := clip(f.Actor, maxActor); actor != "" {
		out = append(out, group{groupActor + actor, fleet.ScopeCampaign, "by actor " + actor})
	}
	d := s.device(f.Device)
	for _, part := range shared {
		if value := part.value(d); value != "" {
			out = append(out, group{part.prefix + value + "/" + f.RuleID, fleet.ScopeCause, fmt.Sprintf(part.words, value)})
		}
	}
	if f.Technique != "" && !s.silence(f) {
		base := baseTechnique(f.Technique)
		out = append(out, group{groupTechnique + base, fleet.ScopeCampaign, "with technique " + base})
	}
	return append(out, group{groupRule + f.RuleID, fleet.ScopeCause, "at about the same time"})
}

// target says which incident a finding belongs to: the key of a device or of
// a group. Findings about Cordon, of historic devices and of rules' ends stay
// with their device.
func (s *Service) target(f fleet.Finding) (string, group) {
	own := f.Device
	if f.Device == fleet.SystemDevice || s.device(f.Device).Historic || s.cfg.GroupDevices < 0 {
		return own, group{}
	}
	at := received(f, s.now())
	if s.silence(f) && s.view.active(fleet.SystemDevice, at, s.cfg.GroupWindow) {
		return fleet.SystemDevice, group{key: fleet.SystemDevice, scope: fleet.ScopeCause, words: "while Cordon itself was in trouble"}
	}
	list := s.candidates(f)
	if f.Cleared {
		for _, g := range list {
			if s.view.active(g.key, at, 24*time.Hour) && !s.view.has(own, f) {
				return g.key, g
			}
		}
		return own, group{}
	}
	for _, g := range list {
		s.seen.add(g.key, f.Device, at, s.cfg.GroupWindow)
	}
	if s.view.has(own, f) {
		return own, group{}
	}
	for _, g := range append(list, group{groupFlood, fleet.ScopeCause, "in a flood"}) {
		if s.view.active(g.key, at, s.cfg.GroupWindow) || s.view.predated(g.key, f) {
			return g.key, g
		}
	}
	if g, ok := s.propose(f, list, at); ok {
		return g.key, g
	}
	if s.view.newestOpen(own) == "" && s.opened.lastMinute(s.now()) >= s.cfg.FloodPerMinute {
		return groupFlood, group{groupFlood, fleet.ScopeCause, "in a flood"}
	}
	return own, group{}
}

// propose starts a group once enough devices show the same key.
func (s *Service) propose(f fleet.Finding, list []group, at time.Time) (group, bool) {
	ruleDevices := s.seen.of(groupRule+f.RuleID, at, s.cfg.GroupWindow)
	for _, g := range list {
		devices := s.seen.of(g.key, at, s.cfg.GroupWindow)
		need := s.cfg.GroupDevices
		if strings.HasPrefix(g.key, groupActor) {
			need = s.cfg.ActorDevices
		}
		if len(devices) < need {
			continue
		}
		if g.scope == fleet.ScopeCause && !strings.HasPrefix(g.key, groupRule) {
			// One thing explains it only if most of those that show it have it.
			if 10*len(devices) < 8*len(ruleDevices) {
				continue
			}
		}
		return g, true
	}
	return group{}, false
}

// recall fills the sightings from the incidents that are open.
func (s *Service) recall() {
	for _, e := range s.view.snapshot() {
		if e.State == fleet.Resolved || e.Group != "" {
			continue
		}
		for i, rule := range e.Rules {
			f := fleet.Finding{Device: e.Device, RuleID: rule}
			if i < len(e.Techniques) {
				f.Technique = e.Techniques[i]
			}
			if i < len(e.Actors) {
				f.Actor = e.Actors[i]
			}
			for _, g := range s.candidates(f) {
				s.seen.add(g.key, e.Device, e.OpenedAt, s.cfg.GroupWindow)
			}
		}
	}
}

// baseTechnique is a technique without its variant: T1110.003 is T1110.
func baseTechnique(t string) string {
	base, _, _ := strings.Cut(t, ".")
	return base
}

// explained says whether all that an incident holds is what the group is
// about, so that it can become part of it.
func (g group) explained(e *entry) bool {
	name, value, _ := strings.Cut(g.key, ":")
	if i := strings.LastIndexByte(value, '/'); i >= 0 && name != "actor" {
		return len(e.Rules) == 1 && e.Rules[0] == value[i+1:]
	}
	switch name + ":" {
	case groupActor:
		return len(e.Actors) == 1 && e.Actors[0] == value
	case groupTechnique:
		return len(e.Techniques) > 0 && !slices.ContainsFunc(e.Techniques, func(t string) bool { return baseTechnique(t) != value })
	case groupRule:
		return len(e.Rules) == 1 && e.Rules[0] == value
	}
	return false
}

// peers are the incidents that become part of a new group.
func (s *Service) peers(g group, at time.Time) []string {
	var out []string
	for _, device := range s.seen.of(g.key, at, s.cfg.GroupWindow) {
		if e := s.view.openEntry(device); e != nil && e.State == fleet.Open && e.Assignee == "" && e.Group == "" &&
			len(e.quarantines) == 0 && g.explained(e) {
			out = append(out, e.ID)
		}
		if len(out) == maxChildren {
			break
		}
	}
	return out
}

// groupKey names the pointer of an incident: group keys hold what no key of
// a bucket may.
func pointerKey(key string) string {
	if fleet.CheckDeviceID(key) == nil {
		return pointerStart + key
	}
	h := fnv.New128a()
	h.Write([]byte(key))
	return fmt.Sprintf("incident-group.%x", h.Sum(nil))
}

// groupTitle says what happened on how many devices.
func groupTitle(r *record) string {
	what := r.RuleTitle
	if what == "" && len(r.Rules) > 0 {
		what = r.Rules[0]
	}
	if n := len(r.Rules); n > 1 {
		what = fmt.Sprintf("%s and %d other rules", what, n-1)
	}
	return clip(fmt.Sprintf("%s on %d devices %s", what, r.DeviceCount, r.Cause), maxTitle)
}
