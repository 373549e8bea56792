package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"cordon/internal/fleet"
)

type (
	editDeviceInput struct {
		DevicePath
		Body DeviceChange
	}
	editDevicesInput struct {
		DryRun  bool   `query:"dry_run" doc:"Only say what would change."`
		RawBody []byte `contentType:"text/csv"`
	}
	editDevicesOutput    struct{ Body DeviceImport }
	changeIncidentsInput struct{ Body IncidentsChange }
	changeIncidentsOut   struct{ Body IncidentsChanged }
)

// DeviceChange says what to change of a device; what is left out stays.
type DeviceChange struct {
	Cohort   *string   `json:"cohort,omitempty" maxLength:"128"`
	Site     *string   `json:"site,omitempty" maxLength:"128"`
	Model    *string   `json:"model,omitempty" maxLength:"128"`
	Firmware *string   `json:"firmware,omitempty" maxLength:"128"`
	Owner    *string   `json:"owner,omitempty" maxLength:"128"`
	TimeZone *string   `json:"time_zone,omitempty" maxLength:"64" doc:"IANA name; empty is UTC."`
	Tags     *[]string `json:"tags,omitempty" maxItems:"32" doc:"All of them: what is not listed goes."`
}

// ImportFault is a line of a CSV file that could not be taken.
type ImportFault struct {
	Line    int    `json:"line"`
	Device  string `json:"device"`
	Message string `json:"message"`
}

// DeviceImport says what became of a CSV file.
type DeviceImport struct {
	DryRun    bool          `json:"dry_run"`
	Changed   int           `json:"changed"`
	Unchanged int           `json:"unchanged"`
	Failed    int           `json:"failed"`
	Faults    []ImportFault `json:"faults" doc:"The first hundred."`
}

// IncidentsChange does the same to many incidents.
type IncidentsChange struct {
	IDs      []string      `json:"ids" minItems:"1" maxItems:"200"`
	Action   string        `json:"action" enum:"acknowledge,assign,comment,resolve,reopen"`
	Assignee string        `json:"assignee,omitempty" maxLength:"64" doc:"For assign; empty: nobody."`
	Text     string        `json:"text,omitempty" maxLength:"4000" doc:"For comment."`
	Verdict  fleet.Verdict `json:"verdict,omitempty" doc:"For resolve."`
	Reason   string        `json:"reason,omitempty" maxLength:"1000" doc:"For resolve."`
}

