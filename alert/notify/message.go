package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// What an item carries of an incident: enough to act, never the whole
// history.
const (
	maxTimeline = 20
	maxListed   = 20
	maxEvidence = 20
)

// item is a work item on DELIVERIES.
type item struct {
	ID        string               `json:"id"` // <change>.<receiver>
	Receiver  string               `json:"receiver"`
	CreatedAt time.Time            `json:"created_at"`
	Test      bool                 `json:"test,omitempty"`
	Group     string               `json:"group,omitempty"` // goes out together with others of it
	Wait      time.Duration        `json:"wait,omitempty"`
	Interval  time.Duration        `json:"interval,omitempty"`
	Change    fleet.IncidentChange `json:"change"`
}

// newItem bounds what is sent.
func newItem(change fleet.IncidentChange, receiver string, now time.Time) item {
	inc := &change.Incident
	inc.Timeline = newest(inc.Timeline, maxTimeline)
	inc.FindingIDs = newest(inc.FindingIDs, maxListed)
	inc.Devices = inc.Devices[:min(len(inc.Devices), maxListed)]
	inc.Children = inc.Children[:min(len(inc.Children), maxListed)]
	inc.Actors = newest(inc.Actors, maxListed)
	inc.Rules = newest(inc.Rules, maxListed)
	inc.Techniques = newest(inc.Techniques, maxListed)
	if change.Finding != nil {
		f := *change.Finding
		f.Explanation.Readings = newest(f.Explanation.Readings, maxEvidence)
		f.Explanation.Events = newest(f.Explanation.Events, maxEvidence)
		change.Finding = &f
	}
	return item{ID: change.ID + "." + receiver, Receiver: receiver, CreatedAt: now, Change: change}
}

// webhookID is the item's id without full stops, which Standard Webhooks
// keeps as its separator.
func (it item) webhookID() string { return webhookID(it.ID) }

func webhookID(id string) string { return "msg_" + strings.ReplaceAll(id, ".", "_") }

func newest[T any](list []T, n int) []T {
	if over := len(list) - n; over > 0 {
		return slices.Clone(list[over:])
	}
	return list
}

// Event is the body of a webhook: a CloudEvents 1.0 event in structured
// JSON form.
type Event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"` // the change's id: the same for every receiver
	Source          string    `json:"source"`
	Type            string    `json:"type"` // cordon.incident.<change>
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            EventData `json:"data"`
}

// EventData is what an event tells.
type EventData struct {
	Change   string         `json:"change"`
	Actor    string         `json:"actor"`
	Summary  string         `json:"summary"`
	Link     string         `json:"link,omitempty"`
	Test     bool           `json:"test,omitempty"` // sent by a person who tries the receiver
	Incident fleet.Incident `json:"incident"`
	Finding  *fleet.Finding `json:"finding,omitempty"`
}

// ContentTypeEvent is the media type of a structured CloudEvent.
const ContentTypeEvent = "application/cloudevents+json; charset=utf-8"

func link(base string, inc fleet.Incident) string {
	if base == "" {
		return ""
	}
	return base + "/incidents/" + inc.ID
}

func event(it item, base string) Event {
	c := it.Change
	source := base
	if source == "" {
		source = "/cordon"
	}
	return Event{
		SpecVersion: "1.0", ID: c.ID, Source: source, Type: "cordon.incident." + c.Change, Subject: c.Incident.ID,
		Time: it.CreatedAt.UTC(), DataContentType: "application/json",
		Data: EventData{
			Change: c.Change, Actor: c.Actor, Summary: headline(c), Link: link(base, c.Incident), Test: it.Test,
			Incident: c.Incident, Finding: c.Finding,
		},
	}
}

// Digest is the body of a webhook that carries several changes: a CloudEvent
// of type cordon.digest whose data lists the events, oldest first.
type Digest struct {
	SpecVersion     string     `json:"specversion"`
	ID              string     `json:"id"`
	Source          string     `json:"source"`
	Type            string     `json:"type"`
	Time            time.Time  `json:"time"`
	DataContentType string     `json:"datacontenttype"`
	Data            DigestData `json:"data"`
}

// DigestData is what a digest tells.
type DigestData struct {
	Summary string  `json:"summary"`
	Events  []Event `json:"events"`
}

func digest(items []item, id, base string) Digest {
	d := Digest{
		SpecVersion: "1.0", ID: id, Type: "cordon.digest", Time: items[0].CreatedAt.UTC(), DataContentType: "application/json",
		Data: DigestData{Summary: digestHead(items)},
	}
	for _, it := range items {
		d.Data.Events = append(d.Data.Events, event(it, base))
	}
	d.Source = d.Data.Events[0].Source
	return d
}

