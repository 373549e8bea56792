package gate_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/ingest/gate/gatetest"
	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

// maker is a device maker with an authority of its own.
type maker struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
	next int64
}

func newMaker(t *testing.T) *maker {
	t.Helper()
	m := &maker{t: t, next: 2}
	var err error
	m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme devices"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, m.key.Public(), m.key)
	require.NoError(t, err)
	m.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	m.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return m
}

// device makes a certificate as the maker's factory does; uri may claim more.
func (m *maker) device(w *gatetest.World, name string, uri *url.URL) *tls.Config {
	m.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(m.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(m.next), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	m.next++
	if uri != nil {
		template.URIs = []*url.URL{uri}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.cert, key.Public(), m.key)
	require.NoError(m.t, err)
	return w.TLS(m.t, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func speak(t *testing.T, conn *nats.Conn, subject string) error {
	t.Helper()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = js.Publish(ctx, subject, []byte("{}"), jetstream.WithRetryAttempts(1))
	return err
}

func TestGate_makersCertificates(t *testing.T) {
	w := gatetest.Start(t)
	acme := newMaker(t)
	victim := w.Device(t, "victim")
	_, err := w.NATS(t, "acme-1", insist(acme.device(w, "acme-1", nil)), nats.MaxReconnects(0))
	require.Error(t, err, "a maker that nobody trusts")

	_, err = w.Registry.TrustMaker(t.Context(), identity.Maker{Name: "acme", Prefix: "acme-", Certificate: acme.pem, Enroll: true, Most: 2, Cohort: "pumps"}, "ada")
	require.NoError(t, err)
	first := acme.device(w, "acme-1", nil)
	conn, err := w.NATS(t, "acme-1", first)
	require.NoError(t, err, "the listener trusts the maker without restart")
	require.NoError(t, speak(t, conn, "fleet.telemetry.acme-1"))
	d, ok := w.Registry.Get("acme-1")
	require.True(t, ok)
	require.Equal(t, fleet.Active, d.State)
	require.Equal(t, "pumps", d.Cohort)
	require.Equal(t, "maker:acme", d.EnrolledBy)

	for name, cfg := range map[string]*tls.Config{
		"another key for the same id":        acme.device(w, "acme-1", nil),
		"an id of another prefix":            acme.device(w, "victim", nil),
		"Cordon's name for another's device": acme.device(w, "acme-2", &url.URL{Scheme: "urn", Opaque: "cordon:device:victim"}),
		"Cordon's name, no id of its own":    acme.device(w, "x.y", &url.URL{Scheme: "urn", Opaque: "cordon:device:victim"}),
		"an id that is no subject token":     acme.device(w, "acme-*", nil),
	} {
		conn, err := w.NATS(t, "victim", cfg, nats.MaxReconnects(0))
		if name != "Cordon's name for another's device" {
			require.Error(t, err, name)
			continue
		}
		require.NoError(t, err, "it is acme-2, whatever else its certificate says")
		require.Error(t, conn.Publish("", nil))
		live, _, err := w.Bus.Live(t.Context(), "acme-2")
		require.NoError(t, err)
		require.Len(t, live, 1)
	}
	live, _, err := w.Bus.Live(t.Context(), "victim")
	require.NoError(t, err)
	require.Empty(t, live)
	_, err = w.NATS(t, "acme-3", acme.device(w, "acme-3", nil), nats.MaxReconnects(0))
	require.Error(t, err, "over the maker's cap")
	_, err = w.NATS(t, "victim", victim)
	require.NoError(t, err)

	_, err = w.Registry.Rotate(t.Context(), "acme-1", "ada", "board replaced")
	require.NoError(t, err)
	again, err := w.NATS(t, "acme-1", acme.device(w, "acme-1", nil))
	require.NoError(t, err, "the next key is taken after a rotation")
	require.Eventually(t, func() bool { return !conn.IsConnected() }, patience, poll, "the old key is cut off")

	n, err := w.Registry.DistrustMaker(t.Context(), "acme", "ada", "its key leaked")
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Eventually(t, func() bool { return !again.IsConnected() }, patience, poll)
	_, err = w.NATS(t, "acme-1", insist(first.Clone()), nats.MaxReconnects(0))
	require.Error(t, err)
}

func TestGate_tokenCredentials(t *testing.T) {
	w := gatetest.Start(t)
	bare := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: w.CA.Pool()}
	certified := w.Device(t, "certified")
	_, err := w.NATS(t, "x", bare, nats.MaxReconnects(0))
	require.ErrorContains(t, err, "tls", "no fleet with token devices: the handshake needs a certificate")

	_, secret, err := w.Registry.Enroll(t.Context(), identity.Enrolment{ID: "d1", Credential: fleet.ByToken, Actor: "ada"})
	require.NoError(t, err)
	entry, err := w.Registry.Lookup(t.Context(), "d1")
	require.NoError(t, err)
	raw, err := json.Marshal(entry)
	require.NoError(t, err)
	require.NotContains(t, string(raw), secret[len("cordon_device_"):], "only a hash is kept")

	conn, err := w.NATS(t, "d1", bare, nats.UserInfo("d1", secret))
	require.NoError(t, err)
	require.NoError(t, speak(t, conn, "fleet.telemetry.d1"))
	require.Error(t, speak(t, conn, "fleet.telemetry.certified"))
	client, err := w.MQTT(t, "d1", bare, func(o *mqtt.ClientOptions) { o.SetUsername("d1").SetPassword(secret) })
	require.NoError(t, err)
	require.True(t, client.Publish("fleet/telemetry/d1", 1, false, "{}").WaitTimeout(patience))
	require.Eventually(t, func() bool { return w.Stored(t, "fleet.telemetry.d1") == 2 }, patience, poll)

	for name, option := range map[string]nats.Option{
		"nothing":            nats.Name("d1"),
		"a guess":            nats.UserInfo("d1", "cordon_device_"+secret[len("cordon_device_")+1:]+"a"),
		"another user":       nats.UserInfo("certified", secret),
		"an enrolment token": nats.Token("cordon_enroll_abc"),
	} {
		_, err := w.NATS(t, "d1", bare, option, nats.MaxReconnects(0))
		require.Error(t, err, name)
	}
	_, err = w.NATS(t, "certified", certified, nats.UserInfo("d1", secret))
	require.NoError(t, err)
	live, _, err := w.Bus.Live(t.Context(), "certified")
	require.NoError(t, err)
	require.Len(t, live, 1, "a certificate counts before a token")

	// A new credential replaces the old one once it connects.
	_, fresh, err := w.Registry.IssueCredential(t.Context(), "d1", "ada")
	require.NoError(t, err)
	require.True(t, conn.IsConnected())
	_, err = w.NATS(t, "d1", bare, nats.UserInfo("d1", fresh))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !client.IsConnected() && !conn.IsConnected() }, patience, poll)
	_, err = w.NATS(t, "d1", bare, nats.UserInfo("d1", secret), nats.MaxReconnects(0))
	require.Error(t, err)
	_, _, err = w.Registry.IssueCredential(t.Context(), "certified", "ada")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))

	// Quarantine and revocation are the same as with certificates.
	w.Quarantine(t, "d1", fleet.Isolate)
	w.Await(t, "d1", fleet.Confirmed)
	_, err = w.NATS(t, "d1", bare, nats.UserInfo("d1", fresh), nats.MaxReconnects(0))
	require.Error(t, err)
	require.NoError(t, w.Registry.Revoke(t.Context(), "d1", "ada", "stolen"))
	require.Eventually(t, func() bool {
		_, err := w.NATS(t, "x", bare, nats.MaxReconnects(0))
		return err != nil && !isAuthError(err)
	}, patience, 20*time.Millisecond, "without token devices a certificate is needed again")
}

