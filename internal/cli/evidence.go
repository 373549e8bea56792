package cli

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"cordon/alert/evidence"
)

// EvidenceCmd holds the verbs about sealed evidence.
type EvidenceCmd struct {
	Get    EvidenceGetCmd    `cmd:"" help:"Download the sealed evidence of an incident."`
	Verify EvidenceVerifyCmd `cmd:"" help:"Check an evidence archive, offline."`
}

// EvidenceGetCmd downloads an archive.
type EvidenceGetCmd struct {
	IncidentArg `embed:""`
	Output      string `short:"o" help:"Write it here." type:"path" placeholder:"FILE"`
	Fresh       bool   `help:"Seal a new snapshot now."`
}

// Run downloads it.
func (c *EvidenceGetCmd) Run(ctx context.Context, g *Globals) error {
	client, err := connect(g)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, client.base+c.path(fmt.Sprintf("/evidence?fresh=%t", c.Fresh)), nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+client.token)
	answer, err := client.http.Do(req)
	if err != nil {
		return fmt.Errorf("get evidence: %w", err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, 512<<20))
	if err != nil {
		return fmt.Errorf("read evidence: %w", err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return refusal(answer.StatusCode, raw)
	}
	name := c.Output
	if name == "" {
		name = c.path("")[len("/incidents/"):] + "-evidence.zip"
	}
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	return show(g, map[string]any{"file": name, "bytes": len(raw)}, func(w io.Writer) {
		row(w, name, fmt.Sprintf("%d bytes", len(raw)))
		fmt.Fprintf(w, "Check it with: cordon evidence verify %s\n", name)
	})
}

// EvidenceVerifyCmd checks an archive.
type EvidenceVerifyCmd struct {
	File string `arg:"" type:"existingfile" help:"The archive."`
	Key  string `help:"The public key that you trust (keys/evidence.pub of the Cordon that sealed it)." type:"existingfile" placeholder:"FILE"`
}

// Run checks it; anything that was tampered with is named and an error.
func (c *EvidenceVerifyCmd) Run(g *Globals) error {
	raw, err := os.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	var trusted ed25519.PublicKey
	if c.Key != "" {
		if trusted, err = os.ReadFile(c.Key); err != nil {
			return fmt.Errorf("read key: %w", err)
		}
		if len(trusted) != ed25519.PublicKeySize {
			return errors.New("read key: it is no Ed25519 public key of 32 bytes")
		}
	}
	report, err := evidence.Verify(raw, trusted)
	if err != nil {
		return err
	}
	if err := show(g, report, func(w io.Writer) {
		m := report.Manifest
		row(w, "incident", m.Incident)
		row(w, "sealed", fmt.Sprintf("%s by %s (%s), number %d of the chain", when(m.SealedAt), m.SealedBy, m.Why, m.Number))
		row(w, "members", len(m.Members))
		row(w, "key", report.Key)
		for _, missing := range m.Missing {
			row(w, "not in it", missing)
		}
		for _, fault := range report.Faults {
			row(w, "TAMPERED", fault)
		}
		if len(report.Faults) == 0 {
			row(w, "result", "untouched since it was sealed")
			if trusted == nil {
				row(w, "", "by whoever holds this key; give --key to know that it is yours")
			}
		}
	}); err != nil {
		return err
	}
	if n := len(report.Faults); n > 0 {
		return fmt.Errorf("the archive is not what was sealed: %d faults", n)
	}
	return nil
}
