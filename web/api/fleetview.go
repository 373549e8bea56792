package api

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/operator"
)

const (
	viewAge   = 2 * time.Second
	ingestAge = 5 * time.Second
	maxCells  = 500
	maxOpen   = 20_000 // unresolved incidents that are looked at
)

// view is the state of the whole fleet, counted once for everybody who looks
// within two seconds.
type view struct {
	api *API

	mu       sync.Mutex
	snapshot snapshot
	stale    bool

	ingestMu sync.Mutex
	rate     IngestHealth
	rateAt   time.Time
}

// snapshot is the fleet at one instant.
type snapshot struct {
	at         time.Time
	lastSeen   map[string]time.Time
	seenAt     time.Time
	open       []fleet.Incident // unresolved, the worst first
	health     FleetHealth
	incidents  IncidentHealth
	quarantine QuarantineHealth
	held       map[string]fleet.Quarantine // active, by device
	cells      []Cell
}

func newView(a *API) *view { return &view{api: a} }

// expire makes the next look count again.
func (v *view) expire() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stale = true
}

// get returns a snapshot that is at most two seconds old, or one made after
// the last change that was heard of (but at most four a second).
func (v *view) get(ctx context.Context) snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.api.deps.Clock()
	age := now.Sub(v.snapshot.at)
	if v.snapshot.at.IsZero() || age > viewAge || age < 0 || v.stale && age > viewAge/8 {
		v.snapshot = v.count(ctx, now)
		v.stale = false
	}
	return v.snapshot
}

// of is the part of the fleet that the caller sees.
func (v *view) of(ctx context.Context, p operator.Principal) snapshot {
	whole := v.get(ctx)
	if !p.Scoped() {
		return whole
	}
	sees := v.api.sees(p)
	s := snapshot{at: whole.at, lastSeen: whole.lastSeen, seenAt: whole.seenAt, held: map[string]fleet.Quarantine{}}
	for id, q := range whole.held {
		if sees(id) {
			s.held[id] = q
			s.quarantine.add(q)
		}
	}
	worst := map[string]fleet.Severity{}
	for _, i := range whole.open {
		if sees(i.Device) {
			s.open = append(s.open, i)
			s.incidents.add(i)
			worst[i.Device] = worst[i.Device].Worse(i.Severity)
		}
	}
	v.countDevices(&s, worst, p)
	return s
}

func (v *view) count(ctx context.Context, now time.Time) snapshot {
	s := snapshot{at: now, lastSeen: v.snapshot.lastSeen, seenAt: v.snapshot.seenAt, held: map[string]fleet.Quarantine{}}
	if s.lastSeen == nil || now.Sub(s.seenAt) > viewAge {
		seen, err := v.api.deps.History.LastSeen(ctx)
		if err == nil {
			s.lastSeen, s.seenAt = seen, now
		} else {
			// Its stage says so; the rest of the picture is still worth showing.
			v.api.deps.Log.Debug("last seen times were not read", "error", err)
		}
	}
	for _, q := range v.api.deps.Quarantines.List() {
		if q.Active() {
			s.held[q.Device] = q
			s.quarantine.add(q)
		}
	}
	s.open = v.unresolved()
	worst := map[string]fleet.Severity{}
	for _, i := range s.open {
		s.incidents.add(i)
		worst[i.Device] = worst[i.Device].Worse(i.Severity)
	}
	v.countDevices(&s, worst, operator.Principal{})
	for _, stage := range v.api.stages(ctx) {
		if stage.Stage == "detect" {
			s.health.Learning = int(stage.Counters["devices_learning"])
		}
	}
	return s
}

func (v *view) countDevices(s *snapshot, worst map[string]fleet.Severity, p operator.Principal) {
	type place struct{ cohort, site string }
	cells := map[place]*Cell{}
	v.api.deps.Devices.All(func(d fleet.Device) bool {
		if !p.Sees(d) {
			return true
		}
		status := v.api.deviceStatus(d, s.lastSeen[d.ID], s.at)
		s.health.add(status)
		if status == StatusRetired {
			return true
		}
		key := place{d.Cohort, d.Site}
		cell := cells[key]
		if cell == nil {
			cell = &Cell{Cohort: d.Cohort, Site: d.Site}
			cells[key] = cell
		}
		cell.Total++
		if status == StatusSilent {
			cell.Silent++
		}
		if _, held := s.held[d.ID]; held {
			cell.Quarantined++
			s.health.Quarantined++
		}
		if severity := worst[d.ID]; severity != "" {
			cell.Incidents++
			cell.Worst = cell.Worst.Worse(severity)
		}
		return true
	})
	s.cells = make([]Cell, 0, len(cells))
	for _, c := range cells {
		s.cells = append(s.cells, *c)
	}
	slices.SortFunc(s.cells, func(a, b Cell) int {
		return cmp.Or(
			cmp.Compare(b.Worst.Rank(), a.Worst.Rank()), cmp.Compare(b.Quarantined, a.Quarantined), cmp.Compare(b.Silent, a.Silent),
			cmp.Compare(a.Cohort, b.Cohort), cmp.Compare(a.Site, b.Site),
		)
	})
	s.cells = s.cells[:min(len(s.cells), maxCells)]
}

