package incident

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// Bounds of one incident.
const (
	maxFindingIDs    = 200
	maxTimeline      = 200
	maxTimelineBytes = 256 << 10
	maxActors        = 100
	maxRules         = 100
	maxTechniques    = 100
	maxPairs         = 200
	maxQuarantines   = 20
	maxOutbox        = 500
	maxTitle         = 300
	maxText          = 500
	maxActor         = 256
	maxEvidence      = 20
	maxMessage       = 1000
	maxDevices       = 1000
	maxChildren      = 200
	maxSeen          = 4096   // findings that a group remembers, by hash
	maxDeviceHashes  = 50_000 // devices that a group tells apart
)

// Actor is who acts when nobody in particular does.
const Actor = "cordon"

// Names of changes; the same words are timeline kinds unless said otherwise.
const (
	ChangeOpened       = "opened"
	ChangeEscalated    = "escalated" // timeline kind: severity
	ChangeFinding      = "finding"
	ChangeAcknowledged = "acknowledged"
	ChangeAssigned     = "assigned"
	ChangeComment      = "comment"
	ChangeQuarantined  = "quarantined" // timeline kind: quarantine
	ChangeReleased     = "released"
	ChangeResolved     = "resolved"
	ChangeReopened     = "reopened"
	ChangeMerged       = "merged"   // became part of another incident
	ChangeFlapping     = "flapping" // its findings come and go
	ChangeTagged       = "tagged"   // tags or the ticket changed
)

// kindCleared is the timeline kind of a finding that is over.
const kindCleared = "cleared"

// record is an entry of the bucket: the incident as everybody sees it, and
// what only this package needs to apply each thing once.
type record struct {
	fleet.Incident
	Changes     uint64    `json:"changes"`               // number of the newest change
	Outbox      []pending `json:"outbox,omitempty"`      // changes that are not published yet
	Pairs       []string  `json:"pairs,omitempty"`       // (rule, actor) pairs seen
	FleetSeq    uint64    `json:"fleet_seq"`             // highest StreamSeq of a finding
	Quarantines []noted   `json:"quarantines,omitempty"` // quarantine states in the timeline
	Worst       string    `json:"worst_finding"`         // the finding behind title and severity
	Ended       []string  `json:"ended,omitempty"`       // pairs whose finding was cleared
	Flaps       []int64   `json:"flaps,omitempty"`       // when pairs came back, Unix seconds
	// Of groups: hashes of the newest findings and of all devices, what the
	// title begins with, and incidents that are to become part of it.
	Seen         []byte   `json:"seen,omitempty"`
	DeviceHashes []byte   `json:"device_hashes,omitempty"`
	RuleTitle    string   `json:"rule_title,omitempty"`
	Absorb       []string `json:"absorb,omitempty"`

	told uint64 // number of the newest change that is written: those may have been seen
}

// pending is a change that waits to be published.
type pending struct {
	Number  uint64         `json:"number"`
	Change  string         `json:"change"`
	Actor   string         `json:"actor"`
	Finding *fleet.Finding `json:"finding,omitempty"`
}

// noted is the last state of a quarantine that the timeline tells.
type noted struct {
	ID    string                `json:"id"`
	State fleet.QuarantineState `json:"state"`
	Told  bool                  `json:"told"` // its change "quarantined" went out
}

// arrival is a finding with its place on FINDINGS.
type arrival struct {
	finding fleet.Finding
	seq     uint64
}

// key names what the incident is about: its device or its group.
func (r *record) key() string { return keyOf(&r.Incident) }

func keyOf(i *fleet.Incident) string {
	if i.Group != "" {
		return i.Group
	}
	return i.Device
}

// grouped says whether findings of several devices may be in it.
func (r *record) grouped() bool { return r.Scope == fleet.ScopeCampaign || r.Scope == fleet.ScopeCause }

