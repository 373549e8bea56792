package notify

import (
	"strconv"
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
func slackMessage(items []item, base string) Message {
	if len(items) > 1 {
		return slackDigest(items, base)
	}
	it := items[0]
	b := briefOf(it, base)
	m := Message{
		Text: cut(escape(b.Head+": "+b.Why), slackText),
		Blocks: []Block{
			{Type: "header", Text: &Text{"plain_text", cut(b.Head, slackHeader)}},
			{Type: "section", Text: &Text{"plain_text", cut(orDash(b.Why), slackSection)}},
		},
	}
	var fields []Text
	for _, f := range b.Facts {
		fields = append(fields, Text{"mrkdwn", "*" + f.Name + "*\n" + cut(escape(f.Value), slackField)})
	}
	m.Blocks = append(m.Blocks, Block{Type: "section", Fields: fields})
	if b.Link != "" {
		m.Text = cut(m.Text, slackText-len(b.Link)-4) + " <" + b.Link + ">"
		m.Blocks = append(m.Blocks, Block{Type: "actions", Elements: []Element{{
			Type: "button", Text: &Text{"plain_text", "Open " + it.Change.Incident.ID}, URL: b.Link,
		}}})
	}
	m.Blocks = append(m.Blocks, Block{Type: "context", Elements: []Element{{Type: "mrkdwn", Text: escape(b.Context)}}})
	return m
}

// slackLines is how many changes a digest shows one by one.
const slackLines = 20

func slackDigest(items []item, base string) Message {
	head := digestHead(items)
	lines := ""
	for i, line := range digestLines(items) {
		if i == slackLines {
			lines += "… and " + strconv.Itoa(len(items)-slackLines) + " more\n"
			break
		}
		text := escape(cut(line, 120))
		if url := link(base, items[i].Change.Incident); url != "" {
			text = "<" + url + "|" + items[i].Change.Incident.ID + "> " + text
		}
		lines += "• " + text + "\n"
	}
	return Message{Text: cut(escape(head), slackText), Blocks: []Block{
		{Type: "header", Text: &Text{"plain_text", cut(head, slackHeader)}},
		{Type: "section", Text: &Text{"mrkdwn", cut(lines, slackSection)}},
	}}
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
