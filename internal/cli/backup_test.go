package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/internal/seal"
)

func TestBackup_restoresWhatItSaved(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	files := map[string]string{
		"keys/ca.key": "PLANTED-CA-KEY", "run/token": "PLANTED-TOKEN", "broker/jetstream/a/1.blk": "messages", "clickhouse/store/x.bin": string(bytes.Repeat([]byte("rows"), 50_000)),
	}
	for name, text := range files {
		path := filepath.Join(data, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	require.NoError(t, os.Symlink(filepath.Join(data, "clickhouse", "store"), filepath.Join(data, "clickhouse", "link")))
	require.NoError(t, os.WriteFile(filepath.Join(data, "lock"), []byte("1"), 0o600))
	ring := seal.Ephemeral()
	var saved bytes.Buffer
	m, err := writeBackup(t.Context(), &saved, data, ring, "test")
	require.NoError(t, err)
	require.Len(t, m.Files, 4)
	require.NoError(t, os.RemoveAll(data))

	back := filepath.Join(dir, "back")
	require.NoError(t, os.Mkdir(back, 0o700))
	_, err = readBackup(t.Context(), bytes.NewReader(saved.Bytes()), ring, back)
	require.NoError(t, err)
	for name, text := range files {
		raw, err := os.ReadFile(filepath.Join(back, name))
		require.NoError(t, err)
		require.Equal(t, text, string(raw))
	}
	through, err := os.ReadFile(filepath.Join(back, "clickhouse", "link", "x.bin"))
	require.NoError(t, err)
	require.Len(t, through, 200_000)
	require.NoFileExists(t, filepath.Join(back, "lock"))

	_, err = readBackup(t.Context(), bytes.NewReader(saved.Bytes()), seal.Ephemeral(), "")
	require.Error(t, err, "another key")
	_, err = readBackup(t.Context(), bytes.NewReader(saved.Bytes()[:saved.Len()/2]), ring, "")
	require.Error(t, err, "cut off")
	for at := 0; at < saved.Len(); at += max(1, saved.Len()/97) {
		changed := bytes.Clone(saved.Bytes())
		changed[at] ^= 0x10
		got, err := readBackup(t.Context(), bytes.NewReader(changed), ring, "")
		if err == nil {
			require.Equal(t, m.Files, got.Files, "only bits that mean nothing may differ") // of the gzip header
		}
	}
}
