package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"cordon/internal/fleet"
)

// maxAuthorities is how many may be trusted side by side.
const maxAuthorities = 4

// authority is one certificate authority with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // of the key
}

func (a *authority) id() string { return fingerprint(a.cert) }

// fingerprint names an authority: the first 8 bytes of its SHA-256, in hex.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:8])
}

func (a *authority) sign(template *x509.Certificate, pub crypto.PublicKey) ([]byte, *x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("create certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("read created certificate: %w", err)
	}
	return der, leaf, nil
}

// authorityOf is the id of the authority that signed a certificate, "" when
// none of these did.
func (ca *CA) authorityOf(leaf *x509.Certificate) string {
	for _, a := range ca.trusted() {
		if slices.Equal(leaf.AuthorityKeyId, a.cert.SubjectKeyId) {
			return a.id()
		}
	}
	return ""
}

// Authority describes one of Cordon's authorities.
type Authority struct {
	ID        string    `json:"id" doc:"The first 8 bytes of the certificate's SHA-256, in hex."`
	Name      string    `json:"name"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Signs     []string  `json:"signs" doc:"What it signs: devices, servers."`
	Encrypted bool      `json:"encrypted" doc:"Its key is encrypted at rest."`
	Devices   int       `json:"devices" doc:"Devices whose certificate it signed."`
}

// Authorities lists the trusted authorities, oldest first.
func (ca *CA) Authorities() []Authority {
	all := ca.trusted()
	list := make([]Authority, len(all))
	for i, a := range all {
		list[i] = Authority{
			ID: a.id(), Name: a.cert.Subject.CommonName, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, Signs: []string{}, Encrypted: ca.sealer != nil,
		}
		if i == 0 {
			list[i].Signs = append(list[i].Signs, "servers")
		}
		if i == len(all)-1 {
			list[i].Signs = append(list[i].Signs, "devices")
		}
	}
	return list
}

// rotate makes a new authority, which signs devices from now on. The older
// ones stay trusted, and the oldest goes on signing servers, until it is
// retired.
func (ca *CA) rotate() (string, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if len(ca.authorities) >= maxAuthorities {
		return "", fleet.Errorf(fleet.CodeConflict, "%d authorities are trusted already: retire the oldest first", len(ca.authorities))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("generate key of certificate authority: %w", err)
	}
	cert, err := newCert(key, ca.now())
	if err != nil {
		return "", err
	}
	a := &authority{cert: cert, key: key}
	a.file = filepath.Join(ca.dir, "ca-"+a.id()+".key")
	if err := ca.saveKey(a.file, key); err != nil {
		return "", err
	}
	all := append(slices.Clone(ca.authorities), a)
	if err := saveAuthorities(ca.dir, all); err != nil {
		return "", err
	}
	ca.authorities = all
	return a.id(), nil
}

// retire ends the trust in an authority and destroys its key.
func (ca *CA) retire(id string) error {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	i := slices.IndexFunc(ca.authorities, func(a *authority) bool { return a.id() == id })
	switch {
	case i < 0:
		return fleet.Errorf(fleet.CodeNotFound, "there is no authority %s", id)
	case len(ca.authorities) == 1:
		return fleet.Errorf(fleet.CodeConflict, "authority %s is the only one: rotate first", id)
	}
	gone := ca.authorities[i]
	rest := slices.Delete(slices.Clone(ca.authorities), i, i+1)
	if err := saveAuthorities(ca.dir, rest); err != nil {
		return err
	}
	ca.authorities = rest
	return destroy(gone.file)
}

func saveAuthorities(dir string, all []*authority) error {
	certs := make([]*x509.Certificate, len(all))
	for i, a := range all {
		certs[i] = a.cert
	}
	return saveCerts(dir, certs...)
}

// destroy overwrites a file before it removes it. On file systems and disks
// that write elsewhere, only encryption at rest makes that certain.
func destroy(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("destroy key: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("destroy key: %w", err)
	}
	_, err = file.Write(make([]byte, info.Size()))
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("destroy key %s: %w", path, err)
	}
	return nil
}

// Authorities lists the authorities with the number of devices on each.
func (r *Registry) Authorities() []Authority {
	list := r.deps.CA.Authorities()
	for i := range list {
		list[i].Devices = len(r.signedBy(list[i].ID))
	}
	return list
}

// signedBy lists the active devices whose certificate is of an authority.
func (r *Registry) signedBy(id string) []string {
	var found []string
	oldest := r.deps.CA.oldest().id()
	r.All(func(d fleet.Device) bool {
		if d.State != fleet.Active || d.Credential != "" && d.Credential != fleet.ByCertificate {
			return true
		}
		// Certificates from before authorities had names are of the oldest.
		if d.Authority == id || d.Authority == "" && id == oldest {
			found = append(found, d.ID)
		}
		return true
	})
	return found
}

// RotateAuthority makes a new authority for devices; see CA. Devices move to
// it when they renew, or at once after Rotate. Code: conflict.
func (r *Registry) RotateAuthority(_ context.Context, actor string) (string, error) {
	id, err := r.deps.CA.rotate()
	if err == nil {
		r.deps.Log.Info("new certificate authority", "authority", id, "actor", actor)
	}
	return id, err
}

// RetireAuthority ends the trust in an authority and destroys its key. While
// devices depend on it that is refused, unless force is set: then they are
// revoked, and so cut off at once. Codes: not_found, conflict.
func (r *Registry) RetireAuthority(ctx context.Context, id, actor, reason string, force bool) (revoked []string, err error) {
	if all := r.deps.CA.trusted(); len(all) == 1 && all[0].id() == id {
		return nil, fleet.Errorf(fleet.CodeConflict, "authority %s is the only one: rotate first", id)
	}
	depend := r.signedBy(id)
	if len(depend) > 0 && !force {
		return nil, fleet.Errorf(fleet.CodeConflict, "%d devices have a certificate of authority %s, such as %s: let them renew first, or force it and enrol them again", len(depend), id, depend[0])
	}
	if err := r.deps.CA.retire(id); err != nil {
		return nil, err
	}
	for _, device := range depend {
		if err := r.Revoke(ctx, device, actor, "authority "+id+" was retired: "+reason); err != nil && fleet.CodeOf(err) != fleet.CodeConflict {
			return revoked, err
		}
		revoked = append(revoked, device)
	}
	r.deps.Log.Info("certificate authority retired", "authority", id, "actor", actor, "reason", reason, "revoked", len(revoked))
	return revoked, nil
}

// Dir is the directory of the keys.
func (ca *CA) Dir() string { return ca.dir }

// AuthorityPEM is the certificates of the trusted authorities.
func (r *Registry) AuthorityPEM() []byte { return r.deps.CA.PEM() }