func newRecord(number uint64, first arrival, now time.Time, d fleet.Device, g group) *record {
	f := first.finding
	r := &record{Incident: fleet.Incident{
		ID: fleet.IncidentID(number), Number: number, Device: f.Device, Cohort: f.Cohort,
		Severity: f.Severity, State: fleet.Open, Title: title(f),
		Rules: []string{}, FindingIDs: []string{},
		FirstAt: f.WindowStart, LastAt: f.WindowEnd, OpenedAt: received(f, now), UpdatedAt: now,
		Scope: fleet.ScopeDevice, Site: d.Site, Tags: incidentTags(d),
	}, Worst: f.ID}
	if g.key != "" {
		r.Scope, r.Group, r.Cause, r.RuleTitle = g.scope, g.key, g.words, clip(f.RuleTitle, maxTitle)
	}
	r.Severity = ""
	r.Severity = r.addRisk(f, received(f, now), 1, weight(d))
	r.count(first, now)
	r.Pairs = append(r.Pairs, r.pair(f))
	if r.grouped() {
		r.Title = groupTitle(r)
	}
	r.note(received(f, now), ChangeOpened, ruleActor(f), r.Title)
	r.tell(ChangeOpened, ruleActor(f), &f)
	return r
}

// incidentTags are the device's tags, bounded.
func incidentTags(d fleet.Device) []string {
	var out []string
	for _, tag := range d.Tags {
		out = addUnique(out, clip(tag, MaxTag), MaxTags)
	}
	return out
}

func received(f fleet.Finding, now time.Time) time.Time {
	if f.ReceivedAt.IsZero() {
		return now
	}
	return f.ReceivedAt
}

func title(f fleet.Finding) string {
	for _, text := range []string{f.Explanation.Sentence, f.RuleTitle, f.RuleID} {
		if text = clip(text, maxTitle); text != "" {
			return text
		}
	}
	return "finding"
}

func ruleActor(f fleet.Finding) string { return "rule:" + f.RuleID }

func pairOf(f fleet.Finding) string { return f.RuleID + "\x1f" + clip(f.Actor, maxActor) }

// pair is what makes a finding new to the incident. To a group another actor
// or device is nothing new: that many do it is what the group says.
func (r *record) pair(f fleet.Finding) string {
	if r.grouped() {
		return f.RuleID + "\x1f"
	}
	return pairOf(f)
}

// knows says whether the finding was counted before: by its id, or, when it
// is older than the ids that are kept, by its place on the FLEET log and in
// event time.
func (r *record) knows(a arrival) bool {
	if slices.Contains(r.FindingIDs, a.finding.ID) {
		return true
	}
	if r.grouped() {
		return hashIn(r.Seen, hash64(a.finding.ID), 8)
	}
	if r.Findings <= maxFindingIDs {
		return false
	}
	return a.seq <= r.AppliedSeq ||
		a.finding.StreamSeq <= r.FleetSeq && !a.finding.WindowEnd.After(r.LastAt)
}

// predates says whether the finding belongs to the time before the incident
// was resolved. Historic devices tell of the past at any time, so theirs are
// compared with the event time of the incident itself.
func (r *record) predates(a arrival, historic bool) bool {
	if r.knows(a) {
		return true
	}
	if historic {
		return !a.finding.WindowEnd.After(r.LastAt)
	}
	return !a.finding.WindowEnd.After(r.ResolvedAt)
}

