package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/operator"
)

const (
	maxChanges = 30
	maxTodo    = 10
)

func (a *API) getOverview(ctx context.Context, _ *noInput) (*overviewOutput, error) {
	p := caller(ctx)
	s := a.view.of(ctx, p)
	now := a.deps.Clock().UTC()
	out := Overview{
		At: now, Fleet: s.health, Incidents: s.incidents, Quarantine: s.quarantine, Ingest: a.view.ingest(ctx),
		Cells: filled(s.cells), IncidentsPerHour: []IncidentsInHour{}, Stages: a.stages(ctx),
	}
	out.Ingest.Series = filled(out.Ingest.Series)
	if p.Scoped() { // counted for the whole fleet only
		out.Ingest = IngestHealth{Series: []RatePoint{}}
		out.Changes = a.changes(p)
		out.Todo = todo(s, out, now)
		return &overviewOutput{Body: out}, nil
	}
	hours, err := a.deps.History.IncidentsPerHour(ctx, now.Add(-24*time.Hour).Truncate(time.Hour), now)
	if err != nil {
		a.deps.Log.Debug("incidents per hour were not read", "error", err)
	}
	for _, h := range hours {
		out.IncidentsPerHour = append(out.IncidentsPerHour, IncidentsInHour{Hour: h.Hour, Severity: h.Severity, Count: h.Count})
	}
	out.Changes = a.changes(p)
	out.Todo = todo(s, out, now)
	return &overviewOutput{Body: out}, nil
}

// changes gathers what happened lately from the newest incidents, the
// quarantines and the rules.
func (a *API) changes(p operator.Principal) []Change {
	sees := a.sees(p)
	changes := []Change{}
	say := func(at time.Time, link, format string, args ...any) {
		if !at.IsZero() {
			changes = append(changes, Change{At: at.UTC(), Link: link, Text: fmt.Sprintf(format, args...)})
		}
	}
	newest, err := a.deps.Incidents.List(IncidentFilter{}, "updated_at", "", maxChanges)
	if err != nil {
		a.deps.Log.Warn("incidents were not read", "error", err)
	}
	for _, i := range newest.Items {
		if !sees(i.Device) {
			continue
		}
		link := "/incidents/" + i.ID
		say(i.OpenedAt, link, "%s opened on %s: %s", i.ID, i.Device, i.Title)
		say(i.AcknowledgedAt, link, "%s acknowledged by %s", i.ID, i.AcknowledgedBy)
		say(i.ResolvedAt, link, "%s resolved by %s", i.ID, i.ResolvedBy)
	}
	for _, q := range a.deps.Quarantines.List() {
		if !sees(q.Device) {
			continue
		}
		link := "/devices/" + q.Device
		if !q.ConfirmedAt.IsZero() {
			say(q.ConfirmedAt, link, "%s quarantined (%s) by %s, proven", q.Device, q.Level, q.Actor)
		} else {
			say(q.RequestedAt, link, "%s quarantined (%s) by %s, %s", q.Device, q.Level, q.Actor, q.State)
		}
		if q.State == fleet.Expired {
			say(q.ReleasedAt, link, "quarantine of %s ended in time", q.Device)
		} else {
			say(q.ReleasedAt, link, "%s released by %s", q.Device, q.ReleasedBy)
		}
	}
	for _, r := range a.deps.Rules.Rules() {
		if r.ChangedBy != "" {
			say(r.ChangedAt, "/rules/"+r.ID, "rule %s set to %s by %s", r.ID, r.Mode, r.ChangedBy)
		}
	}
	slices.SortStableFunc(changes, func(x, y Change) int { return y.At.Compare(x.At) })
	return changes[:min(len(changes), maxChanges)]
}

