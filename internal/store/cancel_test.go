package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/store"
	"cordon/internal/store/storetest"
)

func TestQueries_whoGoesAwayDoesNotEndTheEngine(t *testing.T) {
	s := storetest.Start(t)
	block := &store.TelemetryBlock{}
	now := time.Now().UTC()
	for i := range 200 {
		record := fleet.Record{Kind: fleet.TelemetryKind, Device: "d", StreamSeq: uint64(i + 1), ReceivedAt: now, Boot: "b", Seq: uint64(i + 1)}
		for j := range 1000 {
			record.Readings = append(record.Readings, fleet.Reading{ObservedAt: now.Add(time.Duration(i*1000+j) * time.Millisecond), Metric: "m", Value: float64(j)})
		}
		block.Append(record)
	}
	require.NoError(t, s.InsertTelemetry(t.Context(), "cancel:1-200000", block))
	for i := range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel)
		_, _ = s.Metrics(ctx, "d")
		cancel()
	}
	counts, err := s.Counts(t.Context(), "d")
	require.NoError(t, err)
	require.EqualValues(t, 200_000, counts.Readings)
}
