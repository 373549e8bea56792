package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Why a peer is nobody that Cordon knows.
var (
	ErrNoCredential = errors.New("it shows neither a certificate nor a token credential")
	ErrForeign      = errors.New("its certificate is of an authority that Cordon does not trust")
	ErrExpired      = errors.New("its certificate has ended")
	ErrUnknown      = errors.New("its certificate names no device")
)

// Presented is what a peer shows: the chains that its TLS handshake verified,
// and what it sent as user, password or token.
type Presented struct {
	Chains                [][]*x509.Certificate
	User, Password, Token string
}

// Claim is who a peer has proven to be; whether that device may connect, and
// whether Serial is its current credential, the registry says. On an error,
// Device is a guess for the log.
type Claim struct {
	Device string
	Serial string    // of the credential, as the registry keeps it
	End    time.Time // of the credential
}

// Identify finds out whom a peer's credential names. A certificate counts
// before a token, and a maker's certificate only for ids under its prefix; a
// device of a maker is entered, or its key pinned, when it first connects.
// Errors: the four above, wrapped; any other means that it could not be found
// out.
func (r *Registry) Identify(ctx context.Context, p Presented) (Claim, error) {
	if len(p.Chains) == 0 || len(p.Chains[0]) == 0 {
		return r.byToken(ctx, p)
	}
	leaf := p.Chains[0][0]
	claim := Claim{Serial: Serial(leaf), End: leaf.NotAfter}
	claim.Device, _ = DeviceID(leaf) //nolint:errcheck // only a guess so far
	if !r.deps.Clock().Before(leaf.NotAfter) {
		return claim, ErrExpired
	}
	for _, chain := range p.Chains {
		if root := chain[len(chain)-1]; r.deps.CA.trusts(root) {
			var err error
			if claim.Device, err = DeviceID(leaf); err != nil {
				return claim, fmt.Errorf("%w: %w", ErrUnknown, err)
			}
			return claim, nil
		}
	}
	for _, chain := range p.Chains {
		if maker, ok := r.makerOf(chain[len(chain)-1]); ok {
			return r.byMaker(ctx, maker, leaf)
		}
	}
	claim.Device = "" // an authority that is not trusted speaks for nobody
	return claim, ErrForeign
}

func (ca *CA) trusts(root *x509.Certificate) bool {
	for _, a := range ca.trusted() {
		if a.cert.Equal(root) {
			return true
		}
	}
	return false
}

const (
	credentialPrefix  = "cordon_device_"
	credentialEntropy = 32            // random bytes
	credentialSerial  = "credential-" //nolint:gosec // a prefix
	hashDigits        = 40
)

// newCredential makes a token credential. Its serial, all that is kept of it,
// is a hash; the secret has 256 random bits, so that a slow hash adds nothing.
func newCredential(id string) (secret, serial string, err error) {
	raw, err := random(credentialEntropy)
	if err != nil {
		return "", "", err
	}
	secret = credentialPrefix + tokenEncoding.EncodeToString(append(raw, id...))
	return secret, credentialSerial + hashToken(secret)[:hashDigits], nil
}

func (r *Registry) byToken(ctx context.Context, p Presented) (Claim, error) {
	secret := p.Password
	if secret == "" {
		secret = p.Token
	}
	if secret == "" {
		return Claim{}, ErrNoCredential
	}
	text, ok := strings.CutPrefix(secret, credentialPrefix)
	raw, err := tokenEncoding.DecodeString(text)
	if !ok || len(text) > 256 || err != nil || len(raw) <= credentialEntropy {
		return Claim{}, ErrNoCredential
	}
	id := string(raw[credentialEntropy:])
	if fleet.CheckDeviceID(id) != nil || p.User != "" && p.User != id {
		return Claim{}, fmt.Errorf("%w: user name and credential name different devices", ErrUnknown)
	}
	claim := Claim{Device: id, Serial: credentialSerial + hashToken(secret)[:hashDigits]}
	device, err := r.Lookup(ctx, id)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return claim, fmt.Errorf("%w: no device %s", ErrUnknown, id)
	}
	if err != nil {
		return claim, err
	}
	claim.End = device.CertificateNotAfter
	if device.Next != nil && device.Next.Serial == claim.Serial {
		claim.End = device.Next.NotAfter
	}
	if !r.deps.Clock().Before(claim.End) {
		return claim, ErrExpired
	}
	return claim, nil
}

