package notify

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/mail"
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
	KindTeams   = "teams"   // a Microsoft Teams workflow: an Adaptive Card
	KindPager   = "pagerduty"
	KindEmail   = "email"    // an SMTP server
	KindSyslog  = "syslog"   // RFC 5424 over udp, tcp or tls
	KindShout   = "shoutrrr" // whatever shoutrrr reaches
)

// Kinds lists every kind of receiver.
var Kinds = []string{KindWebhook, KindSlack, KindTeams, KindPager, KindEmail, KindSyslog, KindShout}

// DefaultChanges are the kinds of change that a receiver hears of unless it
// says otherwise.
var DefaultChanges = []string{"opened", "escalated", "flapping", "quarantined", "released", "resolved", "merged", "reopened"}

// AllChanges are the kinds of change that there are.
var AllChanges = []string{
	"opened", "escalated", "finding", "acknowledged", "assigned", "comment", "quarantined", "released", "resolved", "reopened", "merged", "flapping", "tagged",
}

// Kinds of change that only the service itself makes; a route asks for them.
const (
	changeUnacknowledged = "unacknowledged" // nobody acknowledged in time
	changeReminder       = "reminder"       // still nobody did
)

// Receiver is where notifications go. URL, Secret, Secrets and Password are
// secrets: no JSON and no printed form has them.
type Receiver struct {
	Name         string         `json:"name" yaml:"name"` // a-z, 0-9, -
	Kind         string         `json:"kind" yaml:"kind"`
	URL          string         `json:"-" yaml:"url,omitempty"`
	Secret       string         `json:"-" yaml:"secret,omitempty"`  // webhook: whsec_<base64>; pagerduty: the routing key
	Secrets      []string       `json:"-" yaml:"secrets,omitempty"` // webhook: more keys while keys are changed; each signs
	To           []string       `json:"to,omitempty" yaml:"to,omitempty"`
	From         string         `json:"from,omitempty" yaml:"from,omitempty"`
	Username     string         `json:"username,omitempty" yaml:"username,omitempty"`
	Password     string         `json:"-" yaml:"password,omitempty"`
	Severity     fleet.Severity `json:"severity,omitempty" yaml:"severity,omitempty"`           // the mildest that it hears of; default low
	Changes      []string       `json:"changes,omitempty" yaml:"changes,omitempty"`             // default DefaultChanges
	AllowPrivate bool           `json:"allow_private,omitempty" yaml:"allow_private,omitempty"` // may be on a private or loopback address
}

// keys are the secrets that sign.
func (r Receiver) keys() []string {
	var out []string
	if r.Secret != "" {
		out = append(out, r.Secret)
	}
	return append(out, r.Secrets...)
}

// Config says who is told, and how patiently. The zero value of every field
// but Receivers is DefaultConfig's.
type Config struct {
	Receivers   []Receiver
	Policy      Policy
	Tick        time.Duration // how often escalations, reminders and ended silences are looked for
	BaseURL     string        // of the dashboard, for links; empty: no links
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
		Tick: 5 * time.Second, Timeout: 10 * time.Second, MaxAttempts: 12, Window: 64, InFlight: 4, QueueLimit: 10_000,
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
	}{{&c.Tick, d.Tick}, {&c.Timeout, d.Timeout}, {&c.GiveUpAfter, d.GiveUpAfter}, {&c.MaxWait, d.MaxWait}} {
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
		receivers[i] = r.withDefaults()
	}
	c.Receivers = receivers
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	return c
}

func (r Receiver) withDefaults() Receiver {
	if r.Severity == "" {
		r.Severity = fleet.Low
	}
	if len(r.Changes) == 0 {
		r.Changes = slices.Clone(DefaultChanges)
		if r.Kind == KindPager {
			r.Changes = append(r.Changes, "acknowledged")
		}
	}
	if r.Kind == KindPager && r.URL == "" {
		r.URL = PagerDutyURL
	}
	return r
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
	var names []string
	for _, r := range c.Receivers {
		names = append(names, r.Name)
	}
	if err := c.Policy.Validate(names); err != nil {
		errs = append(errs, err)
	}
	if c.BaseURL != "" {
		if u, err := url.Parse(c.BaseURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			errs = append(errs, fmt.Errorf("base url %q: is not an http or https address", c.BaseURL))
		}
	}
	return errors.Join(errs...)
}

