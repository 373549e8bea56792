package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/store"
	"cordon/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

var (
	t0      = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	discard = slog.New(slog.DiscardHandler)
)

// telemetry makes messages of two readings each, one per step.
func telemetry(device string, firstSeq uint64, messages int, received time.Time, step time.Duration) *store.TelemetryBlock {
	b := &store.TelemetryBlock{}
	for i := range messages {
		at := received.Add(time.Duration(i) * step)
		b.Append(fleet.Record{
			Kind: fleet.TelemetryKind, StreamSeq: firstSeq + uint64(i), ReceivedAt: at, Device: device, Boot: "b1", Seq: uint64(i + 1),
			Readings: []fleet.Reading{
				{ObservedAt: at.Add(-time.Second), Metric: "cpu", Value: float64(i)},
				{ObservedAt: at.Add(-time.Second), Metric: "mem", Value: 100 - float64(i)},
			},
		})
	}
	return b
}

func TestInsertTelemetry_repeatedTokenCountsOnce(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	b := telemetry("d1", 10, 500, t0, 10*time.Second)
	for range 3 {
		require.NoError(t, s.InsertTelemetry(ctx, "FLEET:10-509", b))
	}
	requireReadings(t, s, "d1", 1000)

	// The same rows with another token are other rows.
	require.NoError(t, s.InsertTelemetry(ctx, "FLEET:510-1009", b))
	requireReadings(t, s, "d1", 2000)
}

// requireReadings compares the table with every roll-up.
func requireReadings(t *testing.T, s *store.Store, device string, want uint64) {
	t.Helper()
	ctx := t.Context()
	n, err := s.Counts(ctx, device)
	require.NoError(t, err)
	require.Equal(t, want, n.Readings, "telemetry")
	for _, q := range []string{
		"SELECT sum(readings) FROM telemetry_1m WHERE device = '" + device + "'",
		"SELECT sum(readings) FROM telemetry_1h WHERE device = '" + device + "'",
		"SELECT sum(readings) FROM telemetry_1d WHERE device = '" + device + "'",
		"SELECT sum(readings) FROM device_last WHERE device = '" + device + "'",
		"SELECT sum(readings) FROM ingest_rate",
	} {
		got, err := store.CountForTest(s, ctx, q)
		require.NoError(t, err)
		require.Equal(t, want, got, q)
	}
}

func TestInsertTelemetry_blockOverManyPartitions(t *testing.T) {
	s := storetest.Start(t)
	b := telemetry("d1", 1, 50, t0.AddDate(0, 0, -70), 34*time.Hour) // ten weeks
	for range 3 {
		require.NoError(t, s.InsertTelemetry(t.Context(), "FLEET:1-50", b))
	}
	requireReadings(t, s, "d1", 100)
}

func TestInsertTelemetry_wildObservedTimes(t *testing.T) {
	s := storetest.Start(t)
	b := &store.TelemetryBlock{}
	var want []int64
	for i := range 300 {
		at := time.Date(1970+i/2, 3, 1, 0, 0, i, 0, time.UTC)
		want = append(want, at.UnixMilli())
		b.Append(fleet.Record{Device: "old", StreamSeq: uint64(i + 1), ReceivedAt: t0, Readings: []fleet.Reading{{ObservedAt: at, Metric: "m", Value: 1}}})
	}
	require.NoError(t, s.InsertTelemetry(t.Context(), "a", b))
	requireReadings(t, s, "old", 300)
	series, err := s.Series(t.Context(), store.SeriesQuery{Device: "old", Metric: "m", Points: 1000})
	require.NoError(t, err)
	require.Equal(t, "raw", series.Resolution)
	require.Len(t, series.Points, 300)
	for i, p := range series.Points {
		require.Equal(t, want[i], p.At.UnixMilli())
	}
	series, err = s.Series(t.Context(), store.SeriesQuery{Device: "old", Metric: "m", Points: 20})
	require.NoError(t, err)
	require.LessOrEqual(t, len(series.Points), 20)
	var n uint64
	for _, p := range series.Points {
		n += p.Count
	}
	require.EqualValues(t, 300, n)
}

