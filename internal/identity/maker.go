package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Maker is a device maker whose certificates Cordon takes for ids with a
// prefix.
type Maker struct {
	Name        string    `json:"name"`
	Prefix      string    `json:"prefix" doc:"Ids for which its certificates count."`
	From        string    `json:"from" doc:"Where the id is in a certificate: common_name, serial_number (of the subject) or dns."`
	Certificate string    `json:"certificate" doc:"The maker's authority, PEM."`
	Fingerprint string    `json:"fingerprint"`
	NotAfter    time.Time `json:"not_after"`
	Enroll      bool      `json:"enroll,omitempty" doc:"Devices that nobody enrolled are, when they first connect."`
	Most        int       `json:"most,omitempty" doc:"How many it may enrol so."`
	Cohort      string    `json:"cohort,omitempty"`
	Site        string    `json:"site,omitempty"`
	Model       string    `json:"model,omitempty"`
	AddedAt     time.Time `json:"added_at"`
	AddedBy     string    `json:"added_by"`

	cert *x509.Certificate
}

// Where a maker's certificate may hold the device's id.
const (
	FromCommonName   = "common_name"
	FromSerialNumber = "serial_number"
	FromDNS          = "dns"
)

const (
	makerKey    = "maker."
	makerSerial = "maker-"
	maxMakers   = 100
	maxMade     = 100_000
	minPrefix   = 2
)

// TrustMaker takes certificates of a maker for ids with its prefix, from now
// on and without restart. Codes: invalid, conflict, too_many.
func (r *Registry) TrustMaker(ctx context.Context, m Maker, actor string) (Maker, error) {
	if err := r.checkMaker(&m); err != nil {
		return m, err
	}
	all, err := r.Makers(ctx)
	if err != nil {
		return m, err
	}
	if len(all) >= maxMakers {
		return m, fleet.Errorf(fleet.CodeTooMany, "%d makers are trusted, the limit", len(all))
	}
	for _, other := range all {
		if strings.HasPrefix(other.Prefix, m.Prefix) || strings.HasPrefix(m.Prefix, other.Prefix) {
			return m, fleet.Errorf(fleet.CodeConflict, "prefix %s overlaps with %s of maker %s: an id must have one maker", m.Prefix, other.Prefix, other.Name).On("prefix")
		}
	}
	m.AddedAt, m.AddedBy = r.deps.Clock().UTC(), actor
	raw, err := json.Marshal(m)
	if err != nil {
		return m, fmt.Errorf("encode maker: %w", err)
	}
	kv, err := r.deps.Bus.Bucket(ctx, bus.BucketIdentity)
	if err != nil {
		return m, err
	}
	if _, err := kv.Create(ctx, makerKey+m.Name, raw); errors.Is(err, jetstream.ErrKeyExists) {
		return m, fleet.Errorf(fleet.CodeConflict, "there is a maker %s already", m.Name).On("name")
	} else if err != nil {
		return m, fmt.Errorf("write maker %s: %w", m.Name, err)
	}
	r.deps.Log.Info("maker trusted", "maker", m.Name, "prefix", m.Prefix, "fingerprint", m.Fingerprint, "actor", actor)
	return m, r.loadMakers(ctx)
}

func (r *Registry) checkMaker(m *Maker) error {
	if err := fleet.CheckDeviceID(m.Name); err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "a maker's name has 1 to %d of A-Z a-z 0-9 _ -", fleet.MaxDeviceID).On("name")
	}
	if err := fleet.CheckDeviceID(m.Prefix); err != nil || len(m.Prefix) < minPrefix {
		return fleet.Errorf(fleet.CodeInvalid, "a prefix has %d to %d of A-Z a-z 0-9 _ -", minPrefix, fleet.MaxDeviceID).On("prefix")
	}
	if m.From == "" {
		m.From = FromCommonName
	}
	if !slices.Contains([]string{FromCommonName, FromSerialNumber, FromDNS}, m.From) {
		return fleet.Errorf(fleet.CodeInvalid, "from is %s, %s or %s", FromCommonName, FromSerialNumber, FromDNS).On("from")
	}
	if m.Most < 0 || m.Most > maxMade || m.Enroll && m.Most == 0 {
		return fleet.Errorf(fleet.CodeInvalid, "say how many devices the maker may enrol: 1 to %d", maxMade).On("most")
	}
	for field, text := range map[string]string{"cohort": m.Cohort, "site": m.Site, "model": m.Model} {
		if err := checkText(field, text); err != nil {
			return err
		}
	}
	if err := m.parse(); err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "the maker's certificate can't be used: %w", err).On("certificate")
	}
	if !r.deps.Clock().Before(m.cert.NotAfter) {
		return fleet.Errorf(fleet.CodeInvalid, "the maker's certificate ended on %s", m.cert.NotAfter.Format(time.DateOnly)).On("certificate")
	}
	if r.deps.CA.trusts(m.cert) {
		return fleet.Errorf(fleet.CodeInvalid, "this is Cordon's own authority").On("certificate")
	}
	return nil
}

