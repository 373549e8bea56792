package engine

import (
	"strings"

	"cordon/detect/rule"
)

// beyond says whether a reading is one that a threshold rule is about: within
// the rule's schedule, and beyond its limit; once raised, not yet back behind
// the limit at which it clears.
func (e *Engine) beyond(d *device, s *stream, b *bound, at int64, value float64) bool {
	a := b.rule
	if !a.Looks(at, d.zone) {
		return false
	}
	e.vars = rule.ReadingVars{Value: value, Previous: value, Metric: s.metric, Device: d.id, Cohort: d.cohort, Tags: d.tags}
	if s.filled > 1 { // s.recent[0] is this reading
		e.vars.Previous = s.recent[1].value
		if seconds := float64(at-s.recent[1].at) / 1000; seconds > 0 {
			e.vars.Rate = (value - e.vars.Previous) / seconds
			if a.Counter && value < e.vars.Previous { // it began anew
				e.vars.Rate = value / seconds
			}
		}
	}
	if b.latch.Raised && a.HasClear() {
		return !a.MatchesClear(&e.vars)
	}
	return a.MatchesReading(&e.vars)
}

// maxWords bounds an explanation's sentence.
const maxWords = 30

// brief cuts a sentence to the words that one may have.
func brief(sentence string) string {
	parts := strings.Fields(sentence)
	if len(parts) <= maxWords {
		return sentence
	}
	return strings.TrimRight(strings.Join(parts[:maxWords], " "), ".,;:") + "…"
}
