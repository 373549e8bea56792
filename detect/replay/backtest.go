package replay

import (
	"context"
	"fmt"
	"time"

	"cordon/detect/engine"
	"cordon/internal/fleet"
)

// Trial asks what rules would have done.
type Trial struct {
	Rules    []fleet.RuleChange   // the rules to try
	Devices  []fleet.DeviceChange // cohorts, tags and time zones of the fleet
	Device   string               // restricts the trial; empty: every device
	From, To time.Time            // findings outside are left out, though all before From teaches
}

// Backtest runs the engine over stored records in stream order and returns
// what the rules would have found: the code is the detector's own. Ticks are
// not stored, so absence rules stay silent.
func Backtest(ctx context.Context, scan Scan, trial Trial) ([]fleet.Finding, error) {
	e := engine.New(engine.DefaultConfig())
	for i := range trial.Devices {
		e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Device: &trial.Devices[i]}})
	}
	for i := range trial.Rules {
		e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &trial.Rules[i]}})
		if e.Rejected() > 0 {
			return nil, fleet.Errorf(fleet.CodeInvalid, "rule %s can't be tried: check it with rules check", trial.Rules[i].ID)
		}
	}
	var found []fleet.Finding
	err := scan(ctx, trial.Device, "", time.Time{}, trial.To, func(r fleet.Record) error {
		for _, f := range e.Apply(r) {
			if trial.From.IsZero() || !f.WindowEnd.Before(trial.From) {
				found = append(found, f)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	return found, nil
}
