package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"cordon/internal/app"
	"cordon/internal/fleet"
	"cordon/web/api"
)

// AlertsCmd holds the verbs about who is told of what.
type AlertsCmd struct {
	Route     AlertsRouteCmd     `cmd:"" help:"Say who would be told of an incident, and why."`
	Receivers AlertsReceiversCmd `cmd:"" help:"List receivers and how they do."`
	Test      AlertsTestCmd      `cmd:"" help:"Send an example to a receiver, exactly as real alerts are sent."`
	Enable    AlertsEnableCmd    `cmd:"" help:"Send again to a receiver that was disabled."`
	Replay    AlertsReplayCmd    `cmd:"" help:"Send failed notifications again."`
	Silences  AlertsSilencesCmd  `cmd:"" help:"List silences and maintenance windows."`
	Silence   AlertsSilenceCmd   `cmd:"" help:"Keep notifications back for a time."`
	Unsilence AlertsUnsilenceCmd `cmd:"" help:"End a silence now."`
	Handover  AlertsHandoverCmd  `cmd:"" help:"Sum a shift up."`
}

// AlertsRouteCmd explains the routes.
type AlertsRouteCmd struct {
	Severity string    `help:"Of the incident." default:"high" enum:"informational,low,medium,high,critical" placeholder:"SEVERITY"`
	Cohort   string    `placeholder:"NAME"`
	Site     string    `placeholder:"NAME"`
	Device   string    `placeholder:"ID"`
	Rule     string    `placeholder:"ID"`
	Tag      string    `placeholder:"TAG"`
	Scope    string    `default:"device" enum:"device,campaign,cause" placeholder:"SCOPE"`
	Change   string    `help:"opened, escalated, resolved, …" default:"opened" placeholder:"CHANGE"`
	At       time.Time `help:"At this time; default: now." placeholder:"TIME"`
	File     string    `help:"Answer from this settings file instead of a running Cordon." type:"existingfile" placeholder:"FILE"`
}

// Run explains.
func (c *AlertsRouteCmd) Run(ctx context.Context, g *Globals) error {
	var list []api.RoutedTo
	if c.File != "" {
		f, err := loadSettings(c.File)
		if err != nil {
			return err
		}
		inc := fleet.Incident{ID: "INC-0", Severity: fleet.Severity(c.Severity), Cohort: c.Cohort, Site: c.Site, Device: c.Device, Scope: c.Scope, State: fleet.Open}
		if c.Rule != "" {
			inc.Rules = []string{c.Rule}
		}
		if c.Tag != "" {
			inc.Tags = []string{c.Tag}
		}
		at := c.At
		if at.IsZero() {
			at = time.Now()
		}
		list = app.Explain(f.Receivers(), f.Policy(), inc, c.Change, at)
	} else {
		at := ""
		if !c.At.IsZero() {
			at = c.At.UTC().Format(time.RFC3339)
		}
		query := values("severity", c.Severity, "cohort", c.Cohort, "site", c.Site, "device", c.Device, "rule", c.Rule, "tag", c.Tag, "scope", c.Scope, "change", c.Change, "at", at)
		answer, err := call[struct {
			Items []api.RoutedTo `json:"items"`
		}](ctx, g, http.MethodGet, "/alerts/route?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		list = answer.Items
	}
	return show(g, items(list), func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "Nobody would be told: no route takes it.")
			return
		}
		row(w, "RECEIVER", "TOLD", "WHY")
		for _, t := range list {
			told := "no"
			switch {
			case t.Told && t.AfterSeconds > 0:
				told = "after " + (time.Duration(t.AfterSeconds) * time.Second).String()
			case t.Told:
				told = "yes"
			}
			row(w, t.Receiver, told, t.Why)
		}
	})
}

// AlertsReceiversCmd lists receivers.
type AlertsReceiversCmd struct{}

// Run lists them.
func (AlertsReceiversCmd) Run(ctx context.Context, g *Globals) error {
	answer, err := call[struct {
		Items []api.Receiver `json:"items"`
	}](ctx, g, http.MethodGet, "/receivers", nil)
	if err != nil {
		return err
	}
	return show(g, answer, func(w io.Writer) {
		row(w, "RECEIVER", "KIND", "WHERE", "FROM SEVERITY", "WAITING", "DELIVERED", "FAILED", "STATE")
		for _, r := range answer.Items {
			state := "well"
			if r.Disabled != "" {
				state = "disabled: " + r.Disabled
			} else if !r.Healthy {
				state = "failing: " + r.LastError
			}
			row(w, r.Name, r.Kind, r.Host, r.Severity, r.Pending, r.Delivered, r.Failed, state)
		}
	})
}

// AlertsTestCmd tests a receiver.
type AlertsTestCmd struct {
	Receiver string `arg:"" help:"The receiver's name."`
}

// Run tests it; a failure is an error.
func (c *AlertsTestCmd) Run(ctx context.Context, g *Globals) error {
	d, err := call[fleet.Delivery](ctx, g, http.MethodPost, "/receivers/"+url.PathEscape(c.Receiver)+"/test", nil)
	if err != nil {
		return err
	}
	if err := showDelivery(g, d); err != nil {
		return err
	}
	if d.State != "delivered" {
		return fmt.Errorf("receiver %s did not take it: %s", c.Receiver, d.Error)
	}
	return nil
}

