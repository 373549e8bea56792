package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"cordon/internal/app"
	"cordon/internal/fleet"
	"cordon/internal/seal"
)

// backupKeyEnv holds the key of backups, where no file shall.
const backupKeyEnv = "CORDON_BACKUP_KEY"

// BackupCmd copies a data directory into one file.
type BackupCmd struct {
	File string `arg:"" help:"File to write; it must not be there yet." type:"path"`
	Key  string `help:"Key that seals the keys and the list of files; it is made when there is none. Keep it elsewhere: without it the backup can't be restored." default:"cordon-backup.key" type:"path" placeholder:"FILE"`
}

// Run makes the backup. Cordon must not run: so everything is of one instant.
func (c *BackupCmd) Run(ctx context.Context, g *Globals) error {
	if _, err := os.Stat(g.Data); err != nil {
		return fmt.Errorf("look at data directory: %w", err)
	}
	unlock, err := app.LockData(g.Data)
	if err != nil {
		return err
	}
	defer unlock()
	ring, err := seal.Load(c.Key, backupKeyEnv)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	made, err := writeBackup(ctx, file, g.Data, ring, Version)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		os.Remove(c.File)
		return err
	}
	// What can't be read back is no backup.
	read, err := readBackupFile(ctx, c.File, ring, "")
	if err == nil && read.Total != made.Total {
		err = fmt.Errorf("the backup has %d bytes of files, not %d", read.Total, made.Total)
	}
	if err != nil {
		os.Remove(c.File)
		return fmt.Errorf("verify backup: %w", err)
	}
	return show(g, made.summary(), func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d files, %d bytes, verified; restore with \"cordon restore %s --key %s --data DIR\"\n", c.File, len(made.Files), made.Total, c.File, c.Key)
	})
}

// RestoreCmd brings a data directory back.
type RestoreCmd struct {
	File  string `arg:"" help:"The backup." type:"existingfile"`
	Key   string `help:"The key that it was made with." default:"cordon-backup.key" type:"path" placeholder:"FILE"`
	Check bool   `help:"Only say whether the backup is whole."`
}

// Run restores into --data, which must not be there or must be empty.
func (c *RestoreCmd) Run(ctx context.Context, g *Globals) error {
	if os.Getenv(backupKeyEnv) == "" {
		if _, err := os.Stat(c.Key); err != nil {
			return fmt.Errorf("read key: %w", err)
		}
	}
	ring, err := seal.Load(c.Key, backupKeyEnv)
	if err != nil {
		return err
	}
	if c.Check {
		read, err := readBackupFile(ctx, c.File, ring, "")
		if err != nil {
			return err
		}
		return show(g, read.summary(), func(w io.Writer) {
			fmt.Fprintf(w, "%s is whole: %d files, %d bytes, of %s\n", c.File, len(read.Files), read.Total, when(read.At))
		})
	}
	left, err := os.ReadDir(g.Data)
	if err == nil && len(left) > 0 {
		return fleet.Errorf(fleet.CodeConflict, "%s is not empty: name another directory with --data, or move it away", g.Data)
	}
	// It appears whole or not at all.
	part := strings.TrimSuffix(g.Data, string(filepath.Separator)) + ".restoring"
	if err := os.Mkdir(part, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	read, err := readBackupFile(ctx, c.File, ring, part)
	if err == nil {
		if err = os.Remove(g.Data); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = os.Rename(part, g.Data)
	}
	if err != nil {
		os.RemoveAll(part)
		return fmt.Errorf("restore: %w", err)
	}
	return show(g, read.summary(), func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d files, %d bytes, as of %s\n", g.Data, len(read.Files), read.Total, when(read.At))
	})
}
