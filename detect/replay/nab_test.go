package replay

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/detect/baseline"
)

// TestNAB_scoresKit runs over the series that CORDON_NAB names, for the scorer
// to read; without it there is nothing to run over.
func TestNAB_scoresKit(t *testing.T) {
	data, out := os.Getenv("CORDON_NAB"), os.Getenv("CORDON_NAB_OUT")
	if data == "" || out == "" {
		t.Skip("CORDON_NAB and CORDON_NAB_OUT are not set")
	}
	files, rows, err := NAB(t.Context(), data, out, baseline.DefaultSettings())
	require.NoError(t, err)
	t.Log(files, "files", rows, "rows")
}
