package simulate

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest/gate/gatetest"
	"cordon/internal/agent"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

// issuer enrols at the test's registry.
type issuer struct{ world *gatetest.World }

func (i issuer) Register(ctx context.Context, r agent.Registration) (string, error) {
	_, token, err := i.world.Registry.Enroll(ctx, identity.Enrolment{
		ID: r.ID, Cohort: r.Cohort, Site: r.Site, Model: r.Model, Tags: r.Tags, TimeZone: r.TimeZone, Actor: "test",
	})
	return token, err
}

func (i issuer) Redeem(ctx context.Context, token string, csr []byte) (agent.Credentials, error) {
	device, certificate, err := i.world.Registry.Redeem(ctx, token, csr)
	return agent.Credentials{Device: device.ID, Certificate: certificate, CA: i.world.CA.PEM(), NATS: i.world.Server.NATSAddress()}, err
}

// received counts the readings on the log, per device.
func received(t *testing.T, w *gatetest.World) map[string]int {
	t.Helper()
	stream, err := w.Bus.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	counts := map[string]int{}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		require.NoError(t, err)
		if !strings.HasPrefix(msg.Subject, bus.SubjectTelemetry+".") {
			continue
		}
		var body struct {
			Readings []json.RawMessage          `json:"readings"`
			Metrics  map[string]json.RawMessage `json:"metrics"`
		}
		require.NoError(t, json.Unmarshal(msg.Data, &body))
		counts[bus.Device(msg.Subject)] += len(body.Readings) + len(body.Metrics)
	}
	return counts
}

func TestRun_pastAndPresentArriveOverRealConnections(t *testing.T) {
	w := gatetest.Start(t)
	dir := t.TempDir()
	cfg := DefaultRunConfig()
	cfg.Fleet = Config{Devices: 8, Seed: 3, Plans: plans(t, "silent@0s:"+mustID(t, 8, 3, 0))}
	cfg.Driver.Dir, cfg.Driver.Interval = dir, 200*time.Millisecond
	cfg.History, cfg.Duration, cfg.Truth = 2*time.Hour, time.Second, filepath.Join(dir, "truth.json")
	var done, total uint64
	cfg.Progress = func(doing string, d, n uint64) {
		if strings.Contains(doing, "history") {
			done, total = d, n
		}
	}
	var past map[string]int
	cfg.Live = func([]Attack) { past = received(t, w) }
	require.NoError(t, Run(t.Context(), cfg, DriverDeps{Issuer: issuer{w}, Log: slog.New(slog.DiscardHandler)}))

	require.Equal(t, total, done)
	require.Len(t, past, 8)
	sum := 0
	for _, n := range past {
		require.GreaterOrEqual(t, n, 13*120)
		sum += n
	}
	require.Equal(t, int(total), sum, "everything reported as sent is on the log")
	now := received(t, w)
	silent := mustID(t, 8, 3, 0)
	for device, n := range now {
		if device == silent {
			require.Equal(t, past[device], n, "a silent device says nothing")
			continue
		}
		require.Greater(t, n, past[device])
	}
	require.FileExists(t, cfg.Truth)

	// The same directory is the same devices: nobody enrols again.
	cfg.History, cfg.Live = 0, func([]Attack) {}
	require.NoError(t, Run(t.Context(), cfg, DriverDeps{Issuer: issuer{w}, Log: slog.New(slog.DiscardHandler)}))
}

func mustID(t *testing.T, devices int, seed uint64, i int) string {
	t.Helper()
	f, err := New(Config{Devices: devices, Seed: seed})
	require.NoError(t, err)
	return f.Registration(i).ID
}

func TestDriver_quarantinedDeviceHoldsUpNobodyAndComesBack(t *testing.T) {
	w := gatetest.Start(t)
	f, err := New(Config{Devices: 3, Seed: 5})
	require.NoError(t, err)
	cfg := DefaultDriverConfig()
	cfg.Interval = 200 * time.Millisecond
	d := NewDriver(cfg, f, DriverDeps{Issuer: issuer{w}, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, d.Connect(t.Context(), nil))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Live(ctx) }()

	victim, other := f.Registration(0).ID, f.Registration(1).ID
	more := func(device string, than int) func() bool {
		return func() bool { return received(t, w)[device] > than }
	}
	require.Eventually(t, more(victim, 0), 10*time.Second, 50*time.Millisecond)
	w.Quarantine(t, victim, fleet.Isolate)
	w.Await(t, victim, fleet.Confirmed)
	cut := received(t, w)
	require.Eventually(t, more(other, cut[other]+3*13), 10*time.Second, 50*time.Millisecond)
	require.Equal(t, cut[victim], received(t, w)[victim])
	w.Release(t, victim)
	require.Eventually(t, more(victim, cut[victim]+13), 15*time.Second, 50*time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	d.Close(context.Background())
}