// attach adds a finding to an unresolved incident and says whether anything
// changed.
func (r *record) attach(a arrival, now time.Time, d fleet.Device) bool {
	f := a.finding
	if f.Cleared {
		return r.clear(a, now)
	}
	if r.knows(a) {
		return false
	}
	at := received(f, now)
	newRule := !slices.Contains(r.Rules, f.RuleID)
	devices := r.DeviceCount
	r.count(a, now)
	pair := r.pair(f)
	fresh := !slices.Contains(r.Pairs, pair) && len(r.Pairs) < maxPairs
	if fresh {
		r.Pairs = append(r.Pairs, pair)
	}
	share := 0.0
	switch {
	case newRule:
		share = 1
	case fresh || r.DeviceCount > devices:
		share = sameRuleShare
	}
	severity := r.addRisk(f, at, share, weight(d))
	if i := slices.Index(r.Ended, pair); i >= 0 {
		r.Ended = slices.Delete(r.Ended, i, i+1)
		if r.flap(at) {
			r.note(at, ChangeFlapping, ruleActor(f), fmt.Sprintf("flapping: %s came back %d times within %s", f.RuleID, flapCount, flapWindow))
			r.tell(ChangeFlapping, ruleActor(f), &f)
		}
	}
	grown := r.grouped() && decade(r.DeviceCount) > decade(devices)
	switch {
	case severity.Rank() > r.Severity.Rank():
		before := r.Severity
		r.Severity = severity
		if r.grouped() {
			r.Worst = f.ID
		} else if f.Severity.Rank() > before.Rank() || r.Worst == "" {
			r.Title, r.Worst = title(f), f.ID
		}
		r.retitle()
		r.note(at, "severity", ruleActor(f), fmt.Sprintf("%s → %s: %s", before, severity, title(f)))
		if !r.fold(&f, ChangeOpened, ChangeEscalated) {
			r.tell(ChangeEscalated, ruleActor(f), &f)
		}
	case fresh || grown:
		r.retitle()
		text := title(f)
		if grown {
			text = r.Title
		}
		r.note(at, ChangeFinding, ruleActor(f), text)
		if !r.fold(nil, ChangeOpened, ChangeEscalated, ChangeFinding) {
			r.tell(ChangeFinding, ruleActor(f), &f)
		}
	}
	r.retitle()
	return true
}

// retitle brings the title of a group up to date.
func (r *record) retitle() {
	if r.grouped() {
		r.Title = groupTitle(r)
	}
}

func decade(n int) int {
	out := 0
	for ; n >= 10; n /= 10 {
		out++
	}
	return out
}

// fold lets a change of the same batch stand for this one too: one message
// about the worst finding instead of several. Changes written before are
// promises that someone may have seen, and stay as they are.
func (r *record) fold(worst *fleet.Finding, changes ...string) bool {
	for i := len(r.Outbox) - 1; i >= 0; i-- {
		p := &r.Outbox[i]
		if p.Number <= r.told {
			return false
		}
		if slices.Contains(changes, p.Change) {
			if worst != nil {
				p.Finding, p.Actor = bounded(worst), ruleActor(*worst)
			}
			return true
		}
	}
	return false
}

func (r *record) clear(a arrival, now time.Time) bool {
	f := a.finding
	at := received(f, now).UTC()
	if !slices.Contains(r.Pairs, r.pair(f)) || a.seq <= r.AppliedSeq || slices.ContainsFunc(r.Timeline, func(e fleet.TimelineEntry) bool {
		return e.Kind == kindCleared && e.At.Equal(at) && e.Actor == ruleActor(f)
	}) {
		return false
	}
	r.AppliedSeq, r.UpdatedAt = a.seq, now
	r.Ended = addUnique(r.Ended, r.pair(f), maxPairs)
	if len(r.Flaps) == 0 || !r.Flapping { // what comes and goes is not told each time
		r.note(at, kindCleared, ruleActor(f), title(f))
	}
	return true
}

// count adds what every attached finding adds.
func (r *record) count(a arrival, now time.Time) {
	f := a.finding
	r.Findings++
	r.FindingIDs = append(r.FindingIDs, f.ID)
	if over := len(r.FindingIDs) - maxFindingIDs; over > 0 {
		r.FindingIDs = slices.Delete(r.FindingIDs, 0, over)
	}
	r.Rules = addUnique(r.Rules, f.RuleID, maxRules)
	r.Techniques = addUnique(r.Techniques, f.Technique, maxTechniques)
	r.Actors = addUnique(r.Actors, clip(f.Actor, maxActor), maxActors)
	if r.grouped() {
		r.Seen = keepHash(r.Seen, hash64(f.ID), 8, maxSeen)
		r.include(f.Device)
	}
	if f.WindowStart.Before(r.FirstAt) {
		r.FirstAt = f.WindowStart
	}
	if f.WindowEnd.After(r.LastAt) {
		r.LastAt = f.WindowEnd
	}
	if f.Cohort != "" {
		r.Cohort = f.Cohort
	}
	r.UpdatedAt = now
	r.FleetSeq = max(r.FleetSeq, f.StreamSeq)
	r.AppliedSeq = max(r.AppliedSeq, a.seq)
}

