package incident

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
)

var epoch = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// bench is one broker and one running service.
type bench struct {
	t     *testing.T
	bus   *bus.Bus
	clock atomic.Int64
	svc   *Service
	stop  func()
	hook  func(string) error
	group int // GroupDevices; most tests are about devices by themselves
	known func(id string) fleet.Device
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, bus: bustest.Start(t), group: -1}
	b.clock.Store(epoch.Add(time.Hour).UnixNano())
	return b
}

func (b *bench) now() time.Time { return time.Unix(0, b.clock.Load()).UTC() }

func (b *bench) start() {
	b.svc = New(Config{RetryWait: time.Millisecond, Sweep: 20 * time.Millisecond, AckWait: 5 * time.Second, GroupDevices: b.group}, Deps{
		Bus: b.bus, Clock: b.now,
		Device: func(id string) (fleet.Device, bool) {
			if b.known != nil {
				return b.known(id), true
			}
			return fleet.Device{ID: id, Historic: id == "replay"}, true
		},
	})
	b.svc.faultHook = b.hook
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- b.svc.Run(ctx) }()
	<-b.svc.Ready()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(b.t, <-done)
		})
	}
	b.t.Cleanup(b.stop)
}

// finding makes one; n is its minute, which also makes its id.
func finding(device, rule, actor string, severity fleet.Severity, n int) fleet.Finding {
	at := epoch.Add(time.Duration(n) * time.Minute)
	return fleet.Finding{
		ID: fleet.FindingID(rule, "v1", device, actor, at), Device: device, Cohort: "pumps", Actor: actor, RuleID: rule, RuleVersion: "v1",
		RuleTitle: rule, Mode: fleet.Alert, Evidence: fleet.Own, Severity: severity, Technique: "T1110",
		WindowStart: at, WindowEnd: at.Add(time.Minute), ReceivedAt: at.Add(time.Minute), StreamSeq: uint64(n + 1),
		Explanation: fleet.Explanation{Sentence: fmt.Sprintf("%s spoke on %s in minute %d.", rule, device, n)},
	}
}

// publish puts findings on the stream as if the broker's window had passed.
func (b *bench) publish(findings ...fleet.Finding) {
	for _, f := range findings {
		raw, err := json.Marshal(f)
		require.NoError(b.t, err)
		_, err = b.bus.Core.Publish(b.t.Context(), bus.SubjectFinding+"."+f.Device, raw)
		require.NoError(b.t, err)
	}
}

// settle waits until every finding is acknowledged.
func (b *bench) settle() {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		consumer, err := b.bus.Core.Consumer(b.t.Context(), bus.StreamFindings, consumerName)
		if err != nil {
			return false
		}
		stream, err := b.bus.Core.Stream(b.t.Context(), bus.StreamFindings)
		return err == nil && consumer.CachedInfo().AckFloor.Stream == stream.CachedInfo().State.LastSeq
	}, time.Minute, 5*time.Millisecond)
}

// changes reads INCIDENTS from its beginning.
func (b *bench) changes() []fleet.IncidentChange {
	b.t.Helper()
	stream, err := b.bus.Core.Stream(b.t.Context(), bus.StreamIncidents)
	require.NoError(b.t, err)
	info, err := stream.Info(b.t.Context())
	require.NoError(b.t, err)
	var out []fleet.IncidentChange
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
		msg, err := stream.GetMsg(b.t.Context(), seq)
		require.NoError(b.t, err)
		var c fleet.IncidentChange
		require.NoError(b.t, json.Unmarshal(msg.Data, &c))
		require.Equal(b.t, c.ID, msg.Header.Get(jetstream.MsgIDHeader))
		require.Equal(b.t, bus.SubjectIncident+"."+c.Incident.ID, msg.Subject)
		out = append(out, c)
	}
	return out
}

func kinds(changes []fleet.IncidentChange) []string {
	out := []string{}
	for _, c := range changes {
		out = append(out, c.ID+" "+c.Change)
	}
	return out
}

