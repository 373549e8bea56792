package fleet

import (
	"sync"
	"time"
)

// rateSeconds is the span over which a Rate averages.
const rateSeconds = 10

// Rate counts events and says how many came per second over the last ten
// seconds. The zero value is ready; it is safe for concurrent use.
type Rate struct {
	mu    sync.Mutex
	slots [rateSeconds]uint64
	at    [rateSeconds]int64
}

// Add counts n events at now.
func (r *Rate) Add(now time.Time, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	second := now.Unix()
	i := second % rateSeconds
	if r.at[i] != second {
		r.at[i], r.slots[i] = second, 0
	}
	r.slots[i] += n
}

// PerSecond is the mean rate over the ten seconds before now.
func (r *Rate) PerSecond(now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum uint64
	for i, at := range r.at {
		if age := now.Unix() - at; age >= 0 && age < rateSeconds {
			sum += r.slots[i]
		}
	}
	return float64(sum) / rateSeconds
}
