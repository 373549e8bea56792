package simulate

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	webhook "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"cordon/internal/fleet"
)

// Limits of the chat.
const (
	maxChat     = 200
	maxChatBody = 1 << 20
)

// Where the chat takes messages.
const (
	ChatWebhookPath = "/webhook" // signed (Standard Webhooks), CloudEvents body
	ChatSlackPath   = "/slack"   // Slack's incoming webhook, which has no signature
)

// ChatReceiver is a chat channel on this host: it takes what Cordon sends,
// checks the signature, and shows the last 200 messages as a page.
type ChatReceiver struct {
	verify *webhook.Webhook
	clock  func() time.Time
	mux    *http.ServeMux

	mu       sync.Mutex
	messages []ChatMessage // oldest first
	refused  int
}

// ChatMessage is one message as the page shows it.
type ChatMessage struct {
	ID         string // webhook-id; empty for Slack messages
	ReceivedAt time.Time
	Kind       string // webhook, slack
	Signed     bool   // the signature is valid
	Copies     int    // how often it came
	Title      string
	Text       string
	Facts      []ChatFact
	Severity   string
	Link       string
	Raw        string
}

// ChatFact is a line such as Seen: 97 %.
type ChatFact struct{ Name, Value string }

// NewChatReceiver makes a chat for messages signed with secret
// (whsec_<base64>).
func NewChatReceiver(secret string, clock func() time.Time) (*ChatReceiver, error) {
	verify, err := webhook.NewWebhook(secret)
	if err != nil {
		return nil, fmt.Errorf("read webhook secret: %w", err)
	}
	if clock == nil {
		clock = time.Now
	}
	c := &ChatReceiver{verify: verify, clock: clock, mux: http.NewServeMux()}
	c.mux.HandleFunc("GET /{$}", c.page)
	c.mux.HandleFunc("GET /messages.json", c.list)
	c.mux.HandleFunc("POST "+ChatWebhookPath, c.takeWebhook)
	c.mux.HandleFunc("POST "+ChatSlackPath, c.takeSlack)
	return c, nil
}

