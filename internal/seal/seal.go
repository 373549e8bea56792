// Package seal keeps secrets at rest: envelope encryption with a key from a
// file or from the environment. Every value has a data key of its own, which
// the ring's key wraps, so that a new key means wrapping anew and not
// encrypting anew. AES-256-GCM; a value is bound to the name that it was
// sealed for.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	keySize = 32
	version = "cs1" // of the format: cs1.<key id>.<wrapped data key>.<sealed value>
)

// ErrOpen says that a sealed value was changed, moved, or sealed with a key
// that the ring does not hold.
var ErrOpen = errors.New("sealed value can't be opened: it was changed, or its key is not here")

// Ring holds the keys; the first seals, all open.
type Ring struct {
	order []string
	keys  map[string]cipher.AEAD
}

// New makes a ring of keys of 32 bytes, the newest first.
func New(keys ...[]byte) (*Ring, error) {
	if len(keys) == 0 {
		return nil, errors.New("a ring needs a key")
	}
	r := &Ring{keys: map[string]cipher.AEAD{}}
	for _, key := range keys {
		if len(key) != keySize {
			return nil, fmt.Errorf("key has %d bytes, not %d", len(key), keySize)
		}
		aead, err := gcm(key)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(append([]byte("cordon key id\x00"), key...))
		id := hex.EncodeToString(sum[:6])
		r.order, r.keys[id] = append(r.order, id), aead
	}
	return r, nil
}

// Ephemeral makes a ring that nobody can open after the process has ended.
func Ephemeral() *Ring {
	r, err := New(random(keySize))
	if err != nil {
		panic(err) // a key of the right size
	}
	return r
}

// Load reads keys from the environment variable env when it is set, else from
// the file, which is made (mode 0600) when there is none. Both hold base64
// keys, one a line, the newest first: to rotate, put a new line on top and
// keep the old one until everything was sealed anew.
func Load(path, env string) (*Ring, error) {
	text := os.Getenv(env)
	if text == "" {
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			raw, err = create(path)
		}
		if err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		text = string(raw)
	}
	var keys [][]byte
	for line := range strings.FieldsSeq(strings.ReplaceAll(text, ",", "\n")) {
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("read key: line %d is not base64", len(keys)+1)
		}
		keys = append(keys, key)
	}
	return New(keys...)
}

func create(path string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	raw := []byte(NewKey() + "\n")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return os.ReadFile(path) // another process was first
	}
	if err != nil {
		return nil, err
	}
	_, err = file.Write(raw)
	return raw, errors.Join(err, file.Sync(), file.Close())
}

// NewKey makes a key as a line of a key file.
func NewKey() string { return base64.StdEncoding.EncodeToString(random(keySize)) }

// KeyID names the key that seals.
func (r *Ring) KeyID() string { return r.order[0] }

// Seal encrypts a value for a name.
func (r *Ring) Seal(name string, value []byte) (string, error) {
	data := random(keySize)
	inner, err := gcm(data)
	if err != nil {
		return "", err
	}
	id := r.order[0]
	wrapped := lock(r.keys[id], data, name)
	return strings.Join([]string{version, id, b64(wrapped), b64(lock(inner, value, name))}, "."), nil
}

// Open decrypts a value that was sealed for the name. Error: ErrOpen.
func (r *Ring) Open(name, sealed string) ([]byte, error) {
	_, data, parts, err := r.dataKey(name, sealed)
	if err != nil {
		return nil, err
	}
	inner, err := gcm(data)
	if err != nil {
		return nil, err
	}
	return unlock(inner, parts[3], name)
}

// Rewrap seals a value's data key with the ring's newest key; changed is
// false when it was already.
func (r *Ring) Rewrap(name, sealed string) (out string, changed bool, err error) {
	id, data, parts, err := r.dataKey(name, sealed)
	if err != nil || id == r.order[0] {
		return sealed, false, err
	}
	parts[1], parts[2] = r.order[0], b64(lock(r.keys[r.order[0]], data, name))
	return strings.Join(parts, "."), true, nil
}

func (r *Ring) dataKey(name, sealed string) (id string, data []byte, parts []string, err error) {
	parts = strings.Split(sealed, ".")
	if len(parts) != 4 || parts[0] != version || r.keys[parts[1]] == nil {
		return "", nil, nil, ErrOpen
	}
	data, err = unlock(r.keys[parts[1]], parts[2], name)
	return parts[1], data, parts, err
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return aead, nil
}

func lock(aead cipher.AEAD, plain []byte, name string) []byte {
	nonce := random(aead.NonceSize())
	return aead.Seal(nonce, nonce, plain, []byte(name))
}

func unlock(aead cipher.AEAD, text, name string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) < aead.NonceSize() {
		return nil, ErrOpen
	}
	plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], []byte(name))
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func b64(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func random(n int) []byte {
	raw := make([]byte, n)
	rand.Read(raw) // never fails: crypto/rand ends the program rather than return an error
	return raw
}
