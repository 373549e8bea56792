package incident

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// newGroupBench is a bench where findings of five devices, or of one actor on
// three, belong together.
func newGroupBench(t *testing.T) *bench {
	b := newBench(t)
	b.group = 5
	b.known = func(id string) fleet.Device {
		d := fleet.Device{ID: id, Cohort: "pumps"}
		if number, ok := strings.CutPrefix(id, "hall3-"); ok {
			d.Site, d.Firmware = "hall-3", "1."+number
		}
		if _, ok := strings.CutPrefix(id, "dear"); ok {
			d.Tags = []string{"criticality:critical"}
		}
		return d
	}
	return b
}

func (b *bench) list(f Filter) []fleet.Incident {
	b.t.Helper()
	page, err := b.svc.List(f, "opened_at:asc", "", 500)
	require.NoError(b.t, err)
	return page.Items
}

func with(f fleet.Finding, technique string) fleet.Finding {
	f.Technique = technique
	return f
}

func TestOneActorOnManyDevicesIsOneCampaign(t *testing.T) {
	b := newGroupBench(t)
	b.start()
	for n, device := range []string{"a", "b", "c", "d", "e", "f"} {
		b.one(finding(device, "ssh", "203.0.113.7", fleet.Medium, n))
	}
	open := b.list(Filter{State: "unresolved"})
	require.Len(t, open, 1)
	campaign := b.get(open[0].ID)
	require.Equal(t, fleet.ScopeCampaign, campaign.Scope)
	require.Equal(t, "actor:203.0.113.7", campaign.Group)
	require.Equal(t, []string{"c", "a", "b", "d", "e", "f"}, campaign.Devices, "the devices of the incidents it took in too")
	require.Equal(t, 6, campaign.DeviceCount)
	require.Equal(t, uint64(6), campaign.Findings)
	require.Equal(t, []string{"INC-1", "INC-2"}, campaign.Children)
	require.Equal(t, "ssh on 6 devices by actor 203.0.113.7", campaign.Title)

	child := b.get("INC-1")
	require.Equal(t, fleet.Resolved, child.State)
	require.Equal(t, campaign.ID, child.Parent)
	require.Contains(t, child.Reason, "part of INC-3")
	require.Len(t, b.list(Filter{Device: "b", State: "unresolved"}), 1, "a device's list shows the campaign that it is in")
	inc, ok := b.svc.OpenOf("f")
	require.True(t, ok)
	require.Equal(t, campaign.ID, inc.ID)
}

func TestOneTechniqueAcrossTheFleetIsOneCampaign(t *testing.T) {
	b := newGroupBench(t)
	b.known = func(id string) fleet.Device { return fleet.Device{ID: id, Site: "site-" + id} }
	b.start()
	for n := range 8 {
		b.one(with(finding(fmt.Sprintf("d%d", n), fmt.Sprintf("guess-%d", n%2), fmt.Sprintf("10.0.0.%d", n), fleet.Medium, n), fmt.Sprintf("T1110.00%d", n%3+1)))
	}
	open := b.list(Filter{State: "unresolved"})
	require.Len(t, open, 1)
	require.Equal(t, "technique:T1110", open[0].Group)
	require.Equal(t, 8, open[0].DeviceCount)
}

func TestDevicesOfOneSiteThatFallSilentTogetherAreOneIncident(t *testing.T) {
	b := newGroupBench(t)
	b.start()
	for n := range 40 {
		b.publish(with(finding(fmt.Sprintf("hall3-%d", n), "device-silent", "", fleet.Medium, 0), "T1489"))
	}
	b.settle()
	open := b.list(Filter{State: "unresolved"})
	require.Len(t, open, 1)
	require.Equal(t, "site:hall-3/device-silent", open[0].Group)
	require.Equal(t, "device-silent on 40 devices at site hall-3", open[0].Title)
	require.Equal(t, uint64(40), open[0].Findings)
}