func (b *bench) get(id string) fleet.Incident {
	b.t.Helper()
	inc, err := b.svc.Get(b.t.Context(), id)
	require.NoError(b.t, err)
	return inc
}

// one puts findings in one after the other, so that no batch folds changes.
func (b *bench) one(findings ...fleet.Finding) {
	b.t.Helper()
	for _, f := range findings {
		b.publish(f)
		b.settle()
	}
}

func TestService_findingsOfADeviceAreOneIncident(t *testing.T) {
	b := newBench(t)
	b.start()
	b.one(
		finding("d1", "cpu", "", fleet.Medium, 0),
		finding("d1", "cpu", "", fleet.Medium, 1),
		finding("d1", "ssh", "10.0.0.1", fleet.Low, 2),
		finding("d1", "ssh", "10.0.0.1", fleet.Low, 3),
		finding("d1", "ssh", "10.0.0.2", fleet.Low, 4),
		finding("d1", "scan", "", fleet.Critical, 5),
		finding("d2", "cpu", "", fleet.High, 6),
	)
	require.Equal(t, []string{
		"INC-1.1 opened", "INC-1.2 finding", "INC-1.3 finding", "INC-1.4 escalated", "INC-2.1 opened",
	}, kinds(b.changes()), "repeated findings are counted, not told")

	inc := b.get("INC-1")
	require.Equal(t, uint64(6), inc.Findings)
	require.Equal(t, fleet.Critical, inc.Severity)
	require.Equal(t, "scan spoke on d1 in minute 5.", inc.Title)
	require.Equal(t, []string{"cpu", "ssh", "scan"}, inc.Rules)
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2"}, inc.Actors)
	require.Equal(t, []string{"T1110"}, inc.Techniques)
	require.Equal(t, epoch, inc.FirstAt)
	require.Equal(t, epoch.Add(6*time.Minute), inc.LastAt)
	require.Equal(t, epoch.Add(time.Minute), inc.OpenedAt)
	require.Len(t, inc.FindingIDs, 6)
	require.Len(t, inc.Timeline, 4)
	require.Equal(t, "pumps", inc.Cohort)
}

func TestService_shadowAndMalformedFindingsOpenNothing(t *testing.T) {
	b := newBench(t)
	b.start()
	f := finding("d1", "cpu", "", fleet.High, 0)
	f.Mode = fleet.Shadow
	b.publish(f)
	_, err := b.bus.Core.Publish(t.Context(), bus.SubjectFinding+".d1", []byte(`{"id":`))
	require.NoError(t, err)
	_, err = b.bus.Core.Publish(t.Context(), bus.SubjectFinding+".d1", []byte(`{"id":"x","device":"bad id","rule_id":"r","severity":"high","mode":"alert"}`))
	require.NoError(t, err)
	b.settle()
	require.Empty(t, b.changes())
	b.one(finding("d1", "cpu", "", fleet.High, 1))
	require.Equal(t, []string{"INC-1.1 opened"}, kinds(b.changes()), "bad ones don't block")
}

func TestService_sameFindingTwiceChangesNothing(t *testing.T) {
	b := newBench(t)
	b.start()
	first := []fleet.Finding{finding("d1", "cpu", "", fleet.Medium, 0), finding("d1", "ssh", "a", fleet.High, 1)}
	b.one(first...)
	before := b.get("1")
	b.clock.Add(int64(time.Hour))
	b.one(first...)
	require.Equal(t, before, b.get("1"))
	require.Len(t, b.changes(), 2)

	_, err := b.svc.Resolve(t.Context(), "INC-1", "ann", fleet.Benign, "a test")
	require.NoError(t, err)
	b.one(first...)
	require.Len(t, b.changes(), 3, "opened, escalated, resolved")
	require.Equal(t, uint64(2), b.get("INC-1").Findings)
}

