package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// Facility of syslog messages: security/authorization.
const syslogFacility = 10

// maxSyslog is the longest message, which UDP carries in one datagram.
const maxSyslog = 8 << 10

// Levels of RFC 5424.
var syslogLevel = map[fleet.Severity]int{
	fleet.Informational: 6, fleet.Low: 5, fleet.Medium: 4, fleet.High: 3, fleet.Critical: 2,
}

// enterprise is the private enterprise number of the structured data: the one
// that RFC 5612 reserves for examples, for Cordon has none of its own.
const enterprise = "cordon@32473"

var syslogValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// syslogLine is a message of RFC 5424.
func syslogLine(it item, host string) string {
	c := it.Change
	inc := c.Incident
	level, ok := syslogLevel[inc.Severity]
	if !ok {
		level = 5
	}
	data := ""
	for _, p := range []fact{
		{"id", c.ID},
		{"incident", inc.ID},
		{"change", c.Change},
		{"severity", string(inc.Severity)},
		{"state", string(inc.State)},
		{"device", inc.Device},
		{"cohort", inc.Cohort},
		{"rules", strings.Join(newest(inc.Rules, 5), ",")},
		{"actor", strings.Join(newest(inc.Actors, 5), ",")},
	} {
		if p.Value != "" {
			data += " " + p.Name + `="` + syslogValue.Replace(oneLine([]byte(p.Value))) + `"`
		}
	}
	line := fmt.Sprintf("<%d>1 %s %s cordon - %s [%s%s] \ufeff%s", syslogFacility*8+level,
		it.CreatedAt.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), host, c.Change, enterprise, data, oneLine([]byte(headline(c)+": "+reason(c))))
	if len(line) > maxSyslog {
		line = strings.ToValidUTF8(line[:maxSyslog], "")
	}
	return line
}

// syslogSender writes to a syslog server: udp://, tcp:// or tls:// HOST:PORT.
// Over TCP and TLS messages are counted (RFC 6587, RFC 5425). Syslog answers
// nothing: delivered means written.
type syslogSender struct {
	address *url.URL
	dialer  *net.Dialer
	tls     *tls.Config
	timeout time.Duration
	host    string
}

func (s *syslogSender) send(ctx context.Context, items []item, _ string) outcome {
	var out outcome
	start := time.Now()
	err := s.write(ctx, items, &out)
	out.latency = time.Since(start)
	if err != nil {
		out.fault = err
		return out
	}
	out.delivered, out.answer = true, "written (syslog answers nothing)"
	return out
}

func (s *syslogSender) write(ctx context.Context, items []item, out *outcome) error {
	network := s.address.Scheme
	if network == "tls" {
		network = "tcp"
	}
	conn, err := s.dialer.DialContext(ctx, network, s.address.Host)
	if err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	if s.address.Scheme == "tls" {
		cfg := &tls.Config{MinVersion: tls.VersionTLS12}
		if s.tls != nil {
			cfg = s.tls.Clone()
		}
		cfg.ServerName = s.address.Hostname()
		secure := tls.Client(conn, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			return err //nolint:wrapcheck // explained by the caller
		}
		conn = secure
	}
	for _, it := range items {
		line := syslogLine(it, s.host)
		out.request += line + "\n"
		if network == "tcp" {
			line = fmt.Sprintf("%d %s", len(line), line)
		}
		if _, err := conn.Write([]byte(line)); err != nil {
			return err //nolint:wrapcheck // explained by the caller
		}
	}
	if secure, ok := conn.(*tls.Conn); ok {
		if err := secure.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err //nolint:wrapcheck // explained by the caller
		}
	}
	return nil
}
