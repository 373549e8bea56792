package notify

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// Kinds of receiver.
const (
	KindWebhook = "webhook" // CloudEvents body, Standard Webhooks signature
	KindSlack   = "slack"   // a Slack incoming webhook, or what understands the same
)

// DefaultChanges are the kinds of change that a receiver hears of unless it
// says otherwise.
var DefaultChanges = []string{"opened", "escalated", "quarantined", "released", "resolved"}

// AllChanges are the kinds of change that there are.
var AllChanges = []string{
	"opened", "escalated", "finding", "acknowledged", "assigned", "comment", "quarantined", "released", "resolved", "reopened",
}

// Receiver is where notifications go. URL and Secret are secrets: no JSON and
// no printed form has them.
type Receiver struct {
	Name         string         `json:"name" yaml:"name"` // a-z, 0-9, -
	Kind         string         `json:"kind" yaml:"kind"`
	URL          string         `json:"-" yaml:"url"`
	Secret       string         `json:"-" yaml:"secret,omitempty"`                              // whsec_<base64>; required for webhook
	Severity     fleet.Severity `json:"severity,omitempty" yaml:"severity,omitempty"`           // the mildest that it hears of; default low
	Changes      []string       `json:"changes,omitempty" yaml:"changes,omitempty"`             // default DefaultChanges
	AllowPrivate bool           `json:"allow_private,omitempty" yaml:"allow_private,omitempty"` // may be on a private or loopback address
}

// Config says who is told, and how patiently. The zero value of every field
// but Receivers is DefaultConfig's.
type Config struct {
	Receivers   []Receiver
	BaseURL     string // of the dashboard, for links; empty: no links
	Timeout     time.Duration
	MaxAttempts int
	Window      int // items per receiver in memory
	InFlight    int // attempts per receiver at the same time
	QueueLimit  uint64
	GiveUpAfter time.Duration // age of an item that is no longer news
	MaxWait     time.Duration // longest Retry-After that is honoured
	BreakAfter  int           // failures in a row after which a receiver is only probed
	History     int           // deliveries in the log
	// Backoff is the wait after the given attempt (from 1), jitter included.
	Backoff func(attempt int) time.Duration
}

// DefaultConfig gives up on a notification after 12 attempts, about an hour.
func DefaultConfig() Config {
	return Config{
		Timeout: 10 * time.Second, MaxAttempts: 12, Window: 64, InFlight: 4, QueueLimit: 10_000,
		GiveUpAfter: 24 * time.Hour, MaxWait: time.Hour, BreakAfter: 3, History: 10_000,
		Backoff: Backoff,
	}
}

// Backoff is 5 s, doubled with every attempt to at most 15 minutes, each
// moved by up to a fifth either way so that receivers are not hit in step.
func Backoff(attempt int) time.Duration {
	wait := 15 * time.Minute
	if attempt < 9 {
		wait = min(wait, 5*time.Second<<max(attempt-1, 0))
	}
	return time.Duration(float64(wait) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // jitter, not a secret
}

func (c Config) withDefaults() Config {
	d := DefaultConfig()
	for _, part := range []struct {
		to  *int
		def int
	}{{&c.MaxAttempts, d.MaxAttempts}, {&c.Window, d.Window}, {&c.InFlight, d.InFlight}, {&c.BreakAfter, d.BreakAfter}, {&c.History, d.History}} {
		if *part.to <= 0 {
			*part.to = part.def
		}
	}
	for _, part := range []struct {
		to  *time.Duration
		def time.Duration
	}{{&c.Timeout, d.Timeout}, {&c.GiveUpAfter, d.GiveUpAfter}, {&c.MaxWait, d.MaxWait}} {
		if *part.to <= 0 {
			*part.to = part.def
		}
	}
	if c.QueueLimit == 0 {
		c.QueueLimit = d.QueueLimit
	}
	if c.Backoff == nil {
		c.Backoff = d.Backoff
	}
	receivers := make([]Receiver, len(c.Receivers))
	for i, r := range c.Receivers {
		if r.Severity == "" {
			r.Severity = fleet.Low
		}
		if len(r.Changes) == 0 {
			r.Changes = slices.Clone(DefaultChanges)
		}
		receivers[i] = r
	}
	c.Receivers = receivers
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	return c
}

var receiverName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Validate names every receiver and field that is wrong. It never repeats a
// secret.
func (c Config) Validate() error {
	var errs []error
	seen := map[string]bool{}
	for i, r := range c.Receivers {
		where := fmt.Sprintf("receiver %q", r.Name)
		if !receiverName.MatchString(r.Name) {
			where = fmt.Sprintf("receiver %d", i+1)
			errs = append(errs, fmt.Errorf("%s: name: %q is not 1 to 32 of a-z 0-9 - beginning with a letter or digit", where, r.Name))
		} else if seen[r.Name] {
			errs = append(errs, fmt.Errorf("%s: name: used twice", where))
		}
		seen[r.Name] = true
		for _, err := range r.faults() {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
	}
	if c.BaseURL != "" {
		if u, err := url.Parse(c.BaseURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			errs = append(errs, fmt.Errorf("base url %q: is not an http or https address", c.BaseURL))
		}
	}
	return errors.Join(errs...)
}

func (r Receiver) faults() []error {
	var errs []error
	if r.Kind != KindWebhook && r.Kind != KindSlack {
		errs = append(errs, fmt.Errorf("kind: %q is not one of webhook, slack", r.Kind))
	}
	if err := checkURL(r.URL); err != nil {
		errs = append(errs, fmt.Errorf("url: %w", err))
	}
	switch {
	case r.Secret != "":
		if err := checkSecret(r.Secret); err != nil {
			errs = append(errs, fmt.Errorf("secret: %w", err))
		}
	case r.Kind == KindWebhook:
		errs = append(errs, errors.New("secret: missing: webhooks are signed; make one with: printf 'whsec_%s' \"$(head -c 24 /dev/urandom | base64)\""))
	}
	if r.Severity != "" && r.Severity.Rank() == 0 {
		_, err := fleet.Parse("severity", string(r.Severity), fleet.Severities)
		errs = append(errs, fmt.Errorf("severity: %w", err))
	}
	for _, change := range r.Changes {
		if !slices.Contains(AllChanges, change) {
			errs = append(errs, fmt.Errorf("changes: %q is not one of %s", change, strings.Join(AllChanges, ", ")))
		}
	}
	return errs
}

// checkURL gives no part of the address away: the path of a chat address is
// its password.
func checkURL(text string) error {
	if text == "" {
		return errors.New("missing")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("is not an address")
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("scheme %q is not http or https", u.Scheme)
	case u.Hostname() == "":
		return errors.New("has no host")
	case u.Fragment != "":
		return errors.New("has a fragment (#…)")
	}
	return nil
}

func checkSecret(secret string) error {
	text, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return errors.New("does not begin with whsec_")
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return errors.New("is not base64 after whsec_")
	}
	if len(key) < 24 || len(key) > 64 {
		return fmt.Errorf("has %d bytes, Standard Webhooks asks for 24 to 64", len(key))
	}
	return nil
}

// String shows a receiver without its secrets.
func (r Receiver) String() string { return r.Kind + " " + r.Name }

// GoString does too.
func (r Receiver) GoString() string { return r.String() }

// LogValue does too.
func (r Receiver) LogValue() slog.Value { return slog.StringValue(r.String()) }

// wants says whether the receiver hears of the change.
func (r Receiver) wants(change fleet.IncidentChange) bool {
	return slices.Contains(r.Changes, change.Change) && change.Incident.Severity.Rank() >= r.Severity.Rank()
}
