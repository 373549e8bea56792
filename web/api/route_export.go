package api

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"cordon/internal/fleet"
	"cordon/internal/store"
)

const (
	typeNDJSON = "application/x-ndjson"
	maxExport  = 100_000 // rows of one export
)

type (
	exportIncidentsInput struct {
		Format   string `query:"format" enum:"json,csv,ndjson,ocsf" default:"ndjson" doc:"ocsf: Incident Finding (class 2005), one a line."`
		State    string `query:"state" maxLength:"64"`
		Severity string `query:"severity" maxLength:"64"`
		Device   string `query:"device" maxLength:"64"`
	}
	exportFindingsInput struct {
		Period
		Format string `query:"format" enum:"json,csv,ndjson,ocsf" default:"ndjson" doc:"ocsf: Detection Finding (class 2004), one a line."`
		Device string `query:"device" maxLength:"64"`
		Rule   string `query:"rule" maxLength:"128"`
	}
	exportDevicesInput struct {
		Format string `query:"format" enum:"json,csv,ndjson" default:"ndjson"`
		Cohort string `query:"cohort" maxLength:"128"`
		Site   string `query:"site" maxLength:"128"`
		State  string `query:"state" enum:"enrolled,active,revoked,retired"`
		Model  string `query:"model" maxLength:"128"`
		Query  string `query:"q" maxLength:"256"`
		Tag    string `query:"tag" maxLength:"128"`
	}
)

func (a *API) exportRoutes() {
	add(a, route{"export-devices", http.MethodGet, "/export/devices", "Export devices as JSON, CSV or NDJSON, at most 100,000", "export"}, a.exportDevices)
	add(a, route{"export-incidents", http.MethodGet, "/export/incidents", "Export incidents as JSON, CSV, NDJSON or OCSF, at most 100,000", "export"}, a.exportIncidents)
	add(a, route{"export-findings", http.MethodGet, "/export/findings", "Export findings as JSON, CSV, NDJSON or OCSF, newest first, at most 100,000", "export"}, a.exportFindings)
}

// table says how rows look in each format.
type table[T any] struct {
	name string
	head []string
	line func(T) []string
	ocsf func(T) any
}

// stream writes rows as they come: next calls its argument for each, until it
// is told to stop.
func stream[T any](a *API, format string, t table[T], next func(ctx context.Context, row func(T) error) error) *huma.StreamResponse {
	kind, ending := typeNDJSON, "ndjson"
	switch format {
	case "json":
		kind, ending = "application/json", "json"
	case "csv":
		kind, ending = "text/csv; charset=utf-8", "csv"
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", kind)
		ctx.SetHeader("Content-Disposition", `attachment; filename="cordon-`+t.name+"."+ending+`"`)
		out := ctx.BodyWriter()
		var err error
		switch format {
		case "csv":
			err = writeCSV(ctx.Context(), out, t, next)
		case "json":
			err = writeJSON(ctx.Context(), out, next)
		default:
			enc := json.NewEncoder(out)
			err = next(ctx.Context(), func(row T) error {
				if format == "ocsf" {
					return enc.Encode(t.ocsf(row))
				}
				return enc.Encode(row)
			})
		}
		if err != nil {
			// The status is sent: JSON is left unfinished, so that it can't be taken for whole.
			a.deps.Log.Warn("export broke off", "request_id", requestID(ctx.Context()), "export", t.name, "error", err)
		}
	}}
}

func writeCSV[T any](ctx context.Context, out io.Writer, t table[T], next func(context.Context, func(T) error) error) error {
	w := csv.NewWriter(out)
	if err := w.Write(t.head); err != nil {
		return err
	}
	if err := next(ctx, func(row T) error {
		cells := t.line(row)
		for i := range cells {
			cells[i] = guarded(cells[i])
		}
		return w.Write(cells)
	}); err != nil {
		return err
	}
	w.Flush()
	return w.Error()
}

func writeJSON[T any](ctx context.Context, out io.Writer, next func(context.Context, func(T) error) error) error {
	before := "["
	if err := next(ctx, func(row T) error {
		raw, err := json.Marshal(row)
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, before+string(raw))
		before = ",\n"
		return err
	}); err != nil {
		return err
	}
	if before == "[" {
		before = "["
	} else {
		before = ""
	}
	_, err := io.WriteString(out, before+"]\n")
	return err
}

