package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"
)

// Keys are the seeds of Cordon's own broker users, of the issuer that signs
// device permissions and of the curve key that seals callout requests. The
// broker's configuration holds only their public halves.
type Keys struct {
	System  string `json:"system"`
	Auth    string `json:"auth"`
	Devices string `json:"devices"`
	Cordon  string `json:"cordon"`
	Issuer  string `json:"issuer"`
	Curve   string `json:"curve"`
}

// NewKeys generates a fresh set.
func NewKeys() (Keys, error) {
	var k Keys
	for _, part := range []struct {
		seed   *string
		create func() (nkeys.KeyPair, error)
	}{
		{&k.System, nkeys.CreateUser},
		{&k.Auth, nkeys.CreateUser},
		{&k.Devices, nkeys.CreateUser},
		{&k.Cordon, nkeys.CreateUser},
		{&k.Issuer, nkeys.CreateAccount},
		{&k.Curve, nkeys.CreateCurveKeys},
	} {
		pair, err := part.create()
		if err != nil {
			return Keys{}, fmt.Errorf("create broker key: %w", err)
		}
		seed, err := pair.Seed()
		if err != nil {
			return Keys{}, fmt.Errorf("read broker key seed: %w", err)
		}
		*part.seed = string(seed)
	}
	return k, nil
}

// LoadOrCreateKeys reads the keys at path (mode 0600) or makes them.
func LoadOrCreateKeys(path string) (Keys, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		keys, err := NewKeys()
		if err != nil {
			return Keys{}, err
		}
		raw, err := json.MarshalIndent(keys, "", "  ")
		if err != nil {
			return Keys{}, fmt.Errorf("encode broker keys: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return Keys{}, fmt.Errorf("make key directory: %w", err)
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			return Keys{}, fmt.Errorf("write broker keys: %w", err)
		}
		return keys, nil
	}
	if err != nil {
		return Keys{}, fmt.Errorf("read broker keys: %w", err)
	}
	var keys Keys
	if err := json.Unmarshal(raw, &keys); err != nil {
		return Keys{}, fmt.Errorf("decode broker keys %s: %w", path, err)
	}
	return keys, nil
}

func public(seed string) (string, error) {
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return "", fmt.Errorf("read broker key: %w", err)
	}
	return pair.PublicKey()
}
