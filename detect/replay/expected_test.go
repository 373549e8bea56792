package replay_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/detect/replay"
	"cordon/internal/fleet"
)

var monday = time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)

// wave is five days of a daily cycle, a reading every five minutes, with a
// jump in the last hours.
func wave(_ context.Context, device, metric string, from, to time.Time, yield func(fleet.Record) error) error {
	for i := range 5 * 288 {
		at := monday.Add(time.Duration(i) * 5 * time.Minute)
		if !from.IsZero() && at.Before(from) || !to.IsZero() && at.After(to) {
			continue
		}
		v := 20 + 5*math.Sin(float64(i)/288*2*math.Pi) + 0.5*math.Sin(float64(i)*1.7)
		if i > 5*288-12 {
			v += 40
		}
		err := yield(fleet.Record{
			Kind: fleet.TelemetryKind, Device: "d", StreamSeq: uint64(i + 1), ReceivedAt: at,
			Readings: []fleet.Reading{{ObservedAt: at, Metric: "m", Value: v}, {ObservedAt: at, Metric: "other", Value: 1}},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestExpected_followsTheDay(t *testing.T) {
	from := monday.Add(96 * time.Hour)
	bands, err := replay.Expected(t.Context(), wave, replay.Query{Device: "d", Metric: "m", From: from, To: from.Add(24 * time.Hour), Points: 96})
	require.NoError(t, err)
	require.Len(t, bands, 96)
	for i, b := range bands {
		require.Equal(t, "ready", b.State)
		require.Equal(t, from.Add(time.Duration(i)*15*time.Minute), b.At)
		want := 20 + 5*math.Sin(float64(i)/96*2*math.Pi)
		require.InDelta(t, want, b.Center, 1.5, "point %d", i)
		require.Less(t, b.Low, want)
		require.Greater(t, b.High, want)
		require.Less(t, b.High-b.Low, 8.0)
	}
	first, err := replay.Expected(t.Context(), wave, replay.Query{Device: "d", Metric: "m", From: monday, To: monday.Add(24 * time.Hour), Points: 4})
	require.NoError(t, err)
	require.Equal(t, "learning", first[3].State)
	_, err = replay.Expected(t.Context(), wave, replay.Query{Device: "d", Metric: "m", From: from, To: from, Points: 4})
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
}
