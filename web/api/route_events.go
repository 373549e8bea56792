package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2/sse"

	"cordon/internal/fleet"
)

type eventsInput struct {
	LastEventID string `header:"Last-Event-ID" maxLength:"32" doc:"Where the client left off: what it missed is sent again, or it is told to reload."`
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
	// RuleEvent says that an operator changed a rule.
	RuleEvent struct {
		ID string    `json:"id"`
		At time.Time `json:"at"`
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
	"rule":       RuleEvent{},
	"status":     StatusEvent{},
	"reload":     ReloadEvent{},
	"heartbeat":  HeartbeatEvent{},
}

func (a *API) eventRoutes() {
	r := route{"stream-events", http.MethodGet, "/events", "Follow changes live (server-sent events)", "events"}
	sse.Register(a.huma, r.operation(), eventTypes, a.streamEvents)
}

// coalesce is how long events are gathered before they are sent: a burst
// becomes one update of the page.
const coalesce = 150 * time.Millisecond

func (a *API) streamEvents(ctx context.Context, in *eventsInput, send sse.Sender) {
	p := caller(ctx)
	since, _ := strconv.ParseUint(in.LastEventID, 10, 64) // rubbish counts as new
	var sees func(string) bool
	if p.Scoped() {
		sees = func(device string) bool { // asked anew each time: a device may move
			d, ok := a.deps.Devices.Get(device)
			return ok && p.Sees(d)
		}
	}
	c, err := a.hub.join(p.Name, since, sees)
	if err != nil {
		// The stream has begun; the client waits as long as it is told.
		_ = send(sse.Message{Data: ReloadEvent{Reason: err.Error()}, Retry: 60_000})
		return
	}
	defer a.hub.leave(c)
	send = unhurried(ctx, send)
	if send(sse.Message{ID: int(a.firstID(since)), Data: a.status(ctx), Retry: 2000}) != nil {
		return
	}
	heartbeat := time.NewTicker(a.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.hub.done:
			return
		case <-heartbeat.C:
			if _, err := a.deps.Operators.Recheck(ctx, p); err != nil {
				return // the session ended; connecting again says so
			}
			if p.Scoped() && send.Data(a.status(ctx)) != nil {
				return
			}
			if send.Data(HeartbeatEvent{At: a.deps.Clock().UTC()}) != nil {
				return
			}
		case <-c.ready:
			if !wait(ctx, coalesce) || !a.deliver(c, send) {
				return
			}
		}
	}
}

// unhurried takes the write deadline back after every event: with HTTP/2 one
// that passes between two events would reset the stream.
func unhurried(ctx context.Context, send sse.Sender) sse.Sender {
	writer, ok := ctx.Value(keyWriter).(*http.ResponseController)
	if !ok {
		return send
	}
	return func(m sse.Message) error {
		if err := send(m); err != nil {
			return err
		}
		return writer.SetWriteDeadline(time.Time{})
	}
}

// firstID is the id that the opening status carries: it must not skip events
// that the client has yet to get.
func (a *API) firstID(since uint64) uint64 {
	if since != 0 {
		return since
	}
	return a.hub.lastID()
}

// deliver sends what has gathered; false means that the client is gone.
func (a *API) deliver(c *client, send sse.Sender) bool {
	last := a.hub.lastID()
	events, reload := c.take()
	if reload {
		return send(sse.Message{ID: int(last), Data: ReloadEvent{Reason: "events were missed"}}) == nil
	}
	for _, e := range events {
		if send(sse.Message{ID: int(e.id), Data: e.data}) != nil {
			return false
		}
	}
	return true
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
