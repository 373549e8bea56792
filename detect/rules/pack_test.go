package rules_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/detect/rule"
	"cordon/detect/rules"
	"cordon/internal/fleet"
)

// TestPack_isCompleteAndShippedInAlert holds every shipped rule to what the
// dashboard shows of it.
func TestPack_isCompleteAndShippedInAlert(t *testing.T) {
	pack, err := rule.ParseFS(rules.FS)
	require.NoError(t, err)
	require.Greater(t, len(pack), 20)
	for _, r := range pack {
		require.Equal(t, fleet.Alert, r.Mode, r.ID)
		require.NotEmpty(t, r.Technique, r.ID)
		require.NotEmpty(t, r.Description, r.ID)
		require.NotEmpty(t, r.Runbook, r.ID)
		require.NotEmpty(t, r.FalsePositives, r.ID)
		if r.Evidence == fleet.Own {
			require.NotEmpty(t, r.Level, "%s could not be armed", r.ID)
			require.NoError(t, rule.CheckMode(r, fleet.Armed), r.ID)
			continue
		}
		require.Error(t, rule.CheckMode(r, fleet.Armed), r.ID)
	}
}
