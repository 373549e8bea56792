package recording

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

type sent struct {
	lines []string
	years []int
	fleet []fleet.Reading
	calls int
}

func (s *sent) Telemetry(_ context.Context, readings []fleet.Reading) error {
	s.calls++
	s.fleet = append(s.fleet, readings...)
	return nil
}

func (s *sent) Syslog(_ context.Context, lines []byte, year int) error {
	s.calls++
	for line := range strings.Lines(string(lines)) {
		s.lines = append(s.lines, strings.TrimSuffix(line, "\n"))
		s.years = append(s.years, year)
	}
	return nil
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func play(t *testing.T, path string, year int) (*Recording, *sent) {
	t.Helper()
	r, err := Open(path, year)
	require.NoError(t, err)
	to, total := &sent{}, uint64(0)
	require.NoError(t, r.Play(t.Context(), to, 0, func(n uint64) { total = n }))
	require.Equal(t, r.Records, total)
	return r, to
}

func TestSeries(t *testing.T) {
	for name, content := range map[string]string{
		"line feeds":    "timestamp,value\n2013-07-04 00:00:00,69.5\n2013-07-04T01:00:00+02:00,71\n",
		"CRLF":          "timestamp,value\r\n2013-07-04 00:00:00,69.5\r\n2013-07-04T01:00:00+02:00,71\r\n",
		"no final end":  "timestamp,value\n2013-07-04 00:00:00,69.5\n2013-07-04T01:00:00+02:00,71",
		"BOM":           "\ufefftimestamp,value\n2013-07-04 00:00:00,69.5\n2013-07-04T01:00:00+02:00,71\n",
		"blank lines":   "timestamp,value\n\n2013-07-04 00:00:00,69.5\n\n2013-07-04T01:00:00+02:00,71\n\n",
		"quoted header": "\"Timestamp\",\"Value\"\n2013-07-04 00:00:00,69.5\n2013-07-04T01:00:00+02:00, 71\n",
	} {
		t.Run(name, func(t *testing.T) {
			r, to := play(t, write(t, "room temp.csv", content), 0)
			require.Equal(t, "room_temp", r.ID)
			require.Equal(t, []fleet.Reading{
				{ObservedAt: time.Date(2013, 7, 4, 0, 0, 0, 0, time.UTC), Metric: "room_temp", Value: 69.5},
				{ObservedAt: time.Date(2013, 7, 3, 23, 0, 0, 0, time.UTC), Metric: "room_temp", Value: 71},
			}, to.fleet)
		})
	}
}

func TestSeries_badRowNamesLine(t *testing.T) {
	for content, want := range map[string]string{
		"2013-07-04 00:00:00,69.5\n":                            ":1: the first row of a series must be \"timestamp,value\"",
		"timestamp,value\n2013-07-04 00:00:00,1\nyesterday,2\n": ":3: time \"yesterday\"",
		"timestamp,value\n2013-07-04 00:00:00,NaN\n":            ":2: value \"NaN\" is not a finite number",
		"timestamp,value\n2013-07-04 00:00:00,\n":               ":2: value \"\" is not a finite number",
		"timestamp,value\n2013-07-04 00:00:00,1,2\n":            ":2: row has 3 fields",
		"timestamp,value\n\n2013-07-04 00:00:00\n":              ":3: row has 1 fields",
		"timestamp,value\n1913-07-04 00:00:00,1\n":              ":2: time \"1913-07-04 00:00:00\" is outside the years",
		"timestamp,value\n2013-07-04 00:00:00,\"1\n":            ":2: ",
		"timestamp,value\n":                                     "holds no records",
	} {
		_, err := Open(write(t, "a.csv", content), 0)
		require.ErrorContains(t, err, want)
		require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	}
}

func TestLog(t *testing.T) {
	a, b := "Dec 10 06:55:46 LabSZ sshd[24200]: Failed password for root from 1.2.3.4 port 1 ssh2", "Dec 10 06:55:47 LabSZ sshd[24200]: message repeated 2 times: [ x ]"
	for name, content := range map[string]string{
		"line feeds":   a + "\n" + b + "\n",
		"CRLF":         a + "\r\n" + b + "\r\n",
		"no final end": a + "\r\n" + b,
		"BOM":          "\ufeff" + a + "\n" + b,
		"blank lines":  "\n" + a + "\n \r\n" + b + "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			r, to := play(t, write(t, "OpenSSH_2k.log", content), 2016)
			require.Equal(t, "OpenSSH_2k", r.ID)
			require.Equal(t, uint64(2), r.Records)
			require.Equal(t, []string{a, b}, to.lines)
			require.Equal(t, []int{2016, 2016}, to.years)
		})
	}
}

func TestLog_newYear(t *testing.T) {
	_, to := play(t, write(t, "x.log", "Dec 31 23:59:59 h sshd[1]: a\nJan  1 00:00:01 h sshd[1]: b\nJan  1 00:00:02 h sshd[1]: c\n"), 2016)
	require.Equal(t, []int{2016, 2017, 2017}, to.years)
}

func TestLog_longLineIsRefused(t *testing.T) {
	_, err := Open(write(t, "x.log", "ok\n"+strings.Repeat("x", MaxLine+1)), 0)
	require.ErrorContains(t, err, ":2: line is longer than")
}

func TestPlay_batches(t *testing.T) {
	_, to := play(t, write(t, "x.log", strings.Repeat("one line\n", 2000)), 0)
	require.Len(t, to.lines, 2000)
	require.Equal(t, 4, to.calls)
}

func TestPlay_pacedKeepsTime(t *testing.T) {
	r, err := Open(write(t, "x.csv", "timestamp,value\n2020-01-01 00:00:00,1\n2020-01-01 01:00:00,2\n2020-01-01 02:00:00,3\n"), 0)
	require.NoError(t, err)
	to, start := &sent{}, time.Now()
	require.NoError(t, r.Play(t.Context(), to, 36_000, nil)) // an hour in a tenth of a second
	require.GreaterOrEqual(t, time.Since(start), 200*time.Millisecond)
	require.Len(t, to.fleet, 3)
}

func TestLineClock(t *testing.T) {
	want := time.Date(2016, 12, 10, 6, 55, 46, 0, time.UTC)
	for _, line := range []string{
		"Dec 10 06:55:46 h sshd[1]: x",
		"<38>Dec 10 06:55:46 h sshd[1]: x",
		"<38>1 2016-12-10T06:55:46Z h sshd 1 - - x",
		"2016-12-10T07:55:46+01:00 h sshd[1]: x",
	} {
		c := lineClock{year: 2016}
		at, _ := c.read([]byte(line))
		require.True(t, want.Equal(at), line)
	}
}
