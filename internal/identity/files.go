package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	keyFile  = "ca.key"
	certFile = "ca.crt"
)

// privateDir makes dir with mode 0700 or checks that it has no wider one.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of certificate authority: %w", err)
	}
	return checkMode(dir, "700")
}

func checkMode(path, want string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("check file mode: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so that other users can read Cordon's signing key: run chmod %s %s", path, mode, want, path)
	}
	return nil
}

// loadedKey is a private key with its file.
type loadedKey struct {
	key  *ecdsa.PrivateKey
	file string
}

// loadKeys reads every authority's key. Keys that should be encrypted and are
// not are written anew.
func (ca *CA) loadKeys() ([]loadedKey, error) {
	paths, err := filepath.Glob(filepath.Join(ca.dir, "ca-*.key"))
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var keys []loadedKey
	for _, path := range append([]string{filepath.Join(ca.dir, keyFile)}, paths...) {
		key, err := ca.loadKey(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, loadedKey{key, path})
	}
	return keys, nil
}

func (ca *CA) loadKey(path string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if err := checkMode(path, "600"); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	var der []byte
	switch {
	case block != nil && block.Type == plainKey:
		der = block.Bytes
	case block != nil && block.Type == sealedKey && ca.sealer == nil:
		return nil, fmt.Errorf("read key %s: it is encrypted: set %s to the key that it was encrypted with", path, SealKeyEnv)
	case block != nil && block.Type == sealedKey:
		if der, err = ca.sealer.Open(sealName, string(block.Bytes)); err != nil {
			return nil, fmt.Errorf("read key %s: %s holds another key than it was encrypted with: %w", path, SealKeyEnv, err)
		}
	default:
		return nil, fmt.Errorf("read %s: it is not PEM of type %s", path, plainKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: it is not an ECDSA key", path)
	}
	if block.Type == plainKey && ca.sealer != nil {
		if err := ca.saveKey(path, key); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// SealKeyEnv names the environment variable with the key under which Cordon's
// own keys are encrypted at rest.
const SealKeyEnv = "CORDON_SECRETS_KEY"

const (
	plainKey  = "PRIVATE KEY"
	sealedKey = "CORDON SEALED PRIVATE KEY"
	sealName  = "authority key"
)

func (ca *CA) saveKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key of certificate authority: %w", err)
	}
	block := pemBlock(plainKey, der)
	if ca.sealer != nil {
		sealed, err := ca.sealer.Seal(sealName, der)
		if err != nil {
			return fmt.Errorf("encrypt key of certificate authority: %w", err)
		}
		block = pemBlock(sealedKey, []byte(sealed))
	}
	return writeFile(path, block, 0o600)
}

// create makes the first authority. A key without certificate is what a crash
// between the two leaves behind, and is used.
func (ca *CA) create() ([]*x509.Certificate, error) {
	path := filepath.Join(ca.dir, keyFile)
	key, err := ca.loadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			err = ca.saveKey(path, key)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make key of certificate authority: %w", err)
	}
	cert, err := newCert(key, ca.now())
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{cert}, saveCerts(ca.dir, cert)
}

// loadCerts reads every trusted authority, oldest first.
func loadCerts(dir string) ([]*x509.Certificate, error) {
	path := filepath.Join(dir, certFile)
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("read %s: it holds PEM of type %s", path, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("read %s: it is not PEM of type CERTIFICATE", path)
	}
	return certs, nil
}

func saveCerts(dir string, certs ...*x509.Certificate) error {
	var all []byte
	for _, cert := range certs {
		all = append(all, pemBlock("CERTIFICATE", cert.Raw)...)
	}
	return writeFile(filepath.Join(dir, certFile), all, 0o644)
}

func newCert(key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Cordon device authority " + serial.Text(36)[:8]},
		NotBefore:             now.UTC().Add(-backdate),
		NotAfter:              now.UTC().Add(caValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create certificate of authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read certificate of authority: %w", err)
	}
	return cert, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeFile replaces path whole: a crash leaves the old file or the new one.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // it is gone after the rename
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// CheckModes refuses a key directory in which others than its owner can read
// anything but certificates and public keys.
func CheckModes(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is about to be made
	}
	if err != nil {
		return fmt.Errorf("check key directory: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() || filepath.Ext(entry.Name()) == ".pub" || filepath.Ext(entry.Name()) == ".crt" || filepath.Ext(entry.Name()) == ".conf" || entry.Name() == "broker-cert.pem" {
			continue
		}
		if err := checkMode(filepath.Join(dir, entry.Name()), "600"); err != nil {
			return err
		}
	}
	return nil
}