// ServeHTTP takes messages and shows them.
func (c *ChatReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

// Messages are the last 200, newest first.
func (c *ChatReceiver) Messages() []ChatMessage {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Clone(c.messages)
	slices.Reverse(out)
	return out
}

// Refused is the number of messages without a valid signature.
func (c *ChatReceiver) Refused() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

func (c *ChatReceiver) takeWebhook(w http.ResponseWriter, r *http.Request) {
	raw, ok := body(w, r)
	if !ok {
		return
	}
	if err := c.verify.Verify(raw, r.Header); err != nil {
		c.refuse(w, "signature: "+err.Error(), http.StatusUnauthorized)
		return
	}
	m := ChatMessage{ID: r.Header.Get(webhook.HeaderWebhookID), Kind: "webhook", Signed: true}
	if err := m.event(raw); err != nil {
		c.refuse(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.keep(m, raw)
	w.WriteHeader(http.StatusNoContent)
}

func (c *ChatReceiver) takeSlack(w http.ResponseWriter, r *http.Request) {
	raw, ok := body(w, r)
	if !ok {
		return
	}
	m := ChatMessage{Kind: "slack"}
	if id := r.Header.Get(webhook.HeaderWebhookID); id != "" {
		if err := c.verify.Verify(raw, r.Header); err != nil {
			c.refuse(w, "signature: "+err.Error(), http.StatusUnauthorized)
			return
		}
		m.ID, m.Signed = id, true
	}
	if err := m.slack(raw); err != nil {
		c.refuse(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.keep(m, raw)
	_, _ = io.WriteString(w, "ok") // what Slack answers; the client may be gone
}

func body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxChatBody))
	if err != nil {
		http.Error(w, "message cannot be read", http.StatusRequestEntityTooLarge)
		return nil, false
	}
	return raw, true
}

func (c *ChatReceiver) refuse(w http.ResponseWriter, why string, status int) {
	c.mu.Lock()
	c.refused++
	c.mu.Unlock()
	http.Error(w, why, status)
}

func (c *ChatReceiver) keep(m ChatMessage, raw []byte) {
	m.ReceivedAt, m.Copies = c.clock(), 1
	var pretty bytes.Buffer
	if json.Indent(&pretty, raw, "", "  ") == nil {
		m.Raw = pretty.String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.messages {
		if m.ID != "" && c.messages[i].ID == m.ID {
			c.messages[i].Copies++
			return
		}
	}
	c.messages = append(c.messages, m)
	if over := len(c.messages) - maxChat; over > 0 {
		c.messages = slices.Delete(c.messages, 0, over)
	}
}

// event reads a CloudEvents body.
func (m *ChatMessage) event(raw []byte) error {
	var e struct {
		Type    string `json:"type"`
		Subject string `json:"subject"`
		Data    struct {
			Link     string         `json:"link"`
			URL      string         `json:"url"`
			Summary  string         `json:"summary"`
			Incident fleet.Incident `json:"incident"`
			Finding  *fleet.Finding `json:"finding"`
		} `json:"data"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("body is not a CloudEvents event: %w", err)
	}
	change := strings.TrimPrefix(e.Type, "cordon.incident.")
	inc := e.Data.Incident
	m.Title = strings.TrimSpace(inc.ID + " " + change)
	if inc.Device != "" {
		m.Title += " on " + inc.Device
	}
	m.Severity, m.Text = string(inc.Severity), inc.Title
	if m.Link = e.Data.Link; m.Link == "" {
		m.Link = e.Data.URL
	}
	if f := e.Data.Finding; f != nil {
		if f.Explanation.Sentence != "" {
			m.Text = f.Explanation.Sentence
		}
		m.fact("Rule", f.RuleTitle)
		m.fact("Actor", f.Actor)
		if x := f.Explanation; x.Metric != "" {
			m.fact("Seen", fmt.Sprintf("%s %.4g %s", x.Metric, x.Value, x.Unit))
			if x.Expected != nil {
				m.fact("Expected", fmt.Sprintf("%.4g to %.4g %s", x.Expected.Low, x.Expected.High, x.Unit))
			}
		}
	}
	m.fact("Cohort", inc.Cohort)
	m.fact("State", string(inc.State))
	return nil
}

// slack reads the payload of a Slack incoming webhook.
func (m *ChatMessage) slack(raw []byte) error {
	type text struct {
		Text string `json:"text"`
	}
	var p struct {
		Text   string `json:"text"`
		Blocks []struct {
			Type     string `json:"type"`
			Text     text   `json:"text"`
			Fields   []text `json:"fields"`
			Elements []struct {
				URL string `json:"url"`
			} `json:"elements"`
		} `json:"blocks"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("body is not a Slack message: %w", err)
	}
	m.Text = p.Text
	for _, b := range p.Blocks {
		switch b.Type {
		case "header":
			m.Title, m.Text = b.Text.Text, ""
		case "section":
			if b.Text.Text != "" {
				m.Text = strings.TrimSpace(m.Text + "\n" + b.Text.Text)
			}
			for _, f := range b.Fields {
				name, value, _ := strings.Cut(plain(f.Text), "\n")
				m.fact(strings.Trim(name, "*"), value)
				if strings.Trim(name, "*") == "Severity" {
					m.Severity = value
				}
			}
		case "actions":
			for _, e := range b.Elements {
				m.Link = e.URL
			}
		}
	}
	if m.Title == "" {
		m.Title, m.Text = m.Text, ""
	}
	return nil
}

func plain(text string) string {
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(text)
}

func (m *ChatMessage) fact(name, value string) {
	if value != "" {
		m.Facts = append(m.Facts, ChatFact{name, value})
	}
}

//go:embed chat.html
var chatHTML string

var chatPage = template.Must(template.New("chat").Parse(chatHTML))

func (c *ChatReceiver) page(w http.ResponseWriter, _ *http.Request) {
	var out bytes.Buffer
	err := chatPage.Execute(&out, map[string]any{"Messages": c.Messages(), "Refused": c.Refused(), "Now": c.clock()})
	if err != nil {
		http.Error(w, "page cannot be shown", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(out.Bytes()) // the browser may be gone
}

func (c *ChatReceiver) list(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"items": c.Messages(), "refused": c.Refused()}) // the client may be gone
}