// include counts a device of a group once.
func (r *record) include(device string) {
	h := hash64(device)[:4]
	if hashIn(r.DeviceHashes, h, 4) {
		return
	}
	if len(r.DeviceHashes) < 4*maxDeviceHashes {
		r.DeviceHashes = append(r.DeviceHashes, h...)
	}
	r.DeviceCount++
	r.Devices = addUnique(r.Devices, device, maxDevices)
}

func hash64(text string) []byte {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hashIn(list, h []byte, size int) bool {
	want := binary.BigEndian.Uint32(h)
	for i := 0; i+size <= len(list); i += size {
		if binary.BigEndian.Uint32(list[i:]) == want && string(list[i:i+size]) == string(h) {
			return true
		}
	}
	return false
}

func keepHash(list, h []byte, size, limit int) []byte {
	list = append(list, h...)
	if over := len(list) - size*limit; over > 0 {
		list = append([]byte(nil), list[over:]...)
	}
	return list
}

// tell puts a change into the outbox.
func (r *record) tell(change, actor string, finding *fleet.Finding) {
	r.Changes++
	r.Outbox = append(r.Outbox, pending{Number: r.Changes, Change: change, Actor: actor, Finding: bounded(finding)})
}

// note adds a timeline entry. When there are too many, findings go first and
// the opening stays: what people did and said is kept longest.
func (r *record) note(at time.Time, kind, actor, text string) {
	r.Timeline = append(r.Timeline, fleet.TimelineEntry{At: at.UTC(), Kind: kind, Actor: clip(actor, maxActor), Text: text})
	size := 0
	for _, e := range r.Timeline {
		size += len(e.Text) + len(e.Actor)
	}
	for len(r.Timeline) > maxTimeline || size > maxTimelineBytes && len(r.Timeline) > 2 {
		i := slices.IndexFunc(r.Timeline[1:], func(e fleet.TimelineEntry) bool {
			return e.Kind == ChangeFinding || e.Kind == kindCleared
		}) + 1
		if i == 0 {
			i = 1
		}
		size -= len(r.Timeline[i].Text) + len(r.Timeline[i].Actor)
		r.Timeline = slices.Delete(r.Timeline, i, i+1)
	}
}

// change is what goes out for one entry of the outbox.
func (r *record) change(p pending) fleet.IncidentChange {
	return fleet.IncidentChange{
		ID: changeID(r.ID, p.Number), Change: p.Change, Incident: r.Incident, Finding: p.Finding, Actor: p.Actor,
	}
}

func changeID(incident string, number uint64) string { return fmt.Sprintf("%s.%d", incident, number) }

// bounded copies a finding with its evidence cut to what a message may carry.
func bounded(f *fleet.Finding) *fleet.Finding {
	if f == nil {
		return nil
	}
	c := *f
	c.Actor = clip(c.Actor, maxActor)
	c.Explanation.Sentence = clip(c.Explanation.Sentence, maxMessage)
	if n := len(c.Explanation.Readings); n > maxEvidence {
		c.Explanation.Readings = c.Explanation.Readings[n-maxEvidence:]
	}
	events := c.Explanation.Events
	if n := len(events); n > maxEvidence {
		events = events[n-maxEvidence:]
	}
	c.Explanation.Events = slices.Clone(events)
	for i := range c.Explanation.Events {
		e := &c.Explanation.Events[i]
		e.Message = clip(e.Message, maxMessage)
		if len(e.Fields) > maxEvidence {
			e.Fields = nil
		}
	}
	return &c
}

func addUnique(list []string, value string, limit int) []string {
	if value == "" || len(list) >= limit || slices.Contains(list, value) {
		return list
	}
	return append(list, value)
}

// clip makes text one line of at most n runes.
func clip(text string, n int) string {
	text = strings.Join(strings.Fields(strings.Map(printable, strings.ToValidUTF8(text, "�"))), " ")
	if len(text) <= n {
		return text
	}
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n-1]) + "…"
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
