package quarantine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/alert/quarantine"
	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
)

const (
	patience = 10 * time.Second
	poll     = 2 * time.Millisecond
)

type world struct {
	bus     *bus.Bus
	service *quarantine.Service
	cfg     quarantine.Config
	size    int
	cancel  context.CancelFunc
	done    chan error

	mu      sync.Mutex
	now     time.Time
	devices map[string]fleet.Device
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{bus: bustest.Start(t), cfg: quarantine.DefaultConfig(), now: time.Now().UTC(), devices: map[string]fleet.Device{}}
	w.run(t)
	t.Cleanup(func() { w.stop(t) })
	return w
}

func (w *world) run(t *testing.T) {
	t.Helper()
	w.service = quarantine.New(w.cfg, quarantine.Deps{
		Bus: w.bus, Log: slog.New(slog.DiscardHandler), Clock: w.clock, Fleet: func() int { return w.size },
		Cohort: func(string) int { return w.size / 10 },
		Device: func(id string) (fleet.Device, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if d, ok := w.devices[id]; ok {
				return d, true
			}
			return fleet.Device{ID: id, State: fleet.Active}, id != "nobody"
		},
	})
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	w.done = make(chan error, 1)
	service := w.service
	go func() { w.done <- service.Run(ctx) }()
	<-service.Ready()
}

func (w *world) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	require.NoError(t, <-w.done)
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// finding is one of an armed rule, received now.
func (w *world) finding(device, rule string) fleet.Finding {
	now := w.clock()
	return fleet.Finding{
		ID: fleet.FindingID(rule, "v1", device, "", now), Device: device, RuleID: rule, Mode: fleet.Armed, Evidence: fleet.Own, Level: fleet.Isolate,
		WindowStart: now.Add(-time.Minute), WindowEnd: now, ReceivedAt: now, Explanation: fleet.Explanation{Sentence: "It left the expected range."},
	}
}

func (w *world) publish(t *testing.T, f fleet.Finding) {
	t.Helper()
	data, err := json.Marshal(f)
	require.NoError(t, err)
	_, err = w.bus.Core.Publish(t.Context(), "cordon.finding."+f.Device, data)
	require.NoError(t, err)
}

// settled waits until every published finding was considered.
func (w *world) settled(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		consumer, err := w.bus.Core.Consumer(t.Context(), bus.StreamFindings, "quarantine")
		if err != nil {
			return false
		}
		info := consumer.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	}, patience, poll)
}

// alarms counts the findings about the fleet.
func (w *world) alarms(t *testing.T) int {
	t.Helper()
	stream, err := w.bus.Core.Stream(t.Context(), bus.StreamFindings)
	require.NoError(t, err)
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("cordon.finding.fleet"))
	require.NoError(t, err)
	return int(info.State.Subjects["cordon.finding.fleet"])
}

func (w *world) held() int {
	n := 0
	for _, q := range w.service.List() {
		if q.Active() {
			n++
		}
	}
	return n
}

func TestService_requestAndRelease(t *testing.T) {
	w := start(t)
	request := fleet.QuarantineRequest{Device: "d1", Level: fleet.Restrict, Reason: "odd", Actor: "ada", Incident: "INC-1"}
	q, err := w.service.Request(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "d1.1", q.ID)
	require.Equal(t, fleet.Requested, q.State)

	again, err := w.service.Request(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, q, again, "the same level makes no second decision")
	request.Level = fleet.Isolate
	tighter, err := w.service.Request(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "d1.2", tighter.ID)
	request.Level = fleet.Observe
	_, err = w.service.Request(t.Context(), request)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))

	q, err = w.service.Release(t.Context(), "d1", "ada", "was benign")
	require.NoError(t, err)
	require.Equal(t, fleet.Released, q.State)
	require.Equal(t, "was benign", q.ReleaseNote)
	_, err = w.service.Release(t.Context(), "d1", "ada", "")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	_, err = w.service.Release(t.Context(), "d2", "ada", "")
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
	_, err = w.service.Get(t.Context(), "d2")
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
	stored, err := w.service.Get(t.Context(), "d1")
	require.NoError(t, err)
	require.Equal(t, q, stored)
}

func TestService_badRequests(t *testing.T) {
	w := start(t)
	good := fleet.QuarantineRequest{Device: "d1", Level: fleet.Isolate, Reason: "odd", Actor: "ada"}
	for field, change := range map[string]func(*fleet.QuarantineRequest){
		"device": func(r *fleet.QuarantineRequest) { r.Device = "a.b" },
		"level":  func(r *fleet.QuarantineRequest) { r.Level = "destroy" },
		"reason": func(r *fleet.QuarantineRequest) { r.Reason = " " },
		"actor":  func(r *fleet.QuarantineRequest) { r.Actor = "" },
		"until":  func(r *fleet.QuarantineRequest) { r.Until = w.clock().Add(-time.Second) },
	} {
		bad := good
		change(&bad)
		_, err := w.service.Request(t.Context(), bad)
		var wrong *fleet.Error
		require.ErrorAs(t, err, &wrong, field)
		require.Equal(t, field, wrong.Field)
		require.Equal(t, fleet.CodeInvalid, wrong.Code)
	}
	good.Device = "nobody"
	_, err := w.service.Request(t.Context(), good)
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
}

