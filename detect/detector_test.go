package detect_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/detect"
	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
)

const (
	hotRule   = "id: hot\ntitle: Hot\nkind: threshold\nmetric: temp\nunit: Cel\nwhen: value > 80.0\nraise_after: 2\nclear_after: 2\nmode: alert\nlevel: isolate\nevidence: own\nseverity: high\nrunbook: Cool it.\nfalse_positives: [Sun.]\n"
	guessRule = "id: guess\ntitle: Guessing\nkind: count\nevents: outcome == \"failure\"\ngroup_by: [actor]\nthreshold: 3\nwindow: 5m\nmode: alert\nlevel: isolate\nevidence: outside\nseverity: low\nrunbook: Block it.\nfalse_positives: [Typos.]\n"
	oddRule   = "id: odd\ntitle: Odd\nkind: baseline\nmetric: \"*\"\nmode: alert\nevidence: own\nseverity: low\nrunbook: Look.\nfalse_positives: [New use.]\n"
)

// decode reads the little JSON that this test writes.
func decode(subject string, _ map[string][]string, data []byte, at time.Time, seq uint64, _ bool) (fleet.Record, bool) {
	r := fleet.Record{StreamSeq: seq, ReceivedAt: at.UTC(), Device: bus.Device(subject)}
	switch {
	case subject == bus.SubjectTick:
		r.Device, r.Kind, r.Tick = "", fleet.TickKind, fleet.Tick{At: at, Healthy: true}
		return r, true
	case len(subject) > len(bus.SubjectControl) && subject[:len(bus.SubjectControl)] == bus.SubjectControl:
		r.Device, r.Kind = "", fleet.ControlKind
		return r, json.Unmarshal(data, &r.Control) == nil
	}
	var body struct {
		Boot string
		Seq  uint64
		Temp float64
	}
	if json.Unmarshal(data, &body) != nil {
		return r, false
	}
	r.Kind, r.Boot, r.Seq = fleet.TelemetryKind, body.Boot, body.Seq
	r.Readings = []fleet.Reading{{ObservedAt: at.Add(time.Duration(int(body.Seq)-100) * time.Second), Metric: "temp", Value: body.Temp}}
	return r, true
}

type running struct {
	*detect.Detector
	stop func()
}

func start(t *testing.T, b *bus.Bus, rules ...fs.FS) running {
	t.Helper()
	cfg := detect.DefaultConfig()
	cfg.Checkpoint, cfg.Retry = 50*time.Millisecond, 20*time.Millisecond
	d := detect.New(cfg, detect.Deps{Bus: b, Decode: decode, Rules: rules})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(t, <-done)
	}
	t.Cleanup(stop)
	require.Eventually(t, func() bool { return d.Status().Healthy && len(d.Rules()) > 0 }, 5*time.Second, 5*time.Millisecond)
	return running{d, stop}
}

func pack(texts ...string) fs.FS {
	files := fstest.MapFS{}
	for i, text := range texts {
		files[fmt.Sprintf("%d.yaml", i)] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

func send(t *testing.T, b *bus.Bus, device string, seq int, temp float64) {
	t.Helper()
	_, err := b.Fleet.Publish(t.Context(), bus.SubjectTelemetry+"."+device, fmt.Appendf(nil, `{"boot":"b","seq":%d,"temp":%g}`, seq, temp))
	require.NoError(t, err)
}

func findings(t *testing.T, b *bus.Bus) []fleet.Finding {
	t.Helper()
	stream, err := b.Core.Stream(t.Context(), bus.StreamFindings)
	require.NoError(t, err)
	var out []fleet.Finding
	for seq := uint64(1); ; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			require.ErrorIs(t, err, jetstream.ErrMsgNotFound)
			return out
		}
		var f fleet.Finding
		require.NoError(t, json.Unmarshal(m.Data, &f))
		out = append(out, f)
	}
}

func awaitFindings(t *testing.T, b *bus.Bus, n int) []fleet.Finding {
	t.Helper()
	require.Eventually(t, func() bool { return len(findings(t, b)) >= n }, 5*time.Second, 10*time.Millisecond)
	return findings(t, b)
}

