package store_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/store"
	"cordon/internal/store/storetest"
)

// A database of every earlier version, with data in it, becomes one of this
// version, and its roll-ups count what it held.
func TestMigrate_fromEveryEarlierVersion(t *testing.T) {
	files, err := fs.Glob(os.DirFS("."), "migrations/*.sql")
	require.NoError(t, err)
	slices.Sort(files)
	require.NotEmpty(t, files)
	for n := 3; n < len(files); n++ { // version 3 is the first one that was used
		t.Run(fmt.Sprintf("version %d", n), func(t *testing.T) {
			s := storetest.Open(t, storetest.DSN(t))
			old := fstest.MapFS{}
			for _, file := range files[:n] {
				raw, err := os.ReadFile(file)
				require.NoError(t, err)
				old[path.Base(file)] = &fstest.MapFile{Data: raw}
			}
			require.NoError(t, store.MigrateForTest(s, t.Context(), old))
			require.NoError(t, s.InsertTelemetry(t.Context(), "old", telemetry("d1", 1, 500, t0, 10*time.Minute)))
			require.NoError(t, s.Migrate(t.Context()))
			requireReadings(t, s, "d1", 1000)
			for range 2 {
				require.NoError(t, s.InsertTelemetry(t.Context(), "new", telemetry("d1", 501, 500, t0.Add(83*time.Hour), 10*time.Minute)))
			}
			requireReadings(t, s, "d1", 2000)
		})
	}
}

func TestSeries_takesTheRollupThatFits(t *testing.T) {
	s := storetest.Start(t)
	b := &store.TelemetryBlock{}
	for i := range 1600 { // a year and more, received now: a replay
		b.Append(fleet.Record{StreamSeq: uint64(i + 1), ReceivedAt: t0, Device: "d1", Readings: []fleet.Reading{
			{ObservedAt: t0.Add(-time.Duration(i) * 6 * time.Hour), Metric: "cpu", Value: float64(i)},
		}})
	}
	require.NoError(t, s.InsertTelemetry(t.Context(), "t", b))
	for points, resolution := range map[int]string{5000: "raw", 1000: "12h", 401: "1d", 100: "7d"} {
		series, err := s.Series(t.Context(), store.SeriesQuery{Device: "d1", Metric: "cpu", Points: points})
		require.NoError(t, err)
		require.Equal(t, resolution, series.Resolution, "%d points", points)
		var n uint64
		for _, p := range series.Points {
			n += p.Count
			require.LessOrEqual(t, p.Min, p.Mean)
			require.GreaterOrEqual(t, p.Max, p.Mean)
		}
		require.EqualValues(t, 1600, n)
	}
}
