package notify

import (
	"fmt"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// brief is what every message for people says: what, where, how bad, why,
// expected against seen, and where to look.
type brief struct {
	Head    string
	Why     string
	Facts   []fact
	Link    string
	Context string
}

type fact struct{ Name, Value string }

func briefOf(it item, base string) brief {
	c := it.Change
	b := brief{Head: headline(c), Why: reason(c), Facts: facts(c), Link: link(base, c.Incident), Context: footnote(c)}
	if it.Test {
		b.Head = "[TEST] " + b.Head
	}
	if mark := severityMark[c.Incident.Severity]; mark != "" {
		b.Head = mark + " " + b.Head
	}
	return b
}

// reason is the sentence that explains a change.
func reason(c fleet.IncidentChange) string {
	inc := c.Incident
	why := inc.Title
	if c.Finding != nil && c.Finding.Explanation.Sentence != "" && inc.DeviceCount < 2 {
		why = c.Finding.Explanation.Sentence
	}
	switch c.Change {
	case "quarantined", "released", "comment":
		if n := len(inc.Timeline); n > 0 {
			why = inc.Timeline[n-1].Text
		}
	case "resolved", "merged":
		if inc.Reason != "" {
			why = inc.Reason
		}
	}
	return why
}

func facts(c fleet.IncidentChange) []fact {
	inc := c.Incident
	var out []fact
	add := func(name, value string) {
		if value != "" && len(out) < 10 {
			out = append(out, fact{name, value})
		}
	}
	where := inc.On()
	if inc.DeviceCount > 1 && len(inc.Devices) > 0 {
		where += ": " + strings.Join(inc.Devices[:min(len(inc.Devices), 5)], ", ")
		if inc.DeviceCount > 5 {
			where += ", …"
		}
	} else if inc.Cohort != "" {
		where += " (cohort " + inc.Cohort + ")"
	}
	add("Device", where)
	add("Severity", string(inc.Severity))
	seen, expected := comparison(c.Finding)
	add("Seen", seen)
	add("Expected", expected)
	if c.Finding != nil {
		add("Rule", c.Finding.RuleTitle+" ("+c.Finding.RuleID+")")
		add("Actor", c.Finding.Actor)
		add("Technique", c.Finding.Technique)
	} else {
		add("Rules", strings.Join(newest(inc.Rules, 5), ", "))
		add("Actors", strings.Join(newest(inc.Actors, 5), ", "))
	}
	add("State", string(inc.State))
	add("Assigned to", inc.Assignee)
	add("Ticket", inc.Ticket)
	return out
}

func footnote(c fleet.IncidentChange) string {
	const layout = "2006-01-02 15:04:05 UTC"
	parts := []string{"observed " + c.Incident.LastAt.UTC().Format(layout)}
	if f := c.Finding; f != nil && f.Explanation.ScoreText != "" {
		parts = append(parts, cut(f.Explanation.ScoreText, 300))
	}
	if c.Incident.Findings > 1 {
		parts = append(parts, number(float64(c.Incident.Findings))+" findings")
	}
	return strings.Join(append(parts, c.ID), " · ")
}

// plain is the brief as text without marks.
func (b brief) plain() string {
	var out strings.Builder
	out.WriteString(b.Head + "\n\n" + b.Why + "\n\n")
	for _, f := range b.Facts {
		fmt.Fprintf(&out, "%s: %s\n", f.Name, f.Value)
	}
	if b.Link != "" {
		out.WriteString("\n" + b.Link + "\n")
	}
	out.WriteString("\n" + b.Context + "\n")
	return out.String()
}

// digestHead is the first line about several changes.
func digestHead(items []item) string {
	worst, incidents := fleet.Severity(""), map[string]bool{}
	for _, it := range items {
		worst = worst.Worse(it.Change.Incident.Severity)
		incidents[it.Change.Incident.ID] = true
	}
	head := fmt.Sprintf("[%s] %d changes of %d incidents", strings.ToUpper(string(worst)), len(items), len(incidents))
	if mark := severityMark[worst]; mark != "" {
		head = mark + " " + head
	}
	return head
}

// digestLines is one line for each change.
func digestLines(items []item) []string {
	out := make([]string, 0, len(items))
	for _, it := range items {
		out = append(out, headline(it.Change)+": "+cut(reason(it.Change), 200))
	}
	return out
}

func plainDigest(items []item, base string) string {
	text := digestHead(items) + "\n\n"
	for i, line := range digestLines(items) {
		text += line
		if url := link(base, items[i].Change.Incident); url != "" {
			text += "\n  " + url
		}
		text += "\n"
	}
	return text
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
