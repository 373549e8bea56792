package notify

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
)

// TestEveryChangeReachesEveryHealthyReceiverOnceInOrder: changes of incidents
// to five receivers, of which one refuses, one times out, one answers 201 and
// one 429 with Retry-After, over restarts in the middle. 10,000 changes with
// CORDON_SOAK=1, else 600.
func TestEveryChangeReachesEveryHealthyReceiverOnceInOrder(t *testing.T) {
	incidents, each := 60, 10
	if os.Getenv("CORDON_SOAK") != "" {
		incidents = 1000
	}
	release := make(chan struct{})
	slow := newTarget(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	refusing := newTarget(t, status(200))
	refusing.Close()
	plain, created := newTarget(t, status(200)), newTarget(t, status(201))
	limited := newTarget(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n%97 == 1 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	b := newBench(t, hook("plain", plain.URL), hook("created", created.URL), hook("limited", limited.URL), hook("refuses", refusing.URL), hook("slow", slow.URL))
	b.cfg.Timeout = 2 * time.Second
	b.cfg.QueueLimit, b.cfg.History = 20_000, 60_000
	b.start()
	for n := range each {
		for i := range incidents {
			kind := "escalated"
			if n == 0 {
				kind = "opened"
			}
			raw, err := json.Marshal(change(i+1, n+1, kind))
			require.NoError(t, err)
			_, err = b.bus.Core.PublishAsync(bus.SubjectIncident+fmt.Sprintf(".INC-%d", i+1), raw)
			require.NoError(t, err)
		}
		if n == each/2 {
			b.stop() // in the middle of everything
			b.start()
		}
	}
	<-b.bus.Core.PublishAsyncComplete()
	start := time.Now()
	healthy := map[string]*target{"plain": plain, "created": created, "limited": limited}
	done := func(name string) int {
		n := 0
		for _, d := range b.svc.records.all() {
			if d.Receiver == name && d.State == stateDelivered {
				n++
			}
		}
		return n
	}
	for name := range healthy {
		require.Eventually(t, func() bool { return done(name) == incidents*each }, 10*time.Minute, 100*time.Millisecond, name)
	}
	t.Logf("%d changes to 5 receivers, 3 of them healthy, delivered %s after the last was published", incidents*each, time.Since(start).Round(time.Millisecond))
	for name, tg := range healthy {
		last, seen, repeats := map[string]int{}, map[string]bool{}, 0
		for _, p := range tg.seen() {
			if seen[p.header.Get("webhook-id")] {
				repeats++
				continue
			}
			seen[p.header.Get("webhook-id")] = true
			inc, number, _ := strings.Cut(p.event.ID, ".")
			var n int
			_, err := fmt.Sscan(number, &n)
			require.NoError(t, err)
			require.Equal(t, last[inc]+1, n, "%s: in order of %s", name, inc)
			last[inc] = n
		}
		require.Len(t, seen, incidents*each, "%s: every id once", name)
		if name != "limited" {
			require.LessOrEqual(t, repeats, b.svc.cfg.InFlight, "only what was under way at the restart may come again")
		}
	}
}
