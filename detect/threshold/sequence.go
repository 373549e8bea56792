package threshold

// Sequence follows events of one group that must come in an order. For every
// prefix of the steps it keeps the latest time at which a run that reached it
// began, which is all that matters: a run that began later ends no later.
type Sequence struct {
	Starts []int64 // by step; 0: not reached
}

// Step takes an event and which steps it is, and says when the run that it
// completes began; false: it completes none.
func (s *Sequence) Step(at int64, steps int, is func(step int) bool, window int64) (start int64, done bool) {
	if len(s.Starts) != steps {
		s.Starts = make([]int64, steps)
	}
	for i := steps - 1; i >= 0; i-- {
		if !is(i) {
			continue
		}
		if i == 0 {
			s.Starts[0] = at
			continue
		}
		began := s.Starts[i-1]
		if began == 0 || at-began > window {
			continue
		}
		if i == steps-1 {
			clear(s.Starts) // a run is told once
			return began, true
		}
		s.Starts[i] = began
	}
	return 0, false
}
