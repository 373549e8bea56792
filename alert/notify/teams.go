package notify

import "strings"

// TeamsMessage is what a Teams workflow ("when a webhook request is received")
// posts: an Adaptive Card.
type TeamsMessage struct {
	Type        string            `json:"type"`
	Attachments []TeamsAttachment `json:"attachments"`
}

// TeamsAttachment holds a card.
type TeamsAttachment struct {
	ContentType string    `json:"contentType"`
	Content     TeamsCard `json:"content"`
}

// TeamsCard is an Adaptive Card.
type TeamsCard struct {
	Schema  string        `json:"$schema"`
	Type    string        `json:"type"`
	Version string        `json:"version"`
	Body    []TeamsBlock  `json:"body"`
	Actions []TeamsAction `json:"actions,omitempty"`
}

// TeamsBlock is a TextBlock or a FactSet.
type TeamsBlock struct {
	Type     string      `json:"type"`
	Text     string      `json:"text,omitempty"`
	Size     string      `json:"size,omitempty"`
	Weight   string      `json:"weight,omitempty"`
	Wrap     bool        `json:"wrap,omitempty"`
	IsSubtle bool        `json:"isSubtle,omitempty"`
	Facts    []TeamsFact `json:"facts,omitempty"`
}

// TeamsFact is a line of a FactSet.
type TeamsFact struct {
	Title string `json:"title"`
	Value string `json:"value"`
}

// TeamsAction opens an address.
type TeamsAction struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	URL   string `json:"url"`
}

// teamsText takes the marks out that Teams would show as links or emphasis.
var teamsText = strings.NewReplacer("[", "\\[", "]", "\\]", "*", "\\*", "_", "\\_", "`", "\\`")

const maxTeams = 4000

func teamsMessage(items []item, base string) TeamsMessage {
	card := TeamsCard{Schema: "http://adaptivecards.io/schemas/adaptive-card.json", Type: "AdaptiveCard", Version: "1.4"}
	text := func(block TeamsBlock, value string) {
		block.Type, block.Text, block.Wrap = "TextBlock", cut(teamsText.Replace(orDash(value)), maxTeams), true
		card.Body = append(card.Body, block)
	}
	if len(items) > 1 {
		text(TeamsBlock{Size: "Large", Weight: "Bolder"}, digestHead(items))
		for _, line := range digestLines(items) {
			text(TeamsBlock{}, cut(line, 300))
		}
		if base != "" {
			card.Actions = []TeamsAction{{"Action.OpenUrl", "Open incidents", base + "/incidents"}}
		}
	} else {
		b := briefOf(items[0], base)
		text(TeamsBlock{Size: "Large", Weight: "Bolder"}, b.Head)
		text(TeamsBlock{}, b.Why)
		set := TeamsBlock{Type: "FactSet"}
		for _, f := range b.Facts {
			set.Facts = append(set.Facts, TeamsFact{f.Name, teamsText.Replace(cut(f.Value, 500))})
		}
		card.Body = append(card.Body, set)
		text(TeamsBlock{IsSubtle: true, Size: "Small"}, b.Context)
		if b.Link != "" {
			card.Actions = []TeamsAction{{"Action.OpenUrl", "Open " + items[0].Change.Incident.ID, b.Link}}
		}
	}
	return TeamsMessage{Type: "message", Attachments: []TeamsAttachment{{"application/vnd.microsoft.card.adaptive", card}}}
}
