package operator

import (
	"math"
	"sync"
	"time"

	"cordon/internal/fleet"
)

// The delays after failed sign-ins. The first failures are free; then the
// delay doubles. An account's delay is capped low, so that guessing cannot
// keep its owner out for long; a source's is capped high.
const (
	freeFailures    = 5
	firstDelay      = 2 * time.Second
	maxAccountDelay = 30 * time.Second
	maxSourceDelay  = 15 * time.Minute
	forgetAfter     = time.Hour
	maxRemembered   = 100_000
)

// throttle remembers failures per account and per source. Unknown accounts
// are remembered too: a delay must not tell which names exist.
type throttle struct {
	mu       sync.Mutex
	failures map[string]*failure
}

type failure struct {
	count int
	until time.Time
	last  time.Time
}

func newThrottle() *throttle { return &throttle{failures: map[string]*failure{}} }

// DelayError says that a sign-in came too soon after failed ones.
type DelayError struct {
	Wait  time.Duration
	fault *fleet.Error
}

func (e *DelayError) Error() string { return e.fault.Error() }

// RetryAfterSeconds is when to try again.
func (e *DelayError) RetryAfterSeconds() int { return int(math.Ceil(e.Wait.Seconds())) }

// Unwrap returns the error for people.
func (e *DelayError) Unwrap() error { return e.fault }

// enter says whether a try may be made now; it counts as failed until clear
// is called, so that parallel guesses do not slip through together.
func (t *throttle) enter(account, source string, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := [...]struct {
		key string
		max time.Duration
	}{{"a:" + account, maxAccountDelay}, {"s:" + source, maxSourceDelay}}
	var wait time.Duration
	for _, k := range keys {
		if f := t.failures[k.key]; f != nil && f.until.After(now) {
			wait = max(wait, f.until.Sub(now))
		}
	}
	if wait > 0 {
		e := &DelayError{Wait: wait}
		e.fault = fleet.Errorf(fleet.CodeTooMany, "too many failed sign-ins; try again in %d s", e.RetryAfterSeconds())
		return e
	}
	t.forget(now)
	for _, k := range keys {
		f := t.failures[k.key]
		if f == nil || now.Sub(f.last) > forgetAfter {
			f = &failure{}
			t.failures[k.key] = f
		}
		f.count++
		f.last = now
		if over := f.count - freeFailures; over >= 0 {
			f.until = now.Add(min(firstDelay<<min(over, 20), k.max))
		}
	}
	return nil
}

// clear takes the try back after a success. The account starts afresh; of the
// source only this try is forgotten, or somebody with one account could guess
// at others in between.
func (t *throttle) clear(account, source string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failures, "a:"+account)
	f := t.failures["s:"+source]
	if f == nil {
		return
	}
	f.count--
	f.until = time.Time{}
	if f.count <= 0 {
		delete(t.failures, "s:"+source)
	}
}

// forget keeps the memory bounded.
func (t *throttle) forget(now time.Time) {
	if len(t.failures) < maxRemembered {
		return
	}
	for key, f := range t.failures {
		if now.Sub(f.last) > time.Minute && !f.until.After(now) {
			delete(t.failures, key)
		}
	}
	for key := range t.failures {
		if len(t.failures) < maxRemembered {
			return
		}
		delete(t.failures, key)
	}
}
