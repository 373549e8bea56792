package ingest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"cordon/ingest"
	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
	"cordon/internal/store"
	"cordon/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// rig is a broker, an engine and movers between them.
type rig struct {
	t     testing.TB
	bus   *bus.Bus
	store *store.Store
	cfg   ingest.Config
	into  ingest.Store
	perm  func(error) bool
	// historic devices
	mu       sync.Mutex
	historic map[string]bool
}

func newRig(t testing.TB) *rig {
	t.Helper()
	s := storetest.Start(t)
	cfg := ingest.DefaultConfig()
	cfg.FlushIdle, cfg.FlushBusy = 20*time.Millisecond, 40*time.Millisecond
	cfg.RetryMin = 10 * time.Millisecond
	return &rig{t: t, bus: bustest.Start(t), store: s, into: s, cfg: cfg, historic: map[string]bool{}}
}

func (r *rig) device(id string) (fleet.Device, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fleet.Device{ID: id, Historic: r.historic[id]}, true
}

// run is a mover at work.
type run struct {
	*ingest.Mover
	registry *prometheus.Registry
	t        testing.TB
	cancel   context.CancelFunc
	done     chan struct{}
	err      error
}

func (r *rig) start() *run {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	registry := prometheus.NewRegistry()
	m := ingest.New(r.cfg, ingest.Deps{
		Bus: r.bus, Store: r.into, Device: r.device, Permanent: r.perm, Registry: registry,
	})
	out := &run{Mover: m, registry: registry, t: r.t, cancel: cancel, done: make(chan struct{})}
	go func() {
		out.err = m.Run(ctx)
		close(out.done)
	}()
	r.t.Cleanup(out.stop)
	return out
}

func (m *run) stop() {
	m.cancel()
	<-m.done
}

// wait waits until the mover ends by itself.
func (m *run) wait() error {
	m.t.Helper()
	select {
	case <-m.done:
	case <-time.After(30 * time.Second):
		m.t.Fatal("the mover did not end")
	}
	return m.err
}

func (r *rig) publish(subject string, payload []byte, header nats.Header) uint64 {
	r.t.Helper()
	ack, err := r.bus.Fleet.PublishMsg(r.t.Context(), &nats.Msg{Subject: subject, Data: payload, Header: header})
	require.NoError(r.t, err)
	return ack.Sequence
}

// telemetry publishes messages from to to (included) of a boot, each with n readings.
func (r *rig) telemetry(device, boot string, from, to uint64, n int) {
	r.t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	readings := make([]fleet.Reading, n)
	for seq := from; seq <= to; seq++ {
		for i := range readings {
			readings[i] = fleet.Reading{ObservedAt: now, Metric: fmt.Sprintf("metric_%d", i), Value: float64(seq)}
		}
		_, err := r.bus.Fleet.PublishAsync(bus.SubjectTelemetry+"."+device, codec.EncodeTelemetry(boot, seq, readings))
		require.NoError(r.t, err)
	}
	select {
	case <-r.bus.Fleet.PublishAsyncComplete():
	case <-time.After(time.Minute):
		r.t.Fatal("publishing took too long")
	}
}

func (r *rig) counts(device string) store.DeviceCounts {
	r.t.Helper()
	c, err := r.store.Counts(r.t.Context(), device)
	require.NoError(r.t, err)
	return c
}

// settled waits until a device has as many rows as wanted, and checks that it
// stays so and that the roll-up agrees.
func (r *rig) settled(device string, readings, events, dead uint64) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		c, err := r.store.Counts(r.t.Context(), device)
		return err == nil && c.Readings >= readings && c.AuditEvents >= events && c.DeadLetters >= dead
	}, 30*time.Second, 20*time.Millisecond, "rows of %s", device)
	c := r.counts(device)
	require.Equal(r.t, []uint64{readings, events, dead}, []uint64{c.Readings, c.AuditEvents, c.DeadLetters}, device)
	r.rolledUp(device, readings)
}

// rolledUp compares what the roll-ups count with the rows.
func (r *rig) rolledUp(device string, readings uint64) {
	r.t.Helper()
	metrics, err := r.store.Metrics(r.t.Context(), device)
	require.NoError(r.t, err)
	var sum uint64
	for _, m := range metrics {
		sum += m.Count
	}
	require.Equal(r.t, readings, sum, "roll-up of %s", device)
}