// One token names blocks of telemetry, audit events and dead letters: all of
// them count, and in the roll-ups that they share.
func TestInsert_sameTokenInEveryTable(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	b := telemetry("d1", 1, 10, t0, time.Second)
	a := &store.AuditBlock{}
	a.Append(fleet.Record{Device: "d1", StreamSeq: 11, ReceivedAt: t0.Add(time.Minute), Audit: make([]fleet.AuditEvent, 7)})
	d := &store.DeadLetterBlock{}
	d.Append(fleet.DeadLetter{Device: "d1", StreamSeq: 12, ReceivedAt: t0, Subject: "fleet.telemetry.d1", Reason: "malformed", Raw: []byte("{")})
	for range 3 {
		require.NoError(t, s.InsertTelemetry(ctx, "FLEET:1-12", b))
		require.NoError(t, s.InsertAudit(ctx, "FLEET:1-12", a))
		require.NoError(t, s.InsertDeadLetters(ctx, "FLEET:1-12", d))
	}
	n, err := s.Counts(ctx, "d1")
	require.NoError(t, err)
	require.Equal(t, store.DeviceCounts{Readings: 20, AuditEvents: 7, DeadLetters: 1, LastReceivedAt: t0.Add(time.Minute)}, n)
	requireReadings(t, s, "d1", 20)
	got, err := store.CountForTest(s, ctx, "SELECT sum(audit_events) * 1000 + sum(messages) FROM ingest_rate")
	require.NoError(t, err)
	require.EqualValues(t, 7011, got)
	got, err = store.CountForTest(s, ctx, "SELECT sum(audit_events) FROM device_last")
	require.NoError(t, err)
	require.EqualValues(t, 7, got)
	seen, err := s.LastSeen(ctx)
	require.NoError(t, err)
	require.Equal(t, map[string]time.Time{"d1": t0.Add(time.Minute)}, seen)
}

func TestInsert_permanentErrors(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	b := telemetry("d1", 1, 2, t0, time.Second)
	b.Reset()
	for i := range 150 { // weeks of receipt
		b.Append(fleet.Record{Device: "d1", StreamSeq: uint64(i + 1), ReceivedAt: t0.AddDate(0, 0, -7*i), Readings: make([]fleet.Reading, 1)})
	}
	err := s.InsertTelemetry(ctx, "y", b)
	require.Error(t, err)
	require.True(t, store.Permanent(err), err)

	err = s.InsertHistory(ctx, store.HistoryIncident, "z", []store.HistoryRow{{Key: "INC-1", Revision: 3, JSON: []byte("{")}})
	require.ErrorContains(t, err, `row 0, key "INC-1", revision 3`)
	require.True(t, store.Permanent(err))

	canceled, cancel := context.WithCancel(ctx)
	cancel()
	err = s.InsertTelemetry(canceled, "w", telemetry("d1", 1, 1, t0, 0))
	require.Error(t, err)
	require.False(t, store.Permanent(err))

	// A missing table is not the rows' fault.
	unmigrated := storetest.Open(t, storetest.DSN(t))
	err = unmigrated.InsertTelemetry(ctx, "v", telemetry("d1", 1, 1, t0, 0))
	require.Error(t, err)
	require.False(t, store.Permanent(err))
	// The store works on.
	require.NoError(t, s.InsertTelemetry(ctx, "u", telemetry("d1", 1, 1, t0, 0)))
}

const nasty = "it's \\ a \"test\"\n\tof \x00 every \xff\xfe byte; DROP TABLE audit -- {x:String} ? $1 %s é"

func TestAudit_roundTripAndPaging(t *testing.T) {
	s := storetest.Start(t)
	ctx := t.Context()
	a := &store.AuditBlock{}
	event := fleet.AuditEvent{
		ObservedAt: t0.Add(-time.Hour), Class: "authentication", Activity: "logon", Outcome: "failure", Program: "sshd",
		Actor: "203.0.113.7", User: nasty, Message: nasty, Fields: map[string]string{"port": "22", nasty: nasty}, Repeat: 5,
	}
	a.Append(fleet.Record{Device: "d1", StreamSeq: 1, ReceivedAt: t0, Boot: "b", Seq: 9, Audit: []fleet.AuditEvent{event}})
	for i := range 10 {
		events := make([]fleet.AuditEvent, 25)
		for k := range events {
			events[k] = fleet.AuditEvent{ObservedAt: t0, Class: "process", Activity: "start", Message: fmt.Sprintf("event %d.%d", i, k)}
		}
		// Two messages in the same millisecond each time.
		a.Append(fleet.Record{Device: "d2", StreamSeq: uint64(2 + i), ReceivedAt: t0.Add(time.Duration(i/2) * time.Millisecond), Audit: events})
	}
	require.NoError(t, s.InsertAudit(ctx, "t", a))

	page, err := s.Audit(ctx, store.AuditQuery{Device: "d1"})
	require.NoError(t, err)
	require.Equal(t, []store.AuditRow{{Device: "d1", ReceivedAt: t0, StreamSeq: 1, Boot: "b", Seq: 9, AuditEvent: event}}, page.Items)
	require.Empty(t, page.Next)

	var messages []string
	q := store.AuditQuery{Device: "d2", Limit: 7}
	for {
		page, err := s.Audit(ctx, q)
		require.NoError(t, err)
		require.EqualValues(t, 250, page.Total)
		for _, r := range page.Items {
			messages = append(messages, r.Message)
		}
		if page.Next == "" {
			break
		}
		q.Before = store.Cursor(page.Next)
	}
	require.Len(t, messages, 250)
	for i := range messages {
		require.Equal(t, fmt.Sprintf("event %d.%d", 9-i/25, 24-i%25), messages[i])
	}

	for text, want := range map[string]int{"EVENT 3.": 25, nasty: 1, "203.0.113.7": 1, "it's \\ a \"TEST\"\n": 1, "nothing": 0, "%": 1} {
		page, err := s.Audit(ctx, store.AuditQuery{Text: text, Limit: 1000})
		require.NoError(t, err)
		require.Len(t, page.Items, want, text)
	}
	page, err = s.Audit(ctx, store.AuditQuery{From: t0.Add(-2 * time.Hour), To: t0})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)

	_, err = s.Audit(ctx, store.AuditQuery{Before: "nonsense"})
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	page, err = s.Audit(ctx, store.AuditQuery{Device: "' OR 1=1 --"})
	require.NoError(t, err)
	require.Empty(t, page.Items)
}

