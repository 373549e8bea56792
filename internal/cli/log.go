package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/operator"
	"cordon/web/api"
)

// LogCmd holds the verbs about the operator log.
type LogCmd struct {
	List   LogListCmd   `cmd:"" help:"List what operators did, newest first."`
	Verify LogVerifyCmd `cmd:"" help:"Find changed, missing or reordered entries, in a running Cordon or in an export."`
	Export LogExportCmd `cmd:"" help:"Export the log as stored, one record a line."`
}

// LogListCmd lists entries.
type LogListCmd struct {
	Actor  string `help:"Only what this operator did." placeholder:"NAME"`
	Act    string `help:"Only this act, e.g. quarantine-device." placeholder:"ACT"`
	Target string `help:"Only what was done to this device, incident, …" placeholder:"ID"`
	Limit  int    `help:"At most this many." default:"50" placeholder:"N"`
}

// Run lists them.
func (c *LogListCmd) Run(ctx context.Context, g *Globals) error {
	all, err := pages[api.LogEntry](ctx, g, "/operator-log", values("actor", c.Actor, "act", c.Act, "target", c.Target), c.Limit)
	if err != nil {
		return err
	}
	return show(g, items(all), func(w io.Writer) {
		row(w, "SEQ", "AT", "ACTOR", "ACT", "TARGET", "OUTCOME", "FROM", "DETAIL")
		for _, e := range all {
			row(w, e.Seq, e.At, e.Actor, e.Act, e.Target, e.Outcome, e.Source, e.Detail)
		}
	})
}

// LogExportCmd exports the log.
type LogExportCmd struct {
	Out string `arg:"" optional:"" help:"File to write; default: standard output." type:"path"`
}

// Run exports it.
func (c *LogExportCmd) Run(ctx context.Context, g *Globals) error {
	client, err := connect(g)
	if err != nil {
		return err
	}
	out := g.Out
	if c.Out != "" {
		file, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write export: %w", err)
		}
		defer file.Close()
		out = file
	}
	return client.Copy(ctx, "/operator-log/export", out)
}

// LogVerifyCmd verifies the log.
type LogVerifyCmd struct {
	File string   `help:"An export to verify, without asking Cordon." type:"existingfile" placeholder:"FILE"`
	Key  []string `help:"Public keys (hex, or files with one) whose signatures are trusted; default: operator-log.key.pub in the keys of --data." placeholder:"KEY"`
}

// Run verifies it; a fault makes it fail.
func (c *LogVerifyCmd) Run(ctx context.Context, g *Globals) error {
	keys, err := c.keys(g)
	if err != nil {
		return err
	}
	var verdict operator.Verdict
	if c.File != "" {
		verdict, err = verifyFile(c.File, keys)
	} else {
		verdict, err = call[operator.Verdict](ctx, g, http.MethodGet, "/operator-log/verify", nil)
		for _, key := range verdict.Keys {
			if len(keys) > 0 && !strings.Contains(strings.Join(keys, " "), key) {
				verdict.OK = false
				verdict.Faults = append(verdict.Faults, operator.Fault{Kind: operator.FaultSignature, Detail: "a head was signed by an unknown key " + key})
			}
		}
	}
	if err != nil {
		return err
	}
	if err := show(g, verdict, func(w io.Writer) {
		fmt.Fprintf(w, "%d entries and %d signed heads, from %s to %s\n", verdict.Entries, verdict.Heads, when(verdict.FirstAt), when(verdict.LastAt))
		fmt.Fprintf(w, "newest record %d, SHA-256 %s\n", verdict.LastSeq, verdict.Hash)
		for _, f := range verdict.Faults {
			fmt.Fprintf(w, "FAULT at %d: %s: %s\n", f.Seq, f.Kind, clean(f.Detail))
		}
		if verdict.OK {
			fmt.Fprintln(w, "nothing was changed, nothing is missing, the order is right")
		}
	}); err != nil {
		return err
	}
	if !verdict.OK {
		return fleet.Errorf(fleet.CodeConflict, "the operator log is not what it was: %d faults", len(verdict.Faults))
	}
	return nil
}

func verifyFile(name string, keys []string) (operator.Verdict, error) {
	file, err := os.Open(name)
	if err != nil {
		return operator.Verdict{}, fmt.Errorf("read export: %w", err)
	}
	defer file.Close()
	return operator.VerifyExport(file, keys...)
}

func (c *LogVerifyCmd) keys(g *Globals) ([]string, error) {
	given := c.Key
	if len(given) == 0 {
		name := filepath.Join(g.Data, "keys", "operator-log.key.pub")
		if _, err := os.Stat(name); g.URL != "" || errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		given = []string{name}
	}
	var keys []string
	for _, key := range given {
		if len(key) != 64 || strings.ContainsAny(key, "./\\") {
			raw, err := os.ReadFile(key)
			if err != nil {
				return nil, fmt.Errorf("read key: %w", err)
			}
			key = strings.TrimSpace(string(raw))
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Copy writes an answer as it comes.
func (c *Client) Copy(ctx context.Context, path string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	answer, err := c.http.Do(req)
	if err != nil {
		return fleet.Errorf(fleet.CodeUnavailable, "Cordon does not answer: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusBadRequest {
		raw, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		return refusal(answer.StatusCode, raw)
	}
	if _, err := io.Copy(out, answer.Body); err != nil {
		return fmt.Errorf("copy answer: %w", err)
	}
	return nil
}

// scopeOf reads lists of flags as a scope.
func scopeOf(sites, cohorts, tags []string) operator.Scope {
	return operator.Scope{Sites: sites, Cohorts: cohorts, Tags: tags}
}
