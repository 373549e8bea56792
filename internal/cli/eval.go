package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"cordon/detect/baseline"
	"cordon/detect/replay"
	"cordon/internal/fleet"
)

// EvalCmd holds the verbs that write what the detector says about recorded
// data, for scorers.
type EvalCmd struct {
	Nab   EvalNabCmd   `cmd:"" help:"Score every series (timestamp,value) below the directory --data."`
	Skab  EvalSkabCmd  `cmd:"" help:"Judge every table (datetime;metric;…) below the directory --data by how its columns move together."`
	Rows  EvalRowsCmd  `cmd:"" help:"Judge the rows of one table by how its columns move together."`
	Audit EvalAuditCmd `cmd:"" help:"Find attackers in an authentication log."`
}

// EvalNabCmd scores series. Their directory is the global --data, which here
// is not Cordon's own.
type EvalNabCmd struct {
	To      string `name:"out" help:"Directory for the scored series." type:"path" placeholder:"DIR"`
	Disturb bool   `help:"Score by the benchmark's rules on disturbed copies instead: negated, thinned, cut, with noise; one threshold for all."`
	Windows string `help:"The labelled windows, for --disturb; default: windows.json beside the data." type:"path" placeholder:"FILE"`
}

// Run scores the series.
func (c *EvalNabCmd) Run(ctx context.Context, g *Globals) error {
	if c.Disturb {
		return c.disturb(g)
	}
	if c.To == "" {
		return fleet.Errorf(fleet.CodeInvalid, "--out is missing: name the directory for the scored series").On("out")
	}
	began := time.Now()
	files, rows, err := replay.NAB(ctx, g.Data, c.To, baseline.DefaultSettings())
	if err != nil {
		return err
	}
	out := map[string]any{"files": files, "rows": rows, "seconds": time.Since(began).Seconds()}
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "Scored %d rows of %d files into %s.\n", rows, files, c.To)
	})
}

// disturb says what the detector is worth on disturbed copies.
func (c *EvalNabCmd) disturb(g *Globals) error {
	if c.Windows == "" {
		c.Windows = filepath.Join(filepath.Dir(filepath.Clean(g.Data)), "windows.json")
	}
	series, err := replay.LoadSeries(g.Data, c.Windows)
	if err != nil {
		return err
	}
	detect := replay.Detect(baseline.DefaultSettings())
	verdicts, mean, threshold := replay.Disturbed(series, replay.Disturbances(), detect)
	plain := replay.Plain(series, detect)
	out := map[string]any{"mean": mean, "threshold": threshold, "copies": verdicts, "plain": plain}
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "%d series, standard profile, one threshold %.4f for all copies:\n", len(series), threshold)
		for _, v := range verdicts {
			fmt.Fprintf(w, "  %-28s %6.2f  %d of %d windows, %d false rows\n", v.Copy, v.Score, v.Found, v.Windows, v.FalseRows)
		}
		fmt.Fprintf(w, "  %-28s %6.2f\nAs it is, with the best threshold of each profile:\n", "mean", mean)
		for _, v := range plain {
			fmt.Fprintf(w, "  %-28s %6.2f  %d of %d windows, %d false rows\n", v.Copy, v.Score, v.Found, v.Windows, v.FalseRows)
		}
	})
}
