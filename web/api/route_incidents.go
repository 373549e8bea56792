package api

import (
	"net/http"

	"cordon/internal/fleet"
)

type (
	// IncidentPath names an incident in the path.
	IncidentPath struct {
		ID string `path:"id" maxLength:"32" pattern:"^INC-[0-9]+$" doc:"The incident's id." example:"INC-42"`
	}
	listIncidentsInput struct {
		Paging
		State    string `query:"state" maxLength:"64" doc:"open, acknowledged, resolved or a comma list of them; unresolved: open or acknowledged; all."`
		Severity string `query:"severity" maxLength:"64" doc:"One severity or a comma list."`
		Device   string `query:"device" maxLength:"64"`
		Query    string `query:"q" maxLength:"256" doc:"Words, all of which occur in id, title, device, cohort, rules, techniques, actors or assignee."`
		Assignee string `query:"assignee" maxLength:"64" doc:"An operator's name; - means nobody."`
		Scope    string `query:"scope" maxLength:"64" doc:"device, campaign, cause or a comma list."`
		Tag      string `query:"tag" maxLength:"64"`
		Parent   string `query:"parent" maxLength:"32" doc:"Those that became part of this incident; - leaves out all that are part of another."`
		Sort     string `query:"sort" enum:"severity,-severity,opened_at,-opened_at,updated_at,-updated_at" default:"-severity" doc:"- is descending: the worst or newest first."`
	}
	listIncidentsOutput struct{ Body fleet.Page[fleet.Incident] }
	incidentOutput      struct{ Body fleet.Incident }
	incidentInput       struct{ IncidentPath }
	assignInput         struct {
		IncidentPath
		Body AssignRequest
	}
	commentInput struct {
		IncidentPath
		Body CommentRequest
	}
	resolveInput struct {
		IncidentPath
		Body ResolveRequest
	}
	incidentFindingsInput struct {
		IncidentPath
		Paging
	}
	findingsOutput struct{ Body fleet.Page[fleet.Finding] }
)

// AssignRequest hands an incident to an operator.
type AssignRequest struct {
	Assignee string `json:"assignee" maxLength:"64" doc:"An operator's name; empty: nobody."`
}

// CommentRequest adds a remark to an incident.
type CommentRequest struct {
	Text string `json:"text" minLength:"1" maxLength:"4000"`
}

// ResolveRequest ends an incident.
type ResolveRequest struct {
	Verdict fleet.Verdict `json:"verdict"`
	Reason  string        `json:"reason" minLength:"1" maxLength:"1000"`
}

func (a *API) incidentRoutes() {
	add(a, route{"list-incidents", http.MethodGet, "/incidents", "List incidents", "incidents"}, a.listIncidents)
	add(a, route{"get-incident", http.MethodGet, "/incidents/{id}", "Show an incident with its timeline", "incidents"}, a.getIncident)
	add(a, route{"list-incident-findings", http.MethodGet, "/incidents/{id}/findings", "List an incident's findings, newest first", "incidents"}, a.incidentFindings)
	add(a, route{"acknowledge-incident", http.MethodPost, "/incidents/{id}/acknowledge", "Say that somebody is on it", "incidents"}, a.acknowledgeIncident)
	add(a, route{"assign-incident", http.MethodPost, "/incidents/{id}/assign", "Assign an incident", "incidents"}, a.assignIncident)
	add(a, route{"comment-incident", http.MethodPost, "/incidents/{id}/comment", "Comment on an incident", "incidents"}, a.commentIncident)
	add(a, route{"resolve-incident", http.MethodPost, "/incidents/{id}/resolve", "Resolve an incident with a verdict", "incidents"}, a.resolveIncident)
	add(a, route{"reopen-incident", http.MethodPost, "/incidents/{id}/reopen", "Open a resolved incident again", "incidents"}, a.reopenIncident)
}
