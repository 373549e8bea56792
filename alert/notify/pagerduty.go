package notify

import "cordon/internal/fleet"

// PagerDutyURL is where the Events API v2 takes events.
const PagerDutyURL = "https://events.pagerduty.com/v2/enqueue"

// PagerDutyEvent is an event of the Events API v2.
type PagerDutyEvent struct {
	RoutingKey string            `json:"routing_key"`
	Action     string            `json:"event_action"` // trigger, acknowledge, resolve
	DedupKey   string            `json:"dedup_key"`    // one alert for each incident
	Client     string            `json:"client"`
	ClientURL  string            `json:"client_url,omitempty"`
	Payload    *PagerDutyPayload `json:"payload,omitempty"`
	Links      []PagerDutyLink   `json:"links,omitempty"`
}

// PagerDutyPayload says what is wrong.
type PagerDutyPayload struct {
	Summary   string         `json:"summary"`
	Source    string         `json:"source"`
	Severity  string         `json:"severity"` // critical, error, warning, info
	Timestamp string         `json:"timestamp"`
	Component string         `json:"component,omitempty"`
	Group     string         `json:"group,omitempty"`
	Class     string         `json:"class,omitempty"`
	Details   map[string]any `json:"custom_details,omitempty"`
}

// PagerDutyLink is shown with the alert.
type PagerDutyLink struct {
	Href string `json:"href"`
	Text string `json:"text"`
}

var pagerSeverity = map[fleet.Severity]string{
	fleet.Informational: "info", fleet.Low: "info", fleet.Medium: "warning", fleet.High: "error", fleet.Critical: "critical",
}

func pagerEvent(it item, key, base string) PagerDutyEvent {
	c := it.Change
	inc := c.Incident
	e := PagerDutyEvent{RoutingKey: key, Action: "trigger", DedupKey: "cordon-" + inc.ID, Client: "Cordon", ClientURL: base}
	if it.Test {
		e.DedupKey = "cordon-" + c.ID
	}
	if url := link(base, inc); url != "" {
		e.Links = []PagerDutyLink{{url, "Open " + inc.ID}}
	}
	switch c.Change {
	case "acknowledged":
		e.Action = "acknowledge"
	case "resolved", "merged":
		e.Action = "resolve"
	}
	b := briefOf(it, base)
	details := map[string]any{"why": b.Why, "id": c.ID}
	for _, f := range b.Facts {
		details[f.Name] = f.Value
	}
	class := ""
	if len(inc.Rules) > 0 {
		class = inc.Rules[0]
	}
	e.Payload = &PagerDutyPayload{
		Summary: cut(headline(c)+": "+b.Why, 1024), Source: inc.Device, Severity: pagerSeverity[inc.Severity],
		Timestamp: stamp(it.CreatedAt), Component: inc.Device, Group: inc.Cohort, Class: class, Details: details,
	}
	if e.Payload.Severity == "" {
		e.Payload.Severity = "warning"
	}
	return e
}
