package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"cordon/internal/fleet"
	"cordon/web/api"
)

// QuarantineCmd holds the verbs about quarantines.
type QuarantineCmd struct {
	List      QuarantineListCmd      `cmd:"" help:"List quarantines in force."`
	History   QuarantineHistoryCmd   `cmd:"" help:"List past and present quarantines, the newest first."`
	Extend    QuarantineExtendCmd    `cmd:"" help:"Change when a device's quarantine ends by itself."`
	Bulk      QuarantineBulkCmd      `cmd:"" help:"Quarantine many devices; first say what would happen with --dry-run."`
	Approvals QuarantineApprovalsCmd `cmd:"" help:"List what guards stopped and operators must decide."`
	Approve   QuarantineApproveCmd   `cmd:"" help:"Hold the devices of an approval request."`
	Reject    QuarantineRejectCmd    `cmd:"" help:"Reject an approval request."`
	Guards    QuarantineGuardsCmd    `cmd:"" help:"Show the guards of automatic quarantines."`
	Resume    QuarantineResumeCmd    `cmd:"" help:"Close a circuit breaker."`
	Blocklist QuarantineBlocklistCmd `cmd:"" help:"Print addresses for firewalls to block."`
}

// QuarantineListCmd lists quarantines in force.
type QuarantineListCmd struct{}

// Run lists them.
func (c *QuarantineListCmd) Run(ctx context.Context, g *Globals) error {
	return listQuarantines(ctx, g, values("state", "active"), 0)
}

// QuarantineHistoryCmd lists all quarantines.
type QuarantineHistoryCmd struct {
	ID    string `arg:"" optional:"" help:"Only of this device."`
	Limit int    `help:"At most so many; 0: all." default:"50" placeholder:"N"`
}

// Run lists them.
func (c *QuarantineHistoryCmd) Run(ctx context.Context, g *Globals) error {
	return listQuarantines(ctx, g, values("state", "all", "device", c.ID), c.Limit)
}

func listQuarantines(ctx context.Context, g *Globals, query url.Values, limit int) error {
	list, err := pages[fleet.Quarantine](ctx, g, "/quarantines", query, limit)
	if err != nil {
		return err
	}
	return show(g, items(list), func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "No quarantine.")
			return
		}
		row(w, "QUARANTINE", "LEVEL", "STATE", "REQUESTED", "UNTIL", "ACTOR", "REASON")
		for _, q := range list {
			row(w, q.ID, q.Level, q.State, q.RequestedAt, q.Until, q.Actor, q.Reason)
		}
	})
}

// QuarantineExtendCmd changes when a quarantine ends.
type QuarantineExtendCmd struct {
	DeviceArg `embed:""`
	For       time.Duration `help:"How long from now; default: until released." placeholder:"DURATION"`
	Reason    string        `help:"Why." required:"" placeholder:"TEXT"`
}

// Run changes it.
func (c *QuarantineExtendCmd) Run(ctx context.Context, g *Globals) error {
	in := api.ExtendBody{Reason: c.Reason}
	if c.For > 0 {
		in.Until = time.Now().Add(c.For).UTC()
	}
	q, err := call[fleet.Quarantine](ctx, g, http.MethodPost, c.path("/quarantine/extend"), in)
	if err != nil {
		return err
	}
	return show(g, q, func(w io.Writer) { row(w, q.Device, sentence(q), "until", q.Until) })
}

// QuarantineBulkCmd quarantines many devices.
type QuarantineBulkCmd struct {
	Device []string      `arg:"" optional:"" help:"Devices; or select them by the flags."`
	Cohort string        `help:"Those of this peer group." placeholder:"NAME"`
	Site   string        `help:"Those at this site." placeholder:"NAME"`
	Model  string        `help:"Those of this model." placeholder:"NAME"`
	Tag    string        `help:"Those with this tag." placeholder:"TAG"`
	Level  string        `help:"observe, restrict or isolate." enum:"observe,restrict,isolate" default:"isolate" placeholder:"LEVEL"`
	Reason string        `help:"Why; needed without --dry-run." placeholder:"TEXT"`
	For    time.Duration `help:"How long; default: until released." placeholder:"DURATION"`
	Rule   string        `help:"With --dry-run: judge it as this rule's own action." placeholder:"RULE"`
	DryRun bool          `help:"Say whom it would hit and what each guard says; change nothing."`
	Expect int           `help:"How many devices the dry run said; needed without --dry-run." placeholder:"N"`
}

// Run plans or quarantines.
func (c *QuarantineBulkCmd) Run(ctx context.Context, g *Globals) error {
	chosen := api.DeviceSelection{Devices: c.Device, Cohort: c.Cohort, Site: c.Site, Model: c.Model, Tag: c.Tag}
	if c.DryRun {
		plan, err := call[fleet.Plan](ctx, g, http.MethodPost, "/quarantines/dry-run", api.PlanBody{DeviceSelection: chosen, Level: fleet.Level(c.Level), Rule: c.Rule})
		if err != nil {
			return err
		}
		return show(g, plan, func(w io.Writer) { showPlan(w, plan) })
	}
	if c.Expect == 0 || c.Reason == "" {
		return fleet.Errorf(fleet.CodeInvalid, "say --reason and --expect; look at it with --dry-run first")
	}
	in := api.BulkBody{DeviceSelection: chosen, Level: fleet.Level(c.Level), Reason: c.Reason, Expect: c.Expect}
	if c.For > 0 {
		in.Until = time.Now().Add(c.For).UTC()
	}
	out, err := call[api.BulkResult](ctx, g, http.MethodPost, "/quarantines/bulk", in)
	if err != nil {
		return err
	}
	if err := show(g, out, func(w io.Writer) {
		for _, q := range out.Items {
			row(w, q.Device, sentence(q))
		}
		for _, f := range out.Failed {
			row(w, f.Device, "NOT quarantined: "+f.Detail)
		}
	}); err != nil {
		return err
	}
	if out.Confirmed < c.Expect {
		return fleet.Errorf(fleet.CodeUnavailable, "%d of %d quarantines are proven", out.Confirmed, c.Expect)
	}
	return nil
}