func TestDeadLetters_roundTripEncrypted(t *testing.T) {
	dsn := storetest.DSN(t)
	s := storetest.Open(t, dsn)
	ctx := t.Context()
	require.NoError(t, s.Migrate(ctx))
	b := &store.DeadLetterBlock{}
	for i := range 5 {
		b.Append(fleet.DeadLetter{
			StreamSeq: uint64(i + 1), Device: "d1", Subject: "fleet.telemetry.d1", ReceivedAt: t0, Reason: "malformed",
			Detail: nasty, Raw: []byte("secret " + nasty),
		})
	}
	require.NoError(t, s.InsertDeadLetters(ctx, "t", b))
	page, err := s.DeadLetters(ctx, store.DeadLetterQuery{Device: "d1", Limit: 3})
	require.NoError(t, err)
	require.Equal(t, []fleet.DeadLetter{b.Rows[4], b.Rows[3], b.Rows[2]}, page.Items)
	page, err = s.DeadLetters(ctx, store.DeadLetterQuery{Before: store.Cursor(page.Next)})
	require.NoError(t, err)
	require.Equal(t, []fleet.DeadLetter{b.Rows[1], b.Rows[0]}, page.Items)

	n, err := store.CountForTest(s, ctx, "SELECT countIf(position(raw, 'secret') > 0) FROM dead_letters")
	require.NoError(t, err)
	require.Zero(t, n, "raw bytes are readable in the table")
	n, err = s.DeadLetterCount(ctx, t0, t0.Add(time.Second))
	require.NoError(t, err)
	require.EqualValues(t, 5, n)

	keyless, err := store.Open(ctx, dsn, discard)
	require.NoError(t, err)
	t.Cleanup(func() { _ = keyless.Close() })
	page, err = keyless.DeadLetters(ctx, store.DeadLetterQuery{})
	require.NoError(t, err)
	require.Nil(t, page.Items[0].Raw)
	require.Contains(t, page.Items[0].Detail, "can't be decrypted")

	_, err = store.Open(ctx, dsn, discard, store.Options{RawKey: []byte("short")})
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
}

func TestOpen_badAddresses(t *testing.T) {
	log := discard
	_, err := store.Open(t.Context(), "clickhouse://cordon:hunter2@host:notaport/db", log)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	require.NotContains(t, err.Error(), "hunter2")
	_, err = store.Open(t.Context(), "clickhouse://cordon:hunter2@127.0.0.1:1/db", log)
	require.Equal(t, fleet.CodeUnavailable, fleet.CodeOf(err))
	require.NotContains(t, err.Error(), "hunter2")
	require.True(t, strings.Contains(err.Error(), "127.0.0.1:1"), err)
}

func BenchmarkInsertTelemetry(b *testing.B) {
	s := storetest.Start(b)
	const rows = 100_000
	block := &store.TelemetryBlock{}
	for i := range rows / 20 {
		at := t0.Add(time.Duration(i) * time.Millisecond)
		readings := make([]fleet.Reading, 20)
		for k := range readings {
			readings[k] = fleet.Reading{ObservedAt: at, Metric: fmt.Sprintf("metric_%d", k), Value: float64(i*k) / 7}
		}
		block.Append(fleet.Record{Device: fmt.Sprintf("device-%d", i%1000), Boot: "b1", Seq: uint64(i), StreamSeq: uint64(i), ReceivedAt: at, Readings: readings})
	}
	i := 0
	for b.Loop() {
		i++
		if err := s.InsertTelemetry(b.Context(), fmt.Sprintf("bench:%d", i), block); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
}
