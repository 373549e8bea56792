package api

import (
	"context"
	"net/http"
	"time"

	"cordon/internal/fleet"
)

// Alerts is what the alert stage offers beyond incidents themselves: who is
// told of them, what keeps that back, and evidence.
type Alerts interface {
	// Route says who would be told of such a change of an incident at a time
	// (zero: now), and why.
	Route(i fleet.Incident, change string, at time.Time) []RoutedTo
	// Policy is the routes and inhibitions of the settings, as JSON shows them.
	Policy() map[string]any
	Silences(all bool) []fleet.Silence
	AddSilence(ctx context.Context, s fleet.Silence) (fleet.Silence, error)
	EndSilence(ctx context.Context, id, actor string) (fleet.Silence, error)
	SetReceiver(ctx context.Context, s ReceiverSettings, name, actor string) error
	RemoveReceiver(ctx context.Context, name string) error
	EnableReceiver(ctx context.Context, name, actor string) error
	TestReceiver(ctx context.Context, name, actor string) (fleet.Delivery, error)
	Replay(ctx context.Context, delivery, actor string) (fleet.Delivery, error)
	SetTags(ctx context.Context, id, actor string, tags []string) (fleet.Incident, error)
	SetTicket(ctx context.Context, id, actor, ticket string) (fleet.Incident, error)
	Handover(from, to time.Time) Handover
	Risks(limit int) []Risk
	// Evidence is the newest sealed archive of an incident; fresh seals now.
	Evidence(ctx context.Context, id, actor string, fresh bool) (name string, archive []byte, err error)
}

// RoutedTo is one line of the answer to "who would be told, and why".
type RoutedTo struct {
	Receiver        string  `json:"receiver"`
	Kind            string  `json:"kind"`
	Route           string  `json:"route"`
	Told            bool    `json:"told"`
	Why             string  `json:"why"`
	HeldBy          string  `json:"held_by" doc:"The silence or incident that keeps it back."`
	AfterSeconds    float64 `json:"after_seconds" doc:"Told only if nobody acknowledges within."`
	TogetherSeconds float64 `json:"together_seconds" doc:"Waits so long for others of its group."`
}

// ReceiverSettings are what an administrator says about a receiver. Secrets
// are written and never shown; those left empty stay as they are.
type ReceiverSettings struct {
	Kind         string         `json:"kind" enum:"webhook,slack,teams,pagerduty,email,syslog,shoutrrr"`
	URL          string         `json:"url,omitempty" maxLength:"2000" doc:"Write-only."`
	Secret       string         `json:"secret,omitempty" maxLength:"200" doc:"Write-only. webhook: whsec_<base64>; pagerduty: the routing key."`
	Secrets      []string       `json:"secrets,omitempty" maxItems:"4" doc:"Write-only. More signing keys, while keys are changed: each signs."`
	To           []string       `json:"to,omitempty" maxItems:"50"`
	From         string         `json:"from,omitempty" maxLength:"320"`
	Username     string         `json:"username,omitempty" maxLength:"320"`
	Password     string         `json:"password,omitempty" maxLength:"320" doc:"Write-only."`
	Severity     fleet.Severity `json:"severity,omitempty"`
	Changes      []string       `json:"changes,omitempty" maxItems:"20"`
	AllowPrivate bool           `json:"allow_private,omitempty"`
}

// Handover is what the next shift must know.
type Handover struct {
	From      time.Time              `json:"from"`
	To        time.Time              `json:"to"`
	Opened    int                    `json:"opened"`
	Resolved  int                    `json:"resolved"`
	Merged    int                    `json:"merged" doc:"Became part of another incident."`
	Verdicts  map[fleet.Verdict]int  `json:"verdicts"`
	Open      map[fleet.Severity]int `json:"open" doc:"Not resolved now."`
	Untouched []fleet.Incident       `json:"untouched" doc:"Nobody is on them; the worst first, at most 50."`
	Taken     []fleet.Incident       `json:"taken"`
	Ended     []fleet.Incident       `json:"ended"`
	Flapping  []fleet.Incident       `json:"flapping"`
}

