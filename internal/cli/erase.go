package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/web/api"
)

// DeviceEraseCmd erases a device.
type DeviceEraseCmd struct {
	DeviceArg `embed:""`
	Reason    string `help:"Why." required:"" placeholder:"TEXT"`
	Yes       bool   `help:"It can't be undone: say so."`
	Out       string `help:"Write the receipt to this file, as JSON." type:"path" placeholder:"FILE"`
}

// Run erases it and shows the receipt.
func (c *DeviceEraseCmd) Run(ctx context.Context, g *Globals) error {
	if !c.Yes {
		return fleet.Errorf(fleet.CodeInvalid, "erasing %s can't be undone: say --yes", c.ID)
	}
	out, err := call[identity.Erasure](ctx, g, http.MethodPost, c.path("/erase"), api.EraseRequest{Confirm: c.ID, Reason: c.Reason})
	if err != nil {
		return err
	}
	if c.Out != "" {
		raw, err := json.MarshalIndent(out.Receipt, "", "  ")
		if err != nil {
			return fmt.Errorf("encode receipt: %w", err)
		}
		if err := os.WriteFile(c.Out, append(raw, '\n'), 0o600); err != nil {
			return fmt.Errorf("write receipt: %w", err)
		}
	}
	statement, err := out.Receipt.Verify([]byte(out.Receipt.Certificate))
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) { showStatement(w, statement) })
}

func showStatement(w io.Writer, s identity.Statement) {
	fmt.Fprintf(w, "Device %s was erased for %s at %s: %s\n", s.Device, clean(s.RequestedBy), when(s.VerifiedAt), clean(s.Reason))
	row(w, "PLACE", "DELETED", "LEFT")
	for _, p := range s.Places {
		row(w, p.Place, p.Deleted, p.Left)
	}
	for _, text := range s.Kept {
		fmt.Fprintf(w, "kept: %s\n", clean(text))
	}
}

// DeviceErasuresCmd lists the ledger.
type DeviceErasuresCmd struct{}

// Run lists it.
func (DeviceErasuresCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.ErasureList](ctx, g, http.MethodGet, "/erasures", nil)
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		row(w, "DEVICE", "STATE", "ASKED", "DONE", "BY", "REASON", "FAILURE")
		for _, e := range out.Items {
			row(w, e.Device, e.State, e.RequestedAt, e.CompletedAt, e.RequestedBy, e.Reason, e.Failure)
		}
	})
}

// DeviceReceiptCmd checks a receipt.
type DeviceReceiptCmd struct {
	File      string `arg:"" help:"The receipt, JSON." type:"path"`
	Authority string `help:"Authorities that may have signed it, PEM: keys/ca.crt." required:"" type:"path" placeholder:"FILE"`
}

// Run checks the signature and shows what the receipt says.
func (c *DeviceReceiptCmd) Run(g *Globals) error {
	raw, err := os.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("read receipt: %w", err)
	}
	trusted, err := os.ReadFile(c.Authority)
	if err != nil {
		return fmt.Errorf("read authority: %w", err)
	}
	var receipt identity.Receipt
	if err := json.Unmarshal(raw, &receipt); err != nil {
		return fmt.Errorf("read receipt: %w", err)
	}
	statement, err := receipt.Verify(trusted)
	if err != nil {
		return err
	}
	return show(g, statement, func(w io.Writer) { showStatement(w, statement) })
}
