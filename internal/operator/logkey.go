package operator

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// LogKey reads the key that signs the heads of the operator log (PKCS #8 PEM,
// mode 0600), and makes it when there is none, with the public half beside it
// (.pub, hex).
func LogKey(path string) (ed25519.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createLogKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read operator log key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("read operator log key: %s is no PEM file", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read operator log key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read operator log key: %s holds no Ed25519 key", path)
	}
	return key, nil
}

func createLogKey(path string) (ed25519.PrivateKey, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make operator log key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make operator log key: %w", err)
	}
	text := strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	if err := writeSecret(path, text); err != nil {
		return nil, fmt.Errorf("write operator log key: %w", err)
	}
	if err := writeSecret(path+".pub", hex.EncodeToString(public)); err != nil {
		return nil, fmt.Errorf("write operator log key: %w", err)
	}
	return key, nil
}

// anchor is the newest signed place of the log, kept outside of it: without it
// nobody could tell that the end was cut off.
type anchor struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

func (d *Directory) saveAnchor(a anchor) {
	if d.deps.LogAnchor == "" {
		return
	}
	raw, err := json.Marshal(a)
	if err == nil {
		err = writeSecret(d.deps.LogAnchor, string(raw))
	}
	if err != nil {
		d.deps.Log.Warn("place of the operator log was not written", "file", filepath.Base(d.deps.LogAnchor), "error", err)
	}
}

func (d *Directory) readAnchor() anchor {
	var a anchor
	if raw, err := os.ReadFile(d.deps.LogAnchor); err == nil {
		_ = json.Unmarshal(raw, &a) // an unreadable one is as good as none
	}
	return a
}
