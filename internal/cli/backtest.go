package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"cordon/internal/fleet"
)

// RulesBacktestCmd says what a rule would have done.
type RulesBacktestCmd struct {
	Rule   string    `arg:"" help:"A rule file to try, or the id of a rule in force."`
	From   time.Time `help:"Start, such as 2026-11-01T00:00:00Z; a day before the end if left out." placeholder:"TIME"`
	To     time.Time `help:"End; now if left out." placeholder:"TIME"`
	Device string    `help:"Only this device." placeholder:"ID"`
}

// Run tries the rule.
func (c *RulesBacktestCmd) Run(ctx context.Context, g *Globals) error {
	in := fleet.BacktestRequest{ID: c.Rule, From: c.From, To: c.To, Device: c.Device}
	if info, err := os.Stat(c.Rule); err == nil && !info.IsDir() {
		source, err := os.ReadFile(c.Rule)
		if err != nil {
			return fmt.Errorf("read rule: %w", err)
		}
		if _, err := parsePath(c.Rule); err != nil {
			return err
		}
		in.ID, in.Source = "", string(source)
	}
	report, err := call[fleet.BacktestReport](ctx, g, http.MethodPost, "/rules/backtest", in)
	if err != nil {
		return err
	}
	return show(g, report, func(w io.Writer) { c.people(w, report) })
}

func (c *RulesBacktestCmd) people(w io.Writer, r fleet.BacktestReport) {
	fmt.Fprintf(w, "%s (version %s) from %s to %s: %d readings and %d audit events in %.1f s.\n", r.Rule, r.Version, when(r.From), when(r.To), r.Readings, r.Events, r.Seconds)
	fmt.Fprintf(w, "It would have raised %d findings in %d incidents.\n", r.Raised, len(r.Incidents))
	var held time.Duration
	for _, q := range r.Quarantines {
		held += time.Duration(q.Seconds) * time.Second
	}
	if len(r.Quarantines) > 0 {
		fmt.Fprintf(w, "Armed, it would have quarantined %d times, for %s in all.\n", len(r.Quarantines), held)
	}
	if r.LiveVersion != "" {
		d := r.Difference
		fmt.Fprintf(w, "Against version %s in force: %d the same, %d more, %d fewer.\n", r.LiveVersion, d.Same, d.Added, d.Removed)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", note)
	}
	if len(r.Incidents) > 0 {
		fmt.Fprintln(w)
		row(w, "OPENED", "DEVICE", "SEVERITY", "FINDINGS", "FIRST")
		for _, i := range r.Incidents {
			row(w, when(i.OpenedAt), i.Device, i.Severity, i.Findings, i.Sentence)
		}
	}
}
