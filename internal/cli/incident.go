package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"cordon/internal/fleet"
	"cordon/web/api"
)

// IncidentCmd holds the verbs about incidents.
type IncidentCmd struct {
	List    IncidentListCmd    `cmd:"" help:"List incidents, the worst first."`
	Show    IncidentShowCmd    `cmd:"" help:"Show an incident with its findings and timeline."`
	Ack     IncidentAckCmd     `cmd:"" help:"Say that you are on it."`
	Resolve IncidentResolveCmd `cmd:"" help:"Resolve an incident with a verdict."`
}

// IncidentArg names an incident.
type IncidentArg struct {
	ID string `arg:"" help:"The incident's id, INC-42 or 42."`
}

func (i IncidentArg) path(rest string) string {
	id := strings.ToUpper(i.ID)
	if !strings.HasPrefix(id, "INC-") {
		id = "INC-" + id
	}
	return "/incidents/" + url.PathEscape(id) + rest
}

// IncidentListCmd lists incidents.
type IncidentListCmd struct {
	State    string `help:"open, acknowledged, resolved, unresolved or all." default:"unresolved" placeholder:"STATE"`
	Severity string `help:"Only of these severities, a comma list." placeholder:"LIST"`
	Device   string `help:"Only of this device." placeholder:"ID"`
	Assignee string `help:"Only of this operator; - means of nobody." placeholder:"NAME"`
	Query    string `short:"q" help:"Only with these words." placeholder:"WORDS"`
	Limit    int    `help:"At most so many; 0: all." default:"100" placeholder:"N"`
}

// Run lists the incidents.
func (c *IncidentListCmd) Run(ctx context.Context, g *Globals) error {
	list, err := pages[fleet.Incident](ctx, g, "/incidents", values(
		"state", c.State, "severity", c.Severity, "device", c.Device, "assignee", c.Assignee, "q", c.Query,
	), c.Limit)
	if err != nil {
		return err
	}
	return show(g, items(list), func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "No incident.")
			return
		}
		row(w, "INCIDENT", "SEVERITY", "STATE", "DEVICE", "FINDINGS", "ASSIGNEE", "OPENED", "TITLE")
		for _, i := range list {
			row(w, i.ID, i.Severity, i.State, i.Device, i.Findings, i.Assignee, i.OpenedAt, i.Title)
		}
	})
}

// IncidentShowCmd shows an incident.
type IncidentShowCmd struct {
	IncidentArg `embed:""`
}

// shown is an incident with its newest findings.
type shown struct {
	fleet.Incident
	NewestFindings []fleet.Finding `json:"newest_findings"`
}

// Run shows the incident.
func (c *IncidentShowCmd) Run(ctx context.Context, g *Globals) error {
	i, err := call[fleet.Incident](ctx, g, http.MethodGet, c.path(""), nil)
	if err != nil {
		return err
	}
	findings, err := call[fleet.Page[fleet.Finding]](ctx, g, http.MethodGet, c.path("/findings?limit=20"), nil)
	if err != nil {
		return err
	}
	return show(g, shown{i, findings.Items}, func(w io.Writer) {
		row(w, "incident", i.ID)
		row(w, "what", i.Title)
		row(w, "severity", i.Severity)
		row(w, "state", i.State)
		row(w, "device", i.Device)
		row(w, "actors", strings.Join(i.Actors, ", "))
		row(w, "rules", strings.Join(i.Rules, ", "))
		row(w, "assignee", i.Assignee)
		row(w, "from, to", when(i.FirstAt)+", "+when(i.LastAt))
		if i.State == fleet.Resolved {
			row(w, "verdict", string(i.Verdict)+": "+i.Reason)
		}
		fmt.Fprintf(w, "\nFindings (%d)\n", i.Findings)
		for _, f := range findings.Items {
			row(w, "  "+when(f.ReceivedAt), f.Severity, f.RuleID, f.Explanation.Sentence)
		}
		fmt.Fprintln(w, "\nTimeline")
		for _, t := range i.Timeline {
			row(w, "  "+when(t.At), t.Kind, t.Actor, t.Text)
		}
	})
}

// IncidentAckCmd acknowledges an incident.
type IncidentAckCmd struct {
	IncidentArg `embed:""`
}

// Run acknowledges it.
func (c *IncidentAckCmd) Run(ctx context.Context, g *Globals) error {
	return changeIncident(ctx, g, c.path("/acknowledge"), nil)
}

// IncidentResolveCmd resolves an incident.
type IncidentResolveCmd struct {
	IncidentArg `embed:""`
	Verdict     string `help:"true_positive, benign, false_positive or unknown." enum:"true_positive,benign,false_positive,unknown" required:"" placeholder:"VERDICT"`
	Reason      string `help:"Why." required:"" placeholder:"TEXT"`
}

// Run resolves it.
func (c *IncidentResolveCmd) Run(ctx context.Context, g *Globals) error {
	return changeIncident(ctx, g, c.path("/resolve"), api.ResolveRequest{Verdict: fleet.Verdict(c.Verdict), Reason: c.Reason})
}

func changeIncident(ctx context.Context, g *Globals, path string, in any) error {
	i, err := call[fleet.Incident](ctx, g, http.MethodPost, path, in)
	if err != nil {
		return err
	}
	return show(g, i, func(w io.Writer) { row(w, i.ID, i.State, i.Title) })
}
