package notify

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	webhook "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// tell puts an incident into its bucket and its change on the stream, as the
// incident stage does.
func (b *bench) tell(kind string, n int, inc fleet.Incident) {
	b.t.Helper()
	if inc.State == "" {
		inc.State = fleet.Open
	}
	kv, err := b.bus.Bucket(b.t.Context(), bus.BucketIncident)
	require.NoError(b.t, err)
	raw, err := json.Marshal(inc)
	require.NoError(b.t, err)
	_, err = kv.Put(b.t.Context(), inc.ID, raw)
	require.NoError(b.t, err)
	if inc.State != fleet.Resolved {
		b.await("incident known", func() bool { got, ok := b.svc.incidents.get(inc.ID); return ok && got.State == inc.State })
	}
	c := change(int(inc.Number), n, kind)
	c.Incident = inc
	c.Finding.Severity = inc.Severity
	b.publish(c)
}

func incidentOf(number uint64, severity fleet.Severity, device string) fleet.Incident {
	return fleet.Incident{
		ID: fleet.IncidentID(number), Number: number, Device: device, Cohort: "pumps", Site: "hall-3", Severity: severity,
		Title: "Something on " + device, Rules: []string{"cpu-hot"}, OpenedAt: time.Now(),
	}
}

func TestASilencedIncidentIsToldToNobodyUntilTheSilenceEnds(t *testing.T) {
	tg := newTarget(t, status(200))
	b := newBench(t, hook("soc", tg.URL))
	b.start()
	sil, err := b.svc.AddSilence(t.Context(), fleet.Silence{
		Match: fleet.Match{Sites: []string{"hall-3"}}, EndsAt: time.Now().Add(time.Hour), Owner: "ann", Reason: "works on the cooling", Maintenance: true,
	})
	require.NoError(t, err)
	b.tell("opened", 1, incidentOf(1, fleet.High, "p1"))
	b.await("held", func() bool { return b.delivery("INC-1.1.soc").State == stateSuppressed })
	require.Contains(t, b.delivery("INC-1.1.soc").Why, "in maintenance by ann")
	other := incidentOf(2, fleet.High, "p2")
	other.Site = "hall-4"
	b.tell("opened", 1, other)
	b.await("other", func() bool { return len(tg.seen()) == 1 })

	_, err = b.svc.EndSilence(t.Context(), sil.ID, "ann")
	require.NoError(t, err)
	b.await("told when it ended", func() bool { return b.delivery("INC-1.1.soc").State == stateDelivered })
	require.Equal(t, []string{"INC-2.1", "INC-1.1"}, tg.ids())
}

func TestAResolvedNoticeReachesWhoeverGotTheAlertInSpiteOfASilence(t *testing.T) {
	tg := newTarget(t, status(200))
	b := newBench(t, hook("soc", tg.URL))
	b.start()
	b.tell("opened", 1, incidentOf(1, fleet.High, "p1"))
	b.idle()
	_, err := b.svc.AddSilence(t.Context(), fleet.Silence{Match: fleet.Match{Devices: []string{"p1"}}, EndsAt: time.Now().Add(time.Hour), Owner: "ann", Reason: "x"})
	require.NoError(t, err)
	resolved := incidentOf(1, fleet.Low, "p1")
	resolved.State = fleet.Resolved
	b.tell("resolved", 2, resolved)
	b.idle()
	b.await("resolved", func() bool { return len(tg.seen()) == 2 })
	require.Equal(t, []string{"INC-1.1", "INC-1.2"}, tg.ids())

	untold := incidentOf(2, fleet.Informational, "p2")
	untold.State = fleet.Resolved
	b.tell("resolved", 1, untold)
	b.idle()
	require.Len(t, tg.seen(), 2, "who was not told of the beginning does not hear of the end")
}

func TestACriticalIncidentOfASiteInhibitsItsMilderOnesUntilItIsResolved(t *testing.T) {
	tg := newTarget(t, status(200))
	b := newBench(t, hook("soc", tg.URL))
	b.cfg.Policy.Inhibit = []Inhibition{{
		Source: fleet.Match{Severities: []fleet.Severity{fleet.Critical}}, Target: fleet.Match{Severities: []fleet.Severity{fleet.Medium}}, Equal: []string{"site"},
	}}
	b.start()
	b.tell("opened", 1, incidentOf(1, fleet.Critical, "gw"))
	b.tell("opened", 1, incidentOf(2, fleet.Medium, "p1"))
	b.await("inhibited", func() bool { return b.delivery("INC-2.1.soc").HeldBy == "INC-1" })
	b.stop()
	b.start() // a restart tells nothing that was inhibited
	b.await("ticks", func() bool { return len(b.svc.openIncidents()) == 2 })
	require.Equal(t, stateSuppressed, b.delivery("INC-2.1.soc").State)
	resolved := incidentOf(1, fleet.Critical, "gw")
	resolved.State = fleet.Resolved
	b.tell("resolved", 2, resolved)
	b.await("told", func() bool { return b.delivery("INC-2.1.soc").State == stateDelivered })
}

