package app

import (
	"fmt"

	"cordon/internal/command"
	"cordon/internal/fleet"
)

// commands makes the function that signs what devices are told. The
// certificate is made anew at every start.
func (p *platform) commands() (func(fleet.Quarantine) ([]byte, error), error) {
	cert, err := p.ca.Client(command.Name)
	if err != nil {
		return nil, fmt.Errorf("make certificate of commands: %w", err)
	}
	signer, err := command.NewSigner(cert)
	if err != nil {
		return nil, err
	}
	return func(q fleet.Quarantine) ([]byte, error) {
		kind := "release"
		if q.Active() {
			kind = "quarantine"
		}
		return signer.Sign(command.Command{
			Device: q.Device, Kind: kind, ID: q.ID, Level: q.Level, Reason: q.Reason, Until: q.Until, IssuedAt: p.clock().UTC(),
		})
	}, nil
}
