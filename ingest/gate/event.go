package gate

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	connectSubject    = "$SYS.ACCOUNT." + bus.AccountDevices + ".CONNECT"
	disconnectSubject = "$SYS.ACCOUNT." + bus.AccountDevices + ".DISCONNECT"
	// nobody takes the place of a device id where none is known.
	nobody = "~"
)

// Event is what happened to a connection, as published on cordon.gate.<device>
// (cordon.gate.~ where no device is known).
type Event struct {
	Device   string    `json:"device"`
	Event    string    `json:"event"` // connected, disconnected, refused, clone, flood
	Reason   string    `json:"reason,omitempty"`
	Address  string    `json:"address,omitempty"`
	Other    string    `json:"other,omitempty"` // of a clone: the connection that was there before
	Protocol string    `json:"protocol,omitempty"`
	At       time.Time `json:"at"`
	// Of a connection that ended:
	DurationMS int64 `json:"duration_ms,omitempty"`
	BytesIn    int64 `json:"bytes_in,omitempty"` // from the device
	BytesOut   int64 `json:"bytes_out,omitempty"`
}

// brokerEvent is the broker's connect or disconnect message.
type brokerEvent struct {
	Time   time.Time `json:"timestamp"`
	Server struct {
		ID string `json:"id"`
	} `json:"server"`
	Client struct {
		ID    uint64    `json:"id"`
		Host  string    `json:"host"`
		User  string    `json:"user"`
		Type  string    `json:"client_type"`
		Start time.Time `json:"start"`
		Stop  time.Time `json:"stop"`
	} `json:"client"`
	Sent struct {
		Bytes int64 `json:"bytes"`
	} `json:"sent"`
	Received struct {
		Bytes int64 `json:"bytes"`
	} `json:"received"`
	Reason string `json:"reason"`
}

func (g *Gate) onDisconnect(msg *nats.Msg) {
	var e brokerEvent
	if err := json.Unmarshal(msg.Data, &e); err != nil {
		g.deps.Log.Warn("broker event can't be read", "error", err)
		return
	}
	g.table.drop(key{e.Server.ID, e.Client.ID})
}

func (g *Gate) announceConnect(msg *nats.Msg) { g.announce(msg, "connected") }

func (g *Gate) announceDisconnect(msg *nats.Msg) { g.announce(msg, "disconnected") }

func (g *Gate) announce(msg *nats.Msg, what string) {
	var e brokerEvent
	if err := json.Unmarshal(msg.Data, &e); err != nil {
		g.deps.Log.Warn("broker event can't be read", "error", err)
		return
	}
	device, _ := bus.ParseUser(e.Client.User)
	if fleet.CheckDeviceID(device) != nil || nkeys.IsValidPublicUserKey(device) {
		return // Cordon's own
	}
	event := Event{
		Device: device, Event: what, Reason: e.Reason, Address: e.Client.Host, Protocol: bus.Protocol(e.Client.Type), At: e.Time,
		BytesIn: e.Sent.Bytes, BytesOut: e.Received.Bytes,
	}
	if what == "disconnected" {
		event.DurationMS = e.Client.Stop.Sub(e.Client.Start).Milliseconds()
	}
	g.publish(event)
	if what == "connected" && g.deps.Command != nil {
		g.tellAgain(device)
	}
}

// refuse counts, logs and publishes a refusal.
func (g *Gate) refuse(v verdict, c connection) {
	g.metrics.refuse(v.refused)
	if v.refused == quarantined {
		g.enforcer.refused(v.device)
	}
	if n, ok := g.quiet.allow(v.device + "/" + string(v.refused)); ok {
		g.deps.Log.Info("connection refused", "device", v.device, "reason", string(v.refused), "detail", v.detail,
			"address", c.Address, "protocol", c.Protocol, "unlogged", n)
	}
	g.publish(Event{
		Device: v.device, Event: "refused", Reason: string(v.refused), Address: c.Address, Protocol: c.Protocol, At: g.deps.Clock().UTC(),
	})
}

// BrokerRefused takes the embedded broker's words for a client that failed
// before the gate was asked, because its TLS handshake did. It may be called
// before Run.
func (g *Gate) BrokerRefused(message string) {
	why := handshake
	switch {
	case strings.Contains(message, "didn't provide a certificate"):
		why = noCertificate
	case strings.Contains(message, "has expired"):
		why = expired
	case strings.Contains(message, "unknown authority"), strings.Contains(message, "failed to verify certificate"):
		why = foreign
	}
	g.metrics.refuse(why)
	if n, ok := g.quiet.allow("/" + string(why)); ok {
		g.deps.Log.Info("connection refused", "reason", string(why), "detail", message, "unlogged", n)
	}
	g.publish(Event{Event: "refused", Reason: string(why), At: g.deps.Clock().UTC()})
}

// publish tells whoever listens. Events are news, not records: they may be
// lost.
func (g *Gate) publish(e Event) {
	token := e.Device
	if token == "" {
		token = nobody
	}
	data, err := json.Marshal(e)
	if err == nil && g.deps.Bus != nil {
		err = g.deps.Bus.Cordon.Publish(bus.SubjectGateChanges+"."+token, data)
	}
	if err != nil {
		g.deps.Log.Warn("gate event was not published", "error", err)
	}
}

// quiet lets one log line of a kind through in ten seconds, so that a flood of
// refusals does not become a flood of lines.
type quiet struct {
	now func() time.Time

	mu   sync.Mutex
	seen map[string]*spell
}

type spell struct {
	at    time.Time
	muted int
}

const (
	quietSpell = 10 * time.Second
	quietKinds = 4096
)

func newQuiet(now func() time.Time) *quiet { return &quiet{now: now, seen: map[string]*spell{}} }

// allow says whether to log, and how many lines were left out before.
func (q *quiet) allow(kind string) (muted int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	s := q.seen[kind]
	if s == nil {
		if len(q.seen) >= quietKinds {
			clear(q.seen)
		}
		q.seen[kind] = &spell{at: now}
		return 0, true
	}
	if now.Sub(s.at) < quietSpell {
		s.muted++
		return 0, false
	}
	muted, s.at, s.muted = s.muted, now, 0
	return muted, true
}
