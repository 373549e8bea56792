package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cordon/internal/seal"
)

// A backup is a gzipped tar: the files of the data directory, those below
// keys/ and run/ sealed, and at the end the sealed manifest with the SHA-256
// of each. Whoever lacks the key can neither read the keys nor change a file
// unnoticed.
const (
	manifestName  = "manifest.sealed"
	sealedSuffix  = ".sealed"
	maxSealedFile = 64 << 20
	maxManifest   = 256 << 20
)

type backupManifest struct {
	Format  int                   `json:"format"`
	Version string                `json:"version"`
	At      time.Time             `json:"at"`
	Total   int64                 `json:"total"`
	Files   map[string]backupFile `json:"files"`
}

type backupFile struct {
	Size int64  `json:"size"`
	Hash string `json:"hash"`
}

func (m backupManifest) summary() map[string]any {
	return map[string]any{"files": len(m.Files), "bytes": m.Total, "at": m.At, "version": m.Version}
}

func secretFile(name string) bool {
	return strings.HasPrefix(name, "keys/") || strings.HasPrefix(name, "run/")
}

// leftOut says what a backup leaves out: what belongs to a running process.
func leftOut(name string) bool { return name == "lock" || name == "run/ready.json" }

func writeBackup(ctx context.Context, to io.Writer, dir string, ring *seal.Ring, version string) (backupManifest, error) {
	m := backupManifest{Format: 1, Version: version, At: time.Now().UTC(), Files: map[string]backupFile{}}
	packed := gzip.NewWriter(to)
	out := tar.NewWriter(packed)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case leftOut(name) || name == ".":
			return nil
		case entry.IsDir():
			return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o700})
		case entry.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if filepath.IsAbs(target) { // the directory may come back elsewhere
				if target, err = filepath.Rel(filepath.Dir(path), target); err != nil {
					return err
				}
			}
			return out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o700})
		case !entry.Type().IsRegular():
			return nil // sockets and the like
		}
		f, err := addFile(out, path, name, ring)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		m.Files[name] = f
		m.Total += f.Size
		return nil
	})
	if err != nil {
		return m, fmt.Errorf("read data directory: %w", err)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return m, fmt.Errorf("encode manifest: %w", err)
	}
	sealed, err := ring.Seal(manifestName, raw)
	if err != nil {
		return m, err
	}
	err = addBytes(out, manifestName, []byte(sealed))
	if err = errors.Join(err, out.Close(), packed.Close()); err != nil {
		return m, fmt.Errorf("write backup: %w", err)
	}
	return m, nil
}

func addBytes(out *tar.Writer, name string, data []byte) error {
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o600}); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

func addFile(out *tar.Writer, path, name string, ring *seal.Ring) (backupFile, error) {
	if secretFile(name) {
		raw, err := os.ReadFile(path)
		if err != nil {
			return backupFile{}, err
		}
		sealed, err := ring.Seal(name, raw)
		if err != nil {
			return backupFile{}, err
		}
		sum := sha256.Sum256(raw)
		return backupFile{int64(len(raw)), hex.EncodeToString(sum[:])}, addBytes(out, name+sealedSuffix, []byte(sealed))
	}
	file, err := os.Open(path)
	if err != nil {
		return backupFile{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return backupFile{}, err
	}
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()}); err != nil {
		return backupFile{}, err
	}
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, hash), file)
	return backupFile{n, hex.EncodeToString(hash.Sum(nil))}, err
}

func readBackupFile(ctx context.Context, path string, ring *seal.Ring, into string) (backupManifest, error) {
	file, err := os.Open(path)
	if err != nil {
		return backupManifest{}, fmt.Errorf("read backup: %w", err)
	}
	defer file.Close()
	return readBackup(ctx, file, ring, into)
}

// readBackup checks a backup and, when into names a directory, unpacks it
// there. What it unpacked is worth nothing when it returns an error.
func readBackup(ctx context.Context, from io.Reader, ring *seal.Ring, into string) (backupManifest, error) {
	var m backupManifest
	packed, err := gzip.NewReader(from)
	if err != nil {
		return m, fmt.Errorf("read backup: %w", err)
	}
	in := tar.NewReader(packed)
	seen := map[string]backupFile{}
	for {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			return m, errors.New("the backup has no manifest: it is cut off")
		}
		if err != nil || ctx.Err() != nil {
			return m, fmt.Errorf("read backup: %w", errors.Join(err, ctx.Err()))
		}
		if head.Name == manifestName {
			break
		}
		name := strings.TrimSuffix(head.Name, "/")
		if !filepath.IsLocal(name) {
			return m, fmt.Errorf("the backup holds the path %q, which leads out of the directory", head.Name)
		}
		if err := takeEntry(in, head, ring, into, seen); err != nil {
			return m, fmt.Errorf("%s: %w", head.Name, err)
		}
	}
	sealed, err := io.ReadAll(io.LimitReader(in, maxManifest))
	if err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	raw, err := ring.Open(manifestName, string(sealed))
	if err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	if err := json.Unmarshal(raw, &m); err != nil || m.Format != 1 {
		return m, fmt.Errorf("the backup has format %d, this Cordon reads 1", m.Format)
	}
	for name, want := range m.Files {
		if got, ok := seen[name]; !ok || got != want {
			return m, fmt.Errorf("%s is missing in the backup or was changed", name)
		}
		delete(seen, name)
	}
	for name := range seen {
		return m, fmt.Errorf("%s was put into the backup afterwards", name)
	}
	return m, nil
}

func takeEntry(in io.Reader, head *tar.Header, ring *seal.Ring, into string, seen map[string]backupFile) error {
	name := strings.TrimSuffix(head.Name, "/")
	target := filepath.Join(into, filepath.FromSlash(name)) //nolint:gosec // readBackup took local names only
	switch head.Typeflag {
	case tar.TypeDir:
		if into == "" {
			return nil
		}
		return os.MkdirAll(target, 0o700)
	case tar.TypeSymlink:
		if !filepath.IsLocal(filepath.Join(filepath.Dir(name), head.Linkname)) { //nolint:gosec // this is the check
			return fmt.Errorf("the link leads to %q, out of the directory", head.Linkname)
		}
		if into == "" {
			return nil
		}
		return os.Symlink(head.Linkname, target)
	case tar.TypeReg:
	default:
		return errors.New("neither a file nor a directory")
	}
	mode := os.FileMode(head.Mode).Perm()
	if plain, ok := strings.CutSuffix(name, sealedSuffix); ok && secretFile(plain) {
		sealed, err := io.ReadAll(io.LimitReader(in, maxSealedFile))
		if err != nil {
			return err
		}
		raw, err := ring.Open(plain, string(sealed))
		if err != nil {
			return err
		}
		name, target, in, mode = plain, strings.TrimSuffix(target, sealedSuffix), bytes.NewReader(raw), 0o600
	}
	if _, twice := seen[name]; twice {
		return errors.New("it is there twice")
	}
	hash := sha256.New()
	out := io.Writer(hash)
	if into != "" {
		file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		defer file.Close()
		out = io.MultiWriter(hash, file)
	}
	n, err := io.Copy(out, in)
	seen[name] = backupFile{n, hex.EncodeToString(hash.Sum(nil))}
	return err
}
