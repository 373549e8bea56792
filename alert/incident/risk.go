package incident

import (
	"slices"
	"time"

	"cordon/internal/fleet"
)

// points is what one finding adds to the risk of what it is about.
var points = map[fleet.Severity]float64{
	fleet.Informational: 2, fleet.Low: 8, fleet.Medium: 20, fleet.High: 50, fleet.Critical: 100,
}

// sameRuleShare is what is left of the points of a finding that says little
// new: another actor or device for a rule that spoke already. The same again
// adds nothing; it only keeps the risk from fading.
const sameRuleShare = 0.2

// weights of the tag criticality:<word>.
var weights = map[string]float64{"low": 0.5, "medium": 1, "high": 1.5, "critical": 2}

// weight of a device: what its loss would mean.
func weight(d fleet.Device) float64 {
	if w, ok := weights[tagValue(d, tagCriticality)]; ok {
		return w
	}
	return 1
}

// severityOf turns risk into words.
func severityOf(risk float64) fleet.Severity {
	out := fleet.Informational
	for _, s := range fleet.Severities {
		if risk >= points[s]-1e-9 {
			out = s
		}
	}
	return out
}

// addRisk lets a finding count and says which severity the incident has now.
// It is never milder than before: only people close what was bad. A device of
// low criticality can make it one step milder than its worst finding, no more.
func (r *record) addRisk(f fleet.Finding, at time.Time, share, weight float64) fleet.Severity {
	whole := points[f.Severity] * weight
	r.Risk, r.RiskAt = max(r.RiskNow(at)+whole*share, whole), later(r.RiskAt, at)
	floor := f.Severity
	if weight < 1 && floor.Rank() > 1 {
		floor = fleet.Severities[floor.Rank()-2]
	}
	return r.Severity.Worse(floor).Worse(severityOf(r.Risk))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Risk is what the incidents of one device add up to.
type Risk struct {
	Device    string         `json:"device"`
	Score     float64        `json:"score"`
	Severity  fleet.Severity `json:"severity"`
	Incidents []string       `json:"incidents"` // that count
}

// Risks lists devices by risk, the worst first. What people found to be
// benign or a false positive does not count.
func (s *Service) Risks(limit int) []Risk {
	now := s.now()
	byDevice := map[string]*Risk{}
	for _, e := range s.view.snapshot() {
		if e.Parent != "" || e.Verdict == fleet.Benign || e.Verdict == fleet.FalsePositive {
			continue
		}
		score := e.RiskNow(now)
		if score < 1 {
			continue
		}
		devices := []string{e.Device}
		if e.Group != "" && len(e.Devices) > 0 {
			devices, score = e.Devices, score/float64(max(e.DeviceCount, 1))
		}
		for _, d := range devices {
			r := byDevice[d]
			if r == nil {
				r = &Risk{Device: d}
				byDevice[d] = r
			}
			r.Score += score
			r.Incidents = append(r.Incidents, e.ID)
		}
	}
	out := make([]Risk, 0, len(byDevice))
	for _, r := range byDevice {
		r.Severity = severityOf(r.Score)
		slices.Sort(r.Incidents)
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Risk) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		case a.Device < b.Device:
			return -1
		}
		return 1
	})
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out
}

// flap notes that something came back after it was over, and says whether it
// has begun to come and go.
func (r *record) flap(at time.Time) bool {
	r.Flaps = append(r.Flaps, at.Unix())
	if over := len(r.Flaps) - flapCount; over > 0 {
		r.Flaps = slices.Delete(r.Flaps, 0, over)
	}
	before := r.Flapping
	r.Flapping = len(r.Flaps) == flapCount && at.Unix()-r.Flaps[0] <= int64(flapWindow/time.Second)
	return r.Flapping && !before
}

const (
	flapCount  = 3
	flapWindow = time.Hour
)
