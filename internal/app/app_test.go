package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLockData_secondProcessIsTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	unlock, err := lockData(dir)
	require.NoError(t, err)
	_, err = lockData(dir)
	require.ErrorContains(t, err, "another Cordon")
	unlock()
	unlock, err = lockData(dir)
	require.NoError(t, err)
	unlock()
}

func TestLockData_directoryOpenToOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	_, err := lockData(dir)
	require.ErrorContains(t, err, "chmod 700")
}

func TestLifecycle_stopsInReverse(t *testing.T) {
	life := newLifecycle(t.Context(), slog.New(slog.DiscardHandler))
	var order []string
	life.onStop(func() { order = append(order, "broker") })
	life.run("part", func(ctx context.Context) error {
		<-ctx.Done()
		order = append(order, "part")
		return ctx.Err()
	})
	life.onStop(func() { order = append(order, "web") })
	life.stop()
	require.Equal(t, []string{"web", "part", "broker"}, order)
}

func TestLifecycle_oneFailureEndsAll(t *testing.T) {
	life := newLifecycle(t.Context(), slog.New(slog.DiscardHandler))
	life.run("good", func(ctx context.Context) error { <-ctx.Done(); return nil })
	life.run("bad", func(context.Context) error { return errors.New("broken") })
	require.EqualError(t, life.wait(t.Context()), "bad: broken")
	life.stop()
}

func TestConfig_addressesForOthers(t *testing.T) {
	for name, test := range map[string]struct {
		cfg     Config
		address string
		want    string
	}{
		"loopback":   {Config{}, "127.0.0.1:4222", "tls://127.0.0.1:4222"},
		"everywhere": {Config{}, "0.0.0.0:4222", "tls://127.0.0.1:4222"},
		"named":      {Config{Host: []string{"cordon.example", "other"}}, "0.0.0.0:4222", "tls://cordon.example:4222"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, test.cfg.reachable("tls", test.address)) })
	}
}

func TestParseRoles(t *testing.T) {
	roles, err := ParseRoles([]string{"ingest", "web"})
	require.NoError(t, err)
	require.Equal(t, Roles{Ingest: true, Web: true}, roles)
	_, err = ParseRoles([]string{"sing"})
	require.ErrorContains(t, err, "sing")
	_, err = ParseRoles(nil)
	require.Error(t, err)
}
