package notify

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestService_restartInMidRetryGoesOn(t *testing.T) {
	var healthy atomic.Bool
	tg := newTarget(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	b := newBench(t, hook("soc", tg.URL))
	b.cfg.Backoff = func(int) time.Duration { return time.Hour }
	b.start()
	b.publish(change(1, 1, "opened"))
	b.await("first attempt", func() bool { return b.delivery("INC-1.1.soc").Attempts == 1 })
	b.stop()

	b.start() // its hour is not over
	b.await("item in hand", func() bool { return b.svc.workers()[0].backlog() == 1 })
	b.publish(change(2, 1, "opened")) // another incident does not wait for it
	b.await("other", func() bool { return b.delivery("INC-2.1.soc").Attempts == 1 })
	require.Equal(t, 1, b.delivery("INC-1.1.soc").Attempts)
	b.stop()

	healthy.Store(true)
	b.shift.Store(int64(2 * time.Hour))
	b.start()
	b.idle()
	d := b.delivery("INC-1.1.soc")
	require.Equal(t, "delivered", d.State)
	require.Equal(t, 2, d.Attempts)
	require.Len(t, tg.seen(), 4)
}

func TestService_oldNewsIsGivenUp(t *testing.T) {
	tg := newTarget(t, status(503))
	b := newBench(t, hook("soc", tg.URL))
	b.cfg.Backoff = func(int) time.Duration { return 30 * time.Hour }
	b.start()
	b.publish(change(1, 1, "opened"))
	b.await("first attempt", func() bool { return b.delivery("INC-1.1.soc").Attempts == 1 })
	b.stop()
	b.shift.Store(int64(31 * time.Hour))
	b.start()
	b.idle()
	require.Equal(t, stateFailed, b.delivery("INC-1.1.soc").State)
	require.Contains(t, b.delivery("INC-1.1.soc").Error, "24h")
	require.Len(t, tg.seen(), 1)
}

func TestService_diesBetweenAnyTwoSteps(t *testing.T) {
	for point, posts := range map[string]int{"recorded": 1, "queued": 1, "stored": 1, "sent": 2} {
		t.Run(point, func(t *testing.T) {
			tg := newTarget(t, status(200))
			b := newBench(t, hook("soc", tg.URL))
			died := make(chan struct{})
			var once sync.Once
			b.hook = func(at string) error {
				if at != point {
					return nil
				}
				once.Do(func() { close(died) })
				return errors.New("died here")
			}
			b.start()
			b.publish(change(1, 1, "opened"))
			<-died
			if point == "queued" {
				b.await("sent", func() bool { return len(tg.seen()) > 0 })
			}
			b.stop()
			b.hook = nil
			before := len(tg.seen())
			b.start()
			b.idle()
			require.Equal(t, stateDelivered, b.delivery("INC-1.1.soc").State)
			require.Len(t, tg.seen(), max(before, 1)+posts-1)
			ids := map[string]bool{}
			for _, p := range tg.seen() {
				ids[p.header.Get("webhook-id")] = true
			}
			require.Len(t, ids, 1, "a repeat carries the same id")
		})
	}
}

func TestService_receiverTakenOutOfTheConfiguration(t *testing.T) {
	tg := newTarget(t, status(503))
	b := newBench(t, hook("old", tg.URL))
	b.cfg.Backoff = func(int) time.Duration { return time.Hour }
	b.start()
	b.publish(change(1, 1, "opened"))
	b.await("first attempt", func() bool { return b.delivery("INC-1.1.old").Attempts == 1 })
	b.stop()
	b.cfg.Receivers = []Receiver{hook("new", tg.URL)}
	b.start()
	b.await("given up", func() bool { return b.delivery("INC-1.1.old").State == stateFailed })
	b.idle()
}

func TestService_fullQueueIsVisible(t *testing.T) {
	tg := newTarget(t, status(503))
	b := newBench(t, hook("soc", tg.URL))
	b.cfg.Backoff = func(int) time.Duration { return time.Hour }
	b.cfg.QueueLimit = 3
	b.start()
	for i := range 5 {
		b.publish(change(i+1, 1, "opened"))
	}
	b.await("overflow", func() bool { return b.delivery("INC-5.1.soc").State == stateFailed })
	require.Contains(t, b.delivery("INC-5.1.soc").Error, "3 notifications wait")
}
