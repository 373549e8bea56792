package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/web/api"
)

// DeviceEnrollCmd enrols a device, or those of a CSV.
type DeviceEnrollCmd struct {
	ID         string   `arg:"" optional:"" help:"The device's id."`
	Cohort     string   `help:"Peer group that it is compared with." placeholder:"NAME"`
	Site       string   `help:"Where it is." placeholder:"NAME"`
	Model      string   `help:"What it is." placeholder:"NAME"`
	Firmware   string   `help:"Version of its firmware." placeholder:"VERSION"`
	Owner      string   `help:"Who answers for it." placeholder:"NAME"`
	Tag        []string `help:"Tags." placeholder:"TAG"`
	TimeZone   string   `help:"Its IANA time zone, for daily patterns; default: UTC." placeholder:"ZONE"`
	Historic   bool     `help:"Accept data of any age from it (replays)."`
	Credential string   `help:"How it proves who it is: certificate, token, maker or gateway." enum:",certificate,token,maker,gateway" default:"" placeholder:"KIND"`
	Maker      string   `help:"It shows a certificate of this maker; see cordon maker." placeholder:"NAME"`
	Gateway    string   `help:"This device speaks for it." placeholder:"ID"`
	HardwareID string   `help:"Serial number or the like: no two devices share one." placeholder:"TEXT"`
	CSV        string   `name:"csv" help:"Enrol the devices of a file, all or none; the first line names the columns, at least id." type:"path" placeholder:"FILE"`
	Out        string   `help:"With --csv: write the tokens to this file (mode 0600); default: print them." type:"path" placeholder:"FILE"`
	DryRun     bool     `help:"With --csv: only check."`
}

// Help describes the CSV.
func (DeviceEnrollCmd) Help() string {
	return "Columns of --csv, in any order: id, cohort, site, model, firmware, owner, tags (a;b), time_zone, historic (true or false), credential, maker, gateway, hardware_id. " +
		"The tokens come as CSV: id,credential,gateway,token,expires_at."
}

// Run enrols.
func (c *DeviceEnrollCmd) Run(ctx context.Context, g *Globals) error {
	switch {
	case c.CSV != "" && c.ID != "":
		return fleet.Errorf(fleet.CodeInvalid, "give an id or --csv, not both")
	case c.CSV != "":
		return c.bulk(ctx, g)
	case c.ID == "":
		return fleet.Errorf(fleet.CodeInvalid, "give the device's id, or --csv FILE")
	}
	out, err := call[api.Enrolled](ctx, g, http.MethodPost, "/devices", api.EnrollRequest{
		ID: c.ID, Cohort: c.Cohort, Site: c.Site, Model: c.Model, Firmware: c.Firmware, Owner: c.Owner, Tags: c.Tag,
		TimeZone: c.TimeZone, Historic: c.Historic,
		EnrollIdentity: api.EnrollIdentity{Credential: c.Credential, Maker: c.Maker, Gateway: c.Gateway, HardwareID: c.HardwareID},
	})
	if err != nil {
		return err
	}
	return showEnrolled(g, out)
}

func showEnrolled(g *Globals, out api.Enrolled) error {
	return show(g, out, func(w io.Writer) {
		switch {
		case out.Token == "":
			fmt.Fprintf(w, "Device %s is enrolled. Next: %s\n", out.Device.ID, out.Command)
		case out.TokenExpiresAt.IsZero():
			fmt.Fprintf(w, "Device %s is enrolled. Its credential, shown only now, good until %s:\n\n    %s\n\nFor example:\n\n    %s\n",
				out.Device.ID, when(out.Device.CertificateNotAfter), out.Token, out.Command)
		default:
			fmt.Fprintf(w, "Device %s is enrolled. Its one-time token, good until %s:\n\n    %s\n\nRun on the device:\n\n    %s\n",
				out.Device.ID, when(out.TokenExpiresAt), out.Token, out.Command)
		}
	})
}

// bulkLines is how many lines go into one request. In a file that needs more
// than one, gateways must be enrolled before their children.
const bulkLines = identity.MaxBulk

