package incident

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// TestService_diesBetweenAnyTwoSteps breaks the service at every fault point,
// makes a new one on the same broker, and expects what an undisturbed run
// leaves behind.
func TestService_diesBetweenAnyTwoSteps(t *testing.T) {
	errDied := errors.New("died here")
	for _, point := range []string{"drawn", "reserved", "apply", "applied", "publish", "published"} {
		for visit := 1; visit <= 3; visit++ {
			t.Run(point+strconv.Itoa(visit), func(t *testing.T) {
				b := newBench(t)
				var visits atomic.Int64
				died := make(chan struct{})
				var once sync.Once
				b.hook = func(at string) error {
					if at == point && visits.Add(1) >= int64(visit) {
						once.Do(func() { close(died) })
						return errDied
					}
					return nil
				}
				b.start()
				b.publish(finding("d1", "cpu", "", fleet.Medium, 0), finding("d2", "cpu", "", fleet.Medium, 1))
				select {
				case <-died:
				case <-time.After(500 * time.Millisecond): // this point is not passed so often
					b.settle()
				}
				b.stop()
				b.hook = nil
				b.start()
				b.await2(2)
				b.settle()
				require.Equal(t, uint64(1), b.current("d1").Findings)
				require.Equal(t, uint64(1), b.current("d2").Findings)
				b.one(finding("d1", "ssh", "x", fleet.High, 2))
				b.await2(3)
				require.Equal(t, "escalated", b.changes()[2].Change)
			})
		}
	}
}

// await2 waits for n changes and sees that none came twice.
func (b *bench) await2(n int) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return len(b.changes()) == n && len(b.svc.view.unsent()) == 0 }, 30*time.Second, 5*time.Millisecond)
	seen := map[string]bool{}
	for _, c := range b.changes() {
		require.False(b.t, seen[c.ID], c.ID)
		seen[c.ID] = true
	}
}

func (b *bench) current(device string) fleet.Incident {
	b.t.Helper()
	inc, ok := b.svc.OpenOf(device)
	require.True(b.t, ok, device)
	return inc
}

func TestService_decisionOutlivesItsPublication(t *testing.T) {
	b := newBench(t)
	b.hook = func(at string) error {
		if at == "decided" {
			return errors.New("died here")
		}
		return nil
	}
	b.start()
	b.one(finding("d1", "cpu", "", fleet.Medium, 0))
	_, err := b.svc.Acknowledge(t.Context(), "INC-1", "ann")
	require.Error(t, err)
	b.stop()
	b.hook = nil
	b.start()
	b.await("INC-1.1 opened", "INC-1.2 acknowledged")
}

func TestService_floodOfOneDeviceStaysSmall(t *testing.T) {
	b := newBench(t)
	for n := range 5000 {
		f := finding("d1", "ssh", fmt.Sprintf("10.0.%d.%d", n/250, n%250), fleet.High, n)
		raw, err := json.Marshal(f)
		require.NoError(t, err)
		_, err = b.bus.Core.PublishAsync(bus.SubjectFinding+".d1", raw)
		require.NoError(t, err)
	}
	<-b.bus.Core.PublishAsyncComplete()
	b.start()
	b.settle()
	inc := b.get("INC-1")
	require.Equal(t, uint64(5000), inc.Findings)
	require.Len(t, inc.Actors, maxActors)
	require.LessOrEqual(t, len(inc.Timeline), maxTimeline)
	require.LessOrEqual(t, len(b.changes()), maxPairs)
	entry, err := b.svc.buckets.incident.Get(t.Context(), "INC-1")
	require.NoError(t, err)
	require.Less(t, len(entry.Value()), 128<<10)
}

func TestService_twoWritersKeepOneIncidentPerDevice(t *testing.T) {
	b := newBench(t)
	b.start()
	other := &bench{t: t, bus: b.bus, group: -1}
	other.clock.Store(b.clock.Load())
	other.start()
	const devices, each = 10, 30
	for n := range each {
		for d := range devices {
			b.publish(finding(fmt.Sprintf("d%d", d), "cpu", "", fleet.Medium, n))
		}
	}
	b.settle()
	require.Eventually(t, func() bool { return b.svc.Summary().Unresolved == devices }, 5*time.Second, 5*time.Millisecond)
	page, err := b.svc.List(Filter{}, "", "", 0)
	require.NoError(t, err)
	require.Len(t, page.Items, devices)
	for _, inc := range page.Items {
		require.Equal(t, uint64(each), b.get(inc.ID).Findings, inc.Device)
	}
	b.await2(devices)
}

func TestService_floodOverManyDevicesIsCounted(t *testing.T) {
	b := newBench(t)
	for n := range 2000 {
		raw, err := json.Marshal(finding(fmt.Sprintf("d%d", n%200), "cpu", "", fleet.High, n/200))
		require.NoError(t, err)
		_, err = b.bus.Core.PublishAsync(bus.SubjectFinding+".d", raw)
		require.NoError(t, err)
	}
	<-b.bus.Core.PublishAsyncComplete()
	start := time.Now()
	b.start()
	b.settle()
	t.Logf("2,000 findings of 200 devices in %s", time.Since(start))
	require.Equal(t, 200, b.svc.Summary().Unresolved)
	require.Len(t, b.changes(), 200)
	require.Contains(t, b.svc.Status().Detail, "flood")
}
