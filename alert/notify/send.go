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
	maxAnswer = 4 << 10
	maxError  = 300
	userAgent = "cordon-notify/1"
)

// outcome is how an attempt ended.
type outcome struct {
	delivered  bool
	permanent  bool // no repetition changes it
	status     int
	err        string // without secrets
	latency    time.Duration
	retryAfter time.Duration // asked for by the receiver, 0 if not
}

// sender posts to one receiver.
type sender struct {
	receiver Receiver
	base     string
	timeout  time.Duration
	client   *http.Client
	signer   *webhook.Webhook
	clock    func() time.Time
}

func newSender(r Receiver, cfg Config, tlsConfig *tls.Config, clock func() time.Time) (*sender, error) {
	s := &sender{receiver: r, base: cfg.BaseURL, timeout: cfg.Timeout, client: newClient(r, cfg.Timeout, tlsConfig), clock: clock}
	if r.Secret != "" {
		signer, err := webhook.NewWebhook(r.Secret)
		if err != nil {
			return nil, fmt.Errorf("receiver %q: secret: is not base64 after whsec_", r.Name)
		}
		s.signer = signer
	}
	return s, nil
}

// send makes one attempt. Real alerts and tests both come through here.
func (s *sender) send(ctx context.Context, it item) outcome {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	start := time.Now()
	req, err := s.request(ctx, it)
	if err != nil {
		return outcome{permanent: true, err: s.redact(err.Error())}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return outcome{err: s.explain(err), latency: time.Since(start)}
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	out := outcome{status: resp.StatusCode, latency: time.Since(start)}
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
	out.err = s.redact(out.err)
	return out
}

func (s *sender) request(ctx context.Context, it item) (*http.Request, error) {
	contentType, raw, err := body(it, s.receiver.Kind, s.base)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.receiver.URL, bytes.NewReader(raw))
	if err != nil {
		return nil, errors.New("the receiver's address can't be used")
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", userAgent)
	if s.signer == nil {
		return req, nil
	}
	now, id := s.clock(), it.webhookID()
	signature, err := s.signer.Sign(id, now, raw)
	if err != nil {
		return nil, fmt.Errorf("sign notification: %w", err)
	}
	req.Header.Set(webhook.HeaderWebhookID, id)
	req.Header.Set(webhook.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(webhook.HeaderWebhookSignature, signature)
	return req, nil
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
	secrets := []string{s.receiver.URL, s.receiver.Secret, strings.TrimPrefix(s.receiver.Secret, "whsec_")}
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
	return cut(text, maxError)
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
	d.LatencyMS = float64(o.latency.Microseconds()) / 1000
	if o.delivered {
		d.State, d.Error = stateDelivered, ""
	}
}
