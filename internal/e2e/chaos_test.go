package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The short form of cordon bench chaos: real processes, NATS and MQTT devices,
// kills at the points of the block protocol and at random.
func TestChaos_nothingIsLostOrStoredTwice(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), binary(t), "bench", "chaos", "--minutes", "0.35", "--json", "--log-level", "error")
	var said strings.Builder
	cmd.Stderr = &said
	raw, err := cmd.Output()
	require.NoError(t, err, "%s%s", &said, raw)
	var result struct {
		Sent       uint64
		Receipted  uint64
		Stored     uint64
		Duplicates uint64
		Lost       uint64
		Kills      int
		Rollups    bool `json:"rollups_equal"`
	}
	require.NoError(t, json.Unmarshal(raw, &result))
	t.Logf("%s", raw)
	require.NotZero(t, result.Sent)
	require.Equal(t, result.Sent, result.Stored)
	require.Equal(t, result.Sent, result.Receipted)
	require.Zero(t, result.Lost+result.Duplicates)
	require.True(t, result.Rollups)
	require.Positive(t, result.Kills)
}
