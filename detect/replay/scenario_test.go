package replay_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/detect/replay"
)

var update = flag.Bool("update", false, "rewrite findings.golden of every scenario")

func TestScenarios(t *testing.T) {
	root := filepath.Join("..", "testdata", "scenarios")
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, entry := range entries {
		t.Run(entry.Name(), func(t *testing.T) {
			dir := filepath.Join(root, entry.Name())
			got, err := replay.Scenario(os.DirFS(dir))
			require.NoError(t, err)
			golden := filepath.Join(dir, "findings.golden")
			if *update {
				require.NoError(t, os.WriteFile(golden, got, 0o600))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
			for line := range strings.Lines(string(got)) {
				_, sentence, _ := strings.Cut(line, "Z: ")
				sentence, _, _ = strings.Cut(sentence, " [")
				require.LessOrEqual(t, len(strings.Fields(sentence)), 30, "too many words: %s", sentence)
			}
		})
	}
}