func isAuthError(err error) bool {
	return err != nil && (err.Error() == nats.ErrAuthorization.Error() || err.Error() == nats.ErrAuthExpired.Error())
}

// renew asks over the device's own connection, as the agent does.
func renew(t *testing.T, conn *nats.Conn, device string, csr []byte) identity.Renewed {
	t.Helper()
	request, err := json.Marshal(identity.Renewal{CSR: string(csr)})
	require.NoError(t, err)
	msg, err := conn.Request(bus.SubjectIdentity+"."+device, request, patience)
	require.NoError(t, err)
	var answer identity.Renewed
	require.NoError(t, json.Unmarshal(msg.Data, &answer))
	return answer
}

func TestGate_renewalSupersedesOnceConnected(t *testing.T) {
	w := gatetest.Start(t)
	old := w.Device(t, "d1")
	conn, err := w.NATS(t, "d1", old)
	require.NoError(t, err)
	key, csr := gatetest.Request(t)
	require.Equal(t, fleet.CodeConflict, renew(t, conn, "d1", csr).Code, "not due")
	require.Empty(t, renew(t, conn, "d1", nil).Due)

	nudged, err := conn.SubscribeSync("fleet.identity.d1.rotate")
	require.NoError(t, err)
	require.NoError(t, conn.Flush())
	_, err = w.Registry.Rotate(t.Context(), "d1", "ada", "routine")
	require.NoError(t, err)
	_, err = nudged.NextMsg(patience)
	require.NoError(t, err, "a connected device hears it at once")
	require.Contains(t, renew(t, conn, "d1", nil).Due, "operator")

	answer := renew(t, conn, "d1", csr)
	require.Empty(t, answer.Error)
	require.Equal(t, string(w.CA.PEM()), answer.CA)
	require.Equal(t, fleet.CodeTooMany, renew(t, conn, "d1", csr).Code)
	second, err := w.NATS(t, "d1", old)
	require.NoError(t, err, "the old certificate is good until the new one connects")
	fresh, err := w.NATS(t, "d1", w.TLS(t, key, []byte(answer.Certificate)))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !conn.IsConnected() && !second.IsConnected() }, patience, poll, "and then it is cut off")
	require.NoError(t, speak(t, fresh, "fleet.telemetry.d1"))
	require.True(t, fresh.IsConnected())
	_, err = w.NATS(t, "d1", old, nats.MaxReconnects(0))
	require.Error(t, err)
	require.Empty(t, renew(t, fresh, "d1", nil).Due)

	// Nobody can ask for another, and the answer goes to nobody else.
	other, err := w.NATS(t, "d2", w.Device(t, "d2"))
	require.NoError(t, err)
	leak, err := w.Bus.Devices.SubscribeSync("fleet.telemetry.d1")
	require.NoError(t, err)
	require.NoError(t, other.PublishRequest("fleet.identity.d1", "_INBOX.d2.x", nil))
	require.NoError(t, fresh.PublishRequest("fleet.identity.d1", "fleet.telemetry.d1", nil))
	answers, err := fresh.SubscribeSync("fleet.identity.d1.answer")
	require.NoError(t, err)
	require.NoError(t, fresh.PublishRequest("fleet.identity.d1", "fleet.control.rule.x", nil))
	_, err = answers.NextMsg(patience)
	require.NoError(t, err, "a reply subject that is not the device's inbox is not used")
	_, err = leak.NextMsg(100 * time.Millisecond)
	require.ErrorIs(t, err, nats.ErrTimeout)
}

