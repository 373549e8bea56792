package watch

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
)

func TestWhatFailsInSilenceBecomesAFindingOnceAndItsEndToo(t *testing.T) {
	b := bustest.Start(t)
	var beats atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { beats.Add(1) }))
	defer server.Close()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	healthy, disabled, lag := true, "", uint64(0)
	end := now.AddDate(1, 0, 0)
	w := New(Config{Heartbeat: server.URL}, Deps{
		Bus: b, Clock: func() time.Time { return now },
		Stages: func(context.Context) []fleet.StageStatus {
			return []fleet.StageStatus{{Stage: "engine", Healthy: healthy, Detail: "it does not answer"}, {Stage: "detect", Healthy: true, Lag: lag}}
		},
		Receivers:    func() []Receiver { return []Receiver{{Name: "soc", Healthy: disabled == "", Disabled: disabled}} },
		Certificates: func() []Certificate { return []Certificate{{"the dashboard", end}} },
	})
	look := func() []fleet.Finding {
		now = now.Add(2 * time.Minute)
		w.look(t.Context())
		stream, err := b.Core.Stream(t.Context(), bus.StreamFindings)
		require.NoError(t, err)
		info, err := stream.Info(t.Context())
		require.NoError(t, err)
		var out []fleet.Finding
		for seq := uint64(1); seq <= info.State.LastSeq; seq++ {
			msg, err := stream.GetMsg(t.Context(), seq)
			require.NoError(t, err)
			require.Equal(t, "cordon.finding.cordon", msg.Subject)
			var f fleet.Finding
			require.NoError(t, json.Unmarshal(msg.Data, &f))
			out = append(out, f)
		}
		return out
	}
	require.Empty(t, look())
	require.Equal(t, int64(1), beats.Load(), "all is well: the heartbeat goes out")

	healthy = false
	require.Empty(t, look(), "once may be chance")
	found := look()
	require.Len(t, found, 1)
	require.Equal(t, RuleStage, found[0].RuleID)
	require.Contains(t, found[0].Explanation.Sentence, "engine")
	require.Len(t, look(), 1, "told once")
	require.Equal(t, int64(1), beats.Load(), "no heartbeat while something is wrong")

	healthy, disabled, lag, end = true, "it answered 410 Gone", 200_000, now.Add(48*time.Hour)
	look()
	found = look()
	require.Len(t, found, 5)
	require.True(t, found[1].Cleared)
	rules := map[string]fleet.Severity{}
	for _, f := range found[2:] {
		rules[f.RuleID] = f.Severity
	}
	require.Equal(t, map[string]fleet.Severity{RuleDelivery: fleet.High, RuleLag: fleet.High, RuleCertificate: fleet.Critical}, rules)
}
