package notify

import (
	"strings"

	"cordon/internal/fleet"
)

// Slack refuses longer ones.
const (
	slackHeader  = 150
	slackSection = 2900
	slackField   = 1900
	slackText    = 3000
)

// Message is the payload of a Slack incoming webhook.
type Message struct {
	Text        string  `json:"text"` // what notifications and screen readers show
	Blocks      []Block `json:"blocks"`
	UnfurlLinks bool    `json:"unfurl_links"`
}

// Block is one block of a message.
type Block struct {
	Type     string    `json:"type"`
	Text     *Text     `json:"text,omitempty"`
	Fields   []Text    `json:"fields,omitempty"`
	Elements []Element `json:"elements,omitempty"`
}

// Text is a text object.
type Text struct {
	Type string `json:"type"` // plain_text, mrkdwn
	Text string `json:"text"`
}

// Element is a part of a context or actions block.
type Element struct {
	Type string `json:"type"` // mrkdwn, button
	Text any    `json:"text"` // string, or *Text for a button
	URL  string `json:"url,omitempty"`
}

var severityMark = map[fleet.Severity]string{
	fleet.Informational: "⚪", fleet.Low: "🔵", fleet.Medium: "🟡", fleet.High: "🟠", fleet.Critical: "🔴",
}

// slackMessage says what, where, how bad, why, expected against seen, and
// where to look.
func slackMessage(it item, base string) Message {
	c := it.Change
	inc := c.Incident
	head := headline(c)
	if it.Test {
		head = "[TEST] " + head
	}
	if mark := severityMark[inc.Severity]; mark != "" {
		head = mark + " " + head
	}
	why := inc.Title
	if c.Finding != nil && c.Finding.Explanation.Sentence != "" {
		why = c.Finding.Explanation.Sentence
	}
	if c.Change == "quarantined" || c.Change == "released" || c.Change == "comment" {
		if n := len(inc.Timeline); n > 0 {
			why = inc.Timeline[n-1].Text
		}
	}
	if c.Change == "resolved" && inc.Reason != "" {
		why = inc.Reason
	}
	m := Message{
		Text: cut(escape(head+": "+why), slackText),
		Blocks: []Block{
			{Type: "header", Text: &Text{"plain_text", cut(head, slackHeader)}},
			{Type: "section", Text: &Text{"plain_text", cut(orDash(why), slackSection)}},
			{Type: "section", Fields: slackFields(c)},
		},
	}
	if url := link(base, inc); url != "" {
		m.Text = cut(m.Text, slackText-len(url)-4) + " <" + url + ">"
		m.Blocks = append(m.Blocks, Block{Type: "actions", Elements: []Element{{
			Type: "button", Text: &Text{"plain_text", "Open " + inc.ID}, URL: url,
		}}})
	}
	m.Blocks = append(m.Blocks, Block{Type: "context", Elements: []Element{{Type: "mrkdwn", Text: escape(slackContext(c))}}})
	return m
}

func slackFields(c fleet.IncidentChange) []Text {
	inc := c.Incident
	var fields []Text
	add := func(name, value string) {
		if value != "" && len(fields) < 10 {
			fields = append(fields, Text{"mrkdwn", "*" + name + "*\n" + cut(escape(value), slackField)})
		}
	}
	where := inc.Device
	if inc.Cohort != "" {
		where += " (cohort " + inc.Cohort + ")"
	}
	add("Device", where)
	add("Severity", string(inc.Severity))
	seen, expected := comparison(c.Finding)
	add("Seen", seen)
	add("Expected", expected)
	if c.Finding != nil {
		add("Rule", c.Finding.RuleTitle+" ("+c.Finding.RuleID+")")
		add("Actor", c.Finding.Actor)
		add("Technique", c.Finding.Technique)
	} else {
		add("Rules", strings.Join(newest(inc.Rules, 5), ", "))
		add("Actors", strings.Join(newest(inc.Actors, 5), ", "))
	}
	add("State", string(inc.State))
	add("Assigned to", inc.Assignee)
	return fields
}

func slackContext(c fleet.IncidentChange) string {
	const layout = "2006-01-02 15:04:05 UTC"
	parts := []string{"observed " + c.Incident.LastAt.UTC().Format(layout)}
	if f := c.Finding; f != nil && f.Explanation.ScoreText != "" {
		parts = append(parts, cut(f.Explanation.ScoreText, 300))
	}
	if c.Incident.Findings > 1 {
		parts = append(parts, number(float64(c.Incident.Findings))+" findings")
	}
	return strings.Join(append(parts, c.ID), " · ")
}

// escaper makes text harmless in Slack's mrkdwn: no links, no mentions. Marks
// of emphasis only change looks, and what stands for them could not be copied.
var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func escape(text string) string { return escaper.Replace(text) }

func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

// cut bounds a text to n runes, and does not end within an escaped
// character.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	text = string(runes[:n-1])
	if i := strings.LastIndexByte(text, '&'); i >= 0 && len(text)-i < 5 && !strings.Contains(text[i:], ";") {
		text = text[:i]
	}
	return text + "…"
}