// bulk checks the whole file before it enrols anything of it.
func (c *DeviceEnrollCmd) bulk(ctx context.Context, g *Globals) error {
	raw, err := os.ReadFile(c.CSV)
	if err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	parts, err := splitCSV(raw)
	if err != nil {
		return err
	}
	client, err := connect(g)
	if err != nil {
		return err
	}
	all := api.BulkEnrolled{Valid: true, Items: []api.BulkDevice{}, Faults: []identity.LineFault{}}
	for _, dry := range []bool{true, false} {
		if dry && len(parts) == 1 && !c.DryRun {
			continue // one request is all or none by itself
		}
		for _, part := range parts {
			var out api.BulkEnrolled
			path := "/devices/bulk?" + url.Values{"dry_run": {strconv.FormatBool(dry)}}.Encode()
			if err := client.send(ctx, path, "text/csv", part.text, &out); err != nil {
				return err
			}
			for _, fault := range out.Faults {
				fault.Line = part.line(fault.Line)
				all.Faults = append(all.Faults, fault)
			}
			for _, item := range out.Items {
				item.Line = part.line(item.Line)
				all.Items = append(all.Items, item)
			}
			if dry || len(parts) == 1 {
				all.Devices += out.Devices
			}
		}
		if all.Valid = len(all.Faults) == 0; !all.Valid || c.DryRun {
			break
		}
	}
	return c.report(g, all)
}

func (c *DeviceEnrollCmd) report(g *Globals, all api.BulkEnrolled) error {
	for _, fault := range all.Faults {
		fmt.Fprintf(g.Err, "%s: %s\n", c.CSV, clean(fault.String()))
	}
	if len(all.Items) > 0 {
		if err := c.tokens(g, all); err != nil {
			return err
		}
	}
	switch {
	case !all.Valid && len(all.Items) == 0:
		return fleet.Errorf(fleet.CodeInvalid, "%d faults: nothing was enrolled", len(all.Faults))
	case !all.Valid:
		return fleet.Errorf(fleet.CodeUnavailable, "%d devices were enrolled, the lines above were not", len(all.Items))
	case c.DryRun:
		fmt.Fprintf(g.Err, "%d devices can be enrolled.\n", all.Devices)
	default:
		fmt.Fprintf(g.Err, "%d devices are enrolled. Their tokens are shown only once.\n", len(all.Items))
	}
	return nil
}

func (c *DeviceEnrollCmd) tokens(g *Globals, all api.BulkEnrolled) error {
	to := g.Out
	if c.Out != "" {
		file, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			fmt.Fprintln(g.Err, "The tokens could not be written to a file; here they are:")
		} else {
			defer file.Close()
			to = file
		}
	}
	if g.JSON {
		return show(&Globals{Out: to, JSON: true}, all, nil)
	}
	w := csv.NewWriter(to)
	lines := [][]string{{"id", "credential", "gateway", "token", "expires_at"}}
	for _, d := range all.Items {
		until := ""
		if !d.TokenExpiresAt.IsZero() {
			until = d.TokenExpiresAt.UTC().Format(time.RFC3339)
		}
		lines = append(lines, []string{d.ID, d.Credential, d.Gateway, d.Token, until})
	}
	if err := w.WriteAll(lines); err != nil {
		return fmt.Errorf("write tokens: %w", err)
	}
	return nil
}

// csvPart is a piece of a CSV with the header line before it.
type csvPart struct {
	text  []byte
	lines []int // of each record, the header first, in the part
	file  []int // and in the file
}

// line turns a line of the part into one of the file.
func (p csvPart) line(n int) int {
	for i := len(p.lines) - 1; i >= 0; i-- {
		if n >= p.lines[i] {
			return p.file[i] + n - p.lines[i]
		}
	}
	return n
}