// Risk is what the incidents of one device add up to.
type Risk struct {
	Device    string         `json:"device"`
	Score     float64        `json:"score"`
	Severity  fleet.Severity `json:"severity"`
	Incidents []string       `json:"incidents"`
}

// SilenceRequest keeps notifications back that match, for a time.
type SilenceRequest struct {
	Maintenance bool        `json:"maintenance,omitempty" doc:"Planned work."`
	Match       fleet.Match `json:"match"`
	StartsAt    time.Time   `json:"starts_at,omitzero"`
	EndsAt      time.Time   `json:"ends_at"`
	Reason      string      `json:"reason" minLength:"1" maxLength:"500"`
}

type (
	routeAlertInput struct {
		Severity fleet.Severity `query:"severity" default:"high"`
		Cohort   string         `query:"cohort" maxLength:"64"`
		Site     string         `query:"site" maxLength:"64"`
		Device   string         `query:"device" maxLength:"64"`
		Rule     string         `query:"rule" maxLength:"128"`
		Tag      string         `query:"tag" maxLength:"64"`
		Scope    string         `query:"scope" enum:"device,campaign,cause" default:"device"`
		Change   string         `query:"change" maxLength:"32" default:"opened"`
		At       time.Time      `query:"at" doc:"Default: now."`
	}
	routeAlertOutput struct {
		Body struct {
			Items []RoutedTo `json:"items"`
		}
	}
	alertPolicyOutput struct{ Body map[string]any }
	silencesInput     struct {
		All bool `query:"all" doc:"Those that have ended too."`
	}
	silencesOutput struct {
		Body struct {
			Items []fleet.Silence `json:"items"`
		}
	}
	silenceInput  struct{ Body SilenceRequest }
	silenceOutput struct{ Body fleet.Silence }
	silencePath   struct {
		ID string `path:"id" maxLength:"64"`
	}
	receiverPath struct {
		Name string `path:"name" maxLength:"32" pattern:"^[a-z0-9][a-z0-9-]*$"`
	}
	setReceiverInput struct {
		receiverPath
		Body ReceiverSettings
	}
	receiverOutput  struct{ Body Receiver }
	receiversOutput struct {
		Body struct {
			Items []Receiver `json:"items"`
		}
	}
	deliveryPath struct {
		ID string `path:"id" maxLength:"200" pattern:"^[A-Za-z0-9_.-]+$"`
	}
	deliveryOutput struct{ Body fleet.Delivery }
	tagsInput      struct {
		IncidentPath
		Body struct {
			Tags []string `json:"tags" maxItems:"20"`
		}
	}
	ticketInput struct {
		IncidentPath
		Body struct {
			Ticket string `json:"ticket" maxLength:"500" doc:"An http or https address; empty takes it off."`
		}
	}
	handoverInput struct {
		Period
		Hours int `query:"hours" minimum:"1" maximum:"168" default:"8" doc:"Before now, when from is not given."`
	}
	handoverOutput struct{ Body Handover }
	risksInput     struct {
		Limit int `query:"limit" minimum:"1" maximum:"500" default:"50"`
	}
	risksOutput struct {
		Body struct {
			Items []Risk `json:"items"`
		}
	}
	evidenceInput struct {
		IncidentPath
		Fresh bool `query:"fresh" doc:"Seal a new snapshot now."`
	}
	evidenceOutput struct {
		ContentType string `header:"Content-Type"`
		Disposition string `header:"Content-Disposition"`
		Body        []byte
	}
)

