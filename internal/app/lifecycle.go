package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// lifecycle starts parts in order and stops them in reverse. The first part
// that fails ends them all.
type lifecycle struct {
	log    *slog.Logger
	base   context.Context // outlives the caller's: parts end only in their turn
	failed chan error
	mu     sync.Mutex
	stops  []func()
}

func newLifecycle(ctx context.Context, log *slog.Logger) *lifecycle {
	return &lifecycle{log: log, base: context.WithoutCancel(ctx), failed: make(chan error, 1)}
}

// onStop adds a step that stop takes before the earlier ones.
func (l *lifecycle) onStop(stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stops = append(l.stops, stop)
}

// run starts a part; it is told to end, and waited for, in its turn.
func (l *lifecycle) run(name string, part func(context.Context) error) {
	ctx, cancel := context.WithCancel(l.base)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := part(ctx)
		if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return
		}
		select {
		case l.failed <- fmt.Errorf("%s: %w", name, err):
		default:
			l.log.Error("part failed", "part", name, "error", err)
		}
	}()
	l.onStop(func() {
		cancel()
		<-done
		l.log.Debug("stopped", "part", name)
	})
}

// wait blocks until ctx ends (nil) or a part fails.
func (l *lifecycle) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-l.failed:
		return err
	}
}

func (l *lifecycle) stop() {
	l.mu.Lock()
	stops := l.stops
	l.stops = nil
	l.mu.Unlock()
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
}
