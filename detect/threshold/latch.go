package threshold

// Latch raises after N remarkable readings in a row and clears after M quiet
// ones. Times are Unix milliseconds of event time.
type Latch struct {
	Run    uint32 // remarkable readings in a row while low, quiet ones while raised
	Raised bool
	Start  int64 // of the run, or of the raised state, that is under way
}

// Change is what a reading did to a latch.
type Change uint8

// The changes.
const (
	Same Change = iota
	Raise
	Clear
)

// Step takes one reading.
func (l *Latch) Step(remarkable bool, at int64, raiseAfter, clearAfter int) Change {
	if l.Raised {
		if remarkable {
			l.Run = 0
			return Same
		}
		l.Run++
		if int(l.Run) < clearAfter {
			return Same
		}
		l.Run, l.Raised = 0, false
		return Clear
	}
	if !remarkable {
		l.Run = 0
		return Same
	}
	if l.Run == 0 {
		l.Start = at
	}
	l.Run++
	if int(l.Run) < raiseAfter {
		return Same
	}
	l.Run, l.Raised = 0, true
	return Raise
}
