package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"cordon/internal/fleet"
)

const (
	caValidity     = 10 * 365 * 24 * time.Hour
	serverValidity = 397 * 24 * time.Hour
	serverRenewal  = 132 * 24 * time.Hour // a running server's certificate is replaced when less is left
	backdate       = 5 * time.Minute      // devices whose clocks are a little late still accept a new certificate
	maxCSR         = 16 << 10             // bytes of a certificate request
	uriPrefix      = "cordon:device:"     // after urn:
)

// CA is Cordon's certificate authority. It is safe for concurrent use.
type CA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
	now  func() time.Time
}

// LoadOrCreateCA reads the authority's key and certificate from dir (ca.key,
// ca.crt) or makes them. It refuses a key that others than its owner can read.
func LoadOrCreateCA(dir string, now func() time.Time) (*CA, error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	key, err := loadKey(dir)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = createKey(dir)
	}
	if err != nil {
		return nil, err
	}
	cert, err := loadCert(dir)
	if errors.Is(err, fs.ErrNotExist) {
		cert, err = createCert(dir, key, now())
	}
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("certificate authority in %s: ca.crt does not belong to ca.key; restore both from the same backup", dir)
	}
	if t := now(); t.After(cert.NotAfter) {
		return nil, fmt.Errorf("certificate authority in %s ended on %s: make a new one and enrol the devices again", dir, cert.NotAfter.Format(time.DateOnly))
	}
	return &CA{key: key, cert: cert, pem: pemBlock("CERTIFICATE", cert.Raw), now: now}, nil
}

// Pool holds the authority's certificate, for verifying peers.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// PEM is the authority's certificate, which devices need to trust the broker.
func (ca *CA) PEM() []byte { return slices.Clone(ca.pem) }

// Server makes a server certificate with a fresh key for the given host names
// and addresses, and for localhost, 127.0.0.1 and ::1.
func (ca *CA) Server(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("generate server key: %w", err)
	}
	template := ca.template("Cordon server", serverValidity)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range append([]string{"localhost", "127.0.0.1", "::1"}, names...) {
		ip := net.ParseIP(name)
		switch {
		case name == "" || ip != nil && ip.IsUnspecified():
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, leaf, err := ca.sign(template, key.Public())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign server certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// BrokerTLS is the configuration of a listener for devices: they must show a
// certificate of this authority. The server certificate is renewed while the
// listener runs.
func (ca *CA) BrokerTLS(names ...string) (*tls.Config, error) {
	source := &serverSource{ca: ca, names: names}
	if _, err := source.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      ca.Pool(),
		GetCertificate: source.get,
		// A resumed session would skip the check of the certificate's end.
		SessionTicketsDisabled: true,
	}, nil
}

type serverSource struct {
	ca    *CA
	names []string

	mu   sync.Mutex
	cert *tls.Certificate
}

func (s *serverSource) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert == nil || s.cert.Leaf.NotAfter.Sub(s.ca.now()) < serverRenewal {
		cert, err := s.ca.Server(s.names...)
		if err != nil {
			return nil, err
		}
		s.cert = &cert
	}
	return s.cert, nil
}

// SignDevice signs a device's certificate request. Of the request only its
// public key counts; name, extensions and usages come from Cordon.
func (ca *CA) SignDevice(csrPEM []byte, device string, validity time.Duration) (certPEM []byte, leaf *x509.Certificate, err error) {
	if err := fleet.CheckDeviceID(device); err != nil {
		return nil, nil, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("device")
	}
	pub, err := requestKey(csrPEM)
	if err != nil {
		return nil, nil, err
	}
	template := ca.template(device, validity)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{{Scheme: "urn", Opaque: uriPrefix + device}}
	der, leaf, err := ca.sign(template, pub)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate of device %s: %w", device, err)
	}
	return pemBlock("CERTIFICATE", der), leaf, nil
}

func requestKey(csrPEM []byte) (crypto.PublicKey, error) {
	if len(csrPEM) > maxCSR {
		return nil, fleet.Errorf(fleet.CodeInvalid, "certificate request has %d bytes, the limit is %d", len(csrPEM), maxCSR).On("csr")
	}
	block, _ := pem.Decode(csrPEM)
	if block == nil || !strings.HasSuffix(block.Type, "CERTIFICATE REQUEST") {
		return nil, fleet.Errorf(fleet.CodeInvalid, "certificate request is not PEM of type CERTIFICATE REQUEST").On("csr")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fleet.Errorf(fleet.CodeInvalid, "certificate request can't be read: %w", err).On("csr")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fleet.Errorf(fleet.CodeInvalid, "certificate request is not signed by its own key: %w", err).On("csr")
	}
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return key, nil
	case *rsa.PublicKey:
		if key.N.BitLen() >= 2048 && key.N.BitLen() <= 8192 {
			return key, nil
		}
	}
	return nil, fleet.Errorf(fleet.CodeInvalid, "certificate request has an unsuitable key: use ECDSA, Ed25519, or RSA of 2048 to 8192 bits").On("csr")
}

// DeviceID reads a device's id from its certificate: the one URI SAN
// urn:cordon:device:<id>.
func DeviceID(cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 {
		return "", fmt.Errorf("certificate has %d URI names, want one urn:%s<id>", len(cert.URIs), uriPrefix)
	}
	uri := cert.URIs[0]
	id, ok := strings.CutPrefix(uri.Opaque, uriPrefix)
	if uri.Scheme != "urn" || !ok {
		return "", fmt.Errorf("certificate names %q, want urn:%s<id>", uri.Redacted(), uriPrefix)
	}
	if err := fleet.CheckDeviceID(id); err != nil {
		return "", err
	}
	return id, nil
}

// Serial is a certificate's serial number as the registry keeps it.
func Serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

func (ca *CA) template(name string, validity time.Duration) *x509.Certificate {
	now := ca.now().UTC()
	end := now.Add(validity)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
}

func (ca *CA) sign(template *x509.Certificate, pub crypto.PublicKey) ([]byte, *x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("create certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("read created certificate: %w", err)
	}
	return der, leaf, nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	return serial.Add(serial, new(big.Int).Lsh(big.NewInt(1), 120)), nil
}