// IncidentFault is an incident that did not change.
type IncidentFault struct {
	ID      string `json:"id"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// IncidentsChanged says what became of each.
type IncidentsChanged struct {
	Changed []string        `json:"changed"`
	Failed  []IncidentFault `json:"failed"`
}

const (
	maxLines = 20_000 // of a CSV file
	maxTags  = 32
	maxText  = 128
)

func (a *API) editRoutes() {
	add(a, route{"edit-device", http.MethodPatch, "/devices/{id}", "Change a device's owner, site, tags and the like", "devices"}, a.editDevice)
	add(a, route{"edit-devices", http.MethodPost, "/devices/import", "Change many devices by CSV: a head line with id and some of cohort, site, model, firmware, owner, time_zone, tags (separated by ;)", "devices"}, a.editDevices)
	add(a, route{"change-incidents", http.MethodPost, "/incidents/bulk", "Acknowledge, assign, comment, resolve or reopen many incidents", "incidents"}, a.changeIncidents)
}

func (c DeviceChange) check() error {
	for field, text := range map[string]*string{
		"cohort": c.Cohort, "site": c.Site, "model": c.Model, "firmware": c.Firmware, "owner": c.Owner, "time_zone": c.TimeZone,
	} {
		if text != nil {
			if err := checkLine(field, *text); err != nil {
				return err
			}
		}
	}
	if c.Cohort != nil && *c.Cohort == "" {
		return fleet.Errorf(fleet.CodeInvalid, "cohort is empty: every device has one").On("body.cohort")
	}
	if c.TimeZone != nil {
		if _, err := time.LoadLocation(*c.TimeZone); err != nil || *c.TimeZone == "Local" {
			return fleet.Errorf(fleet.CodeInvalid, "time zone %q is unknown: use an IANA name such as Asia/Seoul", *c.TimeZone).On("body.time_zone")
		}
	}
	if c.Tags == nil {
		return nil
	}
	if len(*c.Tags) > maxTags {
		return fleet.Errorf(fleet.CodeInvalid, "%d tags, the limit is %d", len(*c.Tags), maxTags).On("body.tags")
	}
	for _, tag := range *c.Tags {
		if tag == "" {
			return fleet.Errorf(fleet.CodeInvalid, "a tag is empty").On("body.tags")
		}
		if err := checkLine("tags", tag); err != nil {
			return err
		}
	}
	return nil
}

func checkLine(field, text string) error {
	if len(text) > maxText {
		return fleet.Errorf(fleet.CodeInvalid, "%s has %d bytes, the limit is %d", field, len(text), maxText).On("body." + field)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\uFFFD' }) {
		return fleet.Errorf(fleet.CodeInvalid, "%s holds a control character", field).On("body." + field)
	}
	return nil
}

// apply changes d and says whether anything changed.
func (c DeviceChange) apply(d *fleet.Device) bool {
	changed := false
	for to, text := range map[*string]*string{
		&d.Cohort: c.Cohort, &d.Site: c.Site, &d.Model: c.Model, &d.Firmware: c.Firmware, &d.Owner: c.Owner, &d.TimeZone: c.TimeZone,
	} {
		if text != nil && *to != *text {
			*to, changed = *text, true
		}
	}
	if c.Tags != nil {
		tags := slices.Clone(*c.Tags)
		slices.Sort(tags)
		tags = slices.Compact(tags)
		if !slices.Equal(tags, d.Tags) {
			d.Tags, changed = tags, true
		}
	}
	return changed
}

var errSame = errors.New("nothing changes")

// edit changes one device, within the caller's scope before and after.
func (a *API) edit(ctx context.Context, id string, c DeviceChange, dry bool) (before, after fleet.Device, err error) {
	if err := c.check(); err != nil {
		return before, after, err
	}
	p := caller(ctx)
	change := func(d *fleet.Device) error {
		if !p.Sees(*d) {
			return fleet.Errorf(fleet.CodeNotFound, "no device %s in the registry", id)
		}
		before = *d
		if d.State == fleet.Retired {
			return fleet.Errorf(fleet.CodeConflict, "device %s is retired", id)
		}
		same := !c.apply(d)
		after = *d
		if same {
			return errSame
		}
		return mayTouch(p, *d)
	}
	if dry {
		d, err := a.device(ctx, id)
		if err != nil {
			return before, after, err
		}
		d.Tags = slices.Clone(d.Tags)
		return before, after, change(&d)
	}
	err = a.deps.Devices.Update(ctx, id, change)
	return before, after, err
}

func (a *API) editDevice(ctx context.Context, in *editDeviceInput) (*deviceEntryOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	before, after, err := a.edit(ctx, in.ID, in.Body, false)
	if err != nil && !errors.Is(err, errSame) {
		return nil, err
	}
	note(ctx, in.ID, editable(before), editable(after))
	return &deviceEntryOutput{Body: deviceView(after)}, nil
}

func editable(d fleet.Device) map[string]any {
	return map[string]any{"cohort": d.Cohort, "site": d.Site, "model": d.Model, "firmware": d.Firmware, "owner": d.Owner, "time_zone": d.TimeZone, "tags": d.Tags}
}

func (a *API) editDevices(ctx context.Context, in *editDevicesInput) (*editDevicesOutput, error) {
	rows := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(in.RawBody, []byte("\xef\xbb\xbf"))))
	rows.TrimLeadingSpace, rows.ReuseRecord = true, true
	head, err := rows.Read()
	if err != nil {
		return nil, fleet.Errorf(fleet.CodeInvalid, "the file has no head line: id,owner,site,…").On("body")
	}
	head = slices.Clone(head)
	if err := checkHead(head); err != nil {
		return nil, err
	}
	out := DeviceImport{DryRun: in.DryRun, Faults: []ImportFault{}}
	for line := 2; ; line++ {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if line > maxLines {
			return nil, fleet.Errorf(fleet.CodeInvalid, "the file has more than %d lines: split it; the lines before were taken", maxLines).On("body")
		}
		id := ""
		if err != nil {
			err = fleet.Errorf(fleet.CodeInvalid, "not %d fields of CSV", len(head))
		} else {
			var c DeviceChange
			id, c = lineChange(head, row)
			_, _, err = a.edit(ctx, id, c, in.DryRun)
		}
		switch {
		case err == nil:
			out.Changed++
		case errors.Is(err, errSame):
			out.Unchanged++
		default:
			out.Failed++
			if len(out.Faults) < 100 {
				out.Faults = append(out.Faults, ImportFault{line, id, problem(ctx, a.deps.Log, err).Detail})
			}
		}
		if ctx.Err() != nil {
			return nil, fleet.Errorf(fleet.CodeUnavailable, "this took too long; %d lines were taken: send the file again, they will be unchanged", line)
		}
	}
	note(ctx, "devices", nil, map[string]any{"dry_run": in.DryRun, "columns": head, "changed": out.Changed, "unchanged": out.Unchanged, "failed": out.Failed})
	return &editDevicesOutput{Body: out}, nil
}

func checkHead(head []string) error {
	known := []string{"id", "cohort", "site", "model", "firmware", "owner", "time_zone", "tags"}
	for i, name := range head {
		name = strings.ToLower(strings.TrimSpace(name))
		head[i] = name
		if !slices.Contains(known, name) || slices.Contains(head[:i], name) {
			return fleet.Errorf(fleet.CodeInvalid, "column %q is unknown or there twice; known are %s", name, strings.Join(known, ", ")).On("body")
		}
	}
	if !slices.Contains(head, "id") || len(head) < 2 {
		return fleet.Errorf(fleet.CodeInvalid, "the head line needs id and at least one of %s", strings.Join(known[1:], ", ")).On("body")
	}
	return nil
}

func lineChange(head, row []string) (id string, c DeviceChange) {
	for i, name := range head {
		text := unguarded(row[i])
		switch name {
		case "id":
			id = text
		case "cohort":
			c.Cohort = &text
		case "site":
			c.Site = &text
		case "model":
			c.Model = &text
		case "firmware":
			c.Firmware = &text
		case "owner":
			c.Owner = &text
		case "time_zone":
			c.TimeZone = &text
		case "tags":
			tags := []string{}
			for tag := range strings.SplitSeq(text, ";") {
				if tag = strings.TrimSpace(tag); tag != "" {
					tags = append(tags, tag)
				}
			}
			c.Tags = &tags
		}
	}
	return id, c
}

func (a *API) changeIncidents(ctx context.Context, in *changeIncidentsInput) (*changeIncidentsOut, error) {
	b := in.Body
	note(ctx, strings.Join(b.IDs, " "), nil, b)
	switch {
	case b.Action == "comment" && strings.TrimSpace(b.Text) == "":
		return nil, fleet.Errorf(fleet.CodeInvalid, "a comment needs a text").On("body.text")
	case b.Action == "resolve" && (b.Verdict == "" || strings.TrimSpace(b.Reason) == ""):
		return nil, fleet.Errorf(fleet.CodeInvalid, "to resolve say a verdict and a reason").On("body.verdict")
	}
	p := caller(ctx)
	out := IncidentsChanged{Changed: []string{}, Failed: []IncidentFault{}}
	ids := slices.Clone(b.IDs)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		err := fleet.Errorf(fleet.CodeInvalid, "ids look like INC-12").On("body.ids")
		var failed error = err
		if strings.HasPrefix(id, "INC-") && len(id) <= 32 {
			failed = a.changeOne(ctx, p.Name, id, b)
		}
		if failed == nil {
			out.Changed = append(out.Changed, id)
			continue
		}
		p := problem(ctx, a.deps.Log, failed)
		out.Failed = append(out.Failed, IncidentFault{id, p.Code, p.Detail})
	}
	a.view.expire()
	b.IDs = nil
	note(ctx, strings.Join(out.Changed, " "), nil, map[string]any{"said": b, "changed": out.Changed, "failed": out.Failed})
	return &changeIncidentsOut{Body: out}, nil
}

func (a *API) changeOne(ctx context.Context, actor, id string, b IncidentsChange) error {
	if err := a.incidentInScope(ctx, caller(ctx), id); err != nil {
		return err
	}
	var err error
	switch b.Action {
	case "acknowledge":
		_, err = a.deps.Incidents.Acknowledge(ctx, id, actor)
	case "assign":
		_, err = a.assign(ctx, id, b.Assignee)
	case "comment":
		_, err = a.deps.Incidents.Comment(ctx, id, actor, b.Text)
	case "resolve":
		_, err = a.deps.Incidents.Resolve(ctx, id, actor, b.Verdict, b.Reason)
	case "reopen":
		_, err = a.deps.Incidents.Reopen(ctx, id, actor)
	}
	return err
}
