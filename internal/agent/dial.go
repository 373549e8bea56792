package agent

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Dial connects a device to the broker with its certificate. It returns at
// once and keeps trying for ever: a device that was refused (quarantined, or
// the gate was away) comes back by itself when it may.
func Dial(id *Identity, log *slog.Logger, options ...nats.Option) (*nats.Conn, error) {
	address := id.NATS
	if !strings.Contains(address, "://") {
		address = "tls://" + address
	}
	all := append([]nats.Option{
		nats.Name(id.Device),
		nats.ClientTLSConfig(id.certificate, id.authorities),
		nats.CustomInboxPrefix("_INBOX." + id.Device),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(time.Second),
		nats.ReconnectJitter(500*time.Millisecond, 500*time.Millisecond),
		nats.ReconnectBufSize(-1), // the sender keeps what was not acknowledged
		nats.Timeout(5 * time.Second),
		nats.PingInterval(20 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Debug("device connection", "device", id.Device, "error", err)
		}),
	}, options...)
	conn, err := nats.Connect(address, all...)
	if err != nil {
		return nil, fmt.Errorf("connect device %s to %s: %w", id.Device, address, err)
	}
	return conn, nil
}
