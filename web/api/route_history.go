package api

import (
	"net/http"

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
	listDeliveriesInput   struct {
		Limit int `query:"limit" minimum:"1" maximum:"500" default:"100"`
	}
	listDeliveriesOutput struct{ Body Deliveries }
)

// Receiver is somebody who is told about incidents, without secrets.
type Receiver struct {
	Name     string         `json:"name"`
	Kind     string         `json:"kind" doc:"webhook or slack"`
	Address  string         `json:"address" doc:"Scheme and host only: the path of a chat webhook is a secret."`
	Severity fleet.Severity `json:"severity" doc:"The mildest that it hears of."`
	Changes  []string       `json:"changes"`
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
