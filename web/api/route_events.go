package api

import (
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2/sse"

	"cordon/internal/fleet"
)

type eventsInput struct {
	LastEventID string `header:"Last-Event-ID" maxLength:"32" doc:"Where the client left off."`
}

// The live events. Each says enough to update a list in place; details are
// read again.
type (
	// IncidentEvent says that an incident changed.
	IncidentEvent struct {
		Incident fleet.Incident `json:"incident" doc:"As in the list: without timeline and finding ids."`
	}
	// FindingEvent says that a finding was made.
	FindingEvent struct {
		ID         string         `json:"id"`
		Device     string         `json:"device"`
		RuleID     string         `json:"rule_id"`
		RuleTitle  string         `json:"rule_title"`
		Severity   fleet.Severity `json:"severity"`
		Mode       fleet.Mode     `json:"mode"`
		Sentence   string         `json:"sentence"`
		ReceivedAt time.Time      `json:"received_at"`
		Cleared    bool           `json:"cleared,omitempty"`
	}
	// QuarantineEvent says that a quarantine changed.
	QuarantineEvent struct {
		Quarantine fleet.Quarantine `json:"quarantine"`
	}
	// DeviceEvent says that a registry entry or a connection changed.
	DeviceEvent struct {
		ID     string    `json:"id"`
		Event  string    `json:"event" doc:"changed, connected, disconnected or refused"`
		Reason string    `json:"reason,omitempty"`
		At     time.Time `json:"at"`
	}
	// StatusEvent is the pulse of the fleet, sent every few seconds.
	StatusEvent struct {
		At                time.Time      `json:"at"`
		Fleet             FleetHealth    `json:"fleet"`
		Incidents         IncidentHealth `json:"incidents"`
		Quarantined       int            `json:"quarantined"`
		ReadingsPerSecond float64        `json:"readings_per_second"`
		LagSeconds        float64        `json:"lag_seconds"`
		Healthy           bool           `json:"healthy"`
	}
	// ReloadEvent says that events were missed: read everything again.
	ReloadEvent struct {
		Reason string `json:"reason"`
	}
	// HeartbeatEvent keeps the connection open.
	HeartbeatEvent struct {
		At time.Time `json:"at"`
	}
)

var eventTypes = map[string]any{
	"incident":   IncidentEvent{},
	"finding":    FindingEvent{},
	"quarantine": QuarantineEvent{},
	"device":     DeviceEvent{},
	"status":     StatusEvent{},
	"reload":     ReloadEvent{},
	"heartbeat":  HeartbeatEvent{},
}

func (a *API) eventRoutes() {
	r := route{"stream-events", http.MethodGet, "/events", "Follow changes live (server-sent events)", "events"}
	sse.Register(a.huma, r.operation(), eventTypes, a.streamEvents)
}