func TestGate_rotationOfTheAuthorityWithoutDowntime(t *testing.T) {
	w := gatetest.Start(t)
	oldPool := w.CA.Pool()
	first := w.Device(t, "d1")
	conn, err := w.NATS(t, "d1", first)
	require.NoError(t, err)
	old := w.CA.Authorities()[0].ID
	fresh, err := w.Registry.RotateAuthority(t.Context(), "ada")
	require.NoError(t, err)
	require.True(t, conn.IsConnected())

	// A device of the new authority and one of the old one, side by side; the
	// broker's certificate is one that both trust.
	_, err = w.NATS(t, "d2", w.Device(t, "d2"))
	require.NoError(t, err)
	d2, _ := w.Registry.Get("d2")
	require.Equal(t, fresh, d2.Authority)
	again := first.Clone()
	again.RootCAs = oldPool
	_, err = w.NATS(t, "d1", again)
	require.NoError(t, err)
	_, err = w.Registry.RetireAuthority(t.Context(), old, "ada", "rotation", false)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err), "d1 depends on it")

	key, csr := gatetest.Request(t)
	answer := renew(t, conn, "d1", csr)
	require.Empty(t, answer.Error, "a new authority makes a renewal due")
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM([]byte(answer.CA)))
	renewed := w.TLS(t, key, []byte(answer.Certificate))
	renewed.RootCAs = pool
	_, err = w.NATS(t, "d1", renewed)
	require.NoError(t, err)

	_, err = w.Registry.RetireAuthority(t.Context(), old, "ada", "rotation", false)
	require.NoError(t, err)
	_, err = w.NATS(t, "d1", renewed)
	require.NoError(t, err, "the broker shows a certificate of the new authority")
	_, err = w.NATS(t, "d1", again, nats.MaxReconnects(0))
	require.Error(t, err, "who trusts the old one alone is out")
	require.Len(t, w.CA.Authorities(), 1)
	_, err = w.Registry.RetireAuthority(t.Context(), fresh, "ada", "all", true)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err), "the last one stays")
}

