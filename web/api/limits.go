package api

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"cordon/internal/fleet"
	"cordon/internal/operator"
)

// limits slow down every caller: those who are not signed in per operation and
// address, the others per operator or token and, besides, per address. Guessing
// at one account is slowed by package operator on top.
type limits struct {
	clock func() time.Time
	cfg   Rates
	mu    sync.Mutex
	seen  map[limitKey]*rate.Limiter
}

type limitKey struct{ operation, source string }

// Rates bound what callers may ask: PerSecond on average, Burst at once.
type Rates struct {
	Caller, Address Rate
}

// Rate is a token bucket.
type Rate struct {
	PerSecond float64
	Burst     int
}

// DefaultRates are far above what a person with a dashboard needs.
func DefaultRates() Rates {
	return Rates{Caller: Rate{PerSecond: 100, Burst: 1000}, Address: Rate{PerSecond: 300, Burst: 3000}}
}

const maxLimiters = 20_000

// publicRates are the rates of the operations that need no session.
var publicRates = map[string]struct {
	per   rate.Limit
	burst int
}{
	"sign-in":           {per: 1, burst: 30},
	"get-challenge":     {per: 5, burst: 30},
	"redeem-enrollment": {per: 50, burst: 1000}, // a factory enrols many devices from one address
}

func newLimits(clock func() time.Time, cfg Rates) *limits {
	return &limits{clock: clock, cfg: cfg, seen: map[limitKey]*rate.Limiter{}}
}

type limited struct {
	fault   *fleet.Error
	seconds int
}

func (l *limited) Error() string          { return l.fault.Error() }
func (l *limited) Unwrap() error          { return l.fault }
func (l *limited) RetryAfterSeconds() int { return l.seconds }

// standing is where a caller stands with a limit.
type standing struct {
	name      string
	limit     Rate
	remaining int
}

// set says so in the headers of draft-ietf-httpapi-ratelimit-headers.
func (s standing) set(h http.Header) {
	full := int(math.Ceil(float64(s.limit.Burst) / s.limit.PerSecond))
	again := int(math.Ceil(float64(s.limit.Burst-s.remaining) / s.limit.PerSecond))
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", s.name, s.limit.Burst, full))
	h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", s.name, s.remaining, again))
}

// allow takes one from the limit of an operation that needs no session.
func (l *limits) allow(operation, source string) (standing, error) {
	r, ok := publicRates[operation]
	if !ok {
		return standing{}, nil
	}
	return l.take(limitKey{operation, source}, operation, Rate{float64(r.per), r.burst}, "your address")
}

// address takes one from the limit of an address.
func (l *limits) address(source string) (standing, error) {
	return l.take(limitKey{"address", source}, "address", l.cfg.Address, "your address")
}

// caller takes one from the limit of an operator or token.
func (l *limits) caller(p operator.Principal) (standing, error) {
	key := limitKey{"operator", p.Name}
	if p.TokenID != "" {
		key = limitKey{"token", p.TokenID}
	}
	return l.take(key, "caller", l.cfg.Caller, "you")
}

func (l *limits) take(key limitKey, name string, r Rate, whom string) (standing, error) {
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.seen[key]
	if limiter == nil {
		l.forget(now)
		limiter = rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
		l.seen[key] = limiter
	}
	allowed := limiter.AllowN(now, 1)
	s := standing{name, r, max(0, int(limiter.TokensAt(now)))}
	if allowed {
		return s, nil
	}
	wait := int(math.Ceil(1 / r.PerSecond))
	return s, &limited{fleet.Errorf(fleet.CodeTooMany, "too many requests from %s; try again in %d s", whom, wait), wait}
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
