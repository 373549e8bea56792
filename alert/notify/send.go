package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	webhook "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"cordon/internal/fleet"
)

const (
	maxAnswer  = 4 << 10
	maxError   = 300
	maxRequest = 4 << 10
	maxShown   = 1 << 10
	userAgent  = "cordon-notify/1"
)

// outcome is how an attempt ended.
type outcome struct {
	delivered  bool
	permanent  bool // no repetition changes it
	status     int
	err        string // without secrets
	fault      error  // what kept an answer away; err says it in words
	latency    time.Duration
	retryAfter time.Duration // asked for by the receiver, 0 if not
	request    string        // what was sent, without secrets
	answer     string        // what came back, without secrets
}

// transport carries messages to one receiver. id is the same in every
// repetition.
type transport interface {
	send(ctx context.Context, items []item, id string) outcome
}

// sender sends to one receiver. Real alerts and tests both come through here.
type sender struct {
	receiver Receiver
	timeout  time.Duration
	by       transport
}

func newSender(r Receiver, cfg Config, tlsConfig *tls.Config, clock func() time.Time) (*sender, error) {
	s := &sender{receiver: r, timeout: cfg.Timeout}
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, fmt.Errorf("receiver %q: url: is not an address", r.Name)
	}
	switch r.Kind {
	case KindEmail:
		s.by = &mailSender{receiver: r, address: u, dialer: newDialer(r, cfg.Timeout), tls: tlsConfig, timeout: cfg.Timeout, base: cfg.BaseURL}
	case KindSyslog:
		host := "-"
		if base, err := url.Parse(cfg.BaseURL); err == nil && base.Hostname() != "" {
			host = base.Hostname()
		}
		s.by = &syslogSender{address: u, dialer: newDialer(r, cfg.Timeout), tls: tlsConfig, timeout: cfg.Timeout, host: host}
	case KindShout:
		by, err := newShoutrrr(r.URL, cfg.BaseURL, cfg.Timeout)
		if err != nil {
			return nil, fmt.Errorf("receiver %q: url: %w", r.Name, err)
		}
		s.by = by
	default:
		post := &poster{receiver: r, base: cfg.BaseURL, client: newClient(r, cfg.Timeout, tlsConfig), clock: clock}
		if r.Kind != KindPager {
			for _, key := range r.keys() {
				signer, err := webhook.NewWebhook(key)
				if err != nil {
					return nil, fmt.Errorf("receiver %q: secret: is not base64 after whsec_", r.Name)
				}
				post.signers = append(post.signers, signer)
			}
		}
		s.by = post
	}
	return s, nil
}

// send makes one attempt.
func (s *sender) send(ctx context.Context, items []item, id string) outcome {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	out := s.by.send(ctx, items, id)
	if out.fault != nil {
		out.err = s.explain(out.fault)
	}
	out.err = cut(s.redact(out.err), maxError)
	out.request, out.answer = cut(s.redact(out.request), maxRequest), cut(s.redact(out.answer), maxShown)
	return out
}

// poster posts JSON over HTTP.
type poster struct {
	receiver Receiver
	base     string
	client   *http.Client
	signers  []*webhook.Webhook
	clock    func() time.Time
}

func (s *poster) send(ctx context.Context, items []item, id string) outcome {
	start := time.Now()
	req, raw, err := s.request(ctx, items, id)
	if err != nil {
		return outcome{permanent: true, err: err.Error()}
	}
	sent := shown(req, raw)
	resp, err := s.client.Do(req)
	if err != nil {
		return outcome{fault: err, latency: time.Since(start), request: sent}
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	out := outcome{
		status: resp.StatusCode, latency: time.Since(start), request: sent,
		answer: strings.TrimSpace(strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode) + "\n" + oneLine(answer)),
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		out.delivered = true
		return out
	}
	out.permanent = permanent(resp.StatusCode)
	out.retryAfter = retryAfter(resp.Header.Get("Retry-After"), s.clock())
	out.err = "answered " + strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		out.err += "; redirects are not followed: configure the final address"
	} else if text := oneLine(answer); text != "" {
		out.err += ": " + text
	}
	return out
}

// shown is a request as the delivery log shows it.
func shown(req *http.Request, raw []byte) string {
	var out strings.Builder
	out.WriteString(req.Method + " " + req.URL.String() + "\n")
	for _, name := range []string{"Content-Type", "User-Agent", webhook.HeaderWebhookID, webhook.HeaderWebhookTimestamp, webhook.HeaderWebhookSignature} {
		if value := req.Header.Get(name); value != "" {
			out.WriteString(name + ": " + value + "\n")
		}
	}
	return out.String() + "\n" + string(raw)
}

func (s *poster) request(ctx context.Context, items []item, id string) (*http.Request, []byte, error) {
	contentType, raw, err := body(items, id, s.receiver, s.base)
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.receiver.URL, bytes.NewReader(raw))
	if err != nil {
		return nil, nil, errors.New("the receiver's address can't be used")
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", userAgent)
	if len(s.signers) == 0 {
		return req, raw, nil
	}
	now := s.clock()
	var signatures []string // one for each key: a receiver may know the old or the new one
	for _, signer := range s.signers {
		signature, err := signer.Sign(id, now, raw)
		if err != nil {
			return nil, nil, fmt.Errorf("sign notification: %w", err)
		}
		signatures = append(signatures, signature)
	}
	req.Header.Set(webhook.HeaderWebhookID, id)
	req.Header.Set(webhook.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(webhook.HeaderWebhookSignature, strings.Join(signatures, " "))
	return req, raw, nil
}

// permanent says whether an answer means that repeating is useless: client
// errors, but those that speak of the moment.
func permanent(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusLocked, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500
}

// retryAfter reads seconds or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32); err == nil {
		return max(time.Duration(seconds)*time.Second, 0)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// explain puts a failure without an answer into words. net/http's own text
// repeats the address, which may be a password.
func (s *sender) explain(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, errPrivate):
		return errPrivate.Error()
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		return "no answer within " + s.timeout.String()
	}
	return s.redact(oneLine([]byte(err.Error())))
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// redact takes everything secret about the receiver out of a text.
func (s *sender) redact(text string) string {
	secrets := []string{s.receiver.URL, s.receiver.Password}
	for _, key := range s.receiver.keys() {
		secrets = append(secrets, key, strings.TrimPrefix(key, "whsec_"))
	}
	if u, err := url.Parse(s.receiver.URL); err == nil {
		secrets = append(secrets, u.RequestURI(), u.Path, u.RawQuery)
		if u.User != nil {
			password, _ := u.User.Password()
			secrets = append(secrets, u.User.String(), password)
		}
		for _, part := range strings.FieldsFunc(u.Path+"/"+u.RawQuery, func(r rune) bool { return strings.ContainsRune("/&=?", r) }) {
			if len(part) >= 8 {
				secrets = append(secrets, part)
			}
		}
	}
	for _, secret := range secrets {
		if len(secret) > 3 {
			text = strings.ReplaceAll(text, secret, "[hidden]")
		}
	}
	return text
}

func oneLine(raw []byte) string {
	text := strings.ToValidUTF8(string(raw), "?")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// apply enters an attempt into its delivery record.
func (o outcome) apply(d *fleet.Delivery, now time.Time) {
	d.Attempts++
	d.UpdatedAt, d.Status, d.Error = now, o.status, o.err
	d.Request, d.Answer = o.request, o.answer
	d.LatencyMS = float64(o.latency.Microseconds()) / 1000
	if o.delivered {
		d.State, d.Error = stateDelivered, ""
	}
}