func TestMover_storesEverythingOnce(t *testing.T) {
	r := newRig(t)
	r.historic["old"] = true
	receipts := make(chan *nats.Msg, 16)
	sub, err := r.bus.Devices.ChanSubscribe(bus.SubjectReceipt+".>", receipts)
	require.NoError(t, err)
	defer func() { _ = sub.Unsubscribe() }()

	mqtt := nats.Header{"Nmqtt-Pub": {"1"}}
	r.telemetry("d1", "b", 1, 500, 20)
	r.telemetry("d1", "b", 400, 450, 20) // a resent buffer
	r.publish("fleet.audit.d1", []byte("Nov 24 12:00:00 h sshd[1]: Accepted password for a from 10.0.0.1 port 5 ssh2\r\nanother line"), nil)
	bad := []byte(`{"boot":"b","seq":501,"metrics":{"a":NaN}}`)
	r.publish("fleet.telemetry.d1", bad, mqtt)
	r.publish("fleet.telemetry.gw.child", []byte(`{"boot":"g","seq":1,"metrics":{"a":1}}`), mqtt)
	r.publish("fleet.telemetry.old", []byte(`{"ts":"2014-02-01T00:00:00Z","metrics":{"a":1}}`), nil)
	r.publish("fleet.telemetry.d2", []byte(`{"ts":"2014-02-01T00:00:00Z","metrics":{"a":1}}`), nil)
	r.publish(bus.SubjectTick, []byte(`{"at":"2026-11-24T12:00:00Z","healthy":true}`), nil)
	r.publish(bus.SubjectControl+".device.d1", []byte(`{"device":{"id":"d1","cohort":"c"}}`), nil)
	r.publish("fleet.telemetry.d1", []byte(`{"boot":"b","seq":10,"metrics":{"a":1}}`), mqtt) // a copy, sent over MQTT

	m := r.start()
	r.settled("d1", 500*20, 2, 1)
	r.settled("child", 1, 0, 0)
	r.settled("old", 1, 0, 0)
	r.settled("d2", 0, 0, 1)

	var got []string
	for range 3 {
		select {
		case msg := <-receipts:
			got = append(got, msg.Subject+" "+string(msg.Data))
		case <-time.After(10 * time.Second):
			t.Fatal("a receipt is missing")
		}
	}
	require.Equal(t, []string{
		`fleet.receipt.d1 {"boot":"b","seq":501}`, // a dead letter is kept as well
		`fleet.receipt.gw {"boot":"g","seq":1,"device":"child"}`,
		`fleet.receipt.d1 {"boot":"b","seq":10}`,
	}, got)

	letters, err := r.store.DeadLetters(t.Context(), store.DeadLetterQuery{Device: "d1"})
	require.NoError(t, err)
	require.Len(t, letters.Items, 1)
	require.Equal(t, codec.NotFinite, letters.Items[0].Reason)
	require.Contains(t, letters.Items[0].Detail, "a is NaN at byte 38")
	require.Equal(t, string(bad), string(letters.Items[0].Raw))

	require.Eventually(t, func() bool {
		s := m.Status()
		return s.Healthy && s.Lag == 0
	}, 10*time.Second, 20*time.Millisecond)
	require.Equal(t, map[string]float64{
		"messages_received_total FLEET":    500 + 51 + 8,
		"messages_received_total FINDINGS": 0, "messages_received_total KV_delivery": 0, "messages_received_total KV_device": 0,
		"messages_received_total KV_incident": 0, "messages_received_total KV_quarantine": 0, "messages_received_total KV_rule": 0,
		"records_decoded_total reading":    500*20 + 2,
		"records_decoded_total event":      2,
		"rows_stored_total telemetry":      500*20 + 2,
		"rows_stored_total audit":          2,
		"rows_stored_total dead_letter":    2,
		"dead_letters_total not_finite":    1,
		"dead_letters_total too_old":       1,
		"duplicate_messages_dropped_total": 52,
		"receipts_sent_total":              3,
		"blocks_redone_total":              0,
		"stream_trims_total":               0,
	}, m.counters())
}

// counters are the mover's counters, by name and label.
func (m *run) counters() map[string]float64 {
	m.t.Helper()
	families, err := m.registry.Gather()
	require.NoError(m.t, err)
	out := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if metric.GetCounter() == nil {
				continue
			}
			name := strings.TrimPrefix(family.GetName(), "cordon_ingest_")
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			out[name] = metric.GetCounter().GetValue()
		}
	}
	return out
}

