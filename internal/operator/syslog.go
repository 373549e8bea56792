package operator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
)

const (
	syslogConsumer = "syslog"
	syslogWait     = 10 * time.Second
	// facility 13 is "log audit"; severity 5 is notice, 4 warning.
	syslogDone, syslogRefused = 13*8 + 5, 13*8 + 4
	// enterprise is the number for documentation (RFC 5612), which the name of
	// the structured data needs.
	enterprise = "cordon@32473"
)

// Forward sends the operator log to a syslog server (RFC 5424) until ctx ends:
// udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT, the latter two framed
// by octet counting (RFC 6587, 5425). Each record is sent at least once; where
// it stands is remembered by the broker, so nothing is lost while the server
// is away. authority names a PEM file for tls, empty: the system's.
func (d *Directory) Forward(ctx context.Context, address, authority string) error {
	dial, framed, err := syslogDialer(address, authority)
	if err != nil {
		return err
	}
	consumer, err := d.deps.Bus.Core.CreateOrUpdateConsumer(ctx, bus.StreamOperatorLog, jetstream.ConsumerConfig{
		Durable: syslogConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, MaxAckPending: 64,
	})
	if err != nil {
		return fmt.Errorf("follow operator log: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "-"
	}
	for ctx.Err() == nil {
		if err := d.forward(ctx, consumer, dial, framed, host); err != nil && ctx.Err() == nil {
			d.deps.Log.Warn("operator log is not forwarded; trying again", "to", address, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
	return nil
}

// CheckSyslog says what is wrong with the address of a syslog server.
func CheckSyslog(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Port() == "" || u.Scheme != "udp" && u.Scheme != "tcp" && u.Scheme != "tls" {
		return fmt.Errorf("syslog address %q is not of the form tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT", address)
	}
	return nil
}

func syslogDialer(address, authority string) (dial func(context.Context) (net.Conn, error), framed bool, err error) {
	if err := CheckSyslog(address); err != nil {
		return nil, false, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, false, fmt.Errorf("read syslog address: %w", err)
	}
	plain := &net.Dialer{Timeout: syslogWait}
	if u.Scheme != "tls" {
		return func(ctx context.Context) (net.Conn, error) { return plain.DialContext(ctx, u.Scheme, u.Host) }, u.Scheme == "tcp", nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	if authority != "" {
		raw, err := os.ReadFile(authority)
		if err != nil {
			return nil, false, fmt.Errorf("read syslog authority: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(raw) {
			return nil, false, fmt.Errorf("read syslog authority: %s holds no certificate", authority)
		}
	}
	secure := &tls.Dialer{NetDialer: plain, Config: cfg}
	return func(ctx context.Context) (net.Conn, error) { return secure.DialContext(ctx, "tcp", u.Host) }, true, nil
}

func (d *Directory) forward(ctx context.Context, consumer jetstream.Consumer, dial func(context.Context) (net.Conn, error), framed bool, host string) error {
	conn, err := dial(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	messages, err := consumer.Messages(jetstream.PullMaxMessages(64))
	if err != nil {
		return fmt.Errorf("follow operator log: %w", err)
	}
	defer messages.Stop()
	for {
		message, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("follow operator log: %w", err)
		}
		line := syslogLine(message.Data(), host)
		if framed {
			line = append(strconv.AppendInt(nil, int64(len(line)), 10), append([]byte{' '}, line...)...)
		}
		if err := conn.SetWriteDeadline(time.Now().Add(syslogWait)); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if _, err := conn.Write(line); err != nil {
			_ = message.Nak()
			return fmt.Errorf("send: %w", err)
		}
		if err := message.Ack(); err != nil {
			return fmt.Errorf("remember place: %w", err)
		}
	}
}

// syslogLine is a record as an RFC 5424 message; its text is the record as
// stored, so that what a collector keeps can be verified.
func syslogLine(raw []byte, host string) []byte {
	var r Record
	_ = json.Unmarshal(raw, &r) // what can't be read is forwarded as it is
	priority, at, act := syslogDone, time.Time{}, "record"
	data := []string{"seq", strconv.FormatUint(r.Seq, 10), "hash", hashOf(raw)}
	switch {
	case r.Entry != nil:
		at, act = r.Entry.At, r.Entry.Act
		if r.Entry.Outcome == "refused" {
			priority = syslogRefused
		}
		data = append(data, "actor", r.Entry.Actor, "role", string(r.Entry.Role), "target", r.Entry.Target, "outcome", r.Entry.Outcome, "source", r.Entry.Source)
	case r.Head != nil:
		at, act = r.Head.At, "head"
	}
	var out bytes.Buffer
	stamp := "-"
	if !at.IsZero() {
		stamp = at.UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	fmt.Fprintf(&out, "<%d>1 %s %s cordon - %s [%s", priority, stamp, printable(host, 255), printable(act, 32), enterprise)
	for i := 0; i < len(data); i += 2 {
		if data[i+1] != "" {
			fmt.Fprintf(&out, " %s=\"%s\"", data[i], syslogEscape.Replace(data[i+1]))
		}
	}
	out.WriteString("] ")
	out.Write(raw)
	return out.Bytes()
}

var syslogEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`, "\n", " ", "\r", " ")

// printable is a header field: printable ASCII without spaces, - when empty.
func printable(text string, length int) string {
	text = strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f {
			return r
		}
		return -1
	}, text)
	if text == "" {
		return "-"
	}
	return text[:min(len(text), length)]
}
