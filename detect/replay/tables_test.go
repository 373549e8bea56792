package replay

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/detect/joint"
)

// tableRows are rows of two columns of which the second leaves the first at
// row 700.
func tableRows(n int) string {
	var b strings.Builder
	b.WriteString("datetime;a;b;anomaly\n")
	for i := range n {
		v := math.Sin(float64(i) * 12.9)
		w := 2*v + 0.1*math.Sin(float64(i)*7.7)
		if i >= 700 {
			w += 4
		}
		fmt.Fprintf(&b, "2026-11-02 00:%02d:%02d;%.4f;%.4f;0.0\n", i/60%60, i%60, v, w)
	}
	return b.String()
}

func verdicts(t *testing.T, n int) []string {
	t.Helper()
	var out bytes.Buffer
	rows, err := judgeTable(strings.NewReader(tableRows(n)), &out, joint.DefaultSettings())
	require.NoError(t, err)
	require.Equal(t, n, rows)
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func TestJudgeTable_findsTheBreakWithoutLookingAhead(t *testing.T) {
	whole, cut := verdicts(t, 800), verdicts(t, 600)
	require.Equal(t, cut, whole[:len(cut)])
	for _, line := range whole[1:700] {
		require.Equal(t, "0", strings.Split(line, ";")[1], line)
	}
	require.Equal(t, "1", strings.Split(whole[730], ";")[1])
}

func TestSKAB_faults(t *testing.T) {
	data, out := t.TempDir(), t.TempDir()
	_, _, err := SKAB(t.Context(), data, out, joint.DefaultSettings())
	require.ErrorContains(t, err, "no .csv file")
	require.NoError(t, os.WriteFile(filepath.Join(data, "x.csv"), []byte("datetime;a\n2026;warm\n"), 0o600))
	_, _, err = SKAB(t.Context(), data, out, joint.DefaultSettings())
	require.ErrorContains(t, err, `row 2: a "warm" is no number`)
}

func TestRows_sortsByTimeAndAnswersInFileOrder(t *testing.T) {
	var b strings.Builder
	b.WriteString("\ufeffdate,time,v,w,label,type\r\n")
	for i := 599; i >= 0; i-- { // newest first
		v := math.Sin(float64(i) * 12.9)
		if i >= 500 {
			v *= 20
		}
		fmt.Fprintf(&b, "25-Apr-19,%d:%02d:%02d,%.4f,true,0,normal\r\n", i/3600, i/60%60, i%60, v)
	}
	data, out := filepath.Join(t.TempDir(), "in.csv"), filepath.Join(t.TempDir(), "out.csv")
	require.NoError(t, os.WriteFile(data, []byte(b.String()), 0o600))
	rows, flagged, err := Rows(data, out, 300, joint.DefaultSettings())
	require.NoError(t, err)
	require.Equal(t, 600, rows)
	require.InDelta(t, 100, flagged, 15)
	raw, err := os.ReadFile(out)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	require.Len(t, lines, 601)
	require.True(t, strings.HasPrefix(lines[1], "1,"), "the newest row stands first")
	require.Equal(t, "0,0.0000", lines[600])
	_, _, err = Rows(data, out, 5, joint.DefaultSettings())
	require.ErrorContains(t, err, "want at least 10")
}

// TestDisturbed holds the harness to the benchmark's rules on a case that can
// be counted by hand.
func TestDisturbed_perfectAndSilent(t *testing.T) {
	s := Series{Name: "s", Windows: [][2]int{{500, 599}}}
	for i := range 1000 {
		s.At = append(s.At, int64(i)*300)
		s.Value = append(s.Value, float64(i))
	}
	first := func(s Series) []float64 {
		out := make([]float64, len(s.At))
		out[s.Windows[0][0]] = 0.5
		return out
	}
	got, mean, threshold := Disturbed([]Series{s}, Disturbances(), first)
	require.Len(t, got, 7)
	require.InDelta(t, 100, mean, 0.5)
	require.InDelta(t, 0.5, threshold, 0)
	_, mean, _ = Disturbed([]Series{s}, Disturbances(), func(s Series) []float64 { return make([]float64, len(s.At)) })
	require.Zero(t, mean)
	late := Plain([]Series{s}, func(s Series) []float64 {
		out := make([]float64, len(s.At))
		out[700] = 0.5
		return out
	})
	require.Zero(t, late[0].Score, "a lone false alarm is worth less than silence")
}