// body renders what is posted to a receiver.
func body(items []item, id string, r Receiver, base string) (contentType string, raw []byte, err error) {
	var v any
	contentType = "application/json; charset=utf-8"
	switch r.Kind {
	case KindSlack:
		v = slackMessage(items, base)
	case KindTeams:
		v = teamsMessage(items, base)
	case KindPager:
		v = pagerEvent(items[0], r.Secret, base)
	default:
		contentType = ContentTypeEvent
		v = event(items[0], base)
		if len(items) > 1 {
			v = digest(items, id, base)
		}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", nil, fmt.Errorf("encode notification: %w", err)
	}
	return contentType, bytes.TrimRight(buf.Bytes(), "\n"), nil
}

// headline is one line that says what happened where.
func headline(c fleet.IncidentChange) string {
	inc := c.Incident
	what := map[string]string{
		"opened":       "opened",
		"escalated":    "is worse now",
		"finding":      "has a new finding",
		"acknowledged": "was acknowledged by " + c.Actor,
		"assigned":     "was assigned to " + inc.Assignee,
		"comment":      "was commented by " + c.Actor,
		"quarantined":  "device quarantined",
		"released":     "device released",
		"resolved":     "was resolved by " + c.Actor + " as " + strings.ReplaceAll(string(inc.Verdict), "_", " "),
		"reopened":     "was reopened by " + c.Actor,
		"merged":       "became part of " + inc.Parent,
		"flapping":     "comes and goes",
		"tagged":       "was tagged by " + c.Actor,

		changeUnacknowledged: "was acknowledged by nobody",
		changeReminder:       "is still open",
	}[c.Change]
	if c.Change == "assigned" && inc.Assignee == "" {
		what = "is assigned to nobody"
	}
	if what == "" {
		what = c.Change
	}
	return fmt.Sprintf("[%s] %s %s on %s", strings.ToUpper(string(inc.Severity)), inc.ID, what, inc.On())
}

// comparison puts what was seen beside what was expected.
func comparison(f *fleet.Finding) (seen, expected string) {
	if f == nil {
		return "", ""
	}
	e := f.Explanation
	unit := unitText(e.Unit)
	switch {
	case e.Metric != "":
		seen = e.Metric + " " + number(e.Value) + unit
	case e.Count > 0:
		seen = strconv.Itoa(e.Count) + " events"
		if e.Window > 0 {
			seen += " in " + e.Window.String()
		}
	}
	switch {
	case e.Expected != nil:
		expected = number(e.Expected.Low) + " to " + number(e.Expected.High) + unit
	case e.Threshold != nil && e.Metric != "":
		expected = "limit " + number(*e.Threshold) + unit
	case e.Threshold != nil:
		expected = "fewer than " + number(*e.Threshold)
	}
	return seen, expected
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) }

func unitText(unit string) string {
	switch unit {
	case "", "1":
		return ""
	case "Cel":
		return " °C"
	case "%":
		return " %"
	case "By":
		return " bytes"
	case "By/s":
		return " bytes/s"
	}
	return " " + unit
}

// testItem is what Test sends: a complete, recognisable example.
func testItem(r Receiver, now time.Time) item {
	limit := 85.0
	f := &fleet.Finding{
		ID: "test", Device: "test-device", RuleID: "test-rule", RuleVersion: "test", RuleTitle: "Test of the receiver",
		Mode: fleet.Alert, Evidence: fleet.Own, Severity: fleet.Medium,
		WindowStart: now.Add(-time.Minute), WindowEnd: now, ReceivedAt: now, DetectedAt: now,
		Explanation: fleet.Explanation{
			Sentence: "This is a test from Cordon: somebody tried this receiver, and no device is in trouble.",
			Metric:   "cpu_temp_celsius", Unit: "Cel", Value: 91.5, Threshold: &limit, Basis: "rule",
		},
	}
	inc := fleet.Incident{
		ID: "INC-0", Device: f.Device, Severity: f.Severity, State: fleet.Open, Title: f.Explanation.Sentence,
		Rules: []string{f.RuleID}, Findings: 1, FindingIDs: []string{f.ID}, FirstAt: f.WindowStart, LastAt: now,
		OpenedAt: now, UpdatedAt: now,
		Timeline: []fleet.TimelineEntry{{At: now, Kind: "opened", Actor: "rule:test-rule", Text: f.Explanation.Sentence}},
	}
	it := newItem(fleet.IncidentChange{
		ID: "test-" + strconv.FormatInt(now.UnixNano(), 36), Change: "opened", Incident: inc, Finding: f, Actor: "rule:test-rule",
	}, r.Name, now)
	it.Test = true
	return it
}