func TestSilenceWhileCordonItselfIsDownIsCordonsIncident(t *testing.T) {
	b := newGroupBench(t)
	b.start()
	b.one(finding(fleet.SystemDevice, "cordon-ingest-lag", "", fleet.High, 0))
	for n := range 3 {
		b.one(with(finding(fmt.Sprintf("d%d", n), "device-silent", "", fleet.Medium, n+1), "T1489"))
	}
	open := b.list(Filter{State: "unresolved"})
	require.Len(t, open, 1)
	require.Equal(t, fleet.SystemDevice, open[0].Device)
	require.Equal(t, fleet.ScopeCause, open[0].Scope)
	require.Equal(t, uint64(4), open[0].Findings)
	require.Contains(t, open[0].Title, "while Cordon itself was in trouble")
}

func TestIncidentThatSomebodyWorksOnStaysByItself(t *testing.T) {
	b := newGroupBench(t)
	b.start()
	b.one(finding("a", "ssh", "203.0.113.7", fleet.Medium, 0), finding("b", "ssh", "203.0.113.7", fleet.Medium, 1))
	_, err := b.svc.Acknowledge(t.Context(), "INC-1", "ann")
	require.NoError(t, err)
	b.one(finding("c", "ssh", "203.0.113.7", fleet.Medium, 2), finding("a", "ssh", "203.0.113.7", fleet.Medium, 3))
	require.Equal(t, fleet.Acknowledged, b.get("INC-1").State)
	require.Equal(t, uint64(2), b.get("INC-1").Findings, "what it is about goes on in it")
	require.Equal(t, "INC-3", b.get("INC-2").Parent)
}

// TestFloodBecomesAHandful: 100,000 findings of 10,000 devices in a minute.
func TestFloodBecomesAHandful(t *testing.T) {
	findings, devices := 100_000, 10_000
	if testing.Short() {
		findings = 20_000
	}
	b := newGroupBench(t)
	b.known = func(id string) fleet.Device { return fleet.Device{ID: id, Cohort: "c" + id[len(id)-1:]} }
	b.clock.Store(epoch.Add(2 * time.Minute).UnixNano())
	for n := range findings {
		d := n % devices
		f := finding(fmt.Sprintf("d%d", d), fmt.Sprintf("rule-%d", n%7), fmt.Sprintf("198.51.100.%d", d%20), fleet.Severities[1+n%4], 0)
		f.ID, f.StreamSeq = fmt.Sprintf("f%d", n), uint64(n)
		raw, err := json.Marshal(f)
		require.NoError(t, err)
		_, err = b.bus.Core.PublishAsync(bus.SubjectFinding+"."+f.Device, raw)
		require.NoError(t, err)
	}
	<-b.bus.Core.PublishAsyncComplete()
	start := time.Now()
	b.start()
	b.settle()
	took := time.Since(start)
	open := b.list(Filter{State: "unresolved"})
	var counted uint64
	slowest := time.Duration(0)
	for _, inc := range open {
		counted += inc.Findings
		at := time.Now()
		b.get(inc.ID)
		slowest = max(slowest, time.Since(at))
	}
	t.Logf("%d findings of %d devices in %s: %d incidents, %d changes told; a page in at most %s", findings, devices, took, len(open), len(b.changes()), slowest)
	require.LessOrEqual(t, len(open), 60, "a readable handful")
	require.Equal(t, uint64(findings), counted, "every finding is counted, none twice")
	require.Less(t, slowest, time.Second)
	require.Less(t, len(b.changes()), 1000)
}

func TestGroupDiesBetweenAnyTwoSteps(t *testing.T) {
	for _, point := range []string{"drawn", "reserved", "apply", "applied", "publish", "published", "absorb"} {
		for _, visit := range []int64{1, 3, 5} {
			t.Run(fmt.Sprintf("%s%d", point, visit), func(t *testing.T) {
				b := newGroupBench(t)
				var visits atomic.Int64
				died := make(chan struct{}, 100)
				b.hook = func(at string) error {
					if at == point && visits.Add(1) >= visit {
						select {
						case died <- struct{}{}:
						default:
						}
						return errors.New("died here")
					}
					return nil
				}
				b.start()
				for n := range 4 {
					b.publish(finding(fmt.Sprintf("d%d", n), "ssh", "203.0.113.7", fleet.Medium, n))
				}
				select {
				case <-died:
				case <-time.After(300 * time.Millisecond):
				}
				b.stop()
				b.hook = nil
				b.start()
				b.one(finding("d5", "ssh", "203.0.113.7", fleet.Medium, 5))
				require.Eventually(t, func() bool {
					return len(b.list(Filter{State: "unresolved"})) == 1 && len(b.svc.view.unsent()) == 0 && len(b.svc.view.absorbing()) == 0
				}, 20*time.Second, 5*time.Millisecond)
				inc := b.list(Filter{State: "unresolved"})[0]
				require.Equal(t, uint64(5), inc.Findings)
				require.Equal(t, 5, inc.DeviceCount)
				seen := map[string]bool{}
				for _, c := range b.changes() {
					require.False(t, seen[c.ID], c.ID)
					seen[c.ID] = true
				}
			})
		}
	}
}

