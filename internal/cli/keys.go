package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"cordon/web/api"
)

// KeysCmd holds the verbs about Cordon's own keys.
type KeysCmd struct {
	List     KeysListCmd     `cmd:"" help:"List the certificate authorities and how many devices depend on each."`
	RotateCA KeysRotateCACmd `cmd:"" name:"rotate-ca" help:"Make a new authority for devices; the old one stays trusted."`
	RetireCA KeysRetireCACmd `cmd:"" name:"retire-ca" help:"Stop trusting an authority and destroy its key."`
}

// KeysListCmd lists the authorities.
type KeysListCmd struct{}

// Run lists them.
func (KeysListCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.KeyList](ctx, g, http.MethodGet, "/keys", nil)
	if err != nil {
		return err
	}
	return showKeys(g, out)
}

func showKeys(g *Globals, out api.KeyList) error {
	return show(g, out, func(w io.Writer) {
		row(w, "AUTHORITY", "SIGNS", "DEVICES", "FROM", "UNTIL", "KEY")
		for _, a := range out.Items {
			key := "in the clear, mode 0600"
			if a.Encrypted {
				key = "encrypted"
			}
			row(w, a.ID, strings.Join(a.Signs, ", "), a.Devices, a.NotBefore, a.NotAfter, key)
		}
	})
}

// KeysRotateCACmd makes a new authority.
type KeysRotateCACmd struct{}

// Run makes it.
func (KeysRotateCACmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.KeyList](ctx, g, http.MethodPost, "/keys/rotate", nil)
	if err != nil {
		return err
	}
	if err := showKeys(g, out); err != nil {
		return err
	}
	fmt.Fprintln(g.Err, "Devices move to the new authority when they renew. When none depends on the old one: cordon keys retire-ca ID")
	return nil
}

// KeysRetireCACmd retires an authority.
type KeysRetireCACmd struct {
	ID     string `arg:"" help:"The authority's id."`
	Reason string `help:"Why." required:"" placeholder:"TEXT"`
	Force  bool   `help:"Revoke the devices that depend on it: its key is known to others, or they will never renew."`
}

// Run retires it.
func (c *KeysRetireCACmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.RetiredKey](ctx, g, http.MethodPost, "/keys/"+url.PathEscape(c.ID)+"/retire", api.RetireKeyRequest{Reason: c.Reason, Force: c.Force})
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		row(w, c.ID, fmt.Sprintf("no longer trusted, key destroyed, %d devices revoked", len(out.Revoked)))
	})
}
