package notify

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

func TestSlack_messageIsReadableAndHarmless(t *testing.T) {
	it := newItem(change(7, 1, "opened"), "chat", time.Unix(0, 0).UTC())
	contentType, raw, err := body([]item{it}, "msg_x", Receiver{Kind: KindSlack}, "https://cordon.example")
	require.NoError(t, err)
	require.Contains(t, contentType, "application/json")
	text := string(raw)
	for _, want := range []string{
		"[HIGH] INC-7 opened on pump_7", "cpu_temp_celsius 91.5 °C", "limit 85 °C", "Processor is too hot (cpu-hot)",
		"https://cordon.example/incidents/INC-7", "Open INC-7", "&lt;!channel&gt; &amp; co",
	} {
		require.Contains(t, text, want)
	}
	var m Message
	require.NoError(t, json.Unmarshal(raw, &m))
	require.NotContains(t, m.Text, "<!channel>")
	require.NotContains(t, m.Text, "<https://evil")
	for _, b := range m.Blocks {
		for _, f := range b.Fields {
			require.NotContains(t, f.Text, "<!")
		}
	}
}

func TestSlack_lengthsAreBounded(t *testing.T) {
	c := change(7, 1, "opened")
	long := strings.Repeat("&<é", 5000)
	c.Incident.Title, c.Incident.Device, c.Incident.Assignee = long, long, long
	c.Finding.Explanation.Sentence, c.Finding.Actor, c.Finding.RuleTitle = long, long, long
	m := slackMessage([]item{newItem(c, "chat", time.Now())}, "https://cordon.example")
	require.LessOrEqual(t, len([]rune(m.Text)), 3010)
	require.LessOrEqual(t, len(m.Blocks), 50)
	for _, b := range m.Blocks {
		require.LessOrEqual(t, len(b.Fields), 10)
		for _, f := range b.Fields {
			require.LessOrEqual(t, len([]rune(f.Text)), 2000)
		}
		if b.Text != nil {
			require.LessOrEqual(t, len([]rune(b.Text.Text)), 3000)
		}
		if b.Type == "header" {
			require.LessOrEqual(t, len([]rune(b.Text.Text)), 150)
		}
	}
}

func TestSlack_everyChangeHasAHeadline(t *testing.T) {
	for _, kind := range AllChanges {
		c := change(1, 1, kind)
		c.Incident.Verdict, c.Finding = fleet.FalsePositive, nil
		m := slackMessage([]item{newItem(c, "chat", time.Now())}, "")
		require.Contains(t, m.Text, "INC-1", kind)
		require.NotContains(t, m.Text, "{", kind)
	}
}

func TestConfig_validate(t *testing.T) {
	good := hook("soc", "https://hooks.example/x")
	require.NoError(t, Config{Receivers: []Receiver{good}}.Validate())
	for want, r := range map[string]Receiver{
		`receiver "soc": url: scheme "ftp"`:          {Name: "soc", Kind: "slack", URL: "ftp://x/secretpath"},
		`receiver "soc": url: missing`:               {Name: "soc", Kind: "slack"},
		`receiver "soc": url: has no host`:           {Name: "soc", Kind: "slack", URL: "https:///secretpath"},
		`receiver "soc": secret: missing`:            {Name: "soc", Kind: "webhook", URL: "https://x"},
		`receiver "soc": secret: does not begin`:     {Name: "soc", Kind: "webhook", URL: "https://x", Secret: "secretpath"},
		`receiver "soc": secret: is not base64`:      {Name: "soc", Kind: "webhook", URL: "https://x", Secret: "whsec_!secretpath"},
		`receiver "soc": secret: has 3 bytes`:        {Name: "soc", Kind: "webhook", URL: "https://x", Secret: "whsec_AAAA"},
		`receiver "soc": kind: "mail"`:               {Name: "soc", Kind: "mail", URL: "https://x"},
		`receiver "soc": severity: severity "bad"`:   {Name: "soc", Kind: "slack", URL: "https://x", Severity: "bad"},
		`receiver "soc": changes: "closed"`:          {Name: "soc", Kind: "slack", URL: "https://x", Changes: []string{"closed"}},
		`receiver 1: name: "No good" is not 1 to 32`: {Name: "No good", Kind: "slack", URL: "https://x"},
	} {
		err := Config{Receivers: []Receiver{r}}.Validate()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secretpath")
	}
	require.ErrorContains(t, Config{Receivers: []Receiver{good, good}}.Validate(), "used twice")
	require.ErrorContains(t, Config{BaseURL: "cordon"}.Validate(), "base url")
}

func TestPublic(t *testing.T) {
	for _, a := range []string{
		"127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
		"::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::127.0.0.1", "192.0.2.1",
	} {
		require.False(t, public(netip.MustParseAddr(a)), a)
	}
	for _, a := range []string{"1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"} {
		require.True(t, public(netip.MustParseAddr(a)), a)
	}
}

func TestBackoff_growsAndIsBounded(t *testing.T) {
	var sum time.Duration
	for n := 1; n < 12; n++ {
		wait := Backoff(n)
		require.GreaterOrEqual(t, wait, 4*time.Second)
		require.LessOrEqual(t, wait, 18*time.Minute)
		sum += wait
	}
	require.Greater(t, sum, 40*time.Minute)
	require.Less(t, sum, 90*time.Minute)
	require.LessOrEqual(t, Backoff(1_000_000), 18*time.Minute)
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	require.Equal(t, 120*time.Second, retryAfter("120", now))
	require.Equal(t, time.Minute, retryAfter(now.Add(time.Minute).Format("Mon, 02 Jan 2006 15:04:05 GMT"), now))
	for _, bad := range []string{"", "soon", "-5", "99999999999999"} {
		require.Zero(t, retryAfter(bad, now), bad)
	}
}
