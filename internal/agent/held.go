package agent

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"cordon/internal/command"
	"cordon/internal/fleet"
)

// heldFile shows, in the agent's directory, that Cordon quarantined the device.
const heldFile = "quarantine.json"

// obeyer takes Cordon's signed commands: a device that is told to be in
// quarantine sends nothing, and shows it, until it is released.
type obeyer struct {
	device      string
	authorities func() (*x509.CertPool, error)
	dir         string
	sender      *Sender
	clock       func() time.Time
	log         *slog.Logger

	mu   sync.Mutex
	last time.Time // when the last command that was obeyed was issued
	held command.Command
}

// listen subscribes to commands, on the subjects of a free and of a restricted
// device.
func (o *obeyer) listen(conn *nats.Conn) error {
	for _, subject := range []string{"fleet.command." + o.device, "fleet.quarantine." + o.device} {
		if _, err := conn.Subscribe(subject, func(msg *nats.Msg) { o.take(msg.Data) }); err != nil {
			return fmt.Errorf("listen to commands: %w", err)
		}
	}
	return nil
}

func (o *obeyer) take(data []byte) {
	pool, err := o.authorities()
	if err != nil {
		o.log.Error("command can't be checked, not obeyed", "error", err)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	c, err := command.Verify(data, pool, o.device, o.clock(), o.last)
	if err != nil {
		o.log.Warn("command is not obeyed", "error", err)
		return
	}
	o.last = c.IssuedAt
	switch c.Kind {
	case "quarantine":
		o.held = c
		if c.Level != fleet.Observe {
			o.sender.Hold(true)
		}
		o.log.Warn("Cordon quarantined this device", "level", string(c.Level), "reason", c.Reason, "decision", c.ID)
		if raw, err := json.MarshalIndent(c, "", "  "); err == nil {
			if err := os.WriteFile(filepath.Join(o.dir, heldFile), append(raw, '\n'), 0o600); err != nil {
				o.log.Warn("quarantine can't be shown", "error", err)
			}
		}
	case "release":
		o.free("released by a command")
	default:
		o.log.Warn("command is not known", "kind", c.Kind)
	}
}

// reconnected ends an isolation: a device that may connect is isolated no
// longer. A restricted one is told again.
func (o *obeyer) reconnected() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.free("the broker lets it in")
}

func (o *obeyer) free(why string) {
	if o.held.ID == "" {
		return
	}
	o.log.Info("this device is free again", "decision", o.held.ID, "why", why)
	o.held = command.Command{}
	_ = os.Remove(filepath.Join(o.dir, heldFile)) // it may never have been written
	o.sender.Hold(false)
}