func TestDetector_raisesAndRestartsWithoutTrace(t *testing.T) {
	b := bustest.Start(t)
	rules := pack(hotRule, oddRule)
	d := start(t, b, rules)
	send(t, b, "cam-1", 1, 90)
	_, err := b.Fleet.Publish(t.Context(), bus.SubjectTelemetry+".cam-1", []byte("no JSON"))
	require.NoError(t, err)
	send(t, b, "cam-1", 1, 90) // resent: must not count as the second reading
	send(t, b, "cam-2", 1, 90)
	require.Eventually(t, func() bool { return d.Status().Counters["messages"] >= 5 }, 5*time.Second, 5*time.Millisecond)
	require.Empty(t, findings(t, b))
	d.stop()

	d = start(t, b, rules) // half-way through raise_after
	send(t, b, "cam-1", 2, 91)
	got := awaitFindings(t, b, 1)
	require.Len(t, got, 1)
	require.Equal(t, "cam-1", got[0].Device)
	require.Equal(t, "hot", got[0].RuleID)
	require.Equal(t, fleet.Alert, got[0].Mode)
	require.Equal(t, got[0].ReceivedAt, got[0].DetectedAt)
	require.Len(t, got[0].Explanation.Readings, 2)
	require.Contains(t, got[0].Explanation.Sentence, "91")
	require.NotEmpty(t, d.Status().Detail)

	states, err := bus.Baselines(t.Context(), b, "cam-1")
	require.NoError(t, err)
	require.Len(t, states, 1)
	require.Equal(t, "learning", states[0].State)
	require.Equal(t, uint64(2), states[0].Samples)
}

// TestDetector_redoesAfterLostCheckpoint loses the state but not the findings:
// the log is applied again, and nothing is published twice.
func TestDetector_redoesAfterLostCheckpoint(t *testing.T) {
	b := bustest.Start(t)
	d := start(t, b, pack(hotRule))
	for i := range 6 {
		send(t, b, "cam-1", i+1, []float64{90, 90, 10, 10, 90, 90}[i])
	}
	before := awaitFindings(t, b, 3)
	d.stop()
	objects, err := b.Core.ObjectStore(t.Context(), bus.ObjectsCheckpoint)
	require.NoError(t, err)
	require.NoError(t, objects.Delete(t.Context(), "detect"))
	stream, err := b.Core.Stream(t.Context(), bus.StreamFindings)
	require.NoError(t, err)
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	cfg := info.Config
	cfg.Duplicates = 100 * time.Millisecond // the broker's own filter must not be what helps
	_, err = b.Core.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)

	d = start(t, b, pack(hotRule))
	send(t, b, "cam-2", 1, 90)
	send(t, b, "cam-2", 2, 90)
	after := awaitFindings(t, b, 4)
	require.Equal(t, before, after[:3])
	require.Len(t, after, 4)
	require.Equal(t, "cam-2", after[3].Device)
}

func TestDetector_modes(t *testing.T) {
	b := bustest.Start(t)
	d := start(t, b, pack(hotRule, guessRule))
	require.Eventually(t, func() bool { return len(d.Rules()) == 2 }, 5*time.Second, 5*time.Millisecond)

	_, err := d.SetMode(t.Context(), "guess", fleet.Armed, "ada", "why not")
	require.Equal(t, fleet.CodeForbidden, fleet.CodeOf(err), "outside evidence can't be armed: %v", err)
	_, err = d.SetMode(t.Context(), "nothing", fleet.Armed, "ada", "")
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
	_, err = d.SetMode(t.Context(), "hot", "loud", "ada", "")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))

	r, err := d.SetMode(t.Context(), "hot", fleet.Armed, "ada", "real fire")
	require.NoError(t, err)
	require.Equal(t, fleet.Armed, r.Mode)
	require.Equal(t, "ada", r.ChangedBy)
	send(t, b, "cam-1", 1, 90)
	send(t, b, "cam-1", 2, 90)
	got := awaitFindings(t, b, 1)
	require.Equal(t, fleet.Armed, got[0].Mode)
	require.Equal(t, fleet.Isolate, got[0].Level)
	d.stop()

	// A changed rule of the pack keeps the operator's mode; one that is gone goes.
	d = start(t, b, pack(hotRule+"description: changed\n"))
	require.Eventually(t, func() bool {
		rules := d.Rules()
		return len(rules) == 1 && rules[0].Description == "changed"
	}, 5*time.Second, 5*time.Millisecond)
	require.Equal(t, fleet.Armed, d.Rules()[0].Mode)
}

func TestDetector_refusesBadRules(t *testing.T) {
	b := bustest.Start(t)
	d := detect.New(detect.DefaultConfig(), detect.Deps{Bus: b, Decode: decode, Rules: []fs.FS{pack(hotRule + "colour: red\n")}})
	err := d.Run(t.Context())
	require.ErrorContains(t, err, "0.yaml:15:1")
	require.ErrorContains(t, err, "colour")
}