func showDelivery(g *Globals, d fleet.Delivery) error {
	return show(g, d, func(w io.Writer) { row(w, d.ID, d.State, d.Status, fmt.Sprintf("%.0f ms", d.LatencyMS), d.Error) })
}

// AlertsEnableCmd enables a receiver.
type AlertsEnableCmd struct {
	Receiver string `arg:"" help:"The receiver's name."`
}

// Run enables it.
func (c *AlertsEnableCmd) Run(ctx context.Context, g *Globals) error {
	r, err := call[api.Receiver](ctx, g, http.MethodPost, "/receivers/"+url.PathEscape(c.Receiver)+"/enable", nil)
	if err != nil {
		return err
	}
	return show(g, r, func(w io.Writer) { row(w, r.Name, "enabled") })
}

// AlertsReplayCmd sends failed deliveries again.
type AlertsReplayCmd struct {
	Delivery []string `arg:"" help:"Ids of failed deliveries."`
}

// Run sends them.
func (c *AlertsReplayCmd) Run(ctx context.Context, g *Globals) error {
	for _, id := range c.Delivery {
		d, err := call[fleet.Delivery](ctx, g, http.MethodPost, "/deliveries/"+url.PathEscape(id)+"/replay", nil)
		if err != nil {
			return err
		}
		if err := showDelivery(g, d); err != nil {
			return err
		}
	}
	return nil
}

// AlertsSilencesCmd lists silences.
type AlertsSilencesCmd struct {
	All bool `help:"Those that have ended too."`
}

// Run lists them.
func (c *AlertsSilencesCmd) Run(ctx context.Context, g *Globals) error {
	answer, err := call[struct {
		Items []fleet.Silence `json:"items"`
	}](ctx, g, http.MethodGet, fmt.Sprintf("/silences?all=%t", c.All), nil)
	if err != nil {
		return err
	}
	return show(g, answer, func(w io.Writer) {
		row(w, "SILENCE", "OWNER", "FROM", "UNTIL", "REASON")
		for _, s := range answer.Items {
			row(w, s.ID, s.Owner, s.StartsAt, s.EndsAt, s.Reason)
		}
	})
}

// AlertsSilenceCmd adds a silence.
type AlertsSilenceCmd struct {
	For         time.Duration    `help:"How long." required:"" placeholder:"DURATION"`
	Reason      string           `help:"Why." required:"" placeholder:"TEXT"`
	Maintenance bool             `help:"Planned work."`
	Severity    []fleet.Severity `help:"Only of these severities." placeholder:"SEVERITY"`
	Cohort      []string         `placeholder:"NAME"`
	Site        []string         `placeholder:"NAME"`
	Tag         []string         `placeholder:"TAG"`
	Rule        []string         `placeholder:"ID"`
	Device      []string         `placeholder:"ID"`
}

// Run adds it.
func (c *AlertsSilenceCmd) Run(ctx context.Context, g *Globals) error {
	s, err := call[fleet.Silence](ctx, g, http.MethodPost, "/silences", api.SilenceRequest{
		Maintenance: c.Maintenance, EndsAt: time.Now().Add(c.For), Reason: c.Reason,
		Match: fleet.Match{Severities: c.Severity, Cohorts: c.Cohort, Sites: c.Site, Tags: c.Tag, Rules: c.Rule, Devices: c.Device},
	})
	if err != nil {
		return err
	}
	return show(g, s, func(w io.Writer) { row(w, s.ID, "until", s.EndsAt) })
}

// AlertsUnsilenceCmd ends a silence.
type AlertsUnsilenceCmd struct {
	ID string `arg:"" help:"The silence's id."`
}

// Run ends it.
func (c *AlertsUnsilenceCmd) Run(ctx context.Context, g *Globals) error {
	s, err := call[fleet.Silence](ctx, g, http.MethodDelete, "/silences/"+url.PathEscape(c.ID), nil)
	if err != nil {
		return err
	}
	return show(g, s, func(w io.Writer) { row(w, s.ID, "ended", s.EndsAt) })
}

// AlertsHandoverCmd sums a shift up.
type AlertsHandoverCmd struct {
	Hours int `help:"Of the shift." default:"8" placeholder:"N"`
}

// Run sums it up.
func (c *AlertsHandoverCmd) Run(ctx context.Context, g *Globals) error {
	h, err := call[api.Handover](ctx, g, http.MethodGet, fmt.Sprintf("/handover?hours=%d", c.Hours), nil)
	if err != nil {
		return err
	}
	return show(g, h, func(w io.Writer) {
		fmt.Fprintf(w, "From %s to %s: %d opened, %d resolved, %d became part of others.\n", when(h.From), when(h.To), h.Opened, h.Resolved, h.Merged)
		for _, part := range []struct {
			title string
			list  []fleet.Incident
		}{{"Nobody is on", h.Untouched}, {"Somebody is on", h.Taken}, {"Resolved", h.Ended}, {"Come and go", h.Flapping}} {
			if len(part.list) == 0 {
				continue
			}
			fmt.Fprintf(w, "\n%s\n", part.title)
			for _, i := range part.list {
				row(w, "  "+i.ID, i.Severity, i.State, i.Assignee, i.Title)
			}
		}
	})
}
