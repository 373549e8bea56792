package evidence

import (
	"archive/zip"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Names of the members that every archive has.
const (
	ManifestName  = "manifest.json"
	SignatureName = "manifest.sig"
)

// maxMember bounds what Verify reads of one member, so that a forged archive
// can't fill the memory.
const maxMember = 256 << 20

// Manifest says what is in an archive and what came before it.
type Manifest struct {
	Version  int       `json:"version"`
	Number   uint64    `json:"number"` // in the chain, from 1
	Incident string    `json:"incident"`
	SealedAt time.Time `json:"sealed_at"`
	SealedBy string    `json:"sealed_by"`
	Why      string    `json:"why"`
	Previous string    `json:"previous"` // SHA-256 of the manifest before; empty for the first
	Devices  []string  `json:"devices"`
	Members  []Member  `json:"members"`
	Missing  []string  `json:"missing"` // what could not be gathered, and why
	Key      string    `json:"key"`     // the Ed25519 public key, base64
}

// Member is a file of the archive.
type Member struct {
	Name   string `json:"name"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// pack signs the manifest and writes the archive.
func pack(m Manifest, members map[string][]byte, key ed25519.PrivateKey) (archive, manifest []byte, err error) {
	m.Key = base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m.Members = append(m.Members, Member{name, len(members[name]), digest(members[name])})
	}
	manifest, err = json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, nil, fmt.Errorf("encode manifest: %w", err)
	}
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	add := func(name string, raw []byte) {
		if err != nil {
			return
		}
		var w io.Writer
		if w, err = z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: m.SealedAt}); err == nil {
			_, err = w.Write(raw)
		}
	}
	add(ManifestName, manifest)
	add(SignatureName, []byte(base64.StdEncoding.EncodeToString(ed25519.Sign(key, manifest))+"\n"))
	for _, name := range names {
		add(name, members[name])
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return nil, nil, fmt.Errorf("write archive: %w", err)
	}
	return out.Bytes(), manifest, nil
}

// Report is what Verify found.
type Report struct {
	Manifest Manifest `json:"manifest"`
	Hash     string   `json:"hash"` // of the manifest: the next one's Previous
	Key      string   `json:"key"`  // fingerprint: SHA-256 of the public key
	Faults   []string `json:"faults"`
}

// Verify checks an archive offline: every member against the manifest, the
// manifest against its signature, and, if trusted is not nil, the signature's
// key against it. An error means that it is no archive at all; Faults name
// what was tampered with.
func Verify(archive []byte, trusted ed25519.PublicKey) (Report, error) {
	r := Report{Faults: []string{}}
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return r, fmt.Errorf("read archive: %w", err)
	}
	files := map[string][]byte{}
	for _, f := range z.File {
		raw, err := member(f)
		if err != nil {
			r.Faults = append(r.Faults, fmt.Sprintf("%s: can't be read: %v", f.Name, err))
		}
		if _, twice := files[f.Name]; twice {
			r.Faults = append(r.Faults, f.Name+": is in the archive twice")
		}
		files[f.Name] = raw
	}
	manifest, ok := files[ManifestName]
	if !ok {
		return r, errors.New("this is no evidence archive: manifest.json is missing")
	}
	if err := json.Unmarshal(manifest, &r.Manifest); err != nil {
		return r, fmt.Errorf("read manifest.json: %w", err)
	}
	r.Hash = digest(manifest)
	r.check(files, manifest, trusted)
	return r, nil
}

func (r *Report) check(files map[string][]byte, manifest []byte, trusted ed25519.PublicKey) {
	fault := func(format string, args ...any) { r.Faults = append(r.Faults, fmt.Sprintf(format, args...)) }
	known := []string{ManifestName, SignatureName}
	for _, m := range r.Manifest.Members {
		known = append(known, m.Name)
		raw, ok := files[m.Name]
		switch {
		case !ok:
			fault("%s: is missing", m.Name)
		case digest(raw) != m.SHA256:
			fault("%s: was changed: its SHA-256 is not the one in the manifest", m.Name)
		}
	}
	for name := range files {
		if !slices.Contains(known, name) {
			fault("%s: was added: the manifest does not list it", name)
		}
	}
	key, err := base64.StdEncoding.DecodeString(r.Manifest.Key)
	if err != nil || len(key) != ed25519.PublicKeySize {
		fault("%s: holds no public key", ManifestName)
		return
	}
	r.Key = digest(key)
	signature, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(files[SignatureName])))
	if err != nil || !ed25519.Verify(key, manifest, signature) {
		fault("%s: was changed: the signature does not fit", ManifestName)
	}
	if trusted != nil && !trusted.Equal(ed25519.PublicKey(key)) {
		fault("%s: was signed with another key than the one you trust", ManifestName)
	}
}

func member(f *zip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller names the member
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxMember+1))
	if err == nil && len(raw) > maxMember {
		err = errors.New("is too large")
	}
	return raw, err //nolint:wrapcheck // the caller names the member
}
