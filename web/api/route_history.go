package api

import (
	"net/http"
	"time"

	"cordon/internal/fleet"
)

type (
	listFindingsInput struct {
		Paging
		Period
		Device string `query:"device" maxLength:"64"`
		Rule   string `query:"rule" maxLength:"128"`
	}
	listDeadLettersInput struct {
		Paging
		Device string `query:"device" maxLength:"64"`
	}
	listDeadLettersOutput struct{ Body fleet.Page[fleet.DeadLetter] }
	listDeliveriesInput   struct{ Paging }
	listDeliveriesOutput  struct{ Body Deliveries }
)

// Receiver is somebody who is told about incidents, without secrets.
type Receiver struct {
	Name      string         `json:"name"`
	Kind      string         `json:"kind" doc:"webhook, slack, teams, pagerduty, email, syslog or shoutrrr"`
	Host      string         `json:"host" doc:"Where it is; the rest of a chat webhook's address is a secret."`
	Severity  fleet.Severity `json:"severity" doc:"The mildest that it hears of."`
	Changes   []string       `json:"changes" doc:"Of incidents, that it hears of."`
	Healthy   bool           `json:"healthy"`
	Pending   uint64         `json:"pending" doc:"Not delivered yet."`
	Delivered uint64         `json:"delivered" doc:"Since Cordon started."`
	Failed    uint64         `json:"failed" doc:"Given up, since Cordon started."`
	LastError string         `json:"last_error" doc:"Empty once it works."`
	LastAt    time.Time      `json:"last_at,omitzero" doc:"Of the newest success."`

	Source     string    `json:"source" doc:"file or api"`
	Signed     bool      `json:"signed"`
	Keys       int       `json:"keys" doc:"That sign."`
	Breaker    string    `json:"breaker" doc:"closed, open or half-open"`
	RetryAt    time.Time `json:"retry_at,omitzero" doc:"While it is left alone."`
	DisabledAt time.Time `json:"disabled_at,omitzero"`
	Disabled   string    `json:"disabled" doc:"Why nothing is sent to it any more; empty: it is not disabled."`
}

// Deliveries are the newest notifications and the receivers.
type Deliveries struct {
	Items     []fleet.Delivery `json:"items"`
	Next      string           `json:"next"`
	Total     uint64           `json:"total"`
	Receivers []Receiver       `json:"receivers"`
}

func (a *API) historyRoutes() {
	add(a, route{"list-findings", http.MethodGet, "/findings", "List findings, newest first", "findings"}, a.listFindings)
	add(a, route{"list-dead-letters", http.MethodGet, "/dead-letters", "List messages that could not be accepted, newest first", "findings"}, a.listDeadLetters)
	add(a, route{"list-deliveries", http.MethodGet, "/deliveries", "List what was sent to whom", "notifications"}, a.listDeliveries)
}