// IssueCredential makes a token credential for a device that can't do
// certificates. For a device that has one already the new one replaces it when
// it first connects. Codes: not_found, conflict.
func (r *Registry) IssueCredential(ctx context.Context, id, actor string) (fleet.Device, string, error) {
	secret, serial, err := newCredential(id)
	if err != nil {
		return fleet.Device{}, "", err
	}
	device, err := r.modify(ctx, id, false, func(d *fleet.Device) error {
		if d.State == fleet.Active && d.Credential != fleet.ByToken || d.State != fleet.Active && d.State != fleet.Enrolled {
			return fleet.Errorf(fleet.CodeConflict, "device %s is %s and not without certificate: enrol it with a token credential under a new id", id, d.State)
		}
		r.credential(d, serial)
		return nil
	})
	if err != nil {
		return fleet.Device{}, "", err
	}
	r.deps.Log.Info("token credential issued", "device", id, "actor", actor)
	return device, secret, nil
}

// credential gives a device a token credential, beside the one that it has.
func (r *Registry) credential(d *fleet.Device, serial string) {
	now := r.deps.Clock().UTC()
	end := now.Add(r.cfg.CertificateLife)
	d.TokenHash, d.TokenExpiresAt = "", time.Time{}
	if d.State == fleet.Active && d.CertificateSerial != "" {
		d.Next = &fleet.NextCredential{Serial: serial, NotBefore: now, NotAfter: end}
		return
	}
	d.State, d.Credential, d.Next = fleet.Active, fleet.ByToken, nil
	d.CertificateSerial, d.CertificateNotBefore, d.CertificateNotAfter = serial, now, end
}

// keyHash is the SHA-256 of a certificate's or request's public key.
func keyHash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// countTokens keeps the number of active devices with token credentials; the
// caller holds the lock.
func (r *Registry) countTokens(old *held, now fleet.Device) {
	tokens := func(d fleet.Device) bool { return d.State == fleet.Active && d.Credential == fleet.ByToken }
	if old != nil && tokens(old.device) {
		r.tokens.Add(-1)
	}
	if tokens(now) {
		r.tokens.Add(1)
	}
}

// seen is where a key or a hardware id was last enrolled.
type seen struct {
	Device string `json:"device,omitempty"`
	Barred string `json:"barred,omitempty"` // why it can't enrol again although its device was erased
}

func traces(key, hardware string) []string {
	var all []string
	if key != "" {
		all = append(all, "key."+key)
	}
	if hardware != "" {
		all = append(all, "hw."+keyHash([]byte(hardware)))
	}
	return all
}

// barred refuses a key or a hardware id that belongs to another device which
// is active, quarantined or revoked. Codes: forbidden, conflict.
func (r *Registry) barred(ctx context.Context, id, key, hardware string) error {
	for _, trace := range traces(key, hardware) {
		what := "key"
		if strings.HasPrefix(trace, "hw.") {
			what = "hardware id"
		}
		entry, err := readJSON[seen](ctx, r, bus.BucketIdentity, trace)
		if fleet.CodeOf(err) == fleet.CodeNotFound || err == nil && entry.Device == id {
			continue
		}
		if err != nil {
			return err
		}
		if entry.Barred != "" {
			return fleet.Errorf(fleet.CodeForbidden, "this %s can't enrol: %s", what, entry.Barred)
		}
		held, err := r.isolated(ctx, entry.Device)
		if err != nil {
			return err
		}
		if held {
			return fleet.Errorf(fleet.CodeForbidden, "this %s belongs to device %s, which is quarantined", what, entry.Device)
		}
		other, err := r.Lookup(ctx, entry.Device)
		switch {
		case fleet.CodeOf(err) == fleet.CodeNotFound:
		case err != nil:
			return err
		case other.State == fleet.Revoked:
			return fleet.Errorf(fleet.CodeForbidden, "this %s belongs to device %s, which was revoked", what, other.ID)
		case other.State == fleet.Active:
			return fleet.Errorf(fleet.CodeConflict, "this %s belongs to device %s already", what, other.ID)
		}
	}
	return nil
}

// isolated says whether a device is quarantined so that it may not speak.
func (r *Registry) isolated(ctx context.Context, device string) (bool, error) {
	q, err := readJSON[fleet.Quarantine](ctx, r, bus.BucketQuarantine, device)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return false, nil
	}
	return q.Active() && q.Level != fleet.Observe, err
}

// remember notes whose key and hardware these are.
func (r *Registry) remember(ctx context.Context, id, key, hardware string) error {
	for _, trace := range traces(key, hardware) {
		if err := writeJSON(ctx, r, bus.BucketIdentity, trace, seen{Device: id}); err != nil {
			return err
		}
	}
	return nil
}
