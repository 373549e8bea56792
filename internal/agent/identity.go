package agent

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
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cordon/internal/fleet"
)

// Files of an identity's directory. The key is written first and the device
// file last: its presence says that the rest is complete.
const (
	keyFile         = "key.pem"
	certificateFile = "certificate.pem"
	caFile          = "ca.pem"
	deviceFile      = "device.json"
)

// Identity is who a device is at the broker, and where the broker is.
type Identity struct {
	Device      string
	NATS        string // host:port or URL
	MQTT        string
	Certificate tls.Certificate
	CA          *x509.CertPool

	keyPEM []byte
	caPEM  []byte

	mu sync.Mutex // of what a renewal replaces: certificate and authorities
}

// NewIdentity makes a key that never leaves this process and gets a
// certificate for it.
func NewIdentity(ctx context.Context, issuer Issuer, token string) (*Identity, error) {
	keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	return redeem(ctx, issuer, token, keyPEM)
}

// Enroll makes the device's key in dir (mode 0600), has it certified at the
// Cordon of address and stores the identity in dir.
func Enroll(ctx context.Context, address string, pool *x509.CertPool, token, dir string) (*Identity, error) {
	client, err := NewClient(address, "", pool)
	if err != nil {
		return nil, err
	}
	return EnrollWith(ctx, client, token, dir)
}

// EnrollWith is Enroll with any issuer.
func EnrollWith(ctx context.Context, issuer Issuer, token, dir string) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make identity directory: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	keyPEM, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if keyPEM, err = newKey(); err == nil {
			err = writeFile(path, keyPEM)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make device key: %w", err)
	}
	id, err := redeem(ctx, issuer, token, keyPEM)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, renewedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("forget the identity from before: %w", err)
	}
	if err := id.save(dir); err != nil {
		return nil, err
	}
	return id, nil
}

// ErrNoIdentity says that a directory holds no complete identity.
var ErrNoIdentity = errors.New("device is not enrolled")

// Load reads the identity in dir. ErrNoIdentity: there is none.
func Load(dir string) (*Identity, error) {
	raw, err := os.ReadFile(filepath.Join(dir, deviceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoIdentity
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	var c Credentials
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", filepath.Join(dir, deviceFile), err)
	}
	var keyPEM []byte
	for _, part := range []struct {
		to   *[]byte
		name string
	}{{&keyPEM, keyFile}, {&c.Certificate, certificateFile}, {&c.CA, caFile}} {
		if *part.to, err = os.ReadFile(filepath.Join(dir, part.name)); err != nil {
			return nil, fmt.Errorf("read identity: %w", err)
		}
	}
	certificate, key, err := loadRenewed(dir)
	if err == nil {
		c.Certificate, keyPEM = certificate, key
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	return newIdentity(c, keyPEM)
}

// Expired says whether the certificate has ended at now.
func (id *Identity) Expired(now time.Time) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	leaf := id.Certificate.Leaf
	return leaf != nil && now.After(leaf.NotAfter)
}

// TLS is the configuration that proves the identity to the broker.
func (id *Identity) TLS() *tls.Config {
	return &tls.Config{
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			current, err := id.certificate()
			return &current, err
		},
		RootCAs:    id.CA,
		MinVersion: tls.VersionTLS12,
	}
}

func (id *Identity) save(dir string) error {
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate.Certificate[0]})
	for _, der := range id.Certificate.Certificate[1:] {
		certificate = append(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	device, err := json.Marshal(Credentials{Device: id.Device, NATS: id.NATS, MQTT: id.MQTT})
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	for _, part := range []struct {
		name string
		data []byte
	}{{keyFile, id.keyPEM}, {certificateFile, certificate}, {caFile, id.caPEM}, {deviceFile, device}} {
		if err := writeFile(filepath.Join(dir, part.name), part.data); err != nil {
			return fmt.Errorf("store identity: %w", err)
		}
	}
	return nil
}

func redeem(ctx context.Context, issuer Issuer, token string, keyPEM []byte) (*Identity, error) {
	csr, err := request(keyPEM)
	if err != nil {
		return nil, err
	}
	c, err := issuer.Redeem(ctx, token, csr)
	if err != nil {
		return nil, err
	}
	return newIdentity(c, keyPEM)
}

// request makes a certificate request (PEM) for a key.
func request(keyPEM []byte) ([]byte, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("read device key: no PEM block")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read device key: %w", err)
	}
	// The authority names the device by the token; what the request asks for
	// is ignored there.
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "cordon device"},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), nil
}

func newIdentity(c Credentials, keyPEM []byte) (*Identity, error) {
	if err := fleet.CheckDeviceID(c.Device); err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	pair, err := tls.X509KeyPair(c.Certificate, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read certificate of %s: %w", c.Device, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.CA) {
		return nil, fmt.Errorf("read authority of %s: no certificate in it", c.Device)
	}
	return &Identity{
		Device: c.Device, NATS: c.NATS, MQTT: c.MQTT,
		Certificate: pair, CA: pool, keyPEM: keyPEM, caPEM: c.CA,
	}, nil
}

func newKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make device key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode device key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// writeFile replaces a file in one step, readable by its owner only.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the failure above is what matters
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
