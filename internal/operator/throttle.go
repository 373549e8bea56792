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
	Wait time.Duration
	// Challenge: a solved proof-of-work challenge would be taken instead.
	Challenge bool
	fault     *fleet.Error
}

func (e *DelayError) Error() string { return e.fault.Error() }

// RetryAfterSeconds is when to try again.
func (e *DelayError) RetryAfterSeconds() int { return int(math.Ceil(e.Wait.Seconds())) }

// Unwrap returns the error for people.
func (e *DelayError) Unwrap() error { return e.fault }

// attempt is one try to prove who one is.
type attempt struct {
	account, source string
	now             time.Time
	known           bool // the account's owner has signed in from this source before
	solved          bool // a proof-of-work challenge was solved for it
}

// enter says whether a try may be made now; it counts as failed until clear
// is called, so that parallel guesses do not slip through together.
//
// The source's delay holds always. The account's delay holds for strangers:
// whoever comes from where its owner signed in before, or has worked for it,
// is let through, so that guessing at an account does not lock its owner out.
func (t *throttle) enter(a attempt) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	account, source := t.failures["a:"+a.account], t.failures["s:"+a.source]
	var wait time.Duration
	if source != nil && source.until.After(a.now) {
		wait = source.until.Sub(a.now)
	}
	challenge := false
	if account != nil && account.until.After(a.now) && !a.known && !a.solved {
		challenge = wait == 0
		wait = max(wait, account.until.Sub(a.now))
	}
	if wait > 0 {
		e := &DelayError{Wait: wait, Challenge: challenge}
		if challenge {
			e.fault = fleet.Errorf(fleet.CodeTooMany, "somebody failed to sign in to this account many times; solve a challenge (GET /api/v1/session/challenge) or try again in %d s", e.RetryAfterSeconds())
		} else {
			e.fault = fleet.Errorf(fleet.CodeTooMany, "too many failed sign-ins; try again in %d s", e.RetryAfterSeconds())
		}
		return e
	}
	t.forget(a.now)
	t.count("a:"+a.account, maxAccountDelay, a.now)
	t.count("s:"+a.source, maxSourceDelay, a.now)
	return nil
}

func (t *throttle) count(key string, most time.Duration, now time.Time) {
	f := t.failures[key]
	if f == nil || now.Sub(f.last) > forgetAfter {
		f = &failure{}
		t.failures[key] = f
	}
	f.count++
	f.last = now
	if over := f.count - freeFailures; over >= 0 {
		f.until = now.Add(min(firstDelay<<min(over, 20), most))
	}
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
