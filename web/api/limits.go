package api

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"cordon/internal/fleet"
)

// limits slow down those who are not signed in, per address. Guessing at one
// account is slowed by package operator besides.
type limits struct {
	clock func() time.Time
	mu    sync.Mutex
	seen  map[limitKey]*rate.Limiter
}

type limitKey struct{ operation, source string }

const maxLimiters = 20_000

// publicRates are the rates of the operations that need no session.
var publicRates = map[string]struct {
	per   rate.Limit
	burst int
}{
	"sign-in":           {per: 1, burst: 30},
	"redeem-enrollment": {per: 50, burst: 1000}, // a factory enrols many devices from one address
}

func newLimits(clock func() time.Time) *limits {
	return &limits{clock: clock, seen: map[limitKey]*rate.Limiter{}}
}

type limited struct {
	fault   *fleet.Error
	seconds int
}

func (l *limited) Error() string          { return l.fault.Error() }
func (l *limited) Unwrap() error          { return l.fault }
func (l *limited) RetryAfterSeconds() int { return l.seconds }

func (l *limits) allow(operation, source string) error {
	r, ok := publicRates[operation]
	if !ok {
		return nil
	}
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	key := limitKey{operation, source}
	limiter := l.seen[key]
	if limiter == nil {
		l.forget(now)
		limiter = rate.NewLimiter(r.per, r.burst)
		l.seen[key] = limiter
	}
	if limiter.AllowN(now, 1) {
		return nil
	}
	wait := int(math.Ceil(1 / float64(r.per)))
	return &limited{fleet.Errorf(fleet.CodeTooMany, "too many requests from your address; try again in %d s", wait), wait}
}

// forget drops the sources whose limit is full again.
func (l *limits) forget(now time.Time) {
	if len(l.seen) < maxLimiters {
		return
	}
	for key, limiter := range l.seen {
		if limiter.TokensAt(now) >= float64(limiter.Burst()) {
			delete(l.seen, key)
		}
	}
	if len(l.seen) >= maxLimiters {
		clear(l.seen)
	}
}