func TestAnIncidentThatNobodyAcknowledgesEscalatesOnce(t *testing.T) {
	soc, boss := newTarget(t, status(200)), newTarget(t, status(200))
	b := newBench(t, hook("soc", soc.URL), hook("boss", boss.URL))
	b.cfg.Policy.Routes = []Route{{
		Name: "all", Receivers: []string{"soc"}, Escalate: &Escalation{After: Duration(15 * time.Minute), Receivers: []string{"boss"}},
		Group: &Grouping{Repeat: Duration(time.Hour)},
	}}
	b.start()
	b.tell("opened", 1, incidentOf(1, fleet.High, "p1"))
	b.tell("opened", 1, incidentOf(2, fleet.High, "p2"))
	b.await("told", func() bool { return len(soc.seen()) == 2 })
	acknowledged := incidentOf(2, fleet.High, "p2")
	acknowledged.State = fleet.Acknowledged
	b.tell("acknowledged", 2, acknowledged)
	require.Empty(t, boss.seen())
	b.shift.Store(int64(16 * time.Minute))
	b.await("escalated", func() bool { return len(boss.seen()) == 1 })
	require.Equal(t, []string{"INC-1.unacknowledged-0"}, boss.ids())
	b.shift.Store(int64(61 * time.Minute))
	b.await("reminded", func() bool { return len(soc.seen()) == 3 })
	require.Equal(t, "INC-1.reminder-0-1", soc.ids()[2])
	b.stop()
	b.start()
	b.await("ticks", func() bool { return len(b.svc.openIncidents()) == 2 })
	require.Len(t, boss.seen(), 1, "not again after a restart")
}

func TestAGroupGoesOutAsOneMessage(t *testing.T) {
	tg := newTarget(t, status(200))
	b := newBench(t, hook("soc", tg.URL))
	b.cfg.Policy.Routes = []Route{{Name: "all", Receivers: []string{"soc"}, Group: &Grouping{By: []string{"site"}, Wait: Duration(300 * time.Millisecond)}}}
	b.start()
	for n := range uint64(10) {
		b.tell("opened", 1, incidentOf(n+1, fleet.High, fmt.Sprintf("p%d", n)))
	}
	b.idle()
	require.LessOrEqual(t, len(tg.seen()), 3)
	events := 0
	for _, p := range tg.seen() {
		var d Digest
		require.NoError(t, json.Unmarshal(p.body, &d))
		if d.Type == "cordon.digest" {
			events += len(d.Data.Events)
			require.Equal(t, p.header.Get("webhook-id"), b.delivery(d.Data.Events[0].ID+".soc").Batch)
		} else {
			events++
		}
	}
	require.Equal(t, 10, events)
}

func TestRoutesKnowWhatTimeItIsWhereThePeopleAre(t *testing.T) {
	day := Hours{Days: []string{"mon", "tue", "wed", "thu", "fri"}, From: "08:00", To: "18:00", Zone: "Europe/Berlin"}
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		return v
	}
	require.True(t, day.holds(at("2026-07-20T06:30:00Z")), "08:30 in summer")
	require.False(t, day.holds(at("2026-01-19T06:30:00Z")), "07:30 in winter")
	require.False(t, day.holds(at("2026-07-19T10:00:00Z")), "Sunday")
	night := Hours{Days: []string{"fri"}, From: "22:00", To: "06:00", Zone: "America/New_York"}
	require.True(t, night.holds(at("2026-11-28T09:00:00Z")), "Saturday at 4 belongs to Friday's night")
	require.False(t, night.holds(at("2026-11-27T09:00:00Z")), "Friday at 4 belongs to Thursday's")

	cfg := Config{
		Receivers: []Receiver{hook("day", "https://x.example"), hook("night", "https://x.example"), hook("chat", "https://x.example")},
		Policy: Policy{Routes: []Route{
			{Name: "chat", Match: fleet.Match{Cohorts: []string{"pumps"}}, Receivers: []string{"chat"}, Continue: true},
			{Name: "day", Hours: &day, Receivers: []string{"day"}},
			{Name: "rest", Receivers: []string{"night"}},
		}},
	}
	require.NoError(t, cfg.Validate())
	told := Explain(cfg, incidentOf(1, fleet.High, "p1"), "opened", at("2026-07-20T06:30:00Z"))
	require.Len(t, told, 2)
	require.Equal(t, "route chat: cohort is pumps", told[0].Why)
	require.Equal(t, "day", told[1].Receiver)
	require.Contains(t, told[1].Why, "from 08:00 to 18:00 in Europe/Berlin")
	require.Equal(t, "night", Explain(cfg, incidentOf(1, fleet.High, "p1"), "opened", at("2026-07-20T20:00:00Z"))[1].Receiver)
	cfg.Policy.Routes[1].Receivers = []string{"nobody"}
	require.ErrorContains(t, cfg.Validate(), `route "day": receivers: there is no receiver "nobody"`)
}

