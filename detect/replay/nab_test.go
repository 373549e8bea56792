package replay

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/detect/baseline"
)

// series is eight days at five minutes with a spike and a shift.
func series(rows int) string {
	var b strings.Builder
	b.WriteString("timestamp,value\n")
	at := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	for i := range rows {
		v := 20 + 5*math.Sin(float64(i)/288*2*math.Pi) + math.Sin(float64(i)*12.9)
		switch {
		case i == 1500:
			v += 60
		case i > 2000:
			v += 12
		}
		fmt.Fprintf(&b, "%s,%.4f\n", at.Add(time.Duration(i)*5*time.Minute).Format(time.DateTime), v)
	}
	return b.String()
}

func score(t *testing.T, rows int) []string {
	t.Helper()
	var out bytes.Buffer
	n, err := scoreSeries(strings.NewReader(series(rows)), &out, baseline.DefaultSettings())
	require.NoError(t, err)
	require.Equal(t, rows, n)
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func TestScoreSeries_doesNotLookAhead(t *testing.T) {
	whole, cut := score(t, 2304), score(t, 1400)
	require.Equal(t, cut, whole[:len(cut)])
}

func TestScoreSeries_speaksAtSpikeAndShift(t *testing.T) {
	var at []int
	for i, line := range score(t, 2304)[1:] {
		parts := strings.Split(line, ",")
		require.Len(t, parts, 3)
		var s float64
		_, err := fmt.Sscan(parts[2], &s)
		require.NoError(t, err)
		if s > 0.33 && i > 600 { // two days of learning
			at = append(at, i)
		}
	}
	require.NotEmpty(t, at)
	require.Equal(t, 1500, at[0])
	require.InDelta(t, 2001, at[len(at)-1], 48)
}

func TestNAB_filesAndFaults(t *testing.T) {
	data, out := t.TempDir(), t.TempDir()
	_, _, err := NAB(t.Context(), data, out, baseline.DefaultSettings())
	require.ErrorContains(t, err, "no .csv file")
	require.NoError(t, os.MkdirAll(filepath.Join(data, "a"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(data, "a", "s.csv"), []byte(series(10)), 0o600))
	files, rows, err := NAB(t.Context(), data, out, baseline.DefaultSettings())
	require.NoError(t, err)
	require.Equal(t, []int{1, 10}, []int{files, rows})
	require.FileExists(t, filepath.Join(out, "a", "s.csv"))
	require.NoError(t, os.WriteFile(filepath.Join(data, "b.csv"), []byte("timestamp,value\n2026-11-02 00:00:00,warm\n"), 0o600))
	_, _, err = NAB(t.Context(), data, out, baseline.DefaultSettings())
	require.ErrorContains(t, err, `row 2: value "warm" is no number`)
}
