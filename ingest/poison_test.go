package ingest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest"
	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/store"
)

// picky refuses some messages for good, as a broken column would.
type picky struct {
	ingest.Store
	refuse func(device string) bool
}

var errPicky = errors.New("this value is refused")

func (p picky) InsertTelemetry(ctx context.Context, token string, b *store.TelemetryBlock) error {
	for _, device := range b.Devices() {
		if p.refuse(device) {
			return errPicky
		}
	}
	return p.Store.InsertTelemetry(ctx, token, b)
}

func TestMover_findsTheMessageAtFault(t *testing.T) {
	r := newRig(t)
	r.into = picky{r.store, func(device string) bool { return device == "poison" }}
	r.perm = func(err error) bool { return errors.Is(err, errPicky) || store.Permanent(err) }
	r.telemetry("good", "b", 1, 333, 3)
	r.telemetry("poison", "b", 7, 7, 3)
	r.telemetry("good", "b", 334, 500, 3)
	r.publish("fleet.audit.good", []byte("a line"), nil)
	for _, point := range []string{ingest.FaultTelemetry, ingest.FaultInserted} {
		r.cfg.Fault = func(stream, at string) error {
			if stream == bus.StreamFleet && at == point {
				return errCrash
			}
			return nil
		}
		require.ErrorIs(t, r.start().wait(), errCrash)
	}
	r.cfg.Fault = nil
	r.start()
	r.settled("good", 1500, 1, 0)
	r.settled("poison", 0, 0, 1)
	letters, err := r.store.DeadLetters(t.Context(), store.DeadLetterQuery{Device: "poison"})
	require.NoError(t, err)
	require.Equal(t, codec.Rejected, letters.Items[0].Reason)
	require.Contains(t, letters.Items[0].Detail, errPicky.Error())
	require.Contains(t, string(letters.Items[0].Raw), `"seq":7`)
}

func TestMover_waitsForAStoreThatRefusesEverything(t *testing.T) {
	r := newRig(t)
	var away sync.Mutex
	refusing := true
	r.into = picky{r.store, func(string) bool { away.Lock(); defer away.Unlock(); return refusing }}
	r.perm = func(err error) bool { return errors.Is(err, errPicky) }
	r.cfg.MaxPoison = 5
	r.telemetry("w1", "b", 1, 100, 1)
	m := r.start()
	require.Eventually(t, func() bool { return !m.Status().Healthy }, 20*time.Second, 50*time.Millisecond)
	require.Contains(t, m.Status().Detail, "schema")
	away.Lock()
	refusing = false
	away.Unlock()
	r.settled("w1", 100, 0, 0)
	require.Eventually(t, func() bool { return m.Status().Healthy }, 10*time.Second, 20*time.Millisecond)
}