// guarded keeps spreadsheets from taking a text for a formula.
func guarded(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

// unguarded takes the guard away when an export comes back.
func unguarded(text string) string {
	if rest, ok := strings.CutPrefix(text, "'"); ok && guarded(rest) == text {
		return rest
	}
	return text
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (a *API) exportDevices(ctx context.Context, in *exportDevicesInput) (*huma.StreamResponse, error) {
	p := caller(ctx)
	list := listDevicesInput{Cohort: in.Cohort, Site: in.Site, State: in.State, Model: in.Model, Query: in.Query, Tag: in.Tag}
	match := list.matcher()
	t := table[Device]{
		name: "devices", head: []string{"id", "state", "cohort", "site", "model", "firmware", "owner", "time_zone", "tags", "enrolled_at", "certificate_not_after"},
		line: func(d Device) []string {
			return []string{d.ID, string(d.State), d.Cohort, d.Site, d.Model, d.Firmware, d.Owner, d.TimeZone, strings.Join(d.Tags, ";"), stamp(d.EnrolledAt), stamp(d.CertificateNotAfter)}
		},
	}
	return stream(a, in.Format, t, func(_ context.Context, row func(Device) error) error {
		var all []Device
		a.deps.Devices.All(func(d fleet.Device) bool {
			if match(d) && p.Sees(d) {
				all = append(all, deviceView(d))
			}
			return len(all) < maxExport
		})
		for _, d := range all {
			if err := row(d); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

func (a *API) exportIncidents(ctx context.Context, in *exportIncidentsInput) (*huma.StreamResponse, error) {
	sees := a.sees(caller(ctx))
	filter := IncidentFilter{State: in.State, Severity: in.Severity, Device: in.Device}
	first, err := a.deps.Incidents.List(filter, "opened_at", "", 500)
	if err != nil {
		return nil, err
	}
	t := table[fleet.Incident]{
		name: "incidents", head: []string{"id", "device", "severity", "state", "title", "rules", "techniques", "findings", "opened_at", "acknowledged_at", "acknowledged_by", "resolved_at", "resolved_by", "verdict", "assignee"},
		line: func(i fleet.Incident) []string {
			return []string{
				i.ID, i.Device, string(i.Severity), string(i.State), i.Title, strings.Join(i.Rules, ";"), strings.Join(i.Techniques, ";"), number(i.Findings),
				stamp(i.OpenedAt), stamp(i.AcknowledgedAt), i.AcknowledgedBy, stamp(i.ResolvedAt), i.ResolvedBy, string(i.Verdict), i.Assignee,
			}
		},
		ocsf: func(i fleet.Incident) any { return ocsfIncident(i, a.cfg.Version) },
	}
	return stream(a, in.Format, t, func(_ context.Context, row func(fleet.Incident) error) error {
		page := first
		for rows := 0; rows < maxExport; {
			for _, i := range page.Items {
				if !sees(i.Device) {
					continue
				}
				rows++
				if err := row(incidentView(i)); err != nil {
					return err
				}
			}
			if page.Next == "" {
				return nil
			}
			var err error
			if page, err = a.deps.Incidents.List(filter, "opened_at", page.Next, 500); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

func (a *API) exportFindings(ctx context.Context, in *exportFindingsInput) (*huma.StreamResponse, error) {
	if !in.From.IsZero() && !in.To.IsZero() && in.From.After(in.To) {
		return nil, fleet.Errorf(fleet.CodeInvalid, "from is after to").On("query.from")
	}
	sees := a.sees(caller(ctx))
	query := store.FindingQuery{Device: in.Device, Rule: in.Rule, From: in.From, To: in.To, Limit: 500}
	first, err := a.deps.History.Findings(ctx, query)
	if err != nil {
		return nil, unavailable("findings", err)
	}
	t := table[fleet.Finding]{
		name: "findings", head: []string{"id", "device", "rule_id", "rule_title", "severity", "mode", "technique", "sentence", "value", "received_at", "window_start", "window_end"},
		line: func(f fleet.Finding) []string {
			return []string{
				f.ID, f.Device, f.RuleID, f.RuleTitle, string(f.Severity), string(f.Mode), f.Technique, f.Explanation.Sentence, decimal(f.Explanation.Value),
				stamp(f.ReceivedAt), stamp(f.WindowStart), stamp(f.WindowEnd),
			}
		},
		ocsf: func(f fleet.Finding) any { return ocsfFinding(f, a.cfg.Version) },
	}
	return stream(a, in.Format, t, func(ctx context.Context, row func(fleet.Finding) error) error {
		page := first
		for rows := 0; rows < maxExport; {
			for _, f := range page.Items {
				if !sees(f.Device) {
					continue
				}
				rows++
				if err := row(f); err != nil {
					return err
				}
			}
			if page.Next == "" {
				return nil
			}
			query.Before = store.Cursor(page.Next)
			var err error
			if page, err = a.deps.History.Findings(ctx, query); err != nil {
				return err
			}
		}
		return nil
	}), nil
}
