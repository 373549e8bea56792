package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"cordon/detect/replay"
	"cordon/detect/rule"
	"cordon/detect/rules"
	"cordon/ingest/codec"
	"cordon/internal/fleet"
)

// EvalAuditCmd finds attackers in a log.
type EvalAuditCmd struct {
	Log  string `arg:"" help:"An sshd log (syslog or journal), or an ssh.log of Zeek (JSON or tabs). Put into order of time first." type:"existingfile"`
	To   string `name:"out" help:"JSON file for what was found." required:"" type:"path" placeholder:"FILE"`
	Year int    `help:"Year of a first line that has none; 0: any, for only times of day and year are shown." placeholder:"YEAR"`
}

// Run finds the attackers.
func (c *EvalAuditCmd) Run(ctx context.Context, g *Globals) error {
	pack, err := rule.ParseFS(rules.FS)
	if err != nil {
		return err
	}
	log, err := os.Open(c.Log)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	now := time.Now()
	found, err := replay.Audit(ctx, log, c.Year, func(line []byte, number, year int) (fleet.Record, bool) {
		header := map[string][]string{fleet.HeaderContentType: {fleet.ContentSyslog}, fleet.HeaderYear: {strconv.Itoa(year)}}
		r, rejection := codec.Decode("fleet.audit.log", header, line, now, uint64(number), true, codec.DefaultLimits()) //nolint:gosec // a line's number
		return r, rejection == nil
	}, pack)
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(found, "", " ")
	if err != nil {
		return fmt.Errorf("encode findings: %w", err)
	}
	if err := os.WriteFile(c.To, append(raw, '\n'), 0o644); err != nil { //nolint:gosec // for a scorer
		return fmt.Errorf("write findings: %w", err)
	}
	return show(g, found, func(w io.Writer) {
		fmt.Fprintf(w, "Found %d attackers in %d lines (%d were no events).\n", len(found.At), found.Lines, found.Skipped)
	})
}
