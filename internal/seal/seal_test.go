package seal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRing_opensOnlyWhatItSealedForThatName(t *testing.T) {
	r := Ephemeral()
	sealed, err := r.Seal("operator/ada/totp", []byte("secret value"))
	require.NoError(t, err)
	require.NotContains(t, sealed, "secret")
	plain, err := r.Open("operator/ada/totp", sealed)
	require.NoError(t, err)
	require.Equal(t, "secret value", string(plain))

	_, err = r.Open("operator/eve/totp", sealed)
	require.ErrorIs(t, err, ErrOpen, "moved to another name")
	_, err = Ephemeral().Open("operator/ada/totp", sealed)
	require.ErrorIs(t, err, ErrOpen, "another key")
	for i := range sealed {
		flipped := []byte(sealed)
		flipped[i] ^= 1
		if _, err := r.Open("operator/ada/totp", string(flipped)); err == nil {
			// The last character of base64 may hold unused bits.
			require.True(t, i+1 == len(sealed) || sealed[i+1] == '.', "changed at %d", i)
		}
	}
}

func TestRing_rotatesWithoutDowntime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "seal.key")
	old, err := Load(path, "CORDON_TEST_NO_KEY")
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	sealed, err := old.Seal("x", []byte("v"))
	require.NoError(t, err)

	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(NewKey()+"\n"+string(before)), 0o600))
	both, err := Load(path, "CORDON_TEST_NO_KEY")
	require.NoError(t, err)
	plain, err := both.Open("x", sealed)
	require.NoError(t, err)
	require.Equal(t, "v", string(plain))
	anew, changed, err := both.Rewrap("x", sealed)
	require.NoError(t, err)
	require.True(t, changed)

	// Without the old key only what was wrapped anew opens.
	t.Setenv("CORDON_TEST_KEY", strings.Split(readAll(t, path), "\n")[0])
	fresh, err := Load("", "CORDON_TEST_KEY")
	require.NoError(t, err)
	_, err = fresh.Open("x", sealed)
	require.ErrorIs(t, err, ErrOpen)
	plain, err = fresh.Open("x", anew)
	require.NoError(t, err)
	require.Equal(t, "v", string(plain))
	_, changed, err = fresh.Rewrap("x", anew)
	require.NoError(t, err)
	require.False(t, changed)
}

func readAll(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(raw)
}

func TestLoad_refusesRubbish(t *testing.T) {
	t.Setenv("CORDON_TEST_KEY", "not base64!")
	_, err := Load("", "CORDON_TEST_KEY")
	require.Error(t, err)
	t.Setenv("CORDON_TEST_KEY", "c2hvcnQ=")
	_, err = Load("", "CORDON_TEST_KEY")
	require.Error(t, err)
}