func TestService_duplicatesOlderThanTheKeptIDsAreKnown(t *testing.T) {
	b := newBench(t)
	b.start()
	var all []fleet.Finding
	for n := range maxFindingIDs + 50 {
		all = append(all, finding("d1", "cpu", "", fleet.Medium, n))
	}
	b.publish(all...)
	b.settle()
	b.publish(all[:60]...)
	b.settle()
	inc := b.get("INC-1")
	require.Equal(t, uint64(len(all)), inc.Findings)
	require.Len(t, inc.FindingIDs, maxFindingIDs)
	require.Equal(t, []string{"INC-1.1 opened"}, kinds(b.changes()))
}

func TestService_resolvedStaysResolved(t *testing.T) {
	b := newBench(t)
	b.start()
	b.one(finding("d1", "cpu", "", fleet.Medium, 0))
	resolved, err := b.svc.Resolve(t.Context(), "INC-1", "ann", fleet.TruePositive, "replaced the fan")
	require.NoError(t, err)

	b.one(finding("d1", "ssh", "a", fleet.High, 30)) // its window ended before the resolution at minute 60
	require.Len(t, b.changes(), 2)
	inc := b.get("INC-1")
	require.Equal(t, uint64(2), inc.Findings, "late evidence is counted")
	require.Equal(t, resolved.State, inc.State)

	b.one(finding("d1", "cpu", "", fleet.Medium, 61))
	require.Equal(t, []string{"INC-1.1 opened", "INC-1.2 resolved", "INC-2.1 opened"}, kinds(b.changes()))
	require.Equal(t, fleet.Resolved, b.get("INC-1").State)
}

func TestService_historicDeviceOpensAgainByEventTime(t *testing.T) {
	b := newBench(t)
	b.start()
	b.one(finding("replay", "cpu", "", fleet.Medium, 10))
	_, err := b.svc.Resolve(t.Context(), "INC-1", "ann", fleet.Benign, "")
	require.NoError(t, err)
	b.one(finding("replay", "cpu", "", fleet.Medium, 5), finding("replay", "cpu", "", fleet.Medium, 20))
	require.Equal(t, []string{"INC-1.1 opened", "INC-1.2 resolved", "INC-2.1 opened"}, kinds(b.changes()))
}

func TestService_decisionsAndConflicts(t *testing.T) {
	b := newBench(t)
	b.start()
	ctx := t.Context()
	b.one(finding("d1", "cpu", "", fleet.Medium, 0))

	inc, err := b.svc.Acknowledge(ctx, "INC-1", "ann")
	require.NoError(t, err)
	require.Equal(t, fleet.Acknowledged, inc.State)
	_, err = b.svc.Acknowledge(ctx, "INC-1", "ann")
	require.NoError(t, err, "twice by the same person is no conflict")
	_, err = b.svc.Acknowledge(ctx, "INC-1", "bob")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	require.ErrorContains(t, err, "ann")
	_, err = b.svc.Assign(ctx, "1", "ann", "bob")
	require.NoError(t, err)
	_, err = b.svc.Comment(ctx, "INC-1", "bob", "  looking\r\nat it\x00 ")
	require.NoError(t, err)
	_, err = b.svc.Comment(ctx, "INC-1", "bob", " ")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	_, err = b.svc.Resolve(ctx, "INC-1", "bob", "whatever", "")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	_, err = b.svc.Resolve(ctx, "INC-1", "bob", fleet.FalsePositive, "sensor in the sun")
	require.NoError(t, err)
	_, err = b.svc.Resolve(ctx, "INC-1", "ann", fleet.Benign, "")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	_, err = b.svc.Acknowledge(ctx, "INC-1", "ann")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	for _, id := range []string{"INC-99", "nonsense", "INC-0", "", "INC-1.1", "-1"} {
		_, err = b.svc.Get(ctx, id)
		require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err), id)
	}
	require.Equal(t, []string{
		"INC-1.1 opened", "INC-1.2 acknowledged", "INC-1.3 assigned", "INC-1.4 comment", "INC-1.5 resolved",
	}, kinds(b.changes()))
	inc = b.get("INC-1")
	require.Equal(t, "looking\nat it", inc.Timeline[3].Text)
	require.Equal(t, "bob", inc.ResolvedBy)

	verdicts, err := b.bus.Fleet.Stream(ctx, bus.StreamFleet)
	require.NoError(t, err)
	msg, err := verdicts.GetLastMsgForSubject(ctx, bus.SubjectControl+".verdict.d1")
	require.NoError(t, err)
	require.JSONEq(t, `{"verdict":{"device":"d1","rule":"cpu","verdict":"false_positive"}}`, string(msg.Data))
}

