package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"cordon/internal/fleet"
)

// sealer encrypts the raw bytes of dead letters: version byte 1, a random
// 96-bit nonce, then AES-256-GCM with the row's stream sequence and device as
// additional data, so that bytes can't be moved to another row.
type sealer struct {
	aead cipher.AEAD
}

const sealVersion = 1

var errSealed = errors.New("raw bytes can't be decrypted: the key is another one or the bytes were changed")

// newSealer returns nil for an empty key.
func newSealer(key []byte) (*sealer, error) {
	if len(key) == 0 {
		return nil, nil
	}
	if len(key) != 32 {
		return nil, fleet.Errorf(fleet.CodeInvalid, "the key for dead letters has %d bytes, it needs 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use key for dead letters: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("use key for dead letters: %w", err)
	}
	return &sealer{aead: aead}, nil
}

func (s *sealer) seal(raw []byte, streamSeq uint64, device string) (string, error) {
	if s == nil {
		return "", nil
	}
	out := make([]byte, 1+s.aead.NonceSize(), 1+s.aead.NonceSize()+len(raw)+s.aead.Overhead())
	out[0] = sealVersion
	if _, err := rand.Read(out[1:]); err != nil {
		return "", fmt.Errorf("make nonce: %w", err)
	}
	return string(s.aead.Seal(out, out[1:], raw, sealedTo(streamSeq, device))), nil //nolint:gosec // the nonce is random, see above
}

// open returns nil for what was stored without a key.
func (s *sealer) open(sealed string, streamSeq uint64, device string) ([]byte, error) {
	if sealed == "" {
		return nil, nil
	}
	if s == nil || sealed[0] != sealVersion || len(sealed) < 1+s.aead.NonceSize() {
		return nil, errSealed
	}
	nonce, text := []byte(sealed[1:1+s.aead.NonceSize()]), []byte(sealed[1+s.aead.NonceSize():])
	raw, err := s.aead.Open(nil, nonce, text, sealedTo(streamSeq, device))
	if err != nil {
		return nil, errSealed
	}
	return raw, nil
}

func sealedTo(streamSeq uint64, device string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, streamSeq), device...)
}