// splitCSV cuts a file into parts for one request each. What is wrong within
// a record, Cordon says.
func splitCSV(raw []byte) ([]csvPart, error) {
	r := csv.NewReader(bytes.NewReader(raw))
	r.FieldsPerRecord, r.LazyQuotes = -1, true
	var header []byte
	var parts []csvPart
	from := int64(0)
	for {
		_, err := r.Read()
		if err == io.EOF && len(parts) == 0 {
			return []csvPart{{text: raw, lines: []int{1}, file: []int{1}}}, nil
		}
		if err == io.EOF {
			return parts, nil
		}
		if err != nil {
			return nil, fleet.Errorf(fleet.CodeInvalid, "read devices: %w", err)
		}
		line, _ := r.FieldPos(0)
		record := raw[from:r.InputOffset()]
		record = bytes.TrimLeft(record, "\r\n") // empty lines
		from = r.InputOffset()
		if header == nil {
			header = append(bytes.TrimRight(record, "\r\n"), '\n')
			parts = []csvPart{{text: bytes.Clone(header), lines: []int{1}, file: []int{line}}}
			continue
		}
		last := &parts[len(parts)-1]
		if len(last.lines) > bulkLines {
			parts = append(parts, csvPart{text: bytes.Clone(header), lines: []int{1}, file: []int{1}})
			last = &parts[len(parts)-1]
		}
		last.lines = append(last.lines, bytes.Count(last.text, []byte("\n"))+1)
		last.file = append(last.file, line)
		last.text = append(append(last.text, bytes.TrimRight(record, "\r\n")...), '\n')
	}
}

// send posts a body that is not JSON.
func (c *Client) send(ctx context.Context, path, kind string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", kind)
	return c.exchange(req, out)
}

// DeviceCredentialCmd issues a token credential.
type DeviceCredentialCmd struct {
	DeviceArg `embed:""`
}

// Run issues it.
func (c *DeviceCredentialCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.DeviceCredential](ctx, g, http.MethodPost, c.path("/credential"), nil)
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "Credential of %s, shown only now, good until %s:\n\n    %s\n\nThe old one, if there is one, ends when this one connects.\n", out.Device, when(out.ExpiresAt), out.Token)
	})
}

// DeviceRotateCmd asks for a new key.
type DeviceRotateCmd struct {
	DeviceArg `embed:""`
	Reason    string `help:"Why." required:"" placeholder:"TEXT"`
}

// Run asks for it.
func (c *DeviceRotateCmd) Run(ctx context.Context, g *Globals) error {
	d, err := call[api.Device](ctx, g, http.MethodPost, c.path("/rotate"), api.ReasonRequest{Reason: c.Reason})
	if err != nil {
		return err
	}
	return show(g, d, func(w io.Writer) {
		fmt.Fprintf(w, "Device %s makes a new key: at once if it is connected, else when it comes back. The old one ends when the new one connects.\n", d.ID)
	})
}

// DeviceChildrenCmd lists a gateway's children.
type DeviceChildrenCmd struct {
	DeviceArg `embed:""`
}

// Run lists them.
func (c *DeviceChildrenCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.ChildList](ctx, g, http.MethodGet, c.path("/children"), nil)
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		for _, id := range out.Items {
			row(w, id)
		}
	})
}

// FleetTokenCmd holds the verbs about fleet tokens.
type FleetTokenCmd struct {
	List   FleetTokenListCmd   `cmd:"" help:"List fleet tokens."`
	Create FleetTokenCreateCmd `cmd:"" help:"Make a fleet token."`
	Revoke FleetTokenRevokeCmd `cmd:"" help:"Revoke a fleet token; devices that it enrolled stay."`
}

// FleetTokenListCmd lists fleet tokens.
type FleetTokenListCmd struct{}

// Run lists them.
func (FleetTokenListCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.FleetTokenList](ctx, g, http.MethodGet, "/fleet-tokens", nil)
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		row(w, "TOKEN", "PREFIX", "USED", "MOST", "EXPIRES", "REVOKED", "BY")
		for _, t := range out.Items {
			row(w, t.ID, t.Prefix, t.Used, t.Most, t.ExpiresAt, t.RevokedAt, t.CreatedBy)
		}
	})
}