func TestGate_retiredByForceIsCutAtOnce(t *testing.T) {
	w := gatetest.Start(t)
	conn, err := w.NATS(t, "d1", w.Device(t, "d1"))
	require.NoError(t, err)
	old := w.CA.Authorities()[0].ID
	_, err = w.Registry.RotateAuthority(t.Context(), "ada")
	require.NoError(t, err)
	revoked, err := w.Registry.RetireAuthority(t.Context(), old, "ada", "its key leaked", true)
	require.NoError(t, err)
	require.Equal(t, []string{"d1"}, revoked)
	require.Eventually(t, func() bool { return !conn.IsConnected() }, patience, poll)
}

func TestGate_gatewaySpeaksForItsChildrenOnly(t *testing.T) {
	w := gatetest.Start(t)
	var errs denied
	conn, err := w.NATS(t, "gw", w.Device(t, "gw"), errs.option())
	require.NoError(t, err)
	w.Device(t, "stranger")
	for _, e := range []identity.Enrolment{{ID: "c1", Gateway: "gw"}, {ID: "c2", Gateway: "gw"}} {
		d, token, err := w.Registry.Enroll(t.Context(), e)
		require.NoError(t, err)
		require.Empty(t, token)
		require.Equal(t, fleet.Active, d.State)
	}
	may := func(subject string) bool { return speak(t, conn, subject) == nil }
	require.Eventually(t, func() bool { return conn.IsConnected() && may("fleet.telemetry.gw.c1") && may("fleet.audit.gw.c2") }, patience, 20*time.Millisecond,
		"the gateway comes back with its children's subjects")
	for _, subject := range []string{"fleet.telemetry.gw.stranger", "fleet.telemetry.c1", "fleet.telemetry.stranger.c1", "fleet.telemetry.gw.c1.x"} {
		require.False(t, may(subject), subject)
	}

	for name, e := range map[string]identity.Enrolment{
		"no such gateway":          {ID: "c3", Gateway: "nobody"},
		"a child as gateway":       {ID: "c3", Gateway: "c1"},
		"itself":                   {ID: "c3", Gateway: "c3"},
		"child with a certificate": {ID: "c3", Gateway: "gw", Credential: fleet.ByCertificate},
	} {
		_, _, err := w.Registry.Enroll(t.Context(), e)
		require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err), name)
	}

	// A quarantined child: its gateway loses it, keeps the rest, and the proof
	// names the gateway's connection.
	w.Quarantine(t, "c1", fleet.Isolate)
	q := w.Await(t, "c1", fleet.Confirmed)
	require.NotEmpty(t, q.Proof.Kicked)
	before := w.Stored(t, "fleet.telemetry.gw.c1")
	require.Eventually(t, func() bool { return conn.IsConnected() && may("fleet.telemetry.gw.c2") }, patience, 20*time.Millisecond)
	require.False(t, may("fleet.telemetry.gw.c1"))
	require.Equal(t, before, w.Stored(t, "fleet.telemetry.gw.c1"))
	w.Release(t, "c1")
	require.Eventually(t, func() bool { return conn.IsConnected() && may("fleet.telemetry.gw.c1") }, patience, 20*time.Millisecond)

	// A retired child is gone at once.
	require.NoError(t, w.Registry.Retire(t.Context(), "c2", "ada", "scrapped"))
	require.Eventually(t, func() bool {
		return conn.IsConnected() && may("fleet.telemetry.gw.c1") && !may("fleet.telemetry.gw.c2")
	}, patience, 20*time.Millisecond)

	// A quarantined gateway silences its children with itself.
	w.Quarantine(t, "gw", fleet.Isolate)
	w.Await(t, "gw", fleet.Confirmed)
	require.False(t, conn.IsConnected())
}