// schemes that the address of a kind may have.
var schemes = map[string][]string{
	KindWebhook: {"http", "https"}, KindSlack: {"http", "https"}, KindTeams: {"http", "https"}, KindPager: {"http", "https"},
	KindEmail: {"smtp", "smtps"}, KindSyslog: {"udp", "tcp", "tls"},
}

func (r Receiver) faults() []error {
	var errs []error
	if !slices.Contains(Kinds, r.Kind) {
		errs = append(errs, fmt.Errorf("kind: %q is not one of %s", r.Kind, strings.Join(Kinds, ", ")))
	}
	switch {
	case r.Kind == KindShout:
		if err := checkShoutrrr(r.URL); err != nil {
			errs = append(errs, fmt.Errorf("url: %w", err))
		}
		if !r.AllowPrivate {
			errs = append(errs, errors.New("allow_private: must be true: shoutrrr dials by itself and can't be kept from private addresses"))
		}
	case r.Kind != KindPager || r.URL != "":
		allowed := schemes[r.Kind]
		if allowed == nil {
			allowed = schemes[KindWebhook]
		}
		if err := checkURL(r.URL, allowed); err != nil {
			errs = append(errs, fmt.Errorf("url: %w", err))
		}
	}
	errs = append(errs, r.secretFaults()...)
	if r.Kind == KindEmail {
		errs = append(errs, r.mailFaults()...)
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

func (r Receiver) secretFaults() []error {
	var errs []error
	switch r.Kind {
	case KindPager:
		if len(r.Secret) < 16 || strings.ContainsAny(r.Secret, " \r\n") {
			errs = append(errs, errors.New("secret: must be the routing key (integration key) of the service"))
		}
	default:
		for _, key := range r.keys() {
			if err := checkSecret(key); err != nil {
				errs = append(errs, fmt.Errorf("secret: %w", err))
			}
		}
		if r.Kind == KindWebhook && len(r.keys()) == 0 {
			errs = append(errs, errors.New("secret: missing: webhooks are signed; make one with: printf 'whsec_%s' \"$(head -c 24 /dev/urandom | base64)\""))
		}
	}
	if len(r.Secrets) > 4 {
		errs = append(errs, errors.New("secrets: at most 4"))
	}
	return errs
}

func (r Receiver) mailFaults() []error {
	var errs []error
	if _, err := mail.ParseAddress(r.From); err != nil {
		errs = append(errs, errors.New("from: is not a mail address"))
	}
	if len(r.To) == 0 || len(r.To) > 50 {
		errs = append(errs, errors.New("to: name 1 to 50 mail addresses"))
	}
	for _, to := range r.To {
		if _, err := mail.ParseAddress(to); err != nil {
			errs = append(errs, fmt.Errorf("to: %q is not a mail address", to))
		}
	}
	return errs
}

// checkURL gives no part of the address away: the path of a chat address is
// its password.
func checkURL(text string, allowed []string) error {
	if text == "" {
		return errors.New("missing")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("is not an address")
	case !slices.Contains(allowed, u.Scheme):
		return fmt.Errorf("scheme %q is not %s", u.Scheme, strings.Join(allowed, " or "))
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

// hears says whether the receiver hears of such a change, and if not, why.
func (r Receiver) hears(severity fleet.Severity, change string) (bool, string) {
	if severity.Rank() < r.Severity.Rank() {
		return false, fmt.Sprintf("%s hears only of %s and worse", r.Name, r.Severity)
	}
	if change != changeUnacknowledged && change != changeReminder && !slices.Contains(r.Changes, change) {
		return false, fmt.Sprintf("%s hears only of the changes %s", r.Name, strings.Join(r.Changes, ", "))
	}
	return true, ""
}
