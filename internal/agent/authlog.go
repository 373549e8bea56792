package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// follower sends the lines of a log file that are appended to it, over
// rotation and restarts. Its position is stored after the lines are buffered,
// so a crash between the two repeats lines rather than losing them.
type follower struct {
	path string
	dir  string
	send func(ctx context.Context, lines []byte) error
	log  *slog.Logger

	file    *os.File
	pos     position
	pending []byte // the start of a line whose end is not written yet
}

// position is how far a file was read. The inode tells a rotated file.
type position struct {
	Path   string `json:"path"`
	Inode  uint64 `json:"inode"`
	Offset int64  `json:"offset"` // of the first byte not sent
}

const (
	positionFile = "auth-log.json"
	followPause  = time.Second
	maxBatch     = 200 << 10 // bytes of lines per message
)

func (f *follower) run(ctx context.Context) error {
	defer f.close()
	f.resume()
	complained := false
	for ctx.Err() == nil {
		if f.file == nil {
			if err := f.open(0); err != nil && !errors.Is(err, fs.ErrNotExist) && !complained {
				f.log.Warn("authentication log cannot be read, trying again", "path", f.path, "error", err)
				complained = true
			}
		}
		if f.file != nil {
			complained = false
			if err := f.read(ctx); err != nil {
				return err
			}
			if f.rotated() {
				if err := f.finish(ctx); err != nil {
					return err
				}
				continue
			}
		}
		sleep(ctx, followPause)
	}
	return nil
}

// resume goes on where an earlier run stopped: in the same file, or in the
// one that it was rotated to. Without an earlier run it starts at the end.
func (f *follower) resume() {
	var old position
	raw, err := os.ReadFile(filepath.Join(f.dir, positionFile))
	if err == nil {
		err = json.Unmarshal(raw, &old)
	}
	if err != nil || old.Path != f.path {
		if info, err := os.Stat(f.path); err == nil {
			_ = f.open(info.Size()) // tried again by run
		}
		return
	}
	for _, path := range []string{f.path, f.path + ".1"} {
		info, err := os.Stat(path)
		if err == nil && inode(info) == old.Inode && info.Size() >= old.Offset {
			if f.openPath(path, old.Offset) == nil {
				return
			}
		}
	}
}

func (f *follower) open(offset int64) error { return f.openPath(f.path, offset) }

func (f *follower) openPath(path string, offset int64) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open authentication log: %w", err)
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		_ = file.Close() // opened for reading only
		return fmt.Errorf("open authentication log: %w", err)
	}
	f.file, f.pending = file, nil
	f.pos = position{Path: f.path, Inode: inode(info), Offset: offset}
	return nil
}

// read sends every complete line up to the end of the file.
func (f *follower) read(ctx context.Context) error {
	chunk := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, err := f.file.Read(chunk)
		f.pending = append(f.pending, chunk[:n]...)
		if end := bytes.LastIndexByte(f.pending, '\n'); end >= 0 && (len(f.pending) >= maxBatch || n == 0) {
			if err := f.flush(ctx, end+1); err != nil {
				return err
			}
		}
		if len(f.pending) > maxBatch { // one endless line: send what there is
			if err := f.flush(ctx, len(f.pending)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read authentication log: %w", err)
		}
	}
	return nil
}

// flush sends the first n pending bytes and remembers the position.
func (f *follower) flush(ctx context.Context, n int) error {
	if err := f.send(ctx, bytes.Clone(f.pending[:n])); err != nil {
		return err
	}
	f.pending = append(f.pending[:0], f.pending[n:]...)
	f.pos.Offset += int64(n)
	return f.save()
}

func (f *follower) save() error {
	raw, err := json.Marshal(f.pos)
	if err != nil {
		return fmt.Errorf("encode position: %w", err)
	}
	return writeFile(filepath.Join(f.dir, positionFile), raw)
}

// rotated says whether the path names another file by now, or the file was
// cut.
func (f *follower) rotated() bool {
	info, err := os.Stat(f.path)
	if err != nil {
		return false // between rename and create
	}
	return inode(info) != f.pos.Inode || info.Size() < f.pos.Offset
}

// finish sends the rest of a rotated file, with or without a last line end.
func (f *follower) finish(ctx context.Context) error {
	if err := f.read(ctx); err != nil {
		return err
	}
	if len(f.pending) > 0 {
		if err := f.flush(ctx, len(f.pending)); err != nil {
			return err
		}
	}
	f.close()
	return nil
}

func (f *follower) close() {
	if f.file != nil {
		_ = f.file.Close() // opened for reading only
		f.file = nil
	}
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