func TestMover_secondMoverFencesTheFirst(t *testing.T) {
	r := newRig(t)
	r.telemetry("f1", "b", 1, 100, 3)
	first := r.start()
	r.settled("f1", 300, 0, 0)
	second := r.start()
	require.Eventually(t, func() bool {
		r.telemetry("f2", "b", 1, 1, 1)
		select {
		case <-first.done:
			return true
		default:
			return false
		}
	}, 20*time.Second, 50*time.Millisecond)
	require.ErrorIs(t, first.err, ingest.ErrFenced)
	r.telemetry("f1", "b", 101, 200, 3)
	r.settled("f1", 600, 0, 0)
	r.settled("f2", 1, 0, 0)
	second.stop()
	require.NoError(t, second.err)
}

func TestMover_resentOverRestarts(t *testing.T) {
	for name, every := range map[string]time.Duration{"checkpoint after every block": 0, "no checkpoint": time.Hour} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.cfg.CheckpointEvery = every
			r.cfg.MaxMessages = 60
			for round := range uint64(4) {
				r.telemetry("r1", "b", 1, 100*(round+1), 5) // everything again, and 100 more
				m := r.start()
				r.settled("r1", 500*(round+1), 0, 0)
				m.stop()
				require.NoError(t, m.err)
			}
		})
	}
}

func TestMover_movesHistory(t *testing.T) {
	r := newRig(t)
	finding := fleet.Finding{ID: "f1", Device: "h1", RuleID: "r", WindowStart: time.Now(), WindowEnd: time.Now(), ReceivedAt: time.Now(), DetectedAt: time.Now(), Severity: fleet.Low, Mode: fleet.Alert, Evidence: fleet.Own}
	raw, err := json.Marshal(finding)
	require.NoError(t, err)
	_, err = r.bus.Core.Publish(t.Context(), bus.SubjectFinding+".h1", raw)
	require.NoError(t, err)
	m := r.start()
	kv, err := r.bus.Bucket(t.Context(), bus.BucketQuarantine)
	require.NoError(t, err)
	for i, state := range []fleet.QuarantineState{fleet.Requested, fleet.Applied, fleet.Confirmed} {
		raw, err := json.Marshal(fleet.Quarantine{ID: "h1.1", Device: "h1", State: state, RequestedAt: time.Now(), Level: fleet.Isolate})
		require.NoError(t, err)
		if i == 2 { // with a restart in between
			m.stop()
			m = r.start()
		}
		_, err = kv.Put(t.Context(), "h1", raw)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		page, err := r.store.QuarantineHistory(t.Context(), "h1", "", 10)
		return err == nil && len(page.Items) > 0 && page.Items[0].State == fleet.Confirmed
	}, 20*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		page, err := r.store.Findings(t.Context(), store.FindingQuery{Device: "h1"})
		return err == nil && len(page.Items) == 1 && page.Items[0].ID == "f1"
	}, 20*time.Second, 20*time.Millisecond)
}

func TestMover_trimsBelowBothReaders(t *testing.T) {
	r := newRig(t)
	r.cfg.TrimEvery, r.cfg.TrimAbove, r.cfg.CheckpointEvery = 0, 0, 0
	kv, err := r.bus.Bucket(t.Context(), bus.BucketPosition)
	require.NoError(t, err)
	r.telemetry("t1", "b", 1, 100, 1)
	m := r.start()
	r.settled("t1", 100, 0, 0)
	first := func() uint64 {
		stream, err := r.bus.Fleet.Stream(t.Context(), bus.StreamFleet)
		require.NoError(t, err)
		return stream.CachedInfo().State.FirstSeq
	}
	require.EqualValues(t, 1, first(), "the detector has no checkpoint yet")
	_, err = kv.PutString(t.Context(), "detect", "40")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return first() == 41 }, 10*time.Second, 50*time.Millisecond)
	_, err = kv.PutString(t.Context(), "detect", "100000")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return first() > 41 && first() <= 101 }, 10*time.Second, 50*time.Millisecond)
	m.stop()
	r.telemetry("t1", "b", 90, 110, 1)
	r.start()
	r.settled("t1", 110, 0, 0)
}
