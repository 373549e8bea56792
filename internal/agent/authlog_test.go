package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// heard collects lines.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) send(_ context.Context, lines []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for line := range strings.Lines(string(lines)) {
		h.lines = append(h.lines, strings.TrimSuffix(line, "\n"))
	}
	return nil
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.lines...)
}

func add(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func follow(t *testing.T, path, dir string, h *heard) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&follower{path: path, dir: dir, send: h.send, log: quiet}).run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func (h *heard) wait(t *testing.T, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(h.all()) >= len(want) }, 10*time.Second, 10*time.Millisecond, "%v", h.all())
	require.Equal(t, want, h.all())
}

func TestFollower_rotationAndRestart(t *testing.T) {
	dir := t.TempDir()
	path, state, h := filepath.Join(dir, "auth.log"), t.TempDir(), &heard{}
	add(t, path, "before the agent\n")
	stop := follow(t, path, state, h)
	// The first start begins at the end; a position is stored with the first line.
	require.Eventually(t, func() bool {
		add(t, path, "x\n")
		return len(h.all()) > 0
	}, 10*time.Second, 1100*time.Millisecond)
	stop()
	require.NotContains(t, h.all(), "before the agent")

	h.lines = nil
	add(t, path, "while it was away\nhalf a ")
	stop = follow(t, path, state, h)
	require.Eventually(t, func() bool { return strings.Contains(strings.Join(h.all(), "|"), "away") }, 10*time.Second, 10*time.Millisecond)
	require.NotContains(t, strings.Join(h.all(), "|"), "half")
	h.mu.Lock()
	h.lines = nil
	h.mu.Unlock()
	add(t, path, "line\n")
	require.NoError(t, os.Rename(path, path+".1"))
	add(t, path, "in the new file\n")
	h.wait(t, "half a line", "in the new file")
	stop()

	// Rotated while the agent was away: the rest of the old file comes first.
	h.lines = nil
	add(t, path, "last of the second\n")
	require.NoError(t, os.Rename(path, path+".1"))
	add(t, path, "first of the third\n")
	stop = follow(t, path, state, h)
	h.wait(t, "last of the second", "first of the third")

	// Cut in place (copytruncate).
	require.NoError(t, os.Truncate(path, 0))
	add(t, path, "short\n")
	h.wait(t, "last of the second", "first of the third", "short")
	stop()
}

func TestJournalLine(t *testing.T) {
	line, cursor, ok := journalLine([]byte(`{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1764021600123456","PRIORITY":"6","SYSLOG_FACILITY":"10","SYSLOG_IDENTIFIER":"sshd","_PID":"42","_HOSTNAME":"pi one","MESSAGE":"Failed password\nfor root"}`))
	require.True(t, ok)
	require.Equal(t, "s=1", cursor)
	require.Equal(t, "<86>1 2025-11-24T22:00:00.123456Z pi_one sshd 42 - - Failed password for root", line)
	line, _, ok = journalLine([]byte(`{"__CURSOR":"s=2","__REALTIME_TIMESTAMP":"1764021600000000","_COMM":"su","MESSAGE":[104,105,255]}`))
	require.True(t, ok)
	require.Equal(t, "<86>1 2025-11-24T22:00:00.000000Z - su - - - hi\uFFFD", line)
	for _, bad := range []string{"", "{}", `{"__CURSOR":"s"}`, `[]`} {
		_, _, ok = journalLine([]byte(bad))
		require.False(t, ok, bad)
	}
}