// A gate that starts anew cuts a gateway that still speaks for a child which
// was retired meanwhile, and leaves other gateways alone.
func TestGate_childRetiredWhileTheGateWasAway(t *testing.T) {
	w := gatetest.Start(t)
	conns := map[string]*nats.Conn{}
	for _, gw := range []string{"g1", "g2"} {
		cfg := w.Device(t, gw)
		_, _, err := w.Registry.Enroll(t.Context(), identity.Enrolment{ID: gw + "-child", Gateway: gw})
		require.NoError(t, err)
		require.Eventually(t, func() bool { return len(w.Registry.Children(gw)) == 1 }, patience, poll)
		conns[gw], err = w.NATS(t, gw, cfg)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return speak(t, conns[gw], fmt.Sprintf("fleet.telemetry.%s.%s-child", gw, gw)) == nil }, patience, 20*time.Millisecond)
	}
	w.StopGate()
	require.NoError(t, w.Registry.Retire(t.Context(), "g1-child", "ada", "scrapped"))
	kept := conns["g2"].Stats().Reconnects
	w.StartGate(t)
	require.Eventually(t, func() bool {
		return conns["g1"].IsConnected() && speak(t, conns["g1"], "fleet.telemetry.g1") == nil && speak(t, conns["g1"], "fleet.telemetry.g1.g1-child") != nil
	}, patience, 20*time.Millisecond)
	require.Equal(t, kept, conns["g2"].Stats().Reconnects)
}

func TestGate_quarantinedKeyOrHardwareCannotEnrolAgain(t *testing.T) {
	w := gatetest.Start(t)
	_, csr := gatetest.Request(t)
	_, token, err := w.Registry.Enroll(t.Context(), identity.Enrolment{ID: "d1"})
	require.NoError(t, err)
	_, _, err = w.Registry.Admit(t.Context(), identity.Redemption{Token: token, CSR: csr, HardwareID: "SN-1"})
	require.NoError(t, err)
	try := func(id string, csr []byte, hardware string) fleet.Code {
		_, token, err := w.Registry.Enroll(t.Context(), identity.Enrolment{ID: id})
		require.NoError(t, err)
		_, _, err = w.Registry.Admit(t.Context(), identity.Redemption{Token: token, CSR: csr, HardwareID: hardware})
		return fleet.CodeOf(err)
	}
	_, other := gatetest.Request(t)
	require.Equal(t, fleet.CodeConflict, try("d2", csr, ""), "a key in use")
	require.Equal(t, fleet.CodeConflict, try("d2", other, "SN-1"), "hardware in use")
	w.Quarantine(t, "d1", fleet.Isolate)
	require.Equal(t, fleet.CodeForbidden, try("d2", csr, ""))
	require.Equal(t, fleet.CodeForbidden, try("d2", other, "SN-1"))
	_, _, err = w.Registry.Enroll(t.Context(), identity.Enrolment{ID: "d3", HardwareID: "SN-1"})
	require.Equal(t, fleet.CodeForbidden, fleet.CodeOf(err))
	w.Release(t, "d1")
	require.NoError(t, w.Registry.Revoke(t.Context(), "d1", "ada", "stolen"))
	require.Equal(t, fleet.CodeForbidden, try("d2", csr, ""), "a revoked key")
	require.Equal(t, fleet.Code(""), try("d2", other, "SN-2"))
}