func TestService_reopen(t *testing.T) {
	b := newBench(t)
	b.start()
	ctx := t.Context()
	b.one(finding("d1", "cpu", "", fleet.Medium, 0))
	_, err := b.svc.Reopen(ctx, "INC-1", "ann")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	_, err = b.svc.Resolve(ctx, "INC-1", "ann", fleet.Benign, "")
	require.NoError(t, err)
	inc, err := b.svc.Reopen(ctx, "INC-1", "ann")
	require.NoError(t, err)
	require.Equal(t, fleet.Open, inc.State)
	require.Empty(t, inc.Verdict)
	b.one(finding("d1", "cpu", "", fleet.Medium, 70))
	require.Equal(t, uint64(2), b.get("INC-1").Findings, "a reopened incident takes findings")

	_, err = b.svc.Resolve(ctx, "INC-1", "ann", fleet.Benign, "")
	require.NoError(t, err)
	b.one(finding("d1", "cpu", "", fleet.Medium, 80))
	_, err = b.svc.Reopen(ctx, "INC-1", "ann")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	require.ErrorContains(t, err, "INC-2")

	b.clock.Add(int64(30 * 24 * time.Hour))
	_, err = b.svc.Resolve(ctx, "INC-2", "ann", fleet.Benign, "")
	require.NoError(t, err)
	_, err = b.svc.Reopen(ctx, "INC-1", "ann")
	require.ErrorContains(t, err, "7 days")
	_, err = b.svc.Reopen(ctx, "INC-2", "ann")
	require.NoError(t, err)
}

func (b *bench) quarantine(q fleet.Quarantine) {
	b.t.Helper()
	kv, err := b.bus.Bucket(b.t.Context(), bus.BucketQuarantine)
	require.NoError(b.t, err)
	raw, err := json.Marshal(q)
	require.NoError(b.t, err)
	_, err = kv.Put(b.t.Context(), q.Device, raw)
	require.NoError(b.t, err)
}

func TestService_quarantineEntersTheTimeline(t *testing.T) {
	b := newBench(t)
	b.start()
	at := epoch.Add(61 * time.Second)
	q := fleet.Quarantine{ID: "d1.1", Device: "d1", Level: fleet.Isolate, State: fleet.Confirmed, Reason: "scanning", Actor: "rule:scan", RequestedAt: at, ConfirmedAt: at.Add(2 * time.Millisecond)}
	b.quarantine(q) // decided before the incident is there: both follow from one finding
	b.one(finding("d1", "scan", "", fleet.High, 0))
	b.await("INC-1.1 opened", "INC-1.2 quarantined")

	b.stop()
	b.start() // the broker repeats the state; it is known
	q.State, q.ReleasedAt, q.ReleasedBy = fleet.Released, at.Add(time.Hour), "ann"
	b.quarantine(q)
	b.await("INC-1.1 opened", "INC-1.2 quarantined", "INC-1.3 released")
	inc := b.get("INC-1")
	require.Equal(t, []string{"opened", "quarantine", "released"}, timelineKinds(inc))
	require.Contains(t, inc.Timeline[1].Text, "after 2ms")
	require.Equal(t, "ann", inc.Timeline[2].Actor)

	b.quarantine(fleet.Quarantine{ID: "d9.1", Device: "d9", State: fleet.Confirmed}) // no incident, nothing to tell
	b.one(finding("d2", "cpu", "", fleet.Low, 3))
	require.Len(t, b.changes(), 4)
}

