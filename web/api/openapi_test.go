package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// TestOpenAPI fails when the tracked document, from which the dashboard's
// types are made, is stale: go test ./web/api -run TestOpenAPI -update.
func TestOpenAPI(t *testing.T) {
	a := New(Config{Version: "1"}, Deps{Log: slog.New(slog.DiscardHandler)})
	var out bytes.Buffer
	require.NoError(t, json.Indent(&out, a.document(), "", "  "))
	out.WriteByte('\n')
	if *update {
		require.NoError(t, os.WriteFile("openapi.json", out.Bytes(), 0o600))
	}
	want, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, out.Bytes()), "openapi.json is stale: run go test ./web/api -run TestOpenAPI -update")
}