// todo says what a person should do next, the most urgent first.
func todo(s snapshot, o Overview, now time.Time) []Todo {
	list := []Todo{}
	for _, device := range slices.Sorted(maps.Keys(s.held)) {
		if q := s.held[device]; q.State == fleet.Failed {
			list = append(list, Todo{"Check the quarantine of " + q.Device, cmp.Or(q.Failure, "it could not be proven; the device is still denied"), "/devices/" + q.Device, fleet.Critical})
		}
	}
	for _, stage := range o.Stages {
		if !stage.Healthy {
			list = append(list, Todo{"Look after " + stage.Stage, stage.Detail, "/system", fleet.High})
		}
	}
	waiting := 0
	for _, i := range s.open { // the worst first
		if i.State != fleet.Open || i.Severity.Rank() < fleet.Medium.Rank() {
			continue
		}
		if waiting++; waiting <= 5 {
			list = append(list, Todo{"Look at " + i.ID + ": " + i.Title, fmt.Sprintf("%s, open for %s", i.Device, age(now.Sub(i.OpenedAt))), "/incidents/" + i.ID, i.Severity})
		}
	}
	if waiting > 5 {
		list = append(list, Todo{fmt.Sprintf("%d more incidents wait", waiting-5), "of severity medium or worse, not yet acknowledged", "/incidents?state=open", fleet.Medium})
	}
	if n := o.Fleet.Silent; n > 0 {
		list = append(list, Todo{fmt.Sprintf("%d devices are silent", n), "no message within the last minutes", "/devices?" + url.Values{"status": {StatusSilent}}.Encode(), fleet.Low})
	}
	if n := o.Ingest.DeadLetters24h; n > 0 {
		list = append(list, Todo{fmt.Sprintf("%d messages were not accepted", n), "in the last 24 hours; each has its reason", "/system", fleet.Low})
	}
	if o.Fleet.Total == 0 {
		list = append(list, Todo{"Enrol your first device", "cordon device enroll ID, or on the page Devices", "/devices", fleet.Informational})
	}
	slices.SortStableFunc(list, func(x, y Todo) int { return cmp.Compare(y.Severity.Rank(), x.Severity.Rank()) })
	return list[:min(len(list), maxTodo)]
}

// age is a duration in one unit.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func (a *API) getSystem(ctx context.Context, _ *noInput) (*systemOutput, error) {
	stages := a.stages(ctx)
	out := System{Version: a.cfg.Version, Healthy: healthy(stages), Stages: stages, Storage: []TableSize{}, Advice: []string{}}
	for _, s := range stages {
		if !s.Healthy {
			out.Advice = append(out.Advice, s.Stage+": "+s.Detail)
		}
	}
	sizes, err := a.deps.History.Size(ctx)
	if err != nil {
		out.Healthy = false
		out.Advice = append(out.Advice, "ClickHouse does not answer: what devices send waits in the broker until it does")
		a.deps.Log.Warn("table sizes were not read", "error", err)
	}
	for _, s := range sizes {
		out.Storage = append(out.Storage, TableSize{Table: s.Table, Rows: s.Rows, Bytes: s.Bytes})
	}
	return &systemOutput{Body: out}, nil
}

func (a *API) redeemEnrollment(ctx context.Context, in *certifyInput) (*certifyOutput, error) {
	d, certificate, err := a.deps.Lifecycle.Admit(ctx, identity.Redemption{
		Token: in.Body.Token, CSR: []byte(in.Body.CSR), Device: in.Body.Device, HardwareID: in.Body.HardwareID,
	})
	if err != nil {
		return nil, err
	}
	if done, ok := ctx.Value(keyAct).(*act); ok {
		done.actor = "device:" + d.ID
	}
	note(ctx, d.ID, nil, map[string]any{"certificate_serial": d.CertificateSerial, "certificate_not_after": d.CertificateNotAfter})
	return &certifyOutput{Body: Certificate{
		Device: d.ID, Certificate: string(certificate), CA: string(a.deps.Lifecycle.AuthorityPEM()), NATS: a.cfg.NATS, MQTT: a.cfg.MQTT,
	}}, nil
}