func showPlan(w io.Writer, plan fleet.Plan) {
	fmt.Fprintf(w, "%d would be quarantined, %d already are, %d would wait for approval, %d would be stopped. Nothing was changed.\n",
		plan.Quarantine, plan.Already, plan.Approval, plan.Stopped)
	if plan.Breaker != "" {
		fmt.Fprintf(w, "The circuit breaker of %s would open.\n", plan.Breaker)
	}
	row(w, "DEVICE", "OUTCOME", "GUARD")
	for _, d := range plan.Devices {
		guard := ""
		for _, a := range d.Guards {
			if !a.Pass {
				guard = a.Guard + ": " + a.Detail
			}
		}
		row(w, d.Device, d.Outcome, guard)
	}
}

// QuarantineApprovalsCmd lists approval requests.
type QuarantineApprovalsCmd struct{}

// Run lists them.
func (c *QuarantineApprovalsCmd) Run(ctx context.Context, g *Globals) error {
	list, err := call[fleet.Page[fleet.Approval]](ctx, g, http.MethodGet, "/quarantines/approvals", nil)
	if err != nil {
		return err
	}
	return show(g, items(list.Items), func(w io.Writer) {
		if len(list.Items) == 0 {
			fmt.Fprintln(w, "No approval request.")
			return
		}
		row(w, "APPROVAL", "STATE", "LEVEL", "DEVICES", "CREATED", "WHY")
		for _, a := range list.Items {
			row(w, a.ID, a.State, a.Level, len(a.Devices)+a.More, a.CreatedAt, a.Detail)
		}
	})
}

// QuarantineApproveCmd approves a request.
type QuarantineApproveCmd struct {
	ID     string   `arg:"" help:"The request, as in quarantine approvals."`
	Device []string `help:"Only these devices." placeholder:"ID"`
	Reason string   `help:"Why." required:"" placeholder:"TEXT"`
}

// Run approves it.
func (c *QuarantineApproveCmd) Run(ctx context.Context, g *Globals) error {
	return decideApproval(ctx, g, c.ID, "/approve", api.ApproveBody{Reason: c.Reason, Devices: c.Device})
}

// QuarantineRejectCmd rejects a request.
type QuarantineRejectCmd struct {
	ID     string `arg:"" help:"The request, as in quarantine approvals."`
	Reason string `help:"Why." required:"" placeholder:"TEXT"`
}

// Run rejects it.
func (c *QuarantineRejectCmd) Run(ctx context.Context, g *Globals) error {
	return decideApproval(ctx, g, c.ID, "/reject", api.ReasonRequest{Reason: c.Reason})
}

func decideApproval(ctx context.Context, g *Globals, id, verb string, in any) error {
	a, err := call[fleet.Approval](ctx, g, http.MethodPost, "/quarantines/approvals/"+url.PathEscape(id)+verb, in)
	if err != nil {
		return err
	}
	return show(g, a, func(w io.Writer) {
		row(w, a.ID, a.State)
		for _, d := range a.Devices {
			row(w, d.Device, d.Quarantine+d.Error)
		}
	})
}

// QuarantineGuardsCmd shows the guards.
type QuarantineGuardsCmd struct{}

// Run shows them.
func (c *QuarantineGuardsCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[fleet.Guards](ctx, g, http.MethodGet, "/quarantines/guards", nil)
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "Within %s rules may quarantine:\n", out.Window)
		row(w, "SCOPE", "USED", "LIMIT", "KEPT FOR CRITICAL")
		for _, c := range out.Caps {
			row(w, c.Scope, c.Used, c.Limit, c.Reserved)
		}
		for _, b := range out.Breakers {
			if b.Open {
				row(w, "breaker "+b.Scope, "OPEN since "+when(b.OpenedAt), b.Detail)
			} else {
				row(w, "breaker "+b.Scope, "resumed by "+b.ResumedBy+" "+when(b.ResumedAt), b.Reason)
			}
		}
		row(w, "approvals pending", out.Pending)
		for _, p := range out.Protected {
			row(w, "protected", p)
		}
	})
}

// QuarantineResumeCmd closes a breaker.
type QuarantineResumeCmd struct {
	Scope  string `arg:"" help:"fleet, rule:ID or cohort:NAME, as in quarantine guards."`
	Reason string `help:"Why." required:"" placeholder:"TEXT"`
}

// Run closes it.
func (c *QuarantineResumeCmd) Run(ctx context.Context, g *Globals) error {
	b, err := call[fleet.Breaker](ctx, g, http.MethodPost, "/quarantines/guards/resume", api.ResumeBody{Scope: c.Scope, Reason: c.Reason})
	if err != nil {
		return err
	}
	return show(g, b, func(w io.Writer) { row(w, b.Scope, "resumed by "+b.ResumedBy) })
}

// QuarantineBlocklistCmd prints the block list.
type QuarantineBlocklistCmd struct{}

// Run prints it.
func (c *QuarantineBlocklistCmd) Run(ctx context.Context, g *Globals) error {
	client, err := connect(g)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, client.base+"/quarantine/blocklist.txt", nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+client.token)
	answer, err := client.http.Do(req)
	if err != nil {
		return fleet.Errorf(fleet.CodeUnavailable, "Cordon does not answer: %w", err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return refusal(answer.StatusCode, raw)
	}
	if _, err := g.Out.Write(raw); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
