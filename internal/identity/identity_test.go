package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

func request(t *testing.T, template *x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestCA_keptOverRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := identity.LoadOrCreateCA(dir, time.Now)
	require.NoError(t, err)
	second, err := identity.LoadOrCreateCA(dir, time.Now)
	require.NoError(t, err)
	require.Equal(t, first.PEM(), second.PEM())
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestCA_refusesWhatOthersCanRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	_, err := identity.LoadOrCreateCA(dir, time.Now)
	require.NoError(t, err)
	key := filepath.Join(dir, "ca.key")
	require.NoError(t, os.Chmod(key, 0o644))
	_, err = identity.LoadOrCreateCA(dir, time.Now)
	require.ErrorContains(t, err, "run chmod 600 "+key)
	require.NoError(t, os.Chmod(key, 0o600))
	require.NoError(t, os.Chmod(dir, 0o755))
	_, err = identity.LoadOrCreateCA(dir, time.Now)
	require.ErrorContains(t, err, "run chmod 700 "+dir)
}

func TestCA_lostKeyIsNotReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	_, err := identity.LoadOrCreateCA(dir, time.Now)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "ca.key")))
	_, err = identity.LoadOrCreateCA(dir, time.Now)
	require.ErrorContains(t, err, "restore the key from a backup")
}

func TestCA_ignoresWhatTheRequestAsksFor(t *testing.T) {
	ca, err := identity.LoadOrCreateCA(filepath.Join(t.TempDir(), "ca"), time.Now)
	require.NoError(t, err)
	_, leaf, err := ca.SignDevice(request(t, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "victim"},
		DNSNames: []string{"broker"},
		URIs:     []*url.URL{{Scheme: "urn", Opaque: "cordon:device:victim"}},
	}), "d1", time.Hour)
	require.NoError(t, err)
	id, err := identity.DeviceID(leaf)
	require.NoError(t, err)
	require.Equal(t, "d1", id)
	require.Empty(t, leaf.DNSNames)
	require.False(t, leaf.IsCA)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.NoError(t, err)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	require.Error(t, err, "a device must not pass as broker")
}

func TestCA_refusesForgedRequest(t *testing.T) {
	ca, err := identity.LoadOrCreateCA(filepath.Join(t.TempDir(), "ca"), time.Now)
	require.NoError(t, err)
	block, _ := pem.Decode(request(t, &x509.CertificateRequest{}))
	block.Bytes[len(block.Bytes)-3] ^= 0xff
	for name, csr := range map[string][]byte{
		"signature": pem.EncodeToMemory(block),
		"empty":     nil,
		"text":      []byte("hello"),
		"long":      bytes.Repeat([]byte("a"), 1<<20),
	} {
		_, _, err = ca.SignDevice(csr, "d1", time.Hour)
		require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err), name)
	}
}

type world struct {
	bus *bus.Bus
	ca  *identity.CA
	reg *identity.Registry
	now time.Time
	mu  sync.Mutex
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{bus: bustest.Start(t), now: time.Now()}
	var err error
	w.ca, err = identity.LoadOrCreateCA(filepath.Join(t.TempDir(), "ca"), w.clock)
	require.NoError(t, err)
	w.reg = w.registry(t)
	return w
}

func (w *world) registry(t *testing.T) *identity.Registry {
	t.Helper()
	reg := identity.NewRegistry(identity.DefaultConfig(), identity.Deps{
		Bus: w.bus, CA: w.ca, Clock: w.clock, Log: slog.New(slog.DiscardHandler),
	})
	done := make(chan error, 1)
	go func() { done <- reg.Run(t.Context()) }()
	t.Cleanup(func() { require.NoError(t, <-done) })
	<-reg.Ready()
	return reg
}

func TestRegistry_tokenWorksOnce(t *testing.T) {
	w := start(t)
	_, token, err := w.reg.Enroll(t.Context(), identity.Enrolment{ID: "d1", Actor: "ada"})
	require.NoError(t, err)
	csr := request(t, &x509.CertificateRequest{})

	var wins, losses int
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			_, _, err := w.reg.Redeem(t.Context(), token, csr)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				wins++
			} else if fleet.CodeOf(err) == fleet.CodeUnauthenticated {
				losses++
			}
		})
	}
	group.Wait()
	require.Equal(t, 1, wins)
	require.Equal(t, 7, losses)
	d, ok := w.reg.Get("d1")
	require.True(t, ok)
	require.Equal(t, fleet.Active, d.State)
	require.Empty(t, d.TokenHash)
	require.NotEmpty(t, d.CertificateSerial)
}

func TestRegistry_tokenExpires(t *testing.T) {
	w := start(t)
	_, token, err := w.reg.Enroll(t.Context(), identity.Enrolment{ID: "d1"})
	require.NoError(t, err)
	w.advance(24 * time.Hour)
	_, _, err = w.reg.Redeem(t.Context(), token, request(t, &x509.CertificateRequest{}))
	require.Equal(t, fleet.CodeForbidden, fleet.CodeOf(err))
}

