package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cordon/internal/fleet"
	"cordon/web/api"
)

// DeviceCmd holds the verbs about devices.
type DeviceCmd struct {
	Enroll     DeviceEnrollCmd     `cmd:"" help:"Enrol a device and print its one-time token; with --csv, many."`
	List       DeviceListCmd       `cmd:"" help:"List devices."`
	Show       DeviceShowCmd       `cmd:"" help:"Show a device: what is stored of it, connections, quarantine, baselines."`
	Token      DeviceTokenCmd      `cmd:"" help:"Make a new one-time token, to let a device in again."`
	Quarantine DeviceQuarantineCmd `cmd:"" help:"Quarantine a device and wait for the proof."`
	Release    DeviceReleaseCmd    `cmd:"" help:"Release a device from quarantine."`
	Revoke     DeviceRevokeCmd     `cmd:"" help:"Revoke a device's certificate and cut it off."`
	Retire     DeviceRetireCmd     `cmd:"" help:"Retire a device for good."`

	Credential DeviceCredentialCmd `cmd:"" help:"Issue a token credential to a device that can't do certificates."`
	Rotate     DeviceRotateCmd     `cmd:"" help:"Ask a device for a new key."`
	Children   DeviceChildrenCmd   `cmd:"" help:"List the devices that a gateway speaks for."`
	Erase      DeviceEraseCmd      `cmd:"" help:"Erase all data of a device and print a signed receipt."`
	Erasures   DeviceErasuresCmd   `cmd:"" help:"List the erasure ledger."`
	Receipt    DeviceReceiptCmd    `cmd:"" help:"Check the receipt of an erasure."`
}

// DeviceArg names a device.
type DeviceArg struct {
	ID string `arg:"" help:"The device's id."`
}

func (d DeviceArg) path(rest string) string { return "/devices/" + url.PathEscape(d.ID) + rest }

// DeviceTokenCmd makes a new token.
type DeviceTokenCmd struct {
	DeviceArg `embed:""`
}

// Run makes the token.
func (c *DeviceTokenCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.Enrolled](ctx, g, http.MethodPost, c.path("/token"), nil)
	if err != nil {
		return err
	}
	return showEnrolled(g, out)
}

// DeviceListCmd lists devices.
type DeviceListCmd struct {
	Cohort string `help:"Only of this peer group." placeholder:"NAME"`
	Site   string `help:"Only at this site." placeholder:"NAME"`
	Model  string `help:"Only of this model." placeholder:"NAME"`
	State  string `help:"Only in this state: enrolled, active, revoked, retired." placeholder:"STATE"`
	Status string `help:"Only those that are reporting, silent, never_seen, retired or historic." placeholder:"STATUS"`
	Tag    string `help:"Only with this tag." placeholder:"TAG"`
	Query  string `short:"q" help:"Only with these words in id, owner, site, model, cohort or tags." placeholder:"WORDS"`
	Sort   string `help:"id, cohort, site, enrolled_at or last_seen_at; - before it turns it round." default:"id" placeholder:"FIELD"`
	Limit  int    `help:"At most so many; 0: all." default:"0" placeholder:"N"`
}

// Run lists the devices.
func (c *DeviceListCmd) Run(ctx context.Context, g *Globals) error {
	list, err := pages[api.DeviceSummary](ctx, g, "/devices", values(
		"cohort", c.Cohort, "site", c.Site, "model", c.Model, "state", c.State, "status", c.Status, "tag", c.Tag, "q", c.Query, "sort", c.Sort,
	), c.Limit)
	if err != nil {
		return err
	}
	return show(g, items(list), func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "No device. Enrol one with: cordon device enroll ID")
			return
		}
		row(w, "DEVICE", "STATUS", "QUARANTINE", "INCIDENT", "COHORT", "SITE", "MODEL", "LAST SEEN")
		for _, d := range list {
			held, incident := "", ""
			if d.Quarantine != nil {
				held = fmt.Sprintf("%s %s", d.Quarantine.Level, d.Quarantine.State)
			}
			if d.OpenIncident != nil {
				incident = fmt.Sprintf("%s %s", d.OpenIncident.ID, d.OpenIncident.Severity)
			}
			row(w, d.ID, d.Status, held, incident, d.Cohort, d.Site, d.Model, d.LastSeenAt)
		}
	})
}

// DeviceShowCmd shows a device.
type DeviceShowCmd struct {
	DeviceArg `embed:""`
}

