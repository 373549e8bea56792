package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/store"
	"cordon/internal/store/storetest"
)

func TestSeries_resolutions(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	// A reading every ten seconds for a day.
	require.NoError(t, s.InsertTelemetry(ctx, "t", telemetry("d1", 1, 8640, t0, 10*time.Second)))
	q := store.SeriesQuery{Device: "d1", Metric: "cpu", From: t0.Add(-time.Minute), To: t0.Add(24 * time.Hour)}
	for _, c := range []struct {
		span       time.Duration
		points     int
		resolution string
		count      uint64
	}{
		{11 * time.Minute, 61, "raw", 61},
		{11 * time.Minute, 40, "30s", 61},
		{61 * time.Minute, 100, "1m", 361},
		{25 * time.Hour, 5000, "30s", 8640},
		{25 * time.Hour, 1000, "2m", 8640},
		{25 * time.Hour, 300, "5m", 8640},
		{25 * time.Hour, 2, "1d", 8640},
	} {
		t.Run(fmt.Sprintf("%s in %d", c.span, c.points), func(t *testing.T) {
			q := q
			q.To, q.Points = q.From.Add(c.span), c.points
			series, err := s.Series(ctx, q)
			require.NoError(t, err)
			require.Equal(t, c.resolution, series.Resolution)
			require.LessOrEqual(t, len(series.Points), c.points)
			var n uint64
			var sum float64
			last := time.Time{}
			for _, p := range series.Points {
				n += p.Count
				sum += p.Mean * float64(p.Count)
				require.LessOrEqual(t, p.Min, p.Mean)
				require.GreaterOrEqual(t, p.Max, p.Mean)
				require.True(t, p.At.After(last))
				last = p.At
			}
			require.Equal(t, c.count, n)
			require.InDelta(t, float64(c.count)*float64(c.count-1)/2, sum, 1e-3)
		})
	}
	series, err := s.Series(ctx, store.SeriesQuery{Device: "nobody", Metric: "cpu"})
	require.NoError(t, err)
	require.Empty(t, series.Points)
	_, err = s.Series(ctx, store.SeriesQuery{Device: "d1", Metric: "cpu", From: t0, To: t0})
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))

	// When the readings have expired, the roll-ups answer.
	require.NoError(t, store.ExecForTest(s, ctx, "TRUNCATE TABLE telemetry"))
	q.Points = 5000
	series, err = s.Series(ctx, q)
	require.NoError(t, err)
	require.Equal(t, "1m", series.Resolution)
	require.Equal(t, 1441, len(series.Points))
	require.EqualValues(t, 6, series.Points[1].Count)
}

func TestMetrics(t *testing.T) {
	s := storetest.Start(t)
	b := telemetry("d1", 1, 10, t0, time.Second)
	// A late reading is not the newest.
	b.Append(fleet.Record{Device: "d1", StreamSeq: 99, ReceivedAt: t0.Add(time.Hour), Readings: []fleet.Reading{{ObservedAt: t0.Add(-time.Hour), Metric: "cpu", Value: -1}}})
	require.NoError(t, s.InsertTelemetry(t.Context(), "t", b))
	metrics, err := s.Metrics(t.Context(), "d1")
	require.NoError(t, err)
	require.Equal(t, []store.MetricLast{
		{Metric: "cpu", At: t0.Add(8 * time.Second), Value: 9, Count: 11},
		{Metric: "mem", At: t0.Add(8 * time.Second), Value: 91, Count: 10},
	}, metrics)
}

func row(t *testing.T, key string, revision uint64, v any) store.HistoryRow {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return store.HistoryRow{Key: key, Revision: revision, At: t0.Add(time.Duration(revision) * time.Second), JSON: text}
}

