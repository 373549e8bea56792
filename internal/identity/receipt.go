package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Receipt is a signed Statement.
type Receipt struct {
	Payload     string `json:"payload" doc:"The statement: JSON, base64."`
	Algorithm   string `json:"algorithm" doc:"ES256: ECDSA P-256 over the SHA-256 of the decoded payload, ASN.1."`
	Signature   string `json:"signature" doc:"Base64."`
	Certificate string `json:"certificate" doc:"PEM of the authority that signed."`
}

func (ca *CA) receipt(s Statement) (*Receipt, error) {
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode receipt: %w", err)
	}
	signer := ca.newest()
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, signer.key, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign receipt: %w", err)
	}
	return &Receipt{
		Payload: base64.StdEncoding.EncodeToString(payload), Algorithm: "ES256", Signature: base64.StdEncoding.EncodeToString(signature),
		Certificate: string(pemBlock("CERTIFICATE", signer.cert.Raw)),
	}, nil
}

// Verify checks a receipt's signature. trusted are the authorities (PEM) that
// may have signed it; an authority that was retired since belongs there too.
func (r *Receipt) Verify(trusted []byte) (Statement, error) {
	var s Statement
	payload, err := base64.StdEncoding.DecodeString(r.Payload)
	if err != nil {
		return s, fmt.Errorf("read receipt: %w", err)
	}
	signature, err := base64.StdEncoding.DecodeString(r.Signature)
	if err != nil {
		return s, fmt.Errorf("read receipt: %w", err)
	}
	block, _ := pem.Decode([]byte(r.Certificate))
	if block == nil || r.Algorithm != "ES256" {
		return s, errors.New("read receipt: it has no certificate, or another algorithm than ES256")
	}
	known := false
	for rest := trusted; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		known = known || string(b.Bytes) == string(block.Bytes)
	}
	if !known {
		return s, errors.New("the receipt is signed by an authority that is not among the trusted ones")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return s, fmt.Errorf("read receipt: %w", err)
	}
	sum := sha256.Sum256(payload)
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(key, sum[:], signature) {
		return s, errors.New("the receipt was changed: its signature does not fit")
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return s, fmt.Errorf("read receipt: %w", err)
	}
	return s, nil
}

// forget leaves of a device its id alone, retired and erased; the control
// record makes the detector forget it.
func (r *Registry) forget(ctx context.Context, entry Erasure) error {
	old, err := r.Lookup(ctx, entry.Device)
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		return err
	}
	why := ""
	if held, err := r.isolated(ctx, entry.Device); err != nil {
		return err
	} else if held {
		why = "its last device was quarantined"
	} else if old.State == fleet.Revoked {
		why = "its last device was revoked"
	}
	if err := r.bar(ctx, entry.Device, why); err != nil {
		return err
	}
	_, err = r.modify(ctx, entry.Device, true, func(d *fleet.Device) error {
		now := r.deps.Clock().UTC()
		*d = fleet.Device{
			ID: d.ID, State: fleet.Retired, Cohort: "erased", EnrolledAt: now, StateAt: now, StateBy: entry.RequestedBy, StateReason: "erased", ErasedAt: now,
		}
		return nil
	})
	return err
}

// bar makes the traces of a device's keys and hardware name no device: they
// are barred for a reason, or gone.
func (r *Registry) bar(ctx context.Context, device, why string) error {
	kv, err := r.deps.Bus.Bucket(ctx, bus.BucketIdentity)
	if err != nil {
		return err
	}
	watcher, err := kv.WatchFiltered(ctx, []string{"key.*", "hw.*"}, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("list keys: %w", err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for entry := range watcher.Updates() {
		if entry == nil {
			return nil
		}
		var s seen
		if json.Unmarshal(entry.Value(), &s) != nil || s.Device != device {
			continue
		}
		if err := kv.Purge(ctx, entry.Key()); err != nil {
			return fmt.Errorf("forget key: %w", err)
		}
		if why == "" {
			continue
		}
		if err := writeJSON(ctx, r, bus.BucketIdentity, entry.Key(), seen{Barred: why}); err != nil {
			return err
		}
	}
	return fleet.Errorf(fleet.CodeUnavailable, "list keys: the broker ended the watch")
}

// ledgerFile is the copy of the erasure ledger beside the keys.
const ledgerFile = "erasures.json"

func (r *Registry) loadLedger() ([]Erasure, error) {
	raw, err := os.ReadFile(filepath.Join(r.deps.CA.dir, ledgerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read erasure ledger: %w", err)
	}
	var list []Erasure
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("read erasure ledger %s: %w", ledgerFile, err)
	}
	return list, nil
}

func (r *Registry) saveLedger(list []Erasure) error {
	if len(list) == 0 {
		return nil
	}
	raw, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fmt.Errorf("encode erasure ledger: %w", err)
	}
	return writeFile(filepath.Join(r.deps.CA.dir, ledgerFile), raw, 0o600)
}
