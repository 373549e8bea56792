package app

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// rawKeySize is that of AES-256, under which the raw bytes of dead letters
// are stored.
const rawKeySize = 32

func loadOrCreateRawKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, rawKeySize)
		if _, err := rand.Read(key); err != nil {
			return nil, fmt.Errorf("make dead letter key: %w", err)
		}
		if err := os.WriteFile(path, key, 0o600); err != nil {
			return nil, fmt.Errorf("write dead letter key: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read dead letter key: %w", err)
	}
	if len(key) != rawKeySize {
		return nil, fmt.Errorf("dead letter key %s has %d bytes, want %d", path, len(key), rawKeySize)
	}
	return key, nil
}