// FleetTokenCreateCmd makes a fleet token.
type FleetTokenCreateCmd struct {
	Prefix string `arg:"" help:"Ids that it may enrol begin with this."`
	Most   int    `help:"How many devices it may enrol." required:"" placeholder:"N"`
	Hours  int    `help:"How long it is good for, at most 24." default:"24" placeholder:"N"`
	Cohort string `help:"Peer group of its devices." placeholder:"NAME"`
	Site   string `help:"Where they are." placeholder:"NAME"`
	Model  string `help:"What they are." placeholder:"NAME"`
}

// Run makes it.
func (c *FleetTokenCreateCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.NewFleetToken](ctx, g, http.MethodPost, "/fleet-tokens", api.FleetTokenRequest{
		Prefix: c.Prefix, Most: c.Most, Hours: c.Hours, Cohort: c.Cohort, Site: c.Site, Model: c.Model,
	})
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "Fleet token %s, good until %s for %d devices, shown only now:\n\n    %s\n\nRun on each device:\n\n    %s\n",
			out.FleetToken.ID, when(out.FleetToken.ExpiresAt), out.FleetToken.Most, out.Secret, out.Command)
	})
}

// FleetTokenRevokeCmd revokes a fleet token.
type FleetTokenRevokeCmd struct {
	ID string `arg:"" help:"The fleet token's id."`
}

// Run revokes it.
func (c *FleetTokenRevokeCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[identity.FleetToken](ctx, g, http.MethodDelete, "/fleet-tokens/"+url.PathEscape(c.ID), nil)
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) { row(w, out.ID, "revoked", out.RevokedAt) })
}

// MakerCmd holds the verbs about makers.
type MakerCmd struct {
	List     MakerListCmd     `cmd:"" help:"List trusted makers."`
	Trust    MakerTrustCmd    `cmd:"" help:"Trust a maker's certificates for an id prefix."`
	Distrust MakerDistrustCmd `cmd:"" help:"Stop trusting a maker and revoke its devices."`
}

// MakerListCmd lists makers.
type MakerListCmd struct{}

// Run lists them.
func (MakerListCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.MakerList](ctx, g, http.MethodGet, "/makers", nil)
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		row(w, "MAKER", "PREFIX", "ID FROM", "ENROLS", "FINGERPRINT", "UNTIL")
		for _, m := range out.Items {
			enrols := "no"
			if m.Enroll {
				enrols = fmt.Sprintf("up to %d", m.Most)
			}
			row(w, m.Name, m.Prefix, m.From, enrols, m.Fingerprint, m.NotAfter)
		}
	})
}

// MakerTrustCmd trusts a maker.
type MakerTrustCmd struct {
	Name   string `arg:"" help:"A name for the maker."`
	File   string `arg:"" help:"Its authority's certificate, PEM." type:"path"`
	Prefix string `help:"Ids for which its certificates count begin with this." required:"" placeholder:"PREFIX"`
	From   string `help:"Where its certificates hold the device's id: common_name, serial_number or dns." enum:"common_name,serial_number,dns" default:"common_name" placeholder:"FIELD"`
	Enroll int    `help:"Enter up to so many devices that nobody enrolled when they first connect." placeholder:"N"`
	Cohort string `help:"Peer group of devices entered so." placeholder:"NAME"`
}

// Run trusts it.
func (c *MakerTrustCmd) Run(ctx context.Context, g *Globals) error {
	raw, err := os.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	out, err := call[identity.Maker](ctx, g, http.MethodPost, "/makers", api.MakerRequest{
		Name: c.Name, Prefix: c.Prefix, Certificate: string(raw), From: c.From, Enroll: c.Enroll > 0, Most: c.Enroll, Cohort: c.Cohort,
	})
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) { row(w, out.Name, "is trusted for "+out.Prefix+"…", out.Fingerprint) })
}

// MakerDistrustCmd distrusts a maker.
type MakerDistrustCmd struct {
	Name   string `arg:"" help:"The maker."`
	Reason string `help:"Why." required:"" placeholder:"TEXT"`
}

// Run distrusts it.
func (c *MakerDistrustCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.Distrusted](ctx, g, http.MethodPost, "/makers/"+url.PathEscape(c.Name)+"/distrust", api.ReasonRequest{Reason: c.Reason})
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) { row(w, c.Name, fmt.Sprintf("%d devices revoked", out.Revoked)) })
}
