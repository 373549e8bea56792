package store

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	"cordon/internal/fleet"
)

// supervise starts the engine again whenever it dies, until Stop.
func (e *Engine) supervise(c *child) {
	defer close(e.done)
	wait := backoffMin
	for {
		select {
		case <-e.stopping:
			if !c.stop() {
				e.stopErr = errors.New("stop engine: it did not end in time and was killed")
			}
			e.gone("ClickHouse was stopped")
			return
		case <-c.exited:
		}
		if time.Since(c.started) > backoffReset {
			wait = backoffMin
		}
		e.log.Error("ClickHouse ended unexpectedly and is started again",
			"state", c.cmd.ProcessState.String(), "after", time.Since(c.started).Round(time.Millisecond).String(),
			"output", lastLines(c.output.String(), 3))
		next := e.restart(&wait)
		if next == nil {
			return
		}
		c = next
	}
}

// restart tries until the engine answers; nil means that Stop was called.
func (e *Engine) restart(wait *time.Duration) *child {
	e.gone("ClickHouse ended unexpectedly and is being started again")
	for {
		select {
		case <-e.stopping:
			return nil
		case <-time.After(*wait):
		}
		*wait = min(*wait*2, backoffMax)
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		c, err := e.startPatiently(ctx)
		cancel()
		if err == nil {
			e.back(c)
			e.log.Info("ClickHouse answers again", "pid", c.cmd.Process.Pid)
			return c
		}
		if errors.Is(err, errStopping) {
			return nil
		}
		e.gone(err.Error())
		e.log.Error("start ClickHouse again", "err", err, "next_try_in", wait.String())
	}
}

// gone notes that the engine is down, and why.
func (e *Engine) gone(detail string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.child, e.detail = nil, detail
}

// back notes that the engine answers again.
func (e *Engine) back(c *child) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.child, e.detail = c, ""
	e.restarts++
}

// DSN is the address of the engine's database, with the password: keep it out
// of logs.
func (e *Engine) DSN() string {
	u := url.URL{Scheme: "clickhouse", User: url.UserPassword(engineUser, e.state.Password), Host: e.address(), Path: "/cordon"}
	return u.String()
}

// Address is the engine's host and port.
func (e *Engine) Address() string { return e.address() }

// PID is the process id of the engine, or 0 while it is down.
func (e *Engine) PID() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.child == nil {
		return 0
	}
	return e.child.cmd.Process.Pid
}

// Restarts counts how often the engine died and came back.
func (e *Engine) Restarts() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.restarts
}

// Status says whether the engine is up.
func (e *Engine) Status() fleet.StageStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := fleet.StageStatus{
		Stage: "engine", Healthy: e.child != nil, Detail: "ClickHouse answers.",
		Counters: map[string]float64{"restarts": float64(e.restarts)},
	}
	if e.child == nil {
		st.Detail = e.detail
	}
	return st
}

// Stop ends the engine within five seconds and waits for it. It may be called
// more than once.
func (e *Engine) Stop() error {
	e.stopOnce.Do(func() { close(e.stopping) })
	<-e.done
	_ = e.lock.Close() // ends with the process at the latest
	return e.stopErr
}

// tail keeps the last bytes written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - tailBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

func lastLines(text string, n int) string {
	var kept []string
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Logging ") {
			kept = append(kept, line)
		}
	}
	if len(kept) > n {
		kept = kept[len(kept)-n:]
	}
	return strings.Join(kept, " | ")
}
