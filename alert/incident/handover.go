package incident

import (
	"cmp"
	"slices"
	"time"

	"cordon/internal/fleet"
)

// maxHandover bounds each list of a hand-over.
const maxHandover = 50

// Handover is what the next shift must know. Lists are the worst first, at
// most 50 each; the counts are of all.
type Handover struct {
	From      time.Time              `json:"from"`
	To        time.Time              `json:"to"`
	Opened    int                    `json:"opened"`
	Resolved  int                    `json:"resolved"`
	Merged    int                    `json:"merged"` // became part of another
	Verdicts  map[fleet.Verdict]int  `json:"verdicts"`
	Open      map[fleet.Severity]int `json:"open"` // not resolved now, by severity
	Untouched []fleet.Incident       `json:"untouched"`
	Taken     []fleet.Incident       `json:"taken"` // acknowledged or assigned, and not resolved
	Ended     []fleet.Incident       `json:"ended"` // resolved in the shift
	Flapping  []fleet.Incident       `json:"flapping"`
}

// Handover sums a shift up.
func (s *Service) Handover(from, to time.Time) Handover {
	h := Handover{
		From: from.UTC(), To: to.UTC(), Verdicts: map[fleet.Verdict]int{}, Open: map[fleet.Severity]int{},
		Untouched: []fleet.Incident{}, Taken: []fleet.Incident{}, Ended: []fleet.Incident{}, Flapping: []fleet.Incident{},
	}
	within := func(at time.Time) bool { return !at.Before(from) && at.Before(to) }
	list := s.view.snapshot()
	slices.SortFunc(list, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.Severity.Rank(), a.Severity.Rank()), cmp.Compare(b.Number, a.Number))
	})
	add := func(to *[]fleet.Incident, e *entry) {
		if len(*to) < maxHandover {
			*to = append(*to, e.Incident)
		}
	}
	for _, e := range list {
		if within(e.OpenedAt) {
			h.Opened++
		}
		if e.State == fleet.Resolved {
			switch {
			case !within(e.ResolvedAt):
			case e.Parent != "":
				h.Merged++
			default:
				h.Resolved++
				h.Verdicts[e.Verdict]++
				add(&h.Ended, e)
			}
			continue
		}
		h.Open[e.Severity]++
		if e.Flapping {
			add(&h.Flapping, e)
		}
		if e.State == fleet.Open && e.Assignee == "" {
			add(&h.Untouched, e)
		} else {
			add(&h.Taken, e)
		}
	}
	return h
}