func TestFindings_newestFormOnceAndPaged(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	var want []fleet.Finding
	var rows []store.HistoryRow
	for i := range 30 {
		limit := 5.5
		f := fleet.Finding{
			ID: fmt.Sprintf("%032x", 1000-i), Device: fmt.Sprintf("d%d", i%2), RuleID: fmt.Sprintf("r%d", i%3), RuleVersion: "v", RuleTitle: nasty[:9],
			Mode: fleet.Alert, Evidence: fleet.Own, Severity: fleet.High, Actor: "203.0.113.7",
			WindowStart: t0.Add(time.Duration(i) * time.Minute), WindowEnd: t0.Add(time.Duration(i+1) * time.Minute),
			ReceivedAt: t0.Add(time.Duration(i/4) * time.Millisecond), DetectedAt: t0, StreamSeq: uint64(100 + i/2),
			Explanation: fleet.Explanation{Sentence: "hot", Value: 7, Threshold: &limit, Expected: &fleet.Range{Low: 1, High: 2}},
		}
		want = append(want, f)
		rows = append(rows, row(t, f.Device, uint64(i+1), f))
	}
	require.NoError(t, s.InsertHistory(ctx, store.HistoryFinding, "FINDINGS:1-30", rows))
	require.NoError(t, s.InsertHistory(ctx, store.HistoryFinding, "FINDINGS:1-30", rows))
	// Published again, in another block, and one of them cleared.
	want[3].Cleared = true
	require.NoError(t, s.InsertHistory(ctx, store.HistoryFinding, "FINDINGS:31-33",
		[]store.HistoryRow{row(t, "d1", 31, want[3]), row(t, "d0", 32, want[4]), row(t, "d1", 33, want[5])}))
	slices.SortFunc(want, func(a, b fleet.Finding) int {
		if c := b.ReceivedAt.Compare(a.ReceivedAt); c != 0 {
			return c
		}
		if a.StreamSeq != b.StreamSeq {
			return int(b.StreamSeq) - int(a.StreamSeq)
		}
		return int(b.ID[31]) - int(a.ID[31])
	})

	var got []fleet.Finding
	q := store.FindingQuery{Limit: 4}
	for {
		page, err := s.Findings(ctx, q)
		require.NoError(t, err)
		require.EqualValues(t, 30, page.Total)
		got = append(got, page.Items...)
		if page.Next == "" {
			break
		}
		q.Before = store.Cursor(page.Next)
	}
	require.Len(t, got, 30)
	for _, f := range want {
		require.Contains(t, got, f)
	}
	require.True(t, slices.IsSortedFunc(got, func(a, b fleet.Finding) int { return b.ReceivedAt.Compare(a.ReceivedAt) }))

	for name, c := range map[string]struct {
		q    store.FindingQuery
		want uint64
	}{
		"device": {store.FindingQuery{Device: "d1"}, 15},
		"rule":   {store.FindingQuery{Rule: "r2"}, 10},
		"ids":    {store.FindingQuery{IDs: []string{want[0].ID, want[9].ID, nasty, "x"}}, 2},
		"window": {store.FindingQuery{From: t0.Add(10 * time.Minute), To: t0.Add(12 * time.Minute)}, 3},
	} {
		page, err := s.Findings(ctx, c.q)
		require.NoError(t, err, name)
		require.Equal(t, c.want, page.Total, name)
	}
}