func TestAReceiverThatIsGoneIsDisabledAndItsMessagesCanBeReplayed(t *testing.T) {
	code := http.StatusGone
	tg := newTarget(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	b := newBench(t, hook("soc", tg.URL))
	b.start()
	b.tell("opened", 1, incidentOf(1, fleet.High, "p1"))
	b.await("failed", func() bool { return b.delivery("INC-1.1.soc").State == stateFailed })
	require.Contains(t, b.svc.Receivers()[0].Disabled, "410")
	b.tell("opened", 1, incidentOf(2, fleet.High, "p2"))
	b.await("not sent", func() bool { return b.delivery("INC-2.1.soc").State == stateFailed })
	require.Len(t, tg.seen(), 1)
	b.stop()
	b.start()
	require.NotEmpty(t, b.svc.Receivers()[0].Disabled, "a restart does not forget it")

	code = http.StatusNoContent
	_, err := b.svc.EnableReceiver(t.Context(), "soc", "ann")
	require.NoError(t, err)
	require.Len(t, b.svc.DeadLetters(), 2)
	for _, id := range []string{"INC-1.1.soc", "INC-2.1.soc"} {
		_, err := b.svc.Replay(t.Context(), id, "ann")
		require.NoError(t, err)
		b.await("replayed", func() bool { return b.delivery(id).State == stateDelivered })
	}
	require.Equal(t, tg.seen()[0].header.Get("webhook-id"), tg.seen()[1].header.Get("webhook-id"), "the same id")
	_, err = b.svc.Replay(t.Context(), "INC-1.1.soc", "ann")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	d := b.delivery("INC-1.1.soc")
	require.Contains(t, d.Request, "POST ")
	require.Contains(t, d.Answer, "204")
}

func TestKeysCanBeChangedWithoutARefusal(t *testing.T) {
	older := "whsec_" + base64.StdEncoding.EncodeToString([]byte("an-older-secret-of-32-characters"))
	tg := newTarget(t, status(200))
	r := hook("soc", tg.URL)
	r.Secrets = []string{older}
	b := newBench(t, r)
	b.start()
	d, err := b.svc.Test(t.Context(), "soc", "ann")
	require.NoError(t, err)
	require.Equal(t, stateDelivered, d.State)
	p := tg.seen()[0]
	for _, key := range []string{secret, older} {
		wh, err := webhook.NewWebhook(key)
		require.NoError(t, err)
		require.NoError(t, wh.Verify(p.body, p.header))
	}
	require.NotContains(t, d.Request, older[6:])
}

type fakeSeal struct{}

func (f fakeSeal) Seal(name string, v []byte) (string, error) {
	return base64.StdEncoding.EncodeToString(bytes.Map(func(r rune) rune { return r ^ 1 }, append([]byte(name+"|"), v...))), nil
}

func (f fakeSeal) Open(name, sealed string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, err
	}
	return bytes.TrimPrefix(bytes.Map(func(r rune) rune { return r ^ 1 }, raw), []byte(name+"|")), nil
}

func TestReceiversCanBeAddedWhileCordonRuns(t *testing.T) {
	tg := newTarget(t, status(200))
	b := newBench(t)
	b.seal = fakeSeal{}
	b.start()
	_, err := b.svc.SetReceiver(t.Context(), Receiver{Name: "new", Kind: KindWebhook, URL: tg.URL + "/very-secret-path", Secret: secret, AllowPrivate: true}, "ann")
	require.NoError(t, err)
	b.tell("opened", 1, incidentOf(1, fleet.High, "p1"))
	b.await("told", func() bool { return len(tg.seen()) == 1 })
	entry, err := b.svc.opened.receiver.Get(t.Context(), "receiver.new")
	require.NoError(t, err)
	require.NotContains(t, string(entry.Value()), "very-secret-path")
	require.NotContains(t, string(entry.Value()), secret[6:])
	_, err = b.svc.SetReceiver(t.Context(), Receiver{Name: "new", Kind: KindWebhook, Severity: fleet.Critical, AllowPrivate: true}, "ann")
	require.NoError(t, err, "secrets that are not named stay")
	b.stop()
	b.start()
	require.Equal(t, fleet.Critical, b.svc.Receivers()[0].Severity)
	require.NoError(t, b.svc.RemoveReceiver(t.Context(), "new"))
	require.Empty(t, b.svc.Receivers())
}