func TestService_quarantineIsNotedAlthoughPublishingFailedFirst(t *testing.T) {
	b := newBench(t)
	var failures atomic.Int64
	b.hook = func(at string) error {
		if at == "publish" && failures.Add(1) <= 3 {
			return errors.New("broker is away")
		}
		return nil
	}
	b.start()
	at := epoch.Add(61 * time.Second)
	b.quarantine(fleet.Quarantine{ID: "d1.1", Device: "d1", Level: fleet.Isolate, State: fleet.Failed, Failure: "broker b2 does not answer", Actor: "rule:scan", RequestedAt: at})
	b.one(finding("d1", "scan", "", fleet.High, 0))
	b.await("INC-1.1 opened", "INC-1.2 quarantined")
	require.Contains(t, b.get("INC-1").Timeline[1].Text, "NOT confirmed")
}

func timelineKinds(inc fleet.Incident) []string {
	out := []string{}
	for _, e := range inc.Timeline {
		out = append(out, e.Kind)
	}
	return out
}

func (b *bench) await(want ...string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return slices.Equal(want, kinds(b.changes())) }, 30*time.Second, 5*time.Millisecond,
		"want %v", want)
}

func TestService_list(t *testing.T) {
	b := newBench(t)
	b.start()
	severities := []fleet.Severity{fleet.Low, fleet.Critical, fleet.Medium, fleet.High, fleet.Critical}
	for i, s := range severities {
		b.one(finding(fmt.Sprintf("d%d", i+1), "cpu", "", s, i))
	}
	_, err := b.svc.Resolve(t.Context(), "INC-4", "ann", fleet.Benign, "")
	require.NoError(t, err)
	ids := func(f Filter, sort string) []string {
		t.Helper()
		var out []string
		cursor := ""
		for {
			page, err := b.svc.List(f, sort, cursor, 2)
			require.NoError(t, err)
			for _, inc := range page.Items {
				out = append(out, inc.ID)
			}
			if cursor = page.Next; cursor == "" {
				require.Equal(t, page.Total, uint64(len(out)))
				return out
			}
		}
	}
	require.Equal(t, []string{"INC-5", "INC-2", "INC-4", "INC-3", "INC-1"}, ids(Filter{}, ""))
	require.Equal(t, []string{"INC-5", "INC-2", "INC-3", "INC-1"}, ids(Filter{State: "unresolved"}, "severity"))
	require.Equal(t, []string{"INC-1", "INC-2", "INC-3", "INC-4", "INC-5"}, ids(Filter{}, "opened_at:asc"))
	require.Equal(t, []string{"INC-5", "INC-2"}, ids(Filter{Severity: "critical"}, "-opened_at"))
	require.Equal(t, []string{"INC-3"}, ids(Filter{Query: "CPU d3"}, "updated_at"))
	require.Equal(t, []string{"INC-4"}, ids(Filter{State: "resolved", Assignee: "-"}, ""))
	for _, bad := range []Filter{{State: "closed"}, {Severity: "bad"}} {
		_, err := b.svc.List(bad, "", "", 0)
		require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	}
	_, err = b.svc.List(Filter{}, "name", "", 0)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	_, err = b.svc.List(Filter{}, "", "zzz", 0)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	sum := b.svc.Summary()
	require.Equal(t, 4, sum.Unresolved)
	require.Equal(t, 2, sum.BySeverity[fleet.Critical])
}

func TestView_twentyThousandIncidentsListFast(t *testing.T) {
	s := New(Config{}, Deps{})
	for n := uint64(1); n <= 20000; n++ {
		f := finding(fmt.Sprintf("d%d", n), "cpu", "", fleet.Severities[n%5], int(n))
		s.view.put(newRecord(n, arrival{f, n}, epoch, fleet.Device{}, group{}), n)
	}
	start := time.Now()
	page, err := s.List(Filter{Query: "d1"}, "severity", "", 50)
	require.NoError(t, err)
	require.Len(t, page.Items, 50)
	require.Less(t, time.Since(start), 5*time.Second)
}
