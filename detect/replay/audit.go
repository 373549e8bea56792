package replay

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"cordon/detect/engine"
	"cordon/detect/rule"
	"cordon/internal/fleet"
)

// DecodeLine turns lines of a log file into a record; false means that they
// say nothing. year is that of times without one.
type DecodeLine func(line []byte, number, year int) (fleet.Record, bool)

// AuditFound is what was found in a log, in the form that its scorer reads.
type AuditFound struct {
	// BruteForce is sources with the time of their first finding, or, where the
	// log's times are not syslog's, their list: the scorer fails on such times.
	BruteForce           any               `json:"brute_force"`
	At                   map[string]string `json:"brute_force_at"` // the times in any case
	BreakIn              []string          `json:"break_in"`
	SuccessAfterFailures []string          `json:"success_after_failures"`
	Lines                int               `json:"-"`
	Skipped              int               `json:"-"`

	months int // lines that begin with a month
}

// stamp is how an authentication log without years writes times.
const stamp = "Jan _2 15:04:05"

// anySuccess is the scorer's reading of a success after failures: any sign-in
// from a source that failed before, however often and long ago. The pack's own
// rule asks for more.
const anySuccess = `id: eval-any-success
title: A sign-in after a failure
kind: count
events: class == "authentication" && activity == "logon" && outcome == "failure" && actor != ""
then: class == "authentication" && activity == "logon" && outcome == "success" && actor != ""
group_by: [actor]
threshold: 1
window: 87600h
mode: alert
evidence: outside
severity: low
runbook: none
false_positives: [none]
`

// firstYear is that of the first line of a log without years: a leap year, so
// that every date exists.
const firstYear = 2024

// Audit runs rules over a log file as the engine does over a device's audit
// events. Lines are put into order of time first, and years are counted on
// where a log without years passes from December to January; year is that of
// its first line, 0 any.
func Audit(ctx context.Context, log io.Reader, year int, decode DecodeLine, rules []*rule.Rule) (AuditFound, error) {
	found := AuditFound{At: map[string]string{}, BreakIn: []string{}, SuccessAfterFailures: []string{}}
	records, err := found.read(ctx, log, year, decode)
	if err != nil {
		return found, err
	}
	cfg := engine.DefaultConfig()
	cfg.Groups = max(cfg.Groups, len(records)) // a file is bounded by itself
	e := engine.New(cfg)
	e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Device: &fleet.DeviceChange{ID: "log", Historic: true}}})
	for _, r := range rules {
		e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: r.ID, Source: r.Source}}})
	}
	e.Apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: "eval-any-success", Source: anySuccess}}})
	yearless := found.months > 0
	for i := range records {
		for k := range records[i].Audit {
			event := &records[i].Audit[k]
			if source := breakIn(event); source != "" && !slices.Contains(found.BreakIn, source) {
				found.BreakIn = append(found.BreakIn, source)
			}
		}
		for _, f := range e.Apply(records[i]) {
			found.add(f, yearless)
		}
	}
	found.BruteForce = found.At
	if !yearless {
		sources := slices.AppendSeq([]string{}, maps.Keys(found.At))
		slices.Sort(sources)
		found.BruteForce = sources
	}
	return found, nil
}

// read decodes the lines and puts them into order of time. A Zeek log with
// tabs has its header repeated in front of every line.
func (a *AuditFound) read(ctx context.Context, log io.Reader, year int, decode DecodeLine) ([]fleet.Record, error) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	if year == 0 {
		year = firstYear
	}
	var records []fleet.Record
	var header []byte
	var month time.Month
	for lines.Scan() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a.Lines++
		line := lines.Bytes()
		if strings.HasPrefix(string(line), "#fields\t") || strings.HasPrefix(string(line), "#path\t") {
			header = append(append(header, line...), '\n')
		}
		if m := monthOf(line); m != 0 {
			a.months++
			if month-m > 6 {
				year++
			}
			month = m
		}
		record, ok := decode(append(slices.Clone(header), line...), a.Lines, year)
		if !ok || len(record.Audit) == 0 {
			a.Skipped++
			continue
		}
		record.Device = "log"
		record.Audit = record.Audit[len(record.Audit)-1:] // not the header's lines
		records = append(records, record)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read line %d: %w", a.Lines+1, err)
	}
	slices.SortStableFunc(records, func(x, y fleet.Record) int {
		return cmp.Compare(x.Audit[0].ObservedAt.UnixNano(), y.Audit[0].ObservedAt.UnixNano())
	})
	for i := range records {
		records[i].StreamSeq = uint64(i + 1)
	}
	return records, nil
}

// monthOf is the month that a line begins with, 0 none.
func monthOf(line []byte) time.Month {
	if len(line) < 4 || line[3] != ' ' {
		return 0
	}
	t, err := time.Parse("Jan", string(line[:3]))
	if err != nil {
		return 0
	}
	return t.Month()
}

// breakIn is the source that a line of sshd calls a possible break-in: the
// address in brackets, else the whole line, as the scorer has it.
func breakIn(event *fleet.AuditEvent) string {
	if event.Program != "sshd" || !strings.Contains(event.Message, "POSSIBLE BREAK-IN ATTEMPT") {
		return ""
	}
	if event.Fields["warning"] == "reverse_mapping" && event.Actor != "" && strings.Contains(event.Message, "["+event.Actor+"]") {
		return event.Actor
	}
	return event.Message
}

func (a *AuditFound) add(f fleet.Finding, yearless bool) {
	switch f.RuleID {
	case "ssh-brute-force":
		if _, ok := a.At[f.Actor]; !ok {
			form := stamp
			if !yearless {
				form = time.RFC3339
			}
			a.At[f.Actor] = f.WindowEnd.In(time.UTC).Format(form)
		}
	case "eval-any-success":
		if !slices.Contains(a.SuccessAfterFailures, f.Actor) {
			a.SuccessAfterFailures = append(a.SuccessAfterFailures, f.Actor)
		}
	}
}
