package api

import (
	"net/http"
	"time"

	"cordon/internal/fleet"
)

type (
	quarantineInput struct {
		DevicePath
		Body QuarantineBody
	}
	quarantineOutput     struct{ Body fleet.Quarantine }
	listQuarantinesInput struct {
		Paging
		State  string `query:"state" enum:"active,all" default:"active" doc:"active: now; all: the whole history, newest first."`
		Device string `query:"device" maxLength:"64"`
	}
	listQuarantinesOutput struct{ Body fleet.Page[fleet.Quarantine] }
)

// QuarantineBody asks for a quarantine.
type QuarantineBody struct {
	Level    fleet.Level `json:"level"`
	Reason   string      `json:"reason" minLength:"1" maxLength:"1000"`
	Until    time.Time   `json:"until,omitzero" doc:"When it ends by itself; without it: when released."`
	Incident string      `json:"incident,omitempty" maxLength:"32" doc:"The incident that it belongs to."`
}

func (a *API) quarantineRoutes() {
	add(a, route{"quarantine-device", http.MethodPost, "/devices/{id}/quarantine", "Quarantine a device and wait up to 2 s for the proof", "quarantine"}, a.quarantineDevice)
	add(a, route{"release-device", http.MethodPost, "/devices/{id}/release", "Release a device from quarantine", "quarantine"}, a.releaseDevice)
	add(a, route{"list-quarantines", http.MethodGet, "/quarantines", "List quarantines", "quarantine"}, a.listQuarantines)
}
