package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// journal sends the authentication entries of systemd's journal as RFC 5424
// lines. The cursor is stored after the lines are buffered.
type journal struct {
	dir  string
	send func(ctx context.Context, lines []byte) error
	log  *slog.Logger
}

const (
	cursorFile    = "journal-cursor"
	journalPause  = 5 * time.Second
	journalGather = 200 * time.Millisecond
)

// hasJournal says whether this host keeps a journal that we may read.
func hasJournal(ctx context.Context) bool {
	path, err := exec.LookPath("journalctl")
	if err != nil {
		return false
	}
	for _, dir := range []string{"/var/log/journal", "/run/log/journal"} {
		if _, err := os.Stat(dir); err == nil {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return exec.CommandContext(ctx, path, "--quiet", "--lines=0", "--no-pager").Run() == nil
		}
	}
	return false
}

func (j *journal) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := j.stream(ctx); err != nil && ctx.Err() == nil {
			j.log.Warn("journal ended, starting again", "error", err)
		}
		sleep(ctx, journalPause)
	}
	return nil
}

// stream follows the journal until journalctl ends.
func (j *journal) stream(ctx context.Context) error {
	args := []string{"--follow", "--output=json", "--no-pager", "--quiet"}
	raw, err := os.ReadFile(filepath.Join(j.dir, cursorFile))
	switch {
	case err == nil:
		args = append(args, "--after-cursor="+strings.TrimSpace(string(raw)))
	case errors.Is(err, fs.ErrNotExist):
		args = append(args, "--lines=0")
	default:
		return fmt.Errorf("read journal cursor: %w", err)
	}
	args = append(args, "SYSLOG_FACILITY=4", "SYSLOG_FACILITY=10") // auth, authpriv
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start journalctl: %w", err)
	}
	entries := make(chan []byte)
	go func() {
		defer close(entries)
		scan := bufio.NewScanner(out)
		scan.Buffer(make([]byte, 64<<10), 1<<20)
		for scan.Scan() {
			select {
			case entries <- []byte(scan.Text()):
			case <-ctx.Done():
				return
			}
		}
	}()
	err = j.gather(ctx, entries)
	cancel()
	for range entries { // let the reader see the end before Wait closes the pipe
		continue
	}
	return errors.Join(err, cmd.Wait())
}

// gather sends entries that come close together as one message.
func (j *journal) gather(ctx context.Context, entries <-chan []byte) error {
	var lines []byte
	var cursor string
	var due <-chan time.Time
	flush := func() error {
		due = nil
		if len(lines) == 0 {
			return nil
		}
		if err := j.send(ctx, lines); err != nil {
			return err
		}
		lines = nil
		return writeFile(filepath.Join(j.dir, cursorFile), []byte(cursor))
	}
	for {
		select {
		case raw, ok := <-entries:
			if !ok {
				return flush()
			}
			line, at, ok := journalLine(raw)
			if !ok {
				continue
			}
			lines, cursor = append(append(lines, line...), '\n'), at
			if due == nil {
				due = time.After(journalGather)
			}
			if len(lines) < maxBatch {
				continue
			}
		case <-due:
		}
		if err := flush(); err != nil {
			return err
		}
	}
}

// journalLine makes an RFC 5424 line of one entry of journalctl -o json.
func journalLine(raw []byte) (line, cursor string, ok bool) {
	var e struct {
		Cursor     string `json:"__CURSOR"`
		Realtime   string `json:"__REALTIME_TIMESTAMP"` // microseconds
		Priority   string `json:"PRIORITY"`
		Facility   string `json:"SYSLOG_FACILITY"`
		Identifier string `json:"SYSLOG_IDENTIFIER"`
		Command    string `json:"_COMM"`
		PID        string `json:"_PID"`
		Host       string `json:"_HOSTNAME"`
		Message    any    `json:"MESSAGE"` // text, or bytes as numbers when it is not UTF-8
	}
	if json.Unmarshal(raw, &e) != nil || e.Cursor == "" {
		return "", "", false
	}
	micros, err := strconv.ParseInt(e.Realtime, 10, 64)
	if err != nil {
		return "", "", false
	}
	priority := 8*number(e.Facility, 10, 23) + number(e.Priority, 6, 7)
	program := e.Identifier
	if program == "" {
		program = e.Command
	}
	return fmt.Sprintf("<%d>1 %s %s %s %s - - %s", priority,
		time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000000Z"),
		token(e.Host, 255), token(program, 48), token(e.PID, 128), oneLine(e.Message)), e.Cursor, true
}

func number(text string, otherwise, limit int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > limit {
		return otherwise
	}
	return n
}

// token makes a header field of RFC 5424: printable ASCII, "-" for nothing.
func token(text string, limit int) string {
	out := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, text)
	if out == "" {
		return "-"
	}
	return out[:min(len(out), limit)]
}

func oneLine(message any) string {
	var text string
	switch m := message.(type) {
	case string:
		text = m
	case []any:
		raw := make([]byte, 0, len(m))
		for _, v := range m {
			if f, ok := v.(float64); ok {
				raw = append(raw, byte(int(f)))
			}
		}
		text = strings.ToValidUTF8(string(raw), "\uFFFD")
	}
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(text)
}
