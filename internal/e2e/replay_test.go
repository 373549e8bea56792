package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

type replayed struct {
	Devices []struct {
		ID      string `json:"id"`
		File    string `json:"file"`
		Records uint64 `json:"records"`
	} `json:"devices"`
}

type deviceDetail struct {
	ID          string            `json:"id"`
	Status      string            `json:"status"`
	Readings    uint64            `json:"readings_stored"`
	AuditEvents uint64            `json:"audit_events_stored"`
	DeadLetters uint64            `json:"dead_letters"`
	Quarantine  *fleet.Quarantine `json:"quarantine"`
}

// series writes hourly readings of a boiler with a daily cycle and noise, and
// returns the window in which it fails.
func series(t *testing.T, path string) (rows uint64, from, to time.Time) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 7))
	start := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	from, to = start.Add(50*24*time.Hour), start.Add(50*24*time.Hour+12*time.Hour)
	var text strings.Builder
	text.WriteString("timestamp,value\n")
	for at := start; at.Before(start.Add(60 * 24 * time.Hour)); at = at.Add(time.Hour) {
		value := 60 + 5*math.Sin(2*math.Pi*float64(at.Hour())/24) + random.NormFloat64()
		if !at.Before(from) && at.Before(to) {
			value += 40
		}
		fmt.Fprintf(&text, "%s,%.3f\n", at.Format(time.DateTime), value)
		rows++
	}
	require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o600))
	return rows, from, to
}

// authLog writes sshd lines in the old format with CRLF and without an end of
// the last line. Attackers fail five times within a minute, once as
// "message repeated"; others fail once.
func authLog(t *testing.T, path string, attackers []string) (lines uint64) {
	t.Helper()
	var all []string
	at := time.Date(2025, 12, 10, 6, 55, 0, 0, time.UTC)
	line := func(text string) {
		at = at.Add(2 * time.Second)
		all = append(all, at.Format("Jan _2 15:04:05")+" gw sshd[24200]: "+text)
	}
	for i := range 40 {
		line(fmt.Sprintf("Connection closed by 198.51.100.%d [preauth]", i+1))
		line(fmt.Sprintf("Failed password for root from 198.51.100.%d port 4022 ssh2", i+1))
	}
	for i, attacker := range attackers {
		at = at.Add(10 * time.Minute)
		line("Invalid user webmaster from " + attacker)
		line("pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=" + attacker + " ")
		if i == 0 {
			line("Failed password for invalid user webmaster from " + attacker + " port 38926 ssh2")
			line("message repeated 5 times: [ Failed password for root from " + attacker + " port 38926 ssh2]")
			continue
		}
		for range 6 {
			line("Failed password for invalid user  0101 from " + attacker + " port 38926 ssh2")
		}
	}
	line("Accepted password for fztu from 203.0.113.200 port 49116 ssh2")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(all, "\r\n")), 0o600))
	return uint64(len(all))
}

func TestReplay_storesEveryRecordOnceAndFindsWhatIsWrong(t *testing.T) {
	c := up(t)
	dir := t.TempDir()
	csv, log := filepath.Join(dir, "boiler_temperature.csv"), filepath.Join(dir, "gateway.log")
	rows, from, to := series(t, csv)
	attackers := []string{"203.0.113.61", "203.0.113.77"}
	lines := authLog(t, log, attackers)

	var sent replayed
	c.runJSON(&sent, "replay", csv, log, "--year", "2025")
	require.Len(t, sent.Devices, 2)
	require.Equal(t, rows, sent.Devices[0].Records)
	require.Equal(t, lines, sent.Devices[1].Records)

	var boiler, gateway deviceDetail
	require.Eventually(t, func() bool {
		c.runJSON(&boiler, "device", "show", sent.Devices[0].ID)
		c.runJSON(&gateway, "device", "show", sent.Devices[1].ID)
		return boiler.Readings >= rows && gateway.AuditEvents >= lines
	}, 30*time.Second, 200*time.Millisecond)
	require.Equal(t, rows, boiler.Readings)
	require.Zero(t, boiler.DeadLetters)
	require.Equal(t, lines, gateway.AuditEvents)
	require.Zero(t, gateway.DeadLetters)

	require.Eventually(t, func() bool {
		actors := c.actors(sent.Devices[1].ID)
		return slices.Equal(actors, attackers)
	}, 30*time.Second, 200*time.Millisecond, "attackers appear as findings with their addresses, nobody else does")

	require.Eventually(t, func() bool {
		var page struct{ Items []fleet.Incident }
		require.Equal(t, 200, c.call("GET", "/incidents?device="+sent.Devices[0].ID, nil, &page))
		return slices.ContainsFunc(page.Items, func(i fleet.Incident) bool { return i.FirstAt.Before(to) && i.LastAt.After(from) })
	}, 30*time.Second, 200*time.Millisecond, "an incident overlaps the failure")

	// Nothing is lost by a stop, and it is quick; the same data continues.
	require.Less(t, c.stop(), 10*time.Second)
	c.start()
	var again deviceDetail
	c.runJSON(&again, "device", "show", sent.Devices[0].ID)
	require.Equal(t, rows, again.Readings)
}

// actors are the outside addresses that findings about a device name.
func (c *cordon) actors(device string) []string {
	c.t.Helper()
	var page struct{ Items []fleet.Finding }
	require.Equal(c.t, 200, c.call("GET", "/findings?limit=500&device="+device, nil, &page))
	var actors []string
	for _, f := range page.Items {
		if f.Actor != "" {
			actors = append(actors, f.Actor)
		}
	}
	slices.Sort(actors)
	return slices.Compact(actors)
}
