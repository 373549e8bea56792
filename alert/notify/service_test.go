package notify

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	webhook "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
)

var secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

// post is what a receiver saw.
type post struct {
	header http.Header
	body   []byte
	event  Event
}

// target is a receiver that answers as the test says.
type target struct {
	*httptest.Server
	mu     sync.Mutex
	posts  []post
	answer func(n int, w http.ResponseWriter, r *http.Request) // n counts from 1
}

func newTarget(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *target {
	tg := &target{answer: answer}
	tg.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		p := post{header: r.Header.Clone(), body: raw}
		_ = json.Unmarshal(raw, &p.event)
		tg.mu.Lock()
		tg.posts = append(tg.posts, p)
		n := len(tg.posts)
		tg.mu.Unlock()
		tg.answer(n, w, r)
	}))
	t.Cleanup(tg.Close)
	return tg
}

func status(code int) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func (tg *target) seen() []post {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return append([]post(nil), tg.posts...)
}

func (tg *target) ids() []string {
	out := []string{}
	for _, p := range tg.seen() {
		out = append(out, p.event.ID)
	}
	return out
}

type bench struct {
	t     *testing.T
	bus   *bus.Bus
	cfg   Config
	shift atomic.Int64 // how far the clock is ahead
	hook  func(string) error
	svc   *Service
	seal  Sealer
	stop  func()
	logs  *bytes.Buffer
}

func newBench(t *testing.T, receivers ...Receiver) *bench {
	return &bench{t: t, bus: bustest.Start(t), logs: &bytes.Buffer{}, cfg: Config{
		Receivers: receivers, BaseURL: "https://cordon.example", Tick: 20 * time.Millisecond, Timeout: 5 * time.Second,
		Backoff: func(int) time.Duration { return time.Millisecond },
	}}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (b *bench) start() {
	b.t.Helper()
	svc, err := New(b.cfg, Deps{
		Seal: b.seal,
		Bus:  b.bus, Log: slog.New(slog.NewTextHandler(&lockedWriter{w: b.logs}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Clock: func() time.Time { return time.Now().Add(time.Duration(b.shift.Load())) },
	})
	require.NoError(b.t, err)
	svc.faultHook = b.hook
	b.svc = svc
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-svc.Ready():
	case err := <-done:
		b.t.Fatal(err)
	case <-time.After(20 * time.Second):
		b.t.Fatal("not ready")
	}
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(b.t, <-done)
		})
	}
	b.t.Cleanup(b.stop)
}

func hook(name, url string) Receiver {
	return Receiver{Name: name, Kind: KindWebhook, URL: url, Secret: secret, AllowPrivate: true}
}

func change(incident, n int, kind string) fleet.IncidentChange {
	limit := 85.0
	f := &fleet.Finding{
		ID: fmt.Sprintf("f%d", n), Device: "pump_7", RuleID: "cpu-hot", RuleTitle: "Processor is too hot", Severity: fleet.High, Actor: "<!channel> & co",
		Explanation: fleet.Explanation{
			Sentence: "The processor of pump_7 is at 91.5 °C, above 85 °C <https://evil.example|click>.",
			Metric:   "cpu_temp_celsius", Unit: "Cel", Value: 91.5, Threshold: &limit,
		},
	}
	id := fleet.IncidentID(uint64(incident))
	return fleet.IncidentChange{
		ID: id + "." + strconv.Itoa(n), Change: kind, Finding: f, Actor: "rule:cpu-hot",
		Incident: fleet.Incident{ID: id, Number: uint64(incident), Device: "pump_7", Cohort: "pumps", Severity: fleet.High, State: fleet.Open, Title: f.Explanation.Sentence, Rules: []string{"cpu-hot"}},
	}
}

// publish puts changes on the stream as if the broker's window had passed.
func (b *bench) publish(changes ...fleet.IncidentChange) {
	b.t.Helper()
	for _, c := range changes {
		raw, err := json.Marshal(c)
		require.NoError(b.t, err)
		_, err = b.bus.Core.Publish(b.t.Context(), bus.SubjectIncident+"."+c.Incident.ID, raw)
		require.NoError(b.t, err)
	}
}

func (b *bench) delivery(id string) fleet.Delivery {
	d, _, err := b.svc.lookup(b.t.Context(), id)
	require.NoError(b.t, err)
	return d
}

func (b *bench) await(what string, condition func() bool) {
	b.t.Helper()
	require.Eventually(b.t, condition, time.Minute, 3*time.Millisecond, what)
}

