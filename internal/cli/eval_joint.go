package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"cordon/detect/joint"
	"cordon/detect/replay"
	"cordon/internal/fleet"
)

// EvalSkabCmd judges tables by the joint behaviour of their columns. Their
// directory is the global --data, which here is not Cordon's own.
type EvalSkabCmd struct {
	To    string `name:"out" help:"Directory for the verdicts." required:"" type:"path" placeholder:"DIR"`
	Learn int    `help:"Rows of each file that teach." default:"400" placeholder:"N"`
}

// Run judges the tables.
func (c *EvalSkabCmd) Run(ctx context.Context, g *Globals) error {
	if c.Learn < 10 {
		return fleet.Errorf(fleet.CodeInvalid, "learning from %d rows says nothing: use at least 10", c.Learn).On("learn")
	}
	settings := joint.DefaultSettings()
	settings.Learn = c.Learn
	began := time.Now()
	files, rows, err := replay.SKAB(ctx, g.Data, c.To, settings)
	if err != nil {
		return err
	}
	out := map[string]any{"files": files, "rows": rows, "seconds": time.Since(began).Seconds(), "settings": settings}
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "Judged %d rows of %d files into %s.\nOne setting for all files: %+v\n", rows, files, c.To, settings)
	})
}

// EvalRowsCmd judges the rows of one table.
type EvalRowsCmd struct {
	Table string `arg:"" help:"A CSV file with date, time and values." type:"existingfile"`
	Learn int    `help:"Rows, first in time, that teach." required:"" placeholder:"N"`
	To    string `name:"out" help:"CSV file for the verdicts, in the order of the rows." required:"" type:"path" placeholder:"FILE"`
}

// Run judges the rows.
func (c *EvalRowsCmd) Run(g *Globals) error {
	settings := joint.DefaultSettings()
	rows, flagged, err := replay.Rows(c.Table, c.To, c.Learn, settings)
	if err != nil {
		return err
	}
	settings.Learn = c.Learn
	return show(g, map[string]any{"rows": rows, "flagged": flagged, "settings": settings}, func(w io.Writer) {
		fmt.Fprintf(w, "Flagged %d of %d rows into %s.\nThe setting: %+v\n", flagged, rows, c.To, settings)
	})
}