func TestChatPagerAndSyslogSayWhatWhereHowBadAndWhy(t *testing.T) {
	it := newItem(change(1, 1, "opened"), "x", time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC))
	_, raw, err := body([]item{it}, "m", Receiver{Kind: KindTeams}, "https://cordon.example")
	require.NoError(t, err)
	for _, want := range []string{"AdaptiveCard", "INC-1 opened on pump\\\\_7", "limit 85 °C", "https://cordon.example/incidents/INC-1"} {
		require.Contains(t, string(raw), want)
	}
	_, raw, err = body([]item{it}, "m", Receiver{Kind: KindPager, Secret: "0123456789abcdef0123"}, "https://cordon.example")
	require.NoError(t, err)
	var e PagerDutyEvent
	require.NoError(t, json.Unmarshal(raw, &e))
	require.Equal(t, "trigger", e.Action)
	require.Equal(t, "cordon-INC-1", e.DedupKey)
	require.Equal(t, "error", e.Payload.Severity)
	it.Change.Change = "resolved"
	require.Equal(t, "resolve", pagerEvent(it, "k", "").Action)
	it.Change.Change = "opened"
	line := syslogLine(it, "cordon.example")
	require.True(t, strings.HasPrefix(line, `<83>1 2026-11-24T12:00:00.000000Z cordon.example cordon - opened [cordon@32473 id="INC-1.1"`), line)
	require.NotContains(t, line, "\n")
}

func TestSyslogOverTCPIsCounted(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		var n int
		r := bufio.NewReader(conn)
		_, _ = fmt.Fscanf(r, "%d ", &n)
		buf := make([]byte, n)
		_, _ = r.Read(buf)
		got <- string(buf)
	}()
	b := newBench(t, Receiver{Name: "siem", Kind: KindSyslog, URL: "tcp://" + listener.Addr().String(), AllowPrivate: true})
	b.start()
	d, err := b.svc.Test(t.Context(), "siem", "ann")
	require.NoError(t, err)
	require.Equal(t, stateDelivered, d.State, d.Error)
	require.Contains(t, <-got, "cordon@32473")
}

func TestMailIsOneThreadForEachIncident(t *testing.T) {
	server := newMailServer(t)
	b := newBench(t, Receiver{Name: "mail", Kind: KindEmail, URL: "smtp://" + server.address, From: "Cordon <cordon@example.org>", To: []string{"soc@example.org"}, AllowPrivate: true})
	b.start()
	b.tell("opened", 1, incidentOf(1, fleet.High, "p1"))
	b.await("sent", func() bool { return b.delivery("INC-1.1.mail").State == stateDelivered })
	text := <-server.mails
	for _, want := range []string{"Message-ID: <msg_INC-1_1_mail@cordon.invalid>", "References: <INC-1@cordon.invalid>", "To: soc@example.org", "Subject: =?utf-8?q?", "Auto-Submitted: auto-generated"} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, rand.Text())
}

type mailServer struct {
	address string
	mails   chan string
}

// newMailServer takes mails as an SMTP server does.
func newMailServer(t *testing.T) *mailServer {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	s := &mailServer{listener.Addr().String(), make(chan string, 10)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *mailServer) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	say := func(text string) { fmt.Fprintf(conn, "%s\r\n", text) }
	say("220 mail")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(strings.Fields(line + " x")[0]); verb {
		case "EHLO", "HELO", "MAIL", "RCPT":
			say("250 ok")
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				text.WriteString(line)
			}
			s.mails <- text.String()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 what?")
		}
	}
}

func TestShoutrrrReachesOthers(t *testing.T) {
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var buf bytes.Buffer
		_, _ = buf.ReadFrom(r.Body)
		got <- buf.String()
	}))
	defer server.Close()
	r := Receiver{Name: "other", Kind: KindShout, URL: "generic+" + server.URL + "/hook"}
	require.ErrorContains(t, Config{Receivers: []Receiver{r}}.Validate(), "allow_private")
	r.AllowPrivate = true
	b := newBench(t, r)
	b.start()
	d, err := b.svc.Test(t.Context(), "other", "ann")
	require.NoError(t, err)
	require.Equal(t, stateDelivered, d.State, d.Error)
	require.Contains(t, <-got, "This is a test from Cordon")
}