func (a *API) alertRoutes() {
	add(a, route{"route-alert", http.MethodGet, "/alerts/route", "Say who would be told, and why", "notifications"}, a.routeAlert)
	add(a, route{"get-alert-policy", http.MethodGet, "/alerts/policy", "Show routes and inhibitions", "notifications"}, a.alertPolicy)
	add(a, route{"list-silences", http.MethodGet, "/silences", "List silences and maintenance windows", "notifications"}, a.listSilences)
	add(a, route{"add-silence", http.MethodPost, "/silences", "Keep notifications back for a time", "notifications"}, a.addSilence)
	add(a, route{"end-silence", http.MethodDelete, "/silences/{id}", "End a silence now", "notifications"}, a.endSilence)
	add(a, route{"list-receivers", http.MethodGet, "/receivers", "List receivers, without secrets", "notifications"}, a.listReceivers)
	add(a, route{"set-receiver", http.MethodPut, "/receivers/{name}", "Add or change a receiver", "notifications"}, a.setReceiver)
	add(a, route{"remove-receiver", http.MethodDelete, "/receivers/{name}", "Remove a receiver", "notifications"}, a.removeReceiver)
	add(a, route{"test-receiver", http.MethodPost, "/receivers/{name}/test", "Send an example exactly as real alerts are sent", "notifications"}, a.testReceiver)
	add(a, route{"enable-receiver", http.MethodPost, "/receivers/{name}/enable", "Send again to a receiver that was disabled", "notifications"}, a.enableReceiver)
	add(a, route{"replay-delivery", http.MethodPost, "/deliveries/{id}/replay", "Send a failed notification again", "notifications"}, a.replayDelivery)
	add(a, route{"tag-incident", http.MethodPut, "/incidents/{id}/tags", "Set an incident's tags", "incidents"}, a.tagIncident)
	add(a, route{"link-ticket", http.MethodPut, "/incidents/{id}/ticket", "Link a ticket of another system", "incidents"}, a.linkTicket)
	add(a, route{"get-handover", http.MethodGet, "/handover", "Sum a shift up", "incidents"}, a.handover)
	add(a, route{"list-risks", http.MethodGet, "/risks", "List devices by risk, the worst first", "incidents"}, a.listRisks)
	add(a, route{"get-evidence", http.MethodGet, "/incidents/{id}/evidence", "Download sealed evidence", "incidents"}, a.getEvidence)
}

func (a *API) alerts() (Alerts, error) {
	if a.deps.Alerts == nil {
		return nil, fleet.Errorf(fleet.CodeUnavailable, "the alert stage does not run here")
	}
	return a.deps.Alerts, nil
}

func (a *API) routeAlert(_ context.Context, in *routeAlertInput) (*routeAlertOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	i := fleet.Incident{ID: "INC-0", Severity: in.Severity, Cohort: in.Cohort, Site: in.Site, Device: in.Device, Scope: in.Scope, State: fleet.Open}
	if in.Device != "" {
		if d, ok := a.deps.Devices.Get(in.Device); ok {
			i.Tags = d.Tags
			if i.Cohort == "" {
				i.Cohort = d.Cohort
			}
			if i.Site == "" {
				i.Site = d.Site
			}
		}
	}
	if in.Rule != "" {
		i.Rules = []string{in.Rule}
	}
	if in.Tag != "" {
		i.Tags = append(i.Tags, in.Tag)
	}
	out := &routeAlertOutput{}
	out.Body.Items = filled(alerts.Route(i, in.Change, in.At))
	return out, nil
}

func (a *API) alertPolicy(context.Context, *struct{}) (*alertPolicyOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	return &alertPolicyOutput{Body: alerts.Policy()}, nil
}

func (a *API) listSilences(_ context.Context, in *silencesInput) (*silencesOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	out := &silencesOutput{}
	out.Body.Items = filled(alerts.Silences(in.All))
	return out, nil
}

func (a *API) addSilence(ctx context.Context, in *silenceInput) (*silenceOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	s, err := alerts.AddSilence(ctx, fleet.Silence{
		Maintenance: in.Body.Maintenance, Match: in.Body.Match, StartsAt: in.Body.StartsAt, EndsAt: in.Body.EndsAt,
		Reason: in.Body.Reason, Owner: caller(ctx).Name,
	})
	note(ctx, s.ID, nil, in.Body)
	return &silenceOutput{Body: s}, err
}

func (a *API) endSilence(ctx context.Context, in *silencePath) (*silenceOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, nil, nil)
	s, err := alerts.EndSilence(ctx, in.ID, caller(ctx).Name)
	return &silenceOutput{Body: s}, err
}

