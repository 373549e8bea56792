package replay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"cordon/detect/engine"
	"cordon/detect/rule"
	"cordon/internal/fleet"
)

// DecodeLine turns one line of a log file into a record; false means that the
// line says nothing.
type DecodeLine func(line []byte, number int) (fleet.Record, bool)

// AuditFound is what was found in a log, in the form that its scorer reads:
// sources with the time of their first finding.
type AuditFound struct {
	BruteForce           map[string]string `json:"brute_force"`
	BreakIn              []string          `json:"break_in"`
	SuccessAfterFailures []string          `json:"success_after_failures"`
	Lines                int               `json:"-"`
	Skipped              int               `json:"-"`
}

// stamp is how an authentication log without years writes times.
const stamp = "Jan _2 15:04:05"

// Audit runs rules over a log file as the engine does over a device's audit
// events.
func Audit(ctx context.Context, log io.Reader, decode DecodeLine, rules []*rule.Rule) (AuditFound, error) {
	found := AuditFound{BruteForce: map[string]string{}, BreakIn: []string{}, SuccessAfterFailures: []string{}}
	e := engine.New(engine.DefaultConfig())
	e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Device: &fleet.DeviceChange{ID: "log", Historic: true}}})
	for _, r := range rules {
		e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: r.ID, Source: r.Source}}})
	}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		found.Lines++
		record, ok := decode(lines.Bytes(), found.Lines)
		if !ok {
			found.Skipped++
			continue
		}
		record.Device, record.StreamSeq = "log", uint64(found.Lines)
		for i := range record.Audit {
			event := &record.Audit[i]
			if event.Fields["warning"] == "reverse_mapping" && event.Actor != "" && !slices.Contains(found.BreakIn, event.Actor) {
				found.BreakIn = append(found.BreakIn, event.Actor)
			}
		}
		for _, f := range e.Apply(record) {
			found.add(f)
		}
	}
	if err := lines.Err(); err != nil {
		return found, fmt.Errorf("read line %d: %w", found.Lines+1, err)
	}
	return found, nil
}

func (a *AuditFound) add(f fleet.Finding) {
	switch f.RuleID {
	case "ssh-brute-force":
		if _, ok := a.BruteForce[f.Actor]; !ok {
			a.BruteForce[f.Actor] = f.WindowEnd.In(time.UTC).Format(stamp)
		}
	case "ssh-success-after-failures":
		if !slices.Contains(a.SuccessAfterFailures, f.Actor) {
			a.SuccessAfterFailures = append(a.SuccessAfterFailures, f.Actor)
		}
	}
}