func TestService_armedFindingDecidesOnce(t *testing.T) {
	w := start(t)
	f := w.finding("d1", "r1")
	w.publish(t, f)
	w.publish(t, f)
	require.Eventually(t, func() bool { return w.held() == 1 }, patience, poll)
	w.settled(t)
	q, ok := w.service.Current("d1")
	require.True(t, ok)
	require.Equal(t, "d1.1", q.ID)
	require.Equal(t, "rule:r1", q.Actor)
	require.Equal(t, f.ID, q.Finding)
	require.Equal(t, "It left the expected range.", q.Reason)

	w.advance(time.Minute)
	_, err := w.service.Release(t.Context(), "d1", "ada", "")
	require.NoError(t, err)
	w.stop(t)
	w.run(t)
	require.NoError(t, w.service.Consider(t.Context(), f), "redelivered to a later process")
	require.Zero(t, w.held())
	require.Empty(t, w.service.Stopped())
}

func TestService_otherFindingsDecideNothing(t *testing.T) {
	w := start(t)
	for _, change := range []func(*fleet.Finding){
		func(f *fleet.Finding) { f.Mode = fleet.Alert },
		func(f *fleet.Finding) { f.Mode = fleet.Shadow },
		func(f *fleet.Finding) { f.Cleared = true },
	} {
		f := w.finding("d1", "r1")
		change(&f)
		w.publish(t, f)
	}
	w.settled(t)
	require.Empty(t, w.service.List())
	require.Empty(t, w.service.Stopped())
}

func TestService_guards(t *testing.T) {
	w := start(t)
	w.devices["p1"] = fleet.Device{ID: "p1", State: fleet.Active, Tags: []string{"protected"}}
	w.devices["gone"] = fleet.Device{ID: "gone", State: fleet.Retired}
	_, err := w.service.Request(t.Context(), fleet.QuarantineRequest{Device: "freed", Level: fleet.Isolate, Reason: "x", Actor: "ada"})
	require.NoError(t, err)
	old := w.finding("freed", "r1")
	w.advance(time.Second)
	_, err = w.service.Release(t.Context(), "freed", "ada", "")
	require.NoError(t, err)
	w.advance(2 * time.Minute)

	outside := w.finding("d1", "r1")
	outside.Evidence = fleet.Outside
	late := w.finding("d3", "r1")
	late.ReceivedAt = w.clock().Add(-2 * time.Hour)
	windowed := w.finding("freed", "r2")
	windowed.WindowStart = w.clock().Add(-5 * time.Minute)
	for want, f := range map[string]fleet.Finding{
		quarantine.StopEvidence:  outside,
		quarantine.StopProtected: w.finding("p1", "r1"),
		quarantine.StopNotActive: w.finding("gone", "r1"),
		quarantine.StopReleased:  old,
		quarantine.StopTooOld:    late,
	} {
		sub, err := w.bus.Cordon.SubscribeSync("cordon.quarantine." + f.Device)
		require.NoError(t, err)
		require.NoError(t, w.bus.Cordon.Flush())
		w.publish(t, f)
		msg, err := sub.NextMsg(patience)
		require.NoError(t, err, want)
		var stopped fleet.Stopped
		require.NoError(t, json.Unmarshal(msg.Data, &stopped))
		require.Equal(t, want, stopped.Stopped)
		require.Equal(t, f.ID, stopped.Finding)
	}
	w.settled(t)
	require.Len(t, w.service.Stopped(), 5)
	require.Zero(t, w.held())
	require.NoError(t, w.service.Consider(t.Context(), windowed))
	require.Equal(t, quarantine.StopReleased, w.service.Stopped()[0].Stopped)

	w.publish(t, w.finding("freed", "r1"))
	require.Eventually(t, func() bool { return w.held() == 1 }, patience, poll, "new evidence quarantines again")
}

