package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// mailSender hands messages to an SMTP server: smtp:// (STARTTLS when the
// server offers it, and always before a password) or smtps://.
type mailSender struct {
	receiver Receiver
	address  *url.URL
	dialer   *net.Dialer
	tls      *tls.Config
	timeout  time.Duration
	base     string
}

func (s *mailSender) send(ctx context.Context, items []item, id string) outcome {
	var out outcome
	start := time.Now()
	message, err := s.message(items, id)
	if err == nil {
		out.request = string(message)
		err = s.deliver(ctx, message)
	}
	out.latency = time.Since(start)
	var answer *textproto.Error
	switch {
	case err == nil:
		out.delivered, out.status, out.answer = true, 250, "taken by "+s.address.Host
	case errors.As(err, &answer):
		out.status, out.answer = answer.Code, answer.Msg
		out.permanent = answer.Code >= 500
		out.err = "answered " + strconv.Itoa(answer.Code) + " " + answer.Msg
	default:
		out.fault = err
	}
	return out
}

func (s *mailSender) deliver(ctx context.Context, message []byte) error {
	host := s.address.Hostname()
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.tls != nil {
		secure = s.tls.Clone()
	}
	secure.ServerName = host
	port := s.address.Port()
	if port == "" {
		port = map[string]string{"smtp": "587", "smtps": "465"}[s.address.Scheme]
	}
	conn, err := s.dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	if s.address.Scheme == "smtps" {
		conn = tls.Client(conn, secure)
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	defer client.Close()
	if ok, _ := client.Extension("STARTTLS"); ok && s.address.Scheme == "smtp" {
		if err := client.StartTLS(secure); err != nil {
			return err //nolint:wrapcheck // explained by the caller
		}
	}
	if user := s.receiver.Username; user != "" {
		if _, encrypted := client.TLSConnectionState(); !encrypted && !s.receiver.AllowPrivate {
			return errors.New("the server offers no TLS; the password is not sent in the clear")
		}
		if err := client.Auth(smtp.PlainAuth("", user, s.receiver.Password, host)); err != nil {
			return err //nolint:wrapcheck // explained by the caller
		}
	}
	from, err := mail.ParseAddress(s.receiver.From)
	if err != nil {
		return fmt.Errorf("read sender: %w", err)
	}
	if err := client.Mail(from.Address); err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	for _, to := range s.receiver.To {
		address, err := mail.ParseAddress(to)
		if err != nil {
			return fmt.Errorf("read recipient: %w", err)
		}
		if err := client.Rcpt(address.Address); err != nil {
			return err //nolint:wrapcheck // explained by the caller
		}
	}
	w, err := client.Data()
	if err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	if _, err := w.Write(message); err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	if err := w.Close(); err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	_ = client.Quit() // it has taken the message
	return nil
}

// message is the mail: plain text, one thread for each incident, an id that
// is the same in every repetition.
func (s *mailSender) message(items []item, id string) ([]byte, error) {
	subject, text := digestHead(items), plainDigest(items, s.base)
	if len(items) == 1 {
		b := briefOf(items[0], s.base)
		subject, text = b.Head, b.plain()
	}
	var out bytes.Buffer
	header := func(name, value string) {
		fmt.Fprintf(&out, "%s: %s\r\n", name, strings.NewReplacer("\r", " ", "\n", " ").Replace(value))
	}
	header("From", s.receiver.From)
	header("To", strings.Join(s.receiver.To, ", "))
	header("Subject", mime.QEncoding.Encode("utf-8", cut(subject, 200)))
	header("Date", items[0].CreatedAt.UTC().Format(time.RFC1123Z))
	header("Message-ID", "<"+id+"@cordon.invalid>")
	if len(items) == 1 {
		header("References", "<"+items[0].Change.Incident.ID+"@cordon.invalid>")
	}
	header("Auto-Submitted", "auto-generated")
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	out.WriteString("\r\n")
	w := quotedprintable.NewWriter(&out)
	if _, err := w.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n"))); err != nil {
		return nil, fmt.Errorf("write mail: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write mail: %w", err)
	}
	return out.Bytes(), nil
}