func (a *API) listReceivers(context.Context, *struct{}) (*receiversOutput, error) {
	out := &receiversOutput{}
	out.Body.Items = filled(a.deps.Notices.Receivers())
	for i := range out.Body.Items {
		out.Body.Items[i].Changes = filled(out.Body.Items[i].Changes)
	}
	return out, nil
}

func (a *API) receiver(name string) (*receiverOutput, error) {
	for _, r := range a.deps.Notices.Receivers() {
		if r.Name == name {
			r.Changes = filled(r.Changes)
			return &receiverOutput{Body: r}, nil
		}
	}
	return nil, fleet.Errorf(fleet.CodeNotFound, "there is no receiver %q", name).On("path.name")
}

func (a *API) setReceiver(ctx context.Context, in *setReceiverInput) (*receiverOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	note(ctx, in.Name, nil, map[string]any{"kind": in.Body.Kind, "severity": in.Body.Severity, "changes": in.Body.Changes}) // no secrets
	if err := alerts.SetReceiver(ctx, in.Body, in.Name, caller(ctx).Name); err != nil {
		return nil, err
	}
	return a.receiver(in.Name)
}

func (a *API) removeReceiver(ctx context.Context, in *receiverPath) (*struct{}, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	note(ctx, in.Name, nil, nil)
	return nil, alerts.RemoveReceiver(ctx, in.Name)
}

func (a *API) testReceiver(ctx context.Context, in *receiverPath) (*deliveryOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	note(ctx, in.Name, nil, nil)
	d, err := alerts.TestReceiver(ctx, in.Name, caller(ctx).Name)
	return &deliveryOutput{Body: d}, err
}

func (a *API) enableReceiver(ctx context.Context, in *receiverPath) (*receiverOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	note(ctx, in.Name, nil, nil)
	if err := alerts.EnableReceiver(ctx, in.Name, caller(ctx).Name); err != nil {
		return nil, err
	}
	return a.receiver(in.Name)
}

func (a *API) replayDelivery(ctx context.Context, in *deliveryPath) (*deliveryOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, nil, nil)
	d, err := alerts.Replay(ctx, in.ID, caller(ctx).Name)
	return &deliveryOutput{Body: d}, err
}

func (a *API) tagIncident(ctx context.Context, in *tagsInput) (*incidentOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	return a.change(ctx, in.ID, in.Body, func(actor string) (fleet.Incident, error) {
		return alerts.SetTags(ctx, in.ID, actor, in.Body.Tags)
	})
}

func (a *API) linkTicket(ctx context.Context, in *ticketInput) (*incidentOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	return a.change(ctx, in.ID, in.Body, func(actor string) (fleet.Incident, error) {
		return alerts.SetTicket(ctx, in.ID, actor, in.Body.Ticket)
	})
}

func (a *API) handover(_ context.Context, in *handoverInput) (*handoverOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	from, to := in.From, in.To
	if to.IsZero() {
		to = a.deps.Clock()
	}
	if from.IsZero() {
		from = to.Add(-time.Duration(in.Hours) * time.Hour)
	}
	if from.After(to) {
		return nil, fleet.Errorf(fleet.CodeInvalid, "from is after to").On("query.from")
	}
	h := alerts.Handover(from, to)
	for _, list := range []*[]fleet.Incident{&h.Untouched, &h.Taken, &h.Ended, &h.Flapping} {
		*list = filled(*list)
		for i := range *list {
			(*list)[i] = incidentLine((*list)[i])
		}
	}
	return &handoverOutput{Body: h}, nil
}

func (a *API) listRisks(_ context.Context, in *risksInput) (*risksOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	out := &risksOutput{}
	out.Body.Items = filled(alerts.Risks(in.Limit))
	return out, nil
}

func (a *API) getEvidence(ctx context.Context, in *evidenceInput) (*evidenceOutput, error) {
	alerts, err := a.alerts()
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, nil, nil)
	name, archive, err := alerts.Evidence(ctx, in.ID, caller(ctx).Name, in.Fresh)
	if err != nil {
		return nil, err
	}
	return &evidenceOutput{ContentType: "application/zip", Disposition: `attachment; filename="` + name + `"`, Body: archive}, nil
}
