package app

import (
	"fmt"
	"syscall"
)

// minFree is what a start needs on the data directory's disk: the broker and
// the engine would otherwise fail in words that do not say so.
const minFree = 128 << 20

// checkSpace says when the disk of dir is (nearly) full.
func checkSpace(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < minFree {
		return fmt.Errorf("the disk of %s is full: %d MB are free, Cordon needs %d MB to start; free some or choose another directory with --data DIR", dir, free>>20, minFree>>20)
	}
	return nil
}
