package app

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cordon/internal/identity"
	"cordon/internal/seal"
)

// openCA opens the authorities in dir, after a look at who else can read what
// lies there. Their keys are encrypted when a key for that is given.
func openCA(dir string, now func() time.Time) (*identity.CA, error) {
	if err := identity.CheckModes(dir); err != nil {
		return nil, err
	}
	var options []identity.Option
	if os.Getenv(identity.SealKeyEnv) != "" {
		ring, err := seal.Load(filepath.Join(dir, "unused"), identity.SealKeyEnv)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", identity.SealKeyEnv, err)
		}
		options = append(options, identity.WithSealer(ring))
	}
	ca, err := identity.LoadOrCreateCA(dir, now, options...)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	return ca, nil
}

// eraser erases devices; it replays the ledger while it runs.
func (p *platform) eraser(life *lifecycle) *identity.Eraser {
	e := identity.NewEraser(identity.EraserDeps{
		Registry: p.devices, Wiper: p.store, Baselines: p.insight(p.detector).Baselines, Log: p.part("erasure"),
	})
	life.run("erasure", e.Run)
	return e
}