// Run shows the device.
func (c *DeviceShowCmd) Run(ctx context.Context, g *Globals) error {
	d, err := call[api.DeviceDetail](ctx, g, http.MethodGet, c.path(""), nil)
	if err != nil {
		return err
	}
	return show(g, d, func(w io.Writer) {
		row(w, "device", d.ID)
		row(w, "status", d.Status+", "+string(d.State))
		row(w, "cohort", d.Cohort)
		row(w, "site", d.Site)
		row(w, "model", d.Model)
		row(w, "owner", d.Owner)
		row(w, "tags", strings.Join(d.Tags, ", "))
		row(w, "last seen", d.LastSeenAt)
		row(w, "certificate until", d.CertificateNotAfter)
		row(w, "readings stored", d.ReadingsStored)
		row(w, "audit events stored", d.AuditEventsStored)
		row(w, "dead letters", d.DeadLetters)
		if d.ConnectionsUnknown != "" {
			row(w, "connections", d.ConnectionsUnknown)
		}
		for _, n := range d.Connections {
			row(w, "connection", fmt.Sprintf("%s from %s since %s", n.Protocol, n.Address, when(n.StartedAt)))
		}
		if d.OpenIncident != nil {
			row(w, "incident", fmt.Sprintf("%s, %s", d.OpenIncident.ID, d.OpenIncident.Severity))
		}
		if d.Quarantine != nil {
			row(w, "quarantine", sentence(*d.Quarantine))
		}
		for _, b := range d.Baselines {
			row(w, "baseline", fmt.Sprintf("%s: %s, %s", b.Metric, b.State, b.Detail))
		}
	})
}

// sentence says a quarantine in one line.
func sentence(q fleet.Quarantine) string {
	text := fmt.Sprintf("%s, %s, by %s: %s", q.Level, q.State, q.Actor, q.Reason)
	switch {
	case q.State == fleet.Confirmed:
		text += fmt.Sprintf(" (proven by every broker, %d, after %s)", len(q.Proof.Brokers), q.ConfirmedAt.Sub(q.RequestedAt).Round(10*time.Microsecond))
	case q.Failure != "":
		text += " (" + q.Failure + ")"
	}
	return text
}

// DeviceQuarantineCmd quarantines a device.
type DeviceQuarantineCmd struct {
	DeviceArg `embed:""`
	Level     string        `help:"observe, restrict or isolate." enum:"observe,restrict,isolate" default:"isolate" placeholder:"LEVEL"`
	Reason    string        `help:"Why." required:"" placeholder:"TEXT"`
	For       time.Duration `help:"How long; default: until released." placeholder:"DURATION"`
	Incident  string        `help:"The incident that it belongs to." placeholder:"INC-N"`
	Lower     bool          `help:"Replace a tighter level that is in force."`
}

// Run quarantines the device; it fails unless the quarantine was proven.
func (c *DeviceQuarantineCmd) Run(ctx context.Context, g *Globals) error {
	in := api.QuarantineBody{Level: fleet.Level(c.Level), Reason: c.Reason, Incident: c.Incident, Lower: c.Lower}
	if c.For > 0 {
		in.Until = time.Now().Add(c.For).UTC()
	}
	q, err := call[fleet.Quarantine](ctx, g, http.MethodPost, c.path("/quarantine"), in)
	if err != nil {
		return err
	}
	if err := show(g, q, func(w io.Writer) { row(w, q.Device, sentence(q)) }); err != nil {
		return err
	}
	if q.State != fleet.Confirmed {
		return fleet.Errorf(fleet.CodeUnavailable, "the quarantine is %s, not yet proven; see cordon device show %s", q.State, q.Device)
	}
	return nil
}

// DeviceReleaseCmd releases a device.
type DeviceReleaseCmd struct {
	DeviceArg `embed:""`
	Reason    string        `help:"Why." required:"" placeholder:"TEXT"`
	Probation time.Duration `help:"Restrict the isolated device for so long before it is free." placeholder:"DURATION"`
}

// Run releases the device.
func (c *DeviceReleaseCmd) Run(ctx context.Context, g *Globals) error {
	in := api.ReleaseBody{Reason: c.Reason}
	if c.Probation > 0 {
		in.ProbationUntil = time.Now().Add(c.Probation).UTC()
	}
	q, err := call[fleet.Quarantine](ctx, g, http.MethodPost, c.path("/release"), in)
	if err != nil {
		return err
	}
	return show(g, q, func(w io.Writer) { row(w, q.Device, q.State) })
}

// DeviceRevokeCmd revokes a certificate.
type DeviceRevokeCmd struct {
	DeviceArg `embed:""`
	Reason    string `help:"Why." required:"" placeholder:"TEXT"`
}

// Run revokes it.
func (c *DeviceRevokeCmd) Run(ctx context.Context, g *Globals) error {
	return endDevice(ctx, g, c.path("/revoke"), c.Reason)
}

// DeviceRetireCmd retires a device.
type DeviceRetireCmd struct {
	DeviceArg `embed:""`
	Reason    string `help:"Why." required:"" placeholder:"TEXT"`
}

// Run retires it.
func (c *DeviceRetireCmd) Run(ctx context.Context, g *Globals) error {
	return endDevice(ctx, g, c.path("/retire"), c.Reason)
}

func endDevice(ctx context.Context, g *Globals, path, reason string) error {
	d, err := call[api.Device](ctx, g, http.MethodPost, path, api.ReasonRequest{Reason: reason})
	if err != nil {
		return err
	}
	return show(g, d, func(w io.Writer) { row(w, d.ID, d.State) })
}