func TestRegistry_reissueSupersedes(t *testing.T) {
	w := start(t)
	enrol := identity.Enrolment{ID: "d1", Cohort: "pump"}
	_, old, err := w.reg.Enroll(t.Context(), enrol)
	require.NoError(t, err)
	_, token, err := w.reg.Enroll(t.Context(), enrol)
	require.NoError(t, err, "an unused token may be replaced")
	csr := request(t, &x509.CertificateRequest{})
	_, _, err = w.reg.Redeem(t.Context(), old, csr)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err))
	first, _, err := w.reg.Redeem(t.Context(), token, csr)
	require.NoError(t, err)

	_, _, err = w.reg.Enroll(t.Context(), enrol)
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))
	enrol.Reissue, enrol.Cohort = true, ""
	d, token, err := w.reg.Enroll(t.Context(), enrol)
	require.NoError(t, err)
	require.Equal(t, first.CertificateSerial, d.CertificateSerial, "valid until the new token is used")
	require.Equal(t, "pump", d.Cohort)
	second, _, err := w.reg.Redeem(t.Context(), token, csr)
	require.NoError(t, err)
	require.NotEqual(t, first.CertificateSerial, second.CertificateSerial)
}

func TestRegistry_revokedAndRetiredCannotRedeem(t *testing.T) {
	w := start(t)
	for id, end := range map[string]func(*identity.Registry, string) error{
		"revoked": func(r *identity.Registry, id string) error { return r.Revoke(t.Context(), id, "ada", "stolen") },
		"retired": func(r *identity.Registry, id string) error { return r.Retire(t.Context(), id, "ada", "scrapped") },
	} {
		_, token, err := w.reg.Enroll(t.Context(), identity.Enrolment{ID: id})
		require.NoError(t, err)
		require.NoError(t, end(w.reg, id))
		_, _, err = w.reg.Redeem(t.Context(), token, request(t, &x509.CertificateRequest{}))
		require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), id)
		require.Equal(t, fleet.CodeConflict, fleet.CodeOf(end(w.reg, id)), id)
		_, _, err = w.reg.Enroll(t.Context(), identity.Enrolment{ID: id})
		require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err), id)
	}
}

func TestRegistry_enrolmentIsChecked(t *testing.T) {
	w := start(t)
	for field, e := range map[string]identity.Enrolment{
		"id":        {ID: "a.b"},
		"cohort":    {ID: "a", Cohort: "x\ny"},
		"time_zone": {ID: "a", TimeZone: "Mars/Olympus"},
		"tags":      {ID: "a", Tags: []string{""}},
	} {
		_, _, err := w.reg.Enroll(t.Context(), e)
		var wrong *fleet.Error
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, field, wrong.Field)
	}
}

func TestRegistry_pages(t *testing.T) {
	w := start(t)
	for i := range 25 {
		_, _, err := w.reg.Enroll(t.Context(), identity.Enrolment{
			ID: fmt.Sprintf("dev-%02d", i), Cohort: []string{"pump", "valve"}[i%2], Tags: []string{"x"},
		})
		require.NoError(t, err)
	}
	for _, sort := range []string{"", "-id", "cohort", "-cohort", "-enrolled_at"} {
		seen := map[string]bool{}
		cursor := ""
		for {
			page, err := w.reg.List(identity.Filter{}, sort, cursor, 7)
			require.NoError(t, err)
			require.EqualValues(t, 25, page.Total)
			for _, d := range page.Items {
				require.False(t, seen[d.ID])
				require.Empty(t, d.TokenHash)
				seen[d.ID] = true
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		require.Len(t, seen, 25, sort)
	}
	page, err := w.reg.List(identity.Filter{Cohort: "pump", Query: "DEV-1", Tags: []string{"x"}}, "", "", 0)
	require.NoError(t, err)
	require.Len(t, page.Items, 5)
	require.Equal(t, map[string]int{"pump": 13, "valve": 12}, w.reg.Facets()["cohort"])
	_, err = w.reg.List(identity.Filter{}, "colour", "", 0)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
}

// A change whose writer died between bucket and log is put on the log by
// whoever runs a registry next.
func TestRegistry_missingControlRecordIsPublished(t *testing.T) {
	w := start(t)
	kv, err := w.bus.Bucket(t.Context(), bus.BucketDevice)
	require.NoError(t, err)
	_, err = kv.Put(t.Context(), "orphan", []byte(`{"id":"orphan","state":"active","cohort":"pump"}`))
	require.NoError(t, err)
	_, _, err = w.reg.Enroll(t.Context(), identity.Enrolment{ID: "d1"})
	require.NoError(t, err)
	stream, err := w.bus.Fleet.Stream(t.Context(), bus.StreamFleet)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		msg, err := stream.GetLastMsgForSubject(t.Context(), "fleet.control.device.orphan")
		return err == nil && bytes.Contains(msg.Data, []byte(`"cohort":"pump"`))
	}, 5*time.Second, 10*time.Millisecond)
	w.registry(t)
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("fleet.control.device.>"))
	require.NoError(t, err)
	require.Equal(t, map[string]uint64{"fleet.control.device.orphan": 1, "fleet.control.device.d1": 1}, info.State.Subjects)
}
