// Package command signs what Cordon tells devices to do, and checks it on the
// device.
//
// A command travels on fleet.command.<device>, or on fleet.quarantine.<device>
// to a restricted one. Devices can make the broker deliver texts of its own
// there (see ingest/gate), so a device obeys nothing that is not signed by a
// certificate of Cordon's authority made for commands. A command names its
// device and ends after minutes; a device takes none that is older than the
// last one.
package command

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cordon/internal/fleet"
)

// Name is the common name of the certificate that signs commands.
const Name = "cordon-command"

// Life is how long a command may be obeyed.
const Life = 5 * time.Minute

// context keeps a signature of a command from being one of anything else.
const context = "cordon command v1\x00"

// Command tells a device that it is held, or no longer.
type Command struct {
	Device    string      `json:"device"`
	Kind      string      `json:"kind"` // quarantine, release
	ID        string      `json:"id"`   // of the decision
	Level     fleet.Level `json:"level,omitempty"`
	Reason    string      `json:"reason,omitempty"`
	Until     time.Time   `json:"until,omitzero"`
	IssuedAt  time.Time   `json:"issued_at"`
	ExpiresAt time.Time   `json:"expires_at"`
}

// envelope is what travels.
type envelope struct {
	Command     json.RawMessage `json:"command"`
	Certificate []byte          `json:"certificate"` // DER
	Signature   []byte          `json:"signature"`   // ECDSA over SHA-256
}

// Signer signs commands.
type Signer struct {
	cert tls.Certificate
	key  crypto.Signer
}

// NewSigner makes a signer of a certificate with the name Name.
func NewSigner(cert tls.Certificate) (*Signer, error) {
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok || len(cert.Certificate) == 0 {
		return nil, errors.New("make signer of commands: the certificate has no key that signs")
	}
	return &Signer{cert: cert, key: key}, nil
}

func digest(raw []byte) []byte {
	sum := sha256.Sum256(append([]byte(context), raw...))
	return sum[:]
}

// Sign makes the message of a command. ExpiresAt is set when it is zero.
func (s *Signer) Sign(c Command) ([]byte, error) {
	if c.ExpiresAt.IsZero() {
		c.ExpiresAt = c.IssuedAt.Add(Life)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	signature, err := s.key.Sign(rand.Reader, digest(raw), crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign command: %w", err)
	}
	data, err := json.Marshal(envelope{Command: raw, Certificate: s.cert.Certificate[0], Signature: signature})
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return data, nil
}

// Verify returns the command of a message to a device, or why it must not be
// obeyed. last is when the last command that the device obeyed was issued.
func Verify(data []byte, authorities *x509.CertPool, device string, now, last time.Time) (Command, error) {
	var e envelope
	var c Command
	if err := json.Unmarshal(data, &e); err != nil || len(e.Certificate) == 0 || len(e.Signature) == 0 {
		return c, errors.New("the command is not signed")
	}
	cert, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		return c, fmt.Errorf("read certificate of the command: %w", err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: authorities, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return c, fmt.Errorf("the command's certificate is not of this authority: %w", err)
	}
	// A device's certificate has a URI; it must not command others.
	if cert.Subject.CommonName != Name || len(cert.URIs) > 0 || len(cert.DNSNames) > 0 {
		return c, fmt.Errorf("the command is signed by %q, who may not command", cert.Subject.CommonName)
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(key, digest(e.Command), e.Signature) {
		return c, errors.New("the command's signature is wrong")
	}
	if err := json.Unmarshal(e.Command, &c); err != nil {
		return c, fmt.Errorf("read command: %w", err)
	}
	switch {
	case c.Device != device:
		return c, fmt.Errorf("the command is for device %s", c.Device)
	case !now.Before(c.ExpiresAt):
		return c, errors.New("the command has expired")
	case !c.IssuedAt.After(last):
		return c, errors.New("the command was obeyed before, or is older than one that was")
	}
	return c, nil
}
