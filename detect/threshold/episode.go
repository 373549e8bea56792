package threshold

// Moment is some equal-timed events.
type Moment struct {
	At    int64 // Unix milliseconds of event time
	Count int
}

// Episode counts the events of one group in a sliding window. Once the count
// is met it stays met until no event came for a whole window, so that an
// attack that lasts an hour is one episode.
type Episode struct {
	Moments []Moment // inside the window, oldest first; bounded by the count that is asked for
	Last    int64    // time of the last event
	Met     bool
	Total   int // events since the episode began
}

// Add counts events and says whether the episode has just met the limit.
func (e *Episode) Add(at int64, count, limit int, window int64) bool {
	if e.Last != 0 && at-e.Last > window {
		*e = Episode{}
	}
	e.Last = at
	e.Total += count
	e.push(at, count, limit, window)
	if e.Met || e.Within(at, window) < limit {
		return false
	}
	e.Met = true
	return true
}

// push keeps only what can still matter: moments inside the window, and of
// those only the newest that together reach the limit.
func (e *Episode) push(at int64, count, limit int, window int64) {
	if n := len(e.Moments); n > 0 && e.Moments[n-1].At == at {
		e.Moments[n-1].Count += count
	} else {
		e.Moments = append(e.Moments, Moment{at, count})
	}
	drop, newer := 0, 0
	for i := len(e.Moments) - 1; i >= 0; i-- {
		if newer >= limit || at-e.Moments[i].At > window {
			drop = i + 1
			break
		}
		newer += e.Moments[i].Count
	}
	if drop > 0 {
		e.Moments = append(e.Moments[:0], e.Moments[drop:]...)
	}
}

// Within is how many events the window that ends at a time holds, as far as
// they are kept.
func (e *Episode) Within(at, window int64) int {
	n := 0
	for _, m := range e.Moments {
		if at-m.At <= window {
			n += m.Count
		}
	}
	return n
}

// Start is the time of the oldest event that is kept.
func (e *Episode) Start() int64 {
	if len(e.Moments) == 0 {
		return e.Last
	}
	return e.Moments[0].At
}