// unresolved reads every incident that is not resolved, the worst first.
func (v *view) unresolved() []fleet.Incident {
	var all []fleet.Incident
	for cursor := ""; len(all) < maxOpen; {
		p, err := v.api.deps.Incidents.List(IncidentFilter{State: "unresolved"}, "severity", cursor, 500)
		if err != nil {
			v.api.deps.Log.Warn("incidents were not read", "error", err)
			return all
		}
		all = append(all, p.Items...)
		if cursor = p.Next; cursor == "" {
			break
		}
	}
	return all
}

// ingest says how the pipe runs; without ClickHouse the last answer stands.
func (v *view) ingest(ctx context.Context) IngestHealth {
	v.ingestMu.Lock()
	defer v.ingestMu.Unlock()
	now := v.api.deps.Clock().UTC()
	if !v.rateAt.IsZero() && now.Sub(v.rateAt) < ingestAge && !now.Before(v.rateAt) {
		return v.rate
	}
	next := IngestHealth{Series: []RatePoint{}, DeadLetters24h: v.rate.DeadLetters24h}
	points, err := v.api.deps.History.IngestRate(ctx, now.Add(-time.Hour).Truncate(time.Minute), now, time.Minute)
	if err != nil {
		v.api.deps.Log.Debug("ingest rate was not read", "error", err)
		next.Series = filled(v.rate.Series)
	}
	for _, p := range points {
		next.Series = append(next.Series, RatePoint{At: p.At, Readings: p.Readings})
	}
	if dead, err := v.api.deps.History.DeadLetterCount(ctx, now.Add(-24*time.Hour), now); err == nil {
		next.DeadLetters24h = dead
	}
	next.ReadingsPerSecond = v.lately(ctx, now)
	for _, stage := range v.api.stages(ctx) {
		if stage.Stage != "ingest" {
			continue
		}
		next.LagSeconds = stage.LagSeconds
	}
	v.rate, v.rateAt = next, now
	return next
}

// lately is how many readings a second were stored over the last half minute.
func (v *view) lately(ctx context.Context, now time.Time) float64 {
	const step = 10 * time.Second
	to := now.Truncate(step)
	points, err := v.api.deps.History.IngestRate(ctx, to.Add(-3*step), to, step)
	if err != nil || len(points) == 0 {
		return 0
	}
	var readings uint64
	for _, p := range points {
		readings += p.Readings
	}
	return float64(readings) / (float64(len(points)) * step.Seconds())
}

func (h *FleetHealth) add(status string) {
	h.Total++
	switch status {
	case StatusReporting:
		h.Reporting++
	case StatusSilent:
		h.Silent++
	case StatusNeverSeen:
		h.NeverSeen++
	case StatusRetired:
		h.Retired++
	case StatusHistoric:
		h.Historic++
	}
}

func (h *QuarantineHealth) add(q fleet.Quarantine) {
	h.Active++
	switch q.State {
	case fleet.Confirmed:
		h.Confirmed++
		took := q.ConfirmedAt.Sub(q.RequestedAt)
		h.SlowestMS = max(h.SlowestMS, float64(took.Microseconds())/1000)
	case fleet.Failed:
		h.Failed++
	}
}

func (h *IncidentHealth) add(i fleet.Incident) {
	h.Open++
	h.BySeverity.add(i.Severity)
	if i.State == fleet.Acknowledged {
		h.Acknowledged++
	}
	if i.Assignee == "" {
		h.Unassigned++
	}
	if h.OldestAt.IsZero() || i.OpenedAt.Before(h.OldestAt) {
		h.OldestAt = i.OpenedAt
	}
}

// deviceStatus says what a device does now.
func (a *API) deviceStatus(d fleet.Device, seen, now time.Time) string {
	switch {
	case d.State == fleet.Retired || d.State == fleet.Revoked:
		return StatusRetired
	case d.Historic:
		return StatusHistoric
	case seen.IsZero():
		return StatusNeverSeen
	case now.Sub(seen) <= a.cfg.SilentAfter:
		return StatusReporting
	}
	return StatusSilent
}

// stages asks every stage how it is doing.
func (a *API) stages(ctx context.Context) []fleet.StageStatus {
	if a.deps.Insight.Stages == nil {
		return []fleet.StageStatus{}
	}
	return filled(a.deps.Insight.Stages(ctx))
}