func TestHistories(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	quarantine := fleet.Quarantine{ID: "d1.1", Device: "d1", Level: fleet.Isolate, State: fleet.Requested, Reason: nasty[:5], Actor: "rule:r", RequestedAt: t0}
	confirmed := quarantine
	confirmed.State, confirmed.ConfirmedAt, confirmed.Proof.Refused = fleet.Confirmed, t0.Add(time.Millisecond), 7
	second := fleet.Quarantine{ID: "d1.2", Device: "d1", Level: fleet.Observe, State: fleet.Requested, RequestedAt: t0.Add(time.Hour)}
	other := fleet.Quarantine{ID: "d2.1", Device: "d2", Level: fleet.Observe, State: fleet.Requested, RequestedAt: t0.Add(time.Minute)}
	require.NoError(t, s.InsertHistory(ctx, store.HistoryQuarantine, "KV_quarantine:1-4", []store.HistoryRow{
		row(t, "d1", 1, quarantine), row(t, "d1", 2, confirmed), row(t, "d1", 3, second), row(t, "d2", 4, other),
		{Key: "d9", Revision: 5, At: t0, Deleted: true},
	}))
	page, err := s.QuarantineHistory(ctx, "d1", "", 0)
	require.NoError(t, err)
	require.Equal(t, []fleet.Quarantine{second, confirmed}, page.Items)
	page, err = s.QuarantineHistory(ctx, "", "", 2)
	require.NoError(t, err)
	require.Equal(t, []fleet.Quarantine{second, other}, page.Items)
	require.EqualValues(t, 3, page.Total)
	page, err = s.QuarantineHistory(ctx, "", store.Cursor(page.Next), 2)
	require.NoError(t, err)
	require.Equal(t, []fleet.Quarantine{confirmed}, page.Items)

	incident := fleet.Incident{ID: "INC-1", Number: 1, Device: "d1", Severity: fleet.Low, State: fleet.Open, OpenedAt: t0}
	worse := incident
	worse.Severity = fleet.Critical
	next := fleet.Incident{ID: "INC-2", Number: 2, Device: "d2", Severity: fleet.Low, State: fleet.Open, OpenedAt: t0.Add(59 * time.Minute)}
	require.NoError(t, s.InsertHistory(ctx, store.HistoryIncident, "KV_incident:1-3",
		[]store.HistoryRow{row(t, "INC-1", 1, incident), row(t, "INC-1", 2, worse), row(t, "INC-2", 3, next)}))
	hours, err := s.IncidentsPerHour(ctx, t0, t0.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, []store.HourCount{{Hour: t0, Severity: fleet.Critical, Count: 1}, {Hour: t0, Severity: fleet.Low, Count: 1}}, hours)

	delivery := fleet.Delivery{ID: "INC-1.1.chat", Receiver: "chat", Kind: "slack", State: "delivered", CreatedAt: t0, UpdatedAt: t0}
	require.NoError(t, s.InsertHistory(ctx, store.HistoryDelivery, "KV_delivery:1-1", []store.HistoryRow{row(t, delivery.ID, 1, delivery)}))
	deliveries, err := s.Deliveries(ctx, "", 0)
	require.NoError(t, err)
	require.Equal(t, []fleet.Delivery{delivery}, deliveries.Items)

	require.NoError(t, s.InsertHistory(ctx, store.HistoryRule, "KV_rule:1-1", []store.HistoryRow{
		row(t, "r1", 1, fleet.RuleChange{ID: "r1", Mode: fleet.Armed, Actor: "ann"}), {Key: "r1", Revision: 2, At: t0, Deleted: true},
	}))
	device := fleet.Device{ID: "d1", State: fleet.Enrolled, Cohort: "c", TokenHash: "5ec2e7"}
	require.NoError(t, s.InsertHistory(ctx, store.HistoryDevice, "KV_device:1-1", []store.HistoryRow{row(t, "d1", 1, device)}))
	n, err := store.CountForTest(s, ctx, "SELECT countIf(json LIKE '%5ec2e7%') * 100 + count() FROM devices")
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "the token hash must not be stored")

	sizes, err := s.Size(ctx)
	require.NoError(t, err)
	require.Len(t, sizes, 14)
	require.True(t, slices.ContainsFunc(sizes, func(t store.TableSize) bool { return t.Table == "quarantines" && t.Rows == 5 && t.Bytes > 0 }))
}

func TestIngestRate(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	require.NoError(t, s.InsertTelemetry(ctx, "t", telemetry("d1", 1, 60, t0, time.Second)))
	points, err := s.IngestRate(ctx, t0.Add(-20*time.Second), t0.Add(80*time.Second), time.Second)
	require.NoError(t, err)
	require.Len(t, points, 10)
	require.Equal(t, store.RatePoint{At: t0.Add(-20 * time.Second)}, points[0])
	require.Equal(t, store.RatePoint{At: t0, Readings: 20, Messages: 10}, points[2])
	points, err = s.IngestRate(ctx, t0.Add(-5*time.Minute), t0.Add(5*time.Minute), time.Minute)
	require.NoError(t, err)
	require.Len(t, points, 10)
	require.Equal(t, store.RatePoint{At: t0, Readings: 120, Messages: 60}, points[5])
	points, err = s.IngestRate(ctx, t0.AddDate(-1, 0, 0), t0.AddDate(1, 0, 0), time.Second)
	require.NoError(t, err)
	require.LessOrEqual(t, len(points), store.MaxRateSteps)
}