func (m *Maker) parse() error {
	block, rest := pem.Decode([]byte(m.Certificate))
	if block == nil || block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
		return errors.New("it is not one PEM block of type CERTIFICATE")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	if !cert.IsCA || !cert.BasicConstraintsValid {
		return errors.New("it is not an authority's: CA is not set in it")
	}
	m.cert, m.Fingerprint, m.NotAfter = cert, fingerprint(cert), cert.NotAfter
	return nil
}

// Makers lists the trusted makers, by name.
func (r *Registry) Makers(ctx context.Context) ([]Maker, error) {
	list, err := listJSON[Maker](ctx, r, bus.BucketIdentity, makerKey+"*")
	slices.SortFunc(list, func(a, b Maker) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// DistrustMaker ends the trust in a maker and revokes its devices, which are
// cut off at once. Code: not_found.
func (r *Registry) DistrustMaker(ctx context.Context, name, actor, reason string) (revoked int, err error) {
	if _, err := readJSON[Maker](ctx, r, bus.BucketIdentity, makerKey+name); err != nil {
		return 0, err
	}
	kv, err := r.deps.Bus.Bucket(ctx, bus.BucketIdentity)
	if err != nil {
		return 0, err
	}
	if err := kv.Purge(ctx, makerKey+name); err != nil {
		return 0, fmt.Errorf("remove maker %s: %w", name, err)
	}
	if err := r.loadMakers(ctx); err != nil {
		return 0, err
	}
	var made []string
	r.All(func(d fleet.Device) bool {
		if d.Maker == name && (d.State == fleet.Active || d.State == fleet.Enrolled) {
			made = append(made, d.ID)
		}
		return true
	})
	for _, id := range made {
		if err := r.Revoke(ctx, id, actor, "maker "+name+" is no longer trusted: "+reason); err != nil && fleet.CodeOf(err) != fleet.CodeConflict {
			return revoked, err
		}
		revoked++
	}
	r.deps.Log.Info("maker distrusted", "maker", name, "actor", actor, "revoked", revoked)
	return revoked, nil
}

// loadMakers takes the makers from the bucket into listeners and gate.
func (r *Registry) loadMakers(ctx context.Context) error {
	all, err := r.Makers(ctx)
	if err != nil {
		return err
	}
	list, certs := make([]Maker, 0, len(all)), make([]*x509.Certificate, 0, len(all))
	for _, m := range all {
		if err := m.parse(); err != nil {
			r.deps.Log.Error("maker can't be trusted", "maker", m.Name, "error", err)
			continue
		}
		list, certs = append(list, m), append(certs, m.cert)
	}
	r.makers.Store(&list)
	r.deps.CA.trustMakers(certs)
	return nil
}

// watchMakers follows changes that another process made.
func (r *Registry) watchMakers(ctx context.Context) error {
	kv, err := r.deps.Bus.Bucket(ctx, bus.BucketIdentity)
	if err != nil {
		return err
	}
	watcher, err := kv.Watch(ctx, makerKey+"*")
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", bus.BucketIdentity, err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	initial := true
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for entry := range watcher.Updates() {
		if initial = initial && entry != nil; initial {
			continue
		}
		if err := r.loadMakers(ctx); err != nil {
			return err
		}
	}
	return errors.New("watch closed by the broker")
}

func (r *Registry) makerOf(root *x509.Certificate) (Maker, bool) {
	if all := r.makers.Load(); all != nil {
		for _, m := range *all {
			if m.cert.Equal(root) {
				return m, true
			}
		}
	}
	return Maker{}, false
}

func (m *Maker) deviceID(leaf *x509.Certificate) (string, error) {
	id := leaf.Subject.CommonName
	switch {
	case m.From == FromSerialNumber:
		id = leaf.Subject.SerialNumber
	case m.From == FromDNS && len(leaf.DNSNames) == 1:
		id = leaf.DNSNames[0]
	case m.From == FromDNS:
		return "", fmt.Errorf("%w: maker %s: certificate has %d DNS names, want one", ErrUnknown, m.Name, len(leaf.DNSNames))
	}
	if err := fleet.CheckDeviceID(id); err != nil {
		return "", fmt.Errorf("%w: maker %s: %w", ErrUnknown, m.Name, err)
	}
	if !strings.HasPrefix(id, m.Prefix) {
		return "", fmt.Errorf("%w: maker %s may not speak for %s, only for %s…", ErrUnknown, m.Name, id, m.Prefix)
	}
	return id, nil
}

// byMaker maps a maker's certificate to its device. The first key that
// connects as a device is pinned: a second one needs Rotate.
func (r *Registry) byMaker(ctx context.Context, m Maker, leaf *x509.Certificate) (Claim, error) {
	id, err := m.deviceID(leaf)
	if err != nil {
		return Claim{}, err
	}
	sum := sha256.Sum256(leaf.Raw)
	claim := Claim{Device: id, Serial: makerSerial + hex.EncodeToString(sum[:])[:hashDigits], End: leaf.NotAfter}
	device, err := r.Lookup(ctx, id)
	unknown := fleet.CodeOf(err) == fleet.CodeNotFound
	if err != nil && !unknown {
		return claim, err
	}
	switch {
	case unknown && !m.Enroll:
		return claim, fmt.Errorf("%w: nobody enrolled device %s of maker %s", ErrUnknown, id, m.Name)
	case unknown && r.made(m.Name) >= m.Most:
		return claim, fmt.Errorf("%w: maker %s has enrolled %d devices, its limit", ErrUnknown, m.Name, m.Most)
	case !unknown && (device.Credential != fleet.ByMaker || device.Maker != m.Name):
		return claim, fmt.Errorf("%w: device %s is not of maker %s", ErrUnknown, id, m.Name)
	case !unknown && (device.CertificateSerial == claim.Serial || !pins(device, leaf)):
		return claim, nil // the standing in the registry decides
	}
	key := keyHash(leaf.RawSubjectPublicKeyInfo)
	if err := r.barred(ctx, id, key, ""); err != nil {
		return claim, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if err := r.remember(ctx, id, key, ""); err != nil {
		return claim, err
	}
	_, err = r.modify(ctx, id, unknown, func(d *fleet.Device) error {
		if d.State == "" {
			d.State, d.Credential, d.Maker = fleet.Enrolled, fleet.ByMaker, m.Name
			d.EnrolledAt, d.EnrolledBy = r.deps.Clock().UTC(), "maker:"+m.Name
			merge(d, Enrolment{Cohort: m.Cohort, Site: m.Site, Model: m.Model})
		}
		if d.Maker != m.Name || !pins(*d, leaf) {
			return errSame // another was faster
		}
		d.State, d.RotateAt, d.KeyHash = fleet.Active, time.Time{}, key
		d.CertificateSerial, d.CertificateNotBefore, d.CertificateNotAfter = claim.Serial, leaf.NotBefore, leaf.NotAfter
		return nil
	})
	if errors.Is(err, errSame) {
		err = nil
	}
	return claim, err
}

// pins says whether a maker's certificate becomes the device's: it has none,
// an operator asked for another, or it renews the key that it has.
func pins(d fleet.Device, leaf *x509.Certificate) bool {
	switch d.State {
	case fleet.Enrolled:
		return true
	case fleet.Active:
		same := d.KeyHash == keyHash(leaf.RawSubjectPublicKeyInfo)
		return !same && !d.RotateAt.IsZero() || same && leaf.NotBefore.After(d.CertificateNotBefore)
	}
	return false
}

func (r *Registry) made(maker string) int {
	n := 0
	r.All(func(d fleet.Device) bool {
		if d.Maker == maker {
			n++
		}
		return true
	})
	return n
}
