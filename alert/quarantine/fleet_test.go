package quarantine_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/alert/incident"
	"cordon/internal/fleet"
)

// A botched rule that matches every device: it stops at its cap, one incident
// about the fleet and one approval request exist, and the rest stays free.
func TestService_botchedRuleMakesOneFleetIncident(t *testing.T) {
	w := start(t)
	w.size = 10_000
	incidents := incident.New(incident.DefaultConfig(), incident.Deps{Bus: w.bus, Log: slog.New(slog.DiscardHandler), Clock: time.Now})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- incidents.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	<-incidents.Ready()
	for i := range 60 {
		f := w.finding(fmt.Sprintf("d%02d", i), "botched")
		f.Severity = fleet.High
		w.publish(t, f)
	}
	fleetIncidents := func() uint64 {
		page, err := incidents.List(incident.Filter{Device: fleet.FleetID}, "", "", 10)
		require.NoError(t, err)
		return page.Total
	}
	require.Eventually(t, func() bool { return len(w.service.Stopped()) == 50 && fleetIncidents() == 1 }, patience, poll)
	w.settled(t)
	require.Equal(t, w.cfg.PerRule, w.held())
	require.Len(t, w.service.Approvals(), 1)
	require.Len(t, w.service.Approvals()[0].Devices, 50)
	require.EqualValues(t, 1, fleetIncidents())
}
