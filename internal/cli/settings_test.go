package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func settings(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cordon.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func parse(t *testing.T, args ...string) (*root, error) {
	t.Helper()
	file, err := loadSettings(configPath(args))
	if err != nil {
		return nil, err
	}
	r := &root{}
	parser, err := newParser(r, file, &bytes.Buffer{}, &bytes.Buffer{}, func(int) {})
	require.NoError(t, err)
	_, err = parser.Parse(args)
	return r, err
}

func TestSettings_flagsWinOverEnvironmentOverFile(t *testing.T) {
	path := settings(t, "http: 127.0.0.1:1\nnats: 127.0.0.1:2\nmqtt: 127.0.0.1:3\nlog_level: warn\n")
	t.Setenv("CORDON_NATS", "127.0.0.1:22")
	t.Setenv("CORDON_MQTT", "127.0.0.1:33")
	r, err := parse(t, "up", "--config", path, "--mqtt", "127.0.0.1:333")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:1", r.Up.HTTP)
	require.Equal(t, "127.0.0.1:22", r.Up.NATS)
	require.Equal(t, "127.0.0.1:333", r.Up.MQTT)
	require.Equal(t, "WARN", r.LogLevel.String())
}

func TestSettings_unknownKeyIsNamedWithItsLine(t *testing.T) {
	path := settings(t, "http: 127.0.0.1:1\n\nhtpp: 127.0.0.1:1\n")
	_, err := parse(t, "--config="+path, "up")
	require.ErrorContains(t, err, path+":3")
	require.ErrorContains(t, err, `"htpp"`)
}

func TestSettings_unknownReceiverFieldIsNamedWithItsLine(t *testing.T) {
	path := settings(t, "receivers:\n  - name: chat\n    kind: webhook\n    ulr: https://example.com\n")
	_, err := parse(t, "up", "--config", path)
	require.ErrorContains(t, err, "ulr")
	require.ErrorContains(t, err, "[4:")
}

func TestSettings_brokenFileIsNamed(t *testing.T) {
	path := settings(t, "http: [\n")
	_, err := parse(t, "up", "--config", path)
	require.ErrorContains(t, err, path)
	_, err = parse(t, "up", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorContains(t, err, "none.yaml")
}

func TestGlobals_standBeforeOrAfterTheVerb(t *testing.T) {
	before, err := parse(t, "--data", "/tmp/a", "up")
	require.NoError(t, err)
	after, err := parse(t, "up", "--data", "/tmp/a")
	require.NoError(t, err)
	require.Equal(t, before.Data, after.Data)
}
