package operator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Setup makes the first administrator when there is no operator yet and
// writes the one-time password to passwordFile (mode 0600). It returns true
// when it did. The file is removed when the password is changed.
func (d *Directory) Setup(ctx context.Context, passwordFile string) (bool, error) {
	d.passwordFile = passwordFile
	known, err := d.Operators(ctx)
	if err != nil {
		return false, err
	}
	if len(known) > 0 {
		return false, nil
	}
	// The file is written first: an operator whose password nobody can read
	// would lock everybody out.
	password := oneTimePassword()
	hash, err := d.hasher.hash(ctx, password)
	if err != nil {
		return false, err
	}
	if err := writeSecret(passwordFile, password); err != nil {
		return false, fmt.Errorf("write one-time password: %w", err)
	}
	o := Operator{Name: FirstAdmin, Role: Admin, Hash: hash, MustChange: true, CreatedAt: d.deps.Clock().UTC(), CreatedBy: localActor}
	err = d.create(ctx, bus.BucketOperator, operatorPrefix+o.Name, o)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return false, fleet.Errorf(fleet.CodeConflict, "another process made the first administrator; its password file has the password")
	}
	return err == nil, err
}

// LocalToken makes sure that path holds an administrator's token for client
// verbs on the same host (mode 0600).
func (d *Directory) LocalToken(ctx context.Context, path string) error {
	raw, err := os.ReadFile(path)
	if err == nil {
		if _, err := d.Token(ctx, strings.TrimSpace(string(raw))); err == nil {
			return nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read local token: %w", err)
	}
	var old Token
	revision, err := d.read(ctx, bus.BucketOperator, tokenKeyPrefix+localToken, &old)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	t := Token{ID: localToken, Name: "client verbs on this host", Role: Admin, CreatedAt: d.deps.Clock().UTC(), CreatedBy: localActor}
	secret := t.issue()
	if err := d.write(ctx, bus.BucketOperator, tokenKeyPrefix+t.ID, t, revision); err != nil {
		return err
	}
	if err := writeSecret(path, secret); err != nil {
		return fmt.Errorf("write local token: %w", err)
	}
	return nil
}

// writeSecret replaces a file that only its owner may read.
func writeSecret(path, secret string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	if _, err := tmp.WriteString(secret + "\n"); err != nil {
		tmp.Close()
		return fmt.Errorf("write file: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("close file: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("rename file: %w", err)
	}
	return nil
}
