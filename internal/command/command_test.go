package command_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/command"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

func TestVerify(t *testing.T) {
	now := time.Now()
	ca, err := identity.LoadOrCreateCA(t.TempDir()+"/ca", time.Now)
	require.NoError(t, err)
	other, err := identity.LoadOrCreateCA(t.TempDir()+"/ca", time.Now)
	require.NoError(t, err)
	sign := func(cert tls.Certificate, c command.Command) []byte {
		s, err := command.NewSigner(cert)
		require.NoError(t, err)
		data, err := s.Sign(c)
		require.NoError(t, err)
		return data
	}
	cert, err := ca.Client(command.Name)
	require.NoError(t, err)
	good := command.Command{Device: "d1", Kind: "quarantine", ID: "d1.1", Level: fleet.Isolate, IssuedAt: now}
	data := sign(cert, good)
	got, err := command.Verify(data, ca.Pool(), "d1", now, time.Time{})
	require.NoError(t, err)
	require.Equal(t, fleet.Isolate, got.Level)

	refused := func(why string, data []byte, device string, at, last time.Time) {
		t.Helper()
		_, err := command.Verify(data, ca.Pool(), device, at, last)
		require.ErrorContains(t, err, why)
	}
	refused("is for device", data, "d2", now, time.Time{})
	refused("expired", data, "d1", now.Add(time.Hour), time.Time{})
	refused("obeyed before", data, "d1", now, now)
	plain, err := json.Marshal(good)
	require.NoError(t, err)
	refused("not signed", plain, "d1", now, time.Time{})
	refused("not signed", []byte(`{"stream":"FLEET","seq":7}`), "d1", now, time.Time{})
	foreign, err := other.Client(command.Name)
	require.NoError(t, err)
	refused("not of this authority", sign(foreign, good), "d1", now, time.Time{})
	part, err := ca.Client("cordon")
	require.NoError(t, err)
	refused("may not command", sign(part, good), "d1", now, time.Time{})

	// A device that was enrolled under the name of the signer.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	_, leaf, err := ca.SignDevice(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), command.Name, time.Hour)
	require.NoError(t, err)
	refused("may not command", sign(tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}, good), "d1", now, time.Time{})

	var e map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &e))
	changed := good
	changed.Kind = "release"
	e["command"], err = json.Marshal(changed)
	require.NoError(t, err)
	tampered, err := json.Marshal(e)
	require.NoError(t, err)
	refused("signature is wrong", tampered, "d1", now, time.Time{})
}
