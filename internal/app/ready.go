package app

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Ready says how to reach a running Cordon. It is written once everything
// answers, to --ready-file and to <data>/run/ready.json (mode 0600: it holds
// the engine's password).
type Ready struct {
	URL               string `json:"url"`
	NATS              string `json:"nats"`
	MQTT              string `json:"mqtt"`
	ClickHouse        string `json:"clickhouse"`
	CA                string `json:"ca"` // path of the authority's certificate
	AdminUser         string `json:"admin_user"`
	AdminPasswordFile string `json:"admin_password_file"` // gone once the password was changed
	CLITokenFile      string `json:"cli_token_file"`
}

// ReadyPath is where a client verb finds the Cordon that runs on dir.
func ReadyPath(dir string) string { return filepath.Join(dir, "run", "ready.json") }

// WriteFile writes it to path, whole or not at all.
func (r Ready) WriteFile(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode ready file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make directory of ready file: %w", err)
	}
	// Whoever waits for the file must never read half of it.
	part := path + ".part"
	if err := os.WriteFile(part, raw, 0o600); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return nil
}