func TestRiskAddsUpAndFades(t *testing.T) {
	b := newGroupBench(t)
	b.start()
	b.one(finding("d1", "cpu", "", fleet.Medium, 0))
	require.Equal(t, fleet.Medium, b.get("INC-1").Severity)
	b.one(finding("d1", "disk", "", fleet.Medium, 1), finding("d1", "port", "", fleet.Medium, 2))
	require.Equal(t, fleet.High, b.get("INC-1").Severity, "three medium things on one device are a high one")
	require.Equal(t, "INC-1.3 escalated", kindOf(b.changes(), "escalated"))

	b.one(finding("dear1", "fan", "", fleet.High, 3))
	require.Equal(t, 100.0, b.get("INC-2").Risk, "weighted by criticality")

	b.one(finding("d2", "cpu", "", fleet.Medium, 0), finding("d2", "disk", "", fleet.Medium, 24*60), finding("d2", "port", "", fleet.Medium, 48*60))
	require.Equal(t, fleet.Medium, b.list(Filter{Device: "d2"})[0].Severity, "days apart they add up to nothing")
}

func kindOf(changes []fleet.IncidentChange, kind string) string {
	for _, c := range changes {
		if c.Change == kind {
			return c.ID + " " + c.Change
		}
	}
	return ""
}

func TestWhatComesAndGoesIsSaidToFlap(t *testing.T) {
	b := newGroupBench(t)
	b.start()
	for n := range 10 {
		f := finding("d1", "cpu", "", fleet.Medium, n)
		f.Cleared = n%2 == 1
		b.one(f)
	}
	inc := b.get("INC-1")
	require.True(t, inc.Flapping)
	require.Equal(t, "INC-1.2 flapping", kinds(b.changes())[1])
	require.Len(t, b.changes(), 2, "told once")
}

func TestTagsTicketAndHandover(t *testing.T) {
	b := newGroupBench(t)
	b.start()
	b.one(finding("d1", "cpu", "", fleet.High, 0), finding("d2", "disk", "", fleet.Low, 1), finding("d3", "port", "", fleet.Low, 2))
	_, err := b.svc.SetTags(t.Context(), "INC-1", "ann", []string{"vip", " vip ", "lab"})
	require.NoError(t, err)
	_, err = b.svc.SetTicket(t.Context(), "INC-1", "ann", "https://tickets.example/T-1")
	require.NoError(t, err)
	_, err = b.svc.SetTicket(t.Context(), "INC-1", "ann", "javascript:alert(1)")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	_, err = b.svc.SetTags(t.Context(), "INC-1", "ann", []string{""})
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	require.Len(t, b.list(Filter{Tag: "lab"}), 1)
	_, err = b.svc.Acknowledge(t.Context(), "INC-2", "bob")
	require.NoError(t, err)
	_, err = b.svc.Resolve(t.Context(), "INC-3", "bob", fleet.Benign, "planned")
	require.NoError(t, err)

	h := b.svc.Handover(epoch, b.now().Add(time.Second))
	require.Equal(t, 3, h.Opened)
	require.Equal(t, 1, h.Resolved)
	require.Equal(t, map[fleet.Verdict]int{fleet.Benign: 1}, h.Verdicts)
	require.Equal(t, "INC-1", h.Untouched[0].ID)
	require.Equal(t, "INC-2", h.Taken[0].ID)
	require.Equal(t, "INC-3", h.Ended[0].ID)
	risks := b.svc.Risks(10)
	require.Equal(t, "d1", risks[0].Device)
}