func TestScan_streamOrder(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	var want []fleet.Record
	b, a := &store.TelemetryBlock{}, &store.AuditBlock{}
	for i := range 300 { // over three days of receipt
		r := fleet.Record{StreamSeq: uint64(i + 1), ReceivedAt: t0.Add(time.Duration(i) * 15 * time.Minute), Device: fmt.Sprintf("d%d", i%3), Boot: "b", Seq: uint64(i)}
		if i%4 == 0 {
			r.Kind = fleet.AuditKind
			r.Audit = []fleet.AuditEvent{{ObservedAt: r.ReceivedAt, Class: "process", Message: "z"}, {ObservedAt: r.ReceivedAt, Class: "file", Message: "a"}}
			a.Append(r)
		} else {
			r.Kind = fleet.TelemetryKind
			for k := range 5 { // neither metrics nor times in order
				r.Readings = append(r.Readings, fleet.Reading{ObservedAt: r.ReceivedAt.Add(-time.Duration(k) * time.Second), Metric: string(rune('z' - k%3)), Value: float64(k)})
			}
			b.Append(r)
		}
		want = append(want, r)
	}
	require.NoError(t, s.InsertTelemetry(ctx, "t", b))
	require.NoError(t, s.InsertAudit(ctx, "t", a))

	require.Equal(t, want, scan(t, s, store.ScanQuery{}))
	var one []fleet.Record
	for _, r := range want {
		if r.Device == "d1" {
			one = append(one, r)
		}
	}
	require.Equal(t, one, scan(t, s, store.ScanQuery{Device: "d1"}))
	for _, r := range scan(t, s, store.ScanQuery{Device: "d1", Metric: "y"}) {
		require.Len(t, r.Readings, 2)
		require.Equal(t, []float64{1, 4}, []float64{r.Readings[0].Value, r.Readings[1].Value})
	}
	require.Len(t, scan(t, s, store.ScanQuery{From: t0.Add(time.Hour), To: t0.Add(2 * time.Hour)}), 4)

	stop := errors.New("enough")
	require.ErrorIs(t, s.Scan(ctx, store.ScanQuery{}, func(fleet.Record) error { return stop }), stop)
}

func scan(t *testing.T, s *store.Store, q store.ScanQuery) (out []fleet.Record) {
	t.Helper()
	require.NoError(t, s.Scan(t.Context(), q, func(r fleet.Record) error {
		out = append(out, r)
		return nil
	}))
	return out
}

func TestMigrate_refusesFailingAndUnknown(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	require.NoError(t, s.Migrate(ctx), "again")

	files := fstest.MapFS{}
	for i, name := range []string{"00001_telemetry.sql", "00002_audit.sql", "00003_histories.sql", "00004_rollups.sql"} {
		files[name] = &fstest.MapFile{Data: []byte(fmt.Sprintf("-- +goose Up\nSELECT %d;\n", i))}
	}
	files["00005_bad.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nALTER TABLE nowhere ADD COLUMN x Int8;\n")}
	err := store.MigrateForTest(s, ctx, files)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	require.ErrorContains(t, err, "00005_bad.sql")
	require.ErrorContains(t, err, "nowhere")

	files["00005_bad.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE later (x Int8) ENGINE = MergeTree ORDER BY x;\n")}
	require.NoError(t, store.MigrateForTest(s, ctx, files))
	err = s.Migrate(ctx)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	require.ErrorContains(t, err, "version 5")
}

func TestMigrate_retention(t *testing.T) {
	s, err := store.Open(t.Context(), storetest.DSN(t), discard, store.Options{Retention: store.Retention{Telemetry: 7, Rollup: 60, Audit: 30, History: 90}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	for range 2 {
		require.NoError(t, s.Migrate(t.Context()))
	}
	n, err := store.CountForTest(s, t.Context(), "SELECT countIf(create_table_query LIKE '%toIntervalDay(7)%') * 10 + countIf(create_table_query LIKE '%toIntervalDay(90)%') FROM system.tables WHERE database = currentDatabase()")
	require.NoError(t, err)
	require.EqualValues(t, 24, n)
}

func TestQueries_engineAway(t *testing.T) {
	e := storetest.Engine(t, t.TempDir())
	s := storetest.Open(t, e.DSN())
	require.NoError(t, s.Migrate(t.Context()))
	require.NoError(t, e.Stop())
	_, err := s.Metrics(t.Context(), "d1")
	require.Equal(t, fleet.CodeUnavailable, fleet.CodeOf(err))
	require.EqualError(t, err, "ClickHouse does not answer, so metrics can't be read now: try again shortly")
	require.Error(t, s.Scan(t.Context(), store.ScanQuery{}, nil))
	require.False(t, store.Permanent(s.InsertTelemetry(t.Context(), "t", telemetry("d1", 1, 1, t0, 0))))
}

func BenchmarkScan(b *testing.B) {
	s := storetest.Start(b)
	require.NoError(b, s.InsertTelemetry(b.Context(), "t", telemetry("d1", 1, 50_000, t0, time.Second)))
	n := 0
	for b.Loop() {
		require.NoError(b, s.Scan(b.Context(), store.ScanQuery{Device: "d1"}, func(fleet.Record) error {
			n++
			return nil
		}))
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
}
