package threshold

// MaxDistinct bounds how many distinct values a rule may ask for.
const MaxDistinct = 1000

// Distinct counts the distinct values of one group in a sliding window. Of
// all values only the newest that together reach the limit can matter, so
// that the count is exact up to the limit in memory bounded by it. Values are
// kept as 64-bit hashes: two of them are the same by chance once in 10^13.
type Distinct struct {
	Seen []Sighting // oldest first; never more than the limit
	Last int64
	Met  bool
}

// Sighting is when a value was last seen.
type Sighting struct {
	Hash uint64
	At   int64 // Unix milliseconds of event time
}

// Add takes a value and says whether the window has just met the limit. Once
// met it stays so until no event came for a whole window.
func (d *Distinct) Add(value string, at int64, limit int, window int64) bool {
	if d.Last != 0 && at-d.Last > window {
		*d = Distinct{}
	}
	d.Last = at
	h := Hash(value)
	kept := d.Seen[:0]
	for _, s := range d.Seen {
		if s.Hash != h && at-s.At <= window {
			kept = append(kept, s)
		}
	}
	if len(kept) >= limit {
		kept = append(kept[:0], kept[len(kept)-limit+1:]...)
	}
	d.Seen = append(kept, Sighting{h, at})
	if d.Met || len(d.Seen) < limit {
		return false
	}
	d.Met = true
	return true
}

// Hash is FNV-1a.
func Hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// Start is when the oldest value that counts was last seen.
func (d *Distinct) Start() int64 {
	if len(d.Seen) == 0 {
		return d.Last
	}
	return d.Seen[0].At
}
