package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"cordon/internal/seal"
)

// storeKeyEnv holds the key of the broker's files, where no file shall.
const storeKeyEnv = "CORDON_STORE_KEY"

// storeKey is the key that encrypts the broker's files at rest, "" for none.
func (p *platform) storeKey() (string, error) {
	if key := os.Getenv(storeKeyEnv); key != "" {
		return key, nil
	}
	path := p.cfg.StoreKey
	if path == "" {
		return "", nil
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		raw = []byte(seal.NewKey() + "\n")
		err = os.WriteFile(path, raw, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("--store-key: %w", err)
	}
	key := strings.TrimSpace(string(raw))
	if len(key) < 32 {
		return "", fmt.Errorf("--store-key %s: the key has %d characters, fewer than 32", path, len(key))
	}
	return key, nil
}
