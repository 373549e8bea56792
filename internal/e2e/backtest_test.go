package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

// guessingSigma is ssh-brute-force in Sigma's syntax.
const guessingSigma = `title: Password guessing
id: sigma-guessing
correlation:
  type: event_count
  rules: [failed_signin]
  group-by: [src_ip]
  timespan: 5m
  condition: {gte: 5}
level: medium
tags: [attack.t1110]
---
title: Failed sign-in
name: failed_signin
logsource: {product: linux, service: sshd}
detection:
  s: {activity: logon, outcome: failure}
  condition: s
`

// A backtest over what ClickHouse holds finds what the detector found live,
// with the same ids, and says what another rule would change.
func TestBacktest_overClickHouseFindsWhatLiveFound(t *testing.T) {
	rules := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(rules, "guessing.yml"), []byte(strings.Replace(guessingSigma, "level: medium", "cordon: {mode: alert}\nlevel: medium", 1)), 0o600))
	c := up(t, "--rules", rules)
	log := filepath.Join(t.TempDir(), "gateway.log")
	attackers := []string{"203.0.113.61", "203.0.113.77"}
	lines := authLog(t, log, attackers)
	var sent replayed
	c.runJSON(&sent, "replay", log, "--year", "2025")
	device := sent.Devices[0].ID
	live := map[string][]string{}
	require.Eventually(t, func() bool {
		var page struct{ Items []fleet.Finding }
		require.Equal(t, 200, c.call("GET", "/findings?limit=500&device="+device, nil, &page))
		clear(live)
		for _, f := range page.Items {
			if !f.Cleared {
				live[f.RuleID] = append(live[f.RuleID], f.ID)
			}
		}
		return len(live["ssh-brute-force"]) == 2 && len(live["sigma-guessing"]) == 2
	}, 30*time.Second, 200*time.Millisecond, "both rules find both attackers live")

	for _, id := range []string{"ssh-brute-force", "sigma-guessing"} {
		var report fleet.BacktestReport
		c.runJSON(&report, "rules", "backtest", id, "--from", "2025-12-10T00:00:00Z", "--to", "2025-12-11T00:00:00Z")
		var ids []string
		for _, f := range report.Findings {
			ids = append(ids, f.ID)
		}
		slices.Sort(ids)
		slices.Sort(live[id])
		require.Equal(t, live[id], ids, id)
		require.Equal(t, lines, report.Events)
		require.Equal(t, 2, report.Difference.Same)
		require.Zero(t, report.Difference.Added+report.Difference.Removed)
		require.Empty(t, report.Quarantines, "evidence from outside quarantines nobody")
		require.Len(t, report.Incidents, 1)
	}

	file := filepath.Join(t.TempDir(), "sigma-guessing.yml")
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(guessingSigma, "gte: 5", "gte: 500", 1)), 0o600))
	var report fleet.BacktestReport
	c.runJSON(&report, "rules", "backtest", file, "--from", "2025-12-10T00:00:00Z", "--to", "2025-12-11T00:00:00Z")
	require.Zero(t, report.Raised)
	require.Equal(t, 2, report.Difference.Removed)
}