// idle waits until nothing is on any queue and every change was routed.
func (b *bench) idle() {
	b.t.Helper()
	b.await("idle", func() bool {
		consumer, err := b.bus.Core.Consumer(b.t.Context(), bus.StreamIncidents, routerName)
		if err != nil {
			return false
		}
		changes, err := b.bus.Core.Stream(b.t.Context(), bus.StreamIncidents)
		if err != nil || consumer.CachedInfo().AckFloor.Stream != changes.CachedInfo().State.LastSeq {
			return false
		}
		stream, err := b.bus.Core.Stream(b.t.Context(), bus.StreamDeliveries)
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
}

func TestService_deliversSignedEventOnce(t *testing.T) {
	tg := newTarget(t, status(http.StatusCreated))
	b := newBench(t, hook("soc", tg.URL+"/in"))
	b.start()
	b.publish(change(1, 1, "opened"), change(1, 2, "comment"), change(1, 3, "resolved"))
	b.idle()
	b.publish(change(1, 1, "opened")) // republished outside the broker's window
	b.idle()
	require.Equal(t, []string{"INC-1.1", "INC-1.3"}, tg.ids(), "201 is success, comments are not wanted by default")

	verifier, err := webhook.NewWebhook(secret)
	require.NoError(t, err)
	p := tg.seen()[0]
	require.NoError(t, verifier.Verify(p.body, p.header))
	require.Error(t, verifier.Verify(append(p.body, ' '), p.header))
	require.Equal(t, "msg_INC-1_1_soc", p.header.Get("webhook-id"))
	require.Equal(t, ContentTypeEvent, p.header.Get("Content-Type"))
	e := p.event
	require.Equal(t, "1.0", e.SpecVersion)
	require.Equal(t, "cordon.incident.opened", e.Type)
	require.Equal(t, "INC-1", e.Subject)
	require.Equal(t, "https://cordon.example", e.Source)
	require.Equal(t, "application/json", e.DataContentType)
	require.False(t, e.Time.IsZero())
	require.Equal(t, "https://cordon.example/incidents/INC-1", e.Data.Link)
	require.Equal(t, "pump_7", e.Data.Incident.Device)
	require.Equal(t, "cpu-hot", e.Data.Finding.RuleID)

	d := b.delivery("INC-1.1.soc")
	require.Equal(t, "delivered", d.State)
	require.Equal(t, 1, d.Attempts)
	require.Equal(t, 201, d.Status)
}

func TestService_oneBadReceiverHoldsNoOther(t *testing.T) {
	release := make(chan struct{})
	slow := newTarget(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	limited := newTarget(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	good, flaky := newTarget(t, status(200)), newTarget(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n%2 == 1 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	gone := newTarget(t, status(http.StatusGone))
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	b := newBench(t, hook("dead", dead.URL), hook("slow", slow.URL), hook("limited", limited.URL), hook("good", good.URL), hook("flaky", flaky.URL), hook("gone", gone.URL))
	b.cfg.BreakAfter = 1000
	b.cfg.MaxAttempts = 1_000_000
	b.start()
	const incidents = 40
	var want []string
	for i := 1; i <= incidents; i++ {
		b.publish(change(i, 1, "opened"), change(i, 2, "resolved"))
		want = append(want, fmt.Sprintf("INC-%d.1", i), fmt.Sprintf("INC-%d.2", i))
	}
	for _, name := range []string{"good", "flaky", "limited"} {
		b.await(name, func() bool {
			for _, id := range want {
				if b.delivery(id+"."+name).State != stateDelivered {
					return false
				}
			}
			return true
		})
	}
	require.ElementsMatch(t, want, good.ids(), "each once")
	require.Len(t, limited.seen(), len(want)+1)
	first, second := limited.seen()[0], limited.seen()[1]
	_ = second
	times := map[string]int{}
	for _, p := range limited.seen() {
		times[p.header.Get("webhook-id")]++
	}
	require.Equal(t, 2, times[first.header.Get("webhook-id")], "the same id on the retry")
	b.await("gone", func() bool { return b.delivery("INC-40.2.gone").State == stateFailed })
	require.NotEmpty(t, gone.seen())
	require.LessOrEqual(t, len(gone.seen()), 3, "410 is not repeated")
	require.NotEmpty(t, b.svc.worker("gone").state().Disabled, "and disables the receiver")
	require.Equal(t, statePending, b.delivery("INC-1.1.slow").State)

	states := b.svc.Receivers()
	require.Equal(t, "dead", states[0].Name)
	require.Positive(t, states[0].Failing)
	require.NotEmpty(t, states[0].LastError)
	for i := range want {
		if i%2 == 0 { // per incident, opened before resolved
			require.Less(t, index(good.ids(), want[i]), index(good.ids(), want[i+1]))
		}
	}
}

func index(list []string, s string) int {
	for i, v := range list {
		if v == s {
			return i
		}
	}
	return -1
}

func TestService_givesUpAndSaysSo(t *testing.T) {
	tg := newTarget(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "broken\nin here")
	})
	b := newBench(t, hook("soc", tg.URL))
	b.cfg.MaxAttempts = 4
	b.start()
	b.publish(change(1, 1, "opened"))
	b.await("failed", func() bool { return b.delivery("INC-1.1.soc").State == stateFailed })
	require.Len(t, tg.seen(), 4)
	d := b.delivery("INC-1.1.soc")
	require.Equal(t, "given up after 4 attempts: answered 500 Internal Server Error: broken in here", d.Error)
	require.False(t, b.svc.Status().Healthy)
	require.Contains(t, b.svc.Status().Detail, "soc")
}

func TestService_permanentAnswersAreNotRepeated(t *testing.T) {
	for _, code := range []int{400, 401, 403, 404, 410, 422} {
		require.True(t, permanent(code), code)
	}
	for _, code := range []int{301, 302, 408, 425, 429, 500, 502, 503, 504} {
		require.False(t, permanent(code), code)
	}
}

func TestService_matching(t *testing.T) {
	tg := newTarget(t, status(200))
	r := hook("pager", tg.URL)
	r.Severity, r.Changes = fleet.Critical, []string{"opened", "comment"}
	b := newBench(t, r)
	b.start()
	c := change(2, 1, "comment")
	c.Incident.Severity = fleet.Critical
	b.publish(change(1, 1, "opened"), c)
	b.idle()
	require.Equal(t, []string{"INC-2.1"}, tg.ids())
}

func TestService_testSendsWhatAlertsSend(t *testing.T) {
	tg := newTarget(t, status(200))
	b := newBench(t, hook("soc", tg.URL))
	b.start()
	d, err := b.svc.Test(t.Context(), "soc", "ann")
	require.NoError(t, err)
	require.Equal(t, "delivered", d.State)
	p := tg.seen()[0]
	verifier, err := webhook.NewWebhook(secret)
	require.NoError(t, err)
	require.NoError(t, verifier.Verify(p.body, p.header))
	require.True(t, p.event.Data.Test)
	page, err := b.svc.Deliveries("", 10)
	require.NoError(t, err)
	require.Equal(t, d.ID, page.Items[0].ID)
	_, err = b.svc.Test(t.Context(), "nobody", "ann")
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
}

func TestService_privateAddressesAreRefusedAfterResolution(t *testing.T) {
	tg := newTarget(t, status(200))
	for _, address := range []string{tg.URL, strings.Replace(tg.URL, "127.0.0.1", "localhost", 1), strings.Replace(tg.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1)} {
		r := hook("soc", address)
		r.AllowPrivate = false
		svc, err := New(Config{Receivers: []Receiver{r}}, Deps{Bus: bustest.Start(t)})
		require.NoError(t, err)
		d, err := svc.Test(t.Context(), "soc", "ann")
		require.NoError(t, err)
		require.Equal(t, stateFailed, d.State)
		require.Contains(t, d.Error, "allow_private")
	}
	require.Empty(t, tg.seen())
}

func TestService_redirectsAreNotFollowed(t *testing.T) {
	other := newTarget(t, status(200))
	tg := newTarget(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	b := newBench(t, hook("soc", tg.URL))
	b.cfg.MaxAttempts = 2
	b.start()
	b.publish(change(1, 1, "opened"))
	b.idle()
	require.Empty(t, other.seen())
	require.Contains(t, b.delivery("INC-1.1.soc").Error, "redirects are not followed")
}

func TestService_secretsStayHidden(t *testing.T) {
	const token = "T0KENT0KENT0KEN"
	tg := newTarget(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "no such hook "+r.URL.Path+" "+secret)
	})
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	b := newBench(t, hook("echo", tg.URL+"/services/"+token), hook("dead", dead.URL+"/services/"+token))
	b.cfg.MaxAttempts = 2
	b.start()
	b.publish(change(1, 1, "opened"))
	b.idle()
	page, err := b.svc.Deliveries("", 0)
	require.NoError(t, err)
	b.stop()
	shown, err := json.Marshal([]any{page, b.svc.Receivers(), b.svc.Status(), b.cfg.Receivers})
	require.NoError(t, err)
	everything := string(shown) + b.logs.String() + fmt.Sprintf("%v %+v %#v", b.cfg.Receivers, b.cfg.Receivers[0], b.cfg.Receivers)
	require.Contains(t, everything, "[hidden]")
	for _, s := range []string{token, secret, strings.TrimPrefix(secret, "whsec_")} {
		require.NotContains(t, everything, s)
	}
}

func TestService_deliveryLogIsPagedAndBounded(t *testing.T) {
	tg := newTarget(t, status(200))
	b := newBench(t, hook("soc", tg.URL))
	b.cfg.History = 5
	b.start()
	for i := 1; i <= 12; i++ {
		b.publish(change(i, 1, "opened"))
	}
	b.idle()
	var ids []string
	for cursor := ""; ; {
		page, err := b.svc.Deliveries(cursor, 5)
		require.NoError(t, err)
		for _, d := range page.Items {
			ids = append(ids, d.ID)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	require.Len(t, ids, 12)
	require.Equal(t, "INC-12.1.soc", ids[0])
	require.NoError(t, b.svc.prune(t.Context()))
	page, err := b.svc.Deliveries("", 50)
	require.NoError(t, err)
	require.Len(t, page.Items, 5)
	_, err = b.svc.opened.delivery.Get(t.Context(), "INC-1.1.soc")
	require.ErrorIs(t, err, jetstream.ErrKeyNotFound)
	_, err = b.svc.Deliveries("!", 5)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
}
