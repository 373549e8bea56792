package gate

import (
	"time"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// tellDelays are how long after a connect a device is told how it stands: it
// subscribes first.
var tellDelays = []time.Duration{500 * time.Millisecond, 5 * time.Second}

// tellDevice sends a device the signed word of a decision. It is a courtesy:
// the cut does not depend on what the device makes of it.
func (g *Gate) tellDevice(prefix string, q fleet.Quarantine) {
	if g.deps.Command == nil {
		return
	}
	data, err := g.deps.Command(q)
	if err == nil {
		err = g.deps.Bus.Devices.Publish(prefix+"."+q.Device, data)
	}
	if err != nil {
		g.deps.Log.Warn("device was not told of its quarantine", "device", q.Device, "error", err)
	}
}

// tellAgain tells a device that came back how it stands, if it was ever held.
func (g *Gate) tellAgain(device string) {
	if g.enforcer.current(device).q.ID == "" {
		return
	}
	for _, delay := range tellDelays {
		time.AfterFunc(delay, func() {
			q := g.enforcer.current(device).q
			prefix := bus.SubjectCommand
			if q.Active() && q.Level == fleet.Restrict {
				prefix = bus.SubjectQuarantine
			}
			g.tellDevice(prefix, q)
		})
	}
}
