package baseline

// Speaker decides which surprises are worth saying: after one, only a clearly
// larger one within the hold-off, and a stream that speaks often must surprise
// more (an alarm budget, a cheap relative of online false-discovery control).
type Speaker struct {
	Held   float64
	Hold   uint16 // readings left
	Budget float64
}

const (
	speakStep   = 0.25 // how much larger the next must be
	speakHold   = 100  // readings
	speakFloor  = 3.0  // surprises from here on cost budget
	speakCost   = 0.15
	speakRefund = 1.0 / 2000 // share of the budget that returns per reading
)

// Speak returns what is left of a surprise, 0 if it is not worth saying.
func (s *Speaker) Speak(surprise float64) float64 {
	y := surprise - s.Budget
	s.Budget -= s.Budget * speakRefund
	if y > s.Held {
		s.Held, s.Hold = y+speakStep, speakHold
		if y >= speakFloor {
			s.Budget += speakCost
		}
		return max(y, 0)
	}
	if s.Hold > 0 {
		s.Hold--
	}
	if s.Hold == 0 {
		s.Held = 0
	}
	return 0
}
