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

// CA is Cordon's certificate authority: one authority, or several side by side
// while a rotation is under way. The newest signs devices. The oldest signs
// servers, because every device trusts that one; devices learn of the newer
// ones with their next certificate. It is safe for concurrent use.
type CA struct {
	dir    string
	now    func() time.Time
	sealer Sealer // nil: keys are not encrypted

	mu          sync.RWMutex // of what follows; changes replace the slices
	authorities []*authority // oldest first, never empty
	makers      []*x509.Certificate

	withoutCertificate func() bool // see Optional
}

// Sealer encrypts keys at rest; seal.Ring is one.
type Sealer interface {
	Seal(name string, value []byte) (string, error)
	Open(name, sealed string) ([]byte, error)
}

// Option changes how LoadOrCreateCA works.
type Option func(*CA)

// WithSealer keeps the private keys encrypted. Keys that are not encrypted yet
// are when they are next loaded.
func WithSealer(s Sealer) Option { return func(ca *CA) { ca.sealer = s } }

// LoadOrCreateCA reads the authorities from dir (ca.crt, with a key in ca.key
// or ca-<id>.key for each) or makes the first. It refuses a key that others
// than its owner can read.
func LoadOrCreateCA(dir string, now func() time.Time, options ...Option) (*CA, error) {
	ca := &CA{dir: dir, now: now}
	for _, option := range options {
		option(ca)
	}
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	certs, err := loadCerts(dir)
	if errors.Is(err, fs.ErrNotExist) {
		certs, err = ca.create()
	}
	if err != nil {
		return nil, err
	}
	keys, err := ca.loadKeys()
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		if t := now(); t.After(cert.NotAfter) {
			if len(certs) > 1 {
				continue // the newer ones go on
			}
			return nil, fmt.Errorf("certificate authority in %s ended on %s: make a new one and enrol the devices again", dir, cert.NotAfter.Format(time.DateOnly))
		}
		a := &authority{cert: cert}
		for _, k := range keys {
			if k.key.PublicKey.Equal(cert.PublicKey) {
				a.key, a.file = k.key, k.file
			}
		}
		if a.key == nil && len(keys) > 0 && len(certs) == 1 {
			return nil, fmt.Errorf("certificate authority in %s: %s does not belong to ca.key; restore both from the same backup", dir, certFile)
		}
		if a.key == nil {
			return nil, fmt.Errorf("certificate authority in %s has %s but not the key of %s: restore the key from a backup, or remove %s to start a new authority", dir, certFile, a.id(), certFile)
		}
		ca.authorities = append(ca.authorities, a)
	}
	if len(ca.authorities) == 0 {
		return nil, fmt.Errorf("every certificate authority in %s has ended: make a new one and enrol the devices again", dir)
	}
	return ca, nil
}

// trusted is the list of authorities, oldest first.
func (ca *CA) trusted() []*authority {
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	return ca.authorities
}

func (ca *CA) oldest() *authority { return ca.trusted()[0] }

func (ca *CA) newest() *authority {
	all := ca.trusted()
	return all[len(all)-1]
}

// Pool holds the authorities' certificates, for verifying peers that Cordon
// has signed.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range ca.trusted() {
		pool.AddCert(a.cert)
	}
	return pool
}

// clients is Pool and the makers: whoever may knock. Who it is, and whether a
// maker may speak for that id, Identify decides.
func (ca *CA) clients() *x509.CertPool {
	pool := ca.Pool()
	ca.mu.RLock()
	defer ca.mu.RUnlock()
	for _, cert := range ca.makers {
		pool.AddCert(cert)
	}
	return pool
}

// PEM is the authorities' certificates, which devices need to trust the broker.
func (ca *CA) PEM() []byte {
	var all []byte
	for _, a := range ca.trusted() {
		all = append(all, pemBlock("CERTIFICATE", a.cert.Raw)...)
	}
	return all
}

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
	der, leaf, err := ca.oldest().sign(template, key.Public())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign server certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// BrokerTLS is the configuration of a listener for devices: they must show a
// certificate of these authorities or of a maker that Cordon trusts; while
// Optional says so, also none, for devices with token credentials. The server
// certificate and the trusted authorities follow changes while the listener
// runs.
func (ca *CA) BrokerTLS(names ...string) (*tls.Config, error) {
	base, err := ca.ServerTLS(names...)
	if err != nil {
		return nil, err
	}
	base.ClientAuth, base.ClientCAs = tls.RequireAndVerifyClientCert, ca.clients()
	// A resumed session would skip the check of the certificate's end.
	base.SessionTicketsDisabled = true
	current := base.Clone()
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		fresh := current.Clone()
		fresh.ClientCAs = ca.clients()
		if ca.optional() {
			fresh.ClientAuth = tls.VerifyClientCertIfGiven
		}
		return fresh, nil
	}
	return base, nil
}

// ServerTLS is the configuration of a listener that asks for no certificate.
// Its own is renewed, and follows a rotation, while the listener runs.
func (ca *CA) ServerTLS(names ...string) (*tls.Config, error) {
	source := &serverSource{ca: ca, names: names}
	if _, err := source.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: source.get}, nil
}

// Optional makes BrokerTLS let clients in that show no certificate while
// allowed says so: the gate then asks them for a token credential.
func (ca *CA) Optional(allowed func() bool) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.withoutCertificate = allowed
}

func (ca *CA) optional() bool {
	ca.mu.RLock()
	allowed := ca.withoutCertificate
	ca.mu.RUnlock()
	return allowed != nil && allowed()
}

// trustMakers replaces the makers whose certificates listeners take.
func (ca *CA) trustMakers(certs []*x509.Certificate) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.makers = certs
}

type serverSource struct {
	ca    *CA
	names []string

	mu     sync.Mutex
	cert   *tls.Certificate
	signer *authority
}

func (s *serverSource) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	signer := s.ca.oldest()
	if s.cert == nil || s.signer != signer || s.cert.Leaf.NotAfter.Sub(s.ca.now()) < serverRenewal && signer.cert.NotAfter.After(s.cert.Leaf.NotAfter) {
		cert, err := s.ca.Server(s.names...)
		if err != nil {
			return nil, err
		}
		s.cert, s.signer = &cert, signer
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
	der, leaf, err := ca.newest().sign(template, pub)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate of device %s: %w", device, err)
	}
	return pemBlock("CERTIFICATE", der), leaf, nil
}

// requestHash is the SHA-256 of a request's public key, in hex.
func requestHash(csrPEM []byte) (string, error) {
	pub, err := requestKey(csrPEM)
	if err != nil {
		return "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fleet.Errorf(fleet.CodeInvalid, "certificate request has a key that can't be encoded: %w", err).On("csr")
	}
	return keyHash(spki), nil
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
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	return serial.Add(serial, new(big.Int).Lsh(big.NewInt(1), 120)), nil
}