func TestService_botchedRuleStopsAtItsCap(t *testing.T) {
	w := start(t)
	w.size = 10_000 // 2 % of it is more than the rule's cap
	for i := range 30 {
		w.publish(t, w.finding(fmt.Sprintf("d%02d", i), "botched"))
	}
	require.Eventually(t, func() bool { return len(w.service.Stopped()) == 20 }, patience, poll)
	require.Equal(t, w.cfg.PerRule, w.held())
	require.Equal(t, quarantine.StopBreaker, w.service.Stopped()[0].Stopped)
	require.Equal(t, quarantine.StopRuleCap, w.service.Stopped()[19].Stopped)
	require.Equal(t, 1, w.alarms(t), "one finding about the fleet")
	pending := w.service.Approvals()
	require.Len(t, pending, 1)
	require.Len(t, pending[0].Devices, 20)
	require.Equal(t, fleet.ApprovalPending, pending[0].State)

	// Releasing does not make room, and neither does a restart.
	_, err := w.service.Release(t.Context(), "d00", "ada", "")
	require.NoError(t, err)
	w.stop(t)
	w.run(t)
	require.NoError(t, w.service.Consider(t.Context(), w.finding("x1", "botched")))
	require.Equal(t, quarantine.StopBreaker, w.service.Stopped()[0].Stopped)
	require.NoError(t, w.service.Consider(t.Context(), w.finding("x2", "another")))
	require.Len(t, w.service.Stopped(), 1, "another rule has its own cap")

	w.advance(w.cfg.Window)
	require.NoError(t, w.service.Consider(t.Context(), w.finding("x3", "botched")))
	require.Len(t, w.service.Stopped(), 2, "the window has passed, but the breaker is open")
	require.Len(t, w.service.Approvals(), 1)
	require.Equal(t, 1, w.alarms(t))
	_, err = w.service.Resume(t.Context(), "rule:botched", "ada", "fixed")
	require.NoError(t, err)
	_, err = w.service.Resume(t.Context(), "rule:botched", "ada", "fixed")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	require.NoError(t, w.service.Consider(t.Context(), w.finding("x4", "botched")))
	require.Len(t, w.service.Stopped(), 2)
}

func TestService_fleetCap(t *testing.T) {
	w := start(t)
	w.size = 100
	for i := range 8 {
		require.NoError(t, w.service.Consider(t.Context(), w.finding(fmt.Sprintf("d%d", i), fmt.Sprintf("r%d", i))))
	}
	require.Equal(t, 4, w.held(), "one of five is kept for critical findings")
	require.Equal(t, quarantine.StopFleetCap, w.service.Stopped()[3].Stopped)
	_, err := w.service.Resume(t.Context(), "fleet", "ada", "looked at it")
	require.NoError(t, err)
	w.advance(time.Second)
	for i := range 6 {
		f := w.finding(fmt.Sprintf("c%d", i), fmt.Sprintf("r%d", i))
		f.Severity = fleet.Critical
		require.NoError(t, w.service.Consider(t.Context(), f))
	}
	require.Equal(t, 9, w.held(), "critical findings may use all five")
	_, err = w.service.Request(t.Context(), fleet.QuarantineRequest{Device: "d7", Level: fleet.Isolate, Reason: "x", Actor: "ada"})
	require.NoError(t, err, "operators are not bound by caps")
}

func TestService_wait(t *testing.T) {
	w := start(t)
	q, err := w.service.Request(t.Context(), fleet.QuarantineRequest{Device: "d1", Level: fleet.Isolate, Reason: "x", Actor: "ada"})
	require.NoError(t, err)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	got, err := w.service.Wait(short, "d1", q.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.Requested, got.State, "as it stands when the time is over")

	result := make(chan fleet.Quarantine, 1)
	go func() {
		got, _ := w.service.Wait(t.Context(), "d1", q.ID) //nolint:errcheck // the result says it
		result <- got
	}()
	q.State, q.ConfirmedAt = fleet.Confirmed, w.clock()
	data, err := json.Marshal(q)
	require.NoError(t, err)
	kv, err := w.bus.Bucket(t.Context(), bus.BucketQuarantine)
	require.NoError(t, err)
	_, err = kv.Put(t.Context(), "d1", data)
	require.NoError(t, err)
	require.Equal(t, fleet.Confirmed, (<-result).State)
}

func TestService_concurrentRequestsMakeOneDecision(t *testing.T) {
	w := start(t)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			_, err := w.service.Request(t.Context(), fleet.QuarantineRequest{Device: "d1", Level: fleet.Isolate, Reason: "x", Actor: "ada"})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	kv, err := w.bus.Bucket(t.Context(), bus.BucketQuarantine)
	require.NoError(t, err)
	history, err := kv.History(t.Context(), "d1")
	require.NoError(t, err)
	require.Len(t, history, 1)
}

func TestService_unreadableFindingIsTerminated(t *testing.T) {
	w := start(t)
	_, err := w.bus.Core.Publish(t.Context(), "cordon.finding.d1", []byte("{"), jetstream.WithMsgID("x"))
	require.NoError(t, err)
	w.publish(t, w.finding("d1", "r1"))
	require.Eventually(t, func() bool { return w.held() == 1 }, patience, poll)
	require.True(t, w.service.Status().Healthy)
}
