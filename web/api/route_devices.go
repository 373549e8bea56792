package api

import (
	"net/http"
	"time"

	"cordon/internal/fleet"
)

// Paging are the parameters of every list.
type Paging struct {
	Cursor string `query:"cursor" maxLength:"512" doc:"Where the page starts: next of the page before."`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
}

// Period bounds a question about history.
type Period struct {
	From time.Time `query:"from" doc:"Start; default: a day before to."`
	To   time.Time `query:"to" doc:"End; default: now."`
}

// bounds fills the defaults in.
func (p Period) bounds(now time.Time, span time.Duration) (from, to time.Time, err error) {
	from, to = p.From, p.To
	if to.IsZero() {
		to = now
	}
	if from.IsZero() {
		from = to.Add(-span)
	}
	if from.After(to) {
		return from, to, fleet.Errorf(fleet.CodeInvalid, "from %s is after to %s", from.Format(time.RFC3339), to.Format(time.RFC3339)).On("query.from")
	}
	return from.UTC(), to.UTC(), nil
}

type (
	// DevicePath names a device in the path.
	DevicePath struct {
		ID string `path:"id" maxLength:"64" pattern:"^[A-Za-z0-9_-]+$" doc:"The device's id."`
	}
	deviceInput      struct{ DevicePath }
	listDevicesInput struct {
		Paging
		Cohort string `query:"cohort" maxLength:"128"`
		Site   string `query:"site" maxLength:"128"`
		State  string `query:"state" enum:"enrolled,active,revoked,retired" doc:"Life cycle."`
		Status string `query:"status" enum:"reporting,silent,never_seen,retired,historic" doc:"What it does now."`
		Model  string `query:"model" maxLength:"128"`
		Query  string `query:"q" maxLength:"256" doc:"Part of id, owner, site, model or tag."`
		Tag    string `query:"tag" maxLength:"128"`
		Sort   string `query:"sort" enum:"id,-id,cohort,-cohort,site,-site,enrolled_at,-enrolled_at,last_seen_at,-last_seen_at" default:"id"`
	}
	listDevicesOutput struct{ Body fleet.Page[DeviceSummary] }
	facetsOutput      struct{ Body map[string]map[string]int }
	enrollInput       struct{ Body EnrollRequest }
	enrollOutput      struct{ Body Enrolled }
	deviceOutput      struct{ Body DeviceDetail }
	deviceReasonInput struct {
		DevicePath
		Body ReasonRequest
	}
	deviceEntryOutput struct{ Body Device }
	metricsOutput     struct{ Body MetricList }
	seriesInput       struct {
		DevicePath
		Period
		Metric string `query:"metric" required:"true" minLength:"1" maxLength:"128"`
		Points int    `query:"points" minimum:"2" maximum:"5000" default:"600" doc:"The most points to answer."`
	}
	seriesOutput struct{ Body Series }
	auditInput   struct {
		DevicePath
		Paging
		Period
		Query string `query:"q" maxLength:"256" doc:"Part of the message."`
	}
	auditOutput struct{ Body fleet.Page[AuditLine] }
)

// EnrollRequest asks for a new device.
type EnrollRequest struct {
	ID       string   `json:"id" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9_-]+$"`
	Cohort   string   `json:"cohort,omitempty" maxLength:"128" doc:"Peer group; default: default."`
	Site     string   `json:"site,omitempty" maxLength:"128"`
	Model    string   `json:"model,omitempty" maxLength:"128"`
	Firmware string   `json:"firmware,omitempty" maxLength:"128"`
	Owner    string   `json:"owner,omitempty" maxLength:"128"`
	Tags     []string `json:"tags,omitempty" maxItems:"32"`
	TimeZone string   `json:"time_zone,omitempty" maxLength:"64" doc:"IANA name."`
	Historic bool     `json:"historic,omitempty" doc:"Accept data of any age from it (replays)."`
	EnrollIdentity
}

// Enrolled is a device with its one-time token, which is shown only once.
type Enrolled struct {
	Device         Device    `json:"device"`
	Token          string    `json:"token"`
	TokenExpiresAt time.Time `json:"token_expires_at"`
	Command        string    `json:"command" doc:"What to run on the device."`
}

// ReasonRequest says why.
type ReasonRequest struct {
	Reason string `json:"reason" minLength:"1" maxLength:"1000"`
}

// MetricList lists a device's metrics.
type MetricList struct {
	Items []MetricLast `json:"items"`
}

func (a *API) deviceRoutes() {
	add(a, route{"list-devices", http.MethodGet, "/devices", "List devices", "devices"}, a.listDevices)
	add(a, route{"device-facets", http.MethodGet, "/devices/facets", "Count devices by cohort, site, model, state and tag", "devices"}, a.deviceFacets)
	add(a, route{"enroll-device", http.MethodPost, "/devices", "Enrol a device and get its one-time token", "devices"}, a.enrollDevice)
	add(a, route{"get-device", http.MethodGet, "/devices/{id}", "Show a device", "devices"}, a.getDevice)
	add(a, route{"renew-device-token", http.MethodPost, "/devices/{id}/token", "Make a new enrolment token", "devices"}, a.renewToken)
	add(a, route{"revoke-device", http.MethodPost, "/devices/{id}/revoke", "Revoke a device's certificate", "devices"}, a.revokeDevice)
	add(a, route{"retire-device", http.MethodPost, "/devices/{id}/retire", "Retire a device", "devices"}, a.retireDevice)
	add(a, route{"list-metrics", http.MethodGet, "/devices/{id}/metrics", "List a device's metrics with their newest values", "devices"}, a.listMetrics)
	add(a, route{"get-series", http.MethodGet, "/devices/{id}/series", "Read a metric over time with its expected band", "devices"}, a.getSeries)
	add(a, route{"list-audit-events", http.MethodGet, "/devices/{id}/audit", "List a device's audit events, newest first", "devices"}, a.listAudit)
}
