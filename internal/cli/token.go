package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"cordon/internal/operator"
	"cordon/web/api"
)

// TokenCmd holds the verbs about API tokens.
type TokenCmd struct {
	List   TokenListCmd   `cmd:"" help:"List API tokens."`
	Create TokenCreateCmd `cmd:"" help:"Create an API token and print it."`
	Revoke TokenRevokeCmd `cmd:"" help:"Revoke an API token."`
}

// TokenListCmd lists tokens.
type TokenListCmd struct{}

// Run lists them.
func (c *TokenListCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.TokenList](ctx, g, http.MethodGet, "/tokens", nil)
	if err != nil {
		return err
	}
	return show(g, items(out.Items), func(w io.Writer) {
		row(w, "ID", "NAME", "ROLE", "OF", "EXPIRES", "LAST USED")
		for _, t := range out.Items {
			row(w, t.ID, t.Name, t.Role, t.CreatedBy, t.ExpiresAt, t.LastUsedAt)
		}
	})
}

// TokenCreateCmd creates a token.
type TokenCreateCmd struct {
	Name string `arg:"" help:"What it is for."`
	Role string `help:"viewer, analyst, responder or admin." enum:"viewer,analyst,responder,admin" default:"viewer" placeholder:"ROLE"`
	Days int    `help:"How long it is good for." default:"90" placeholder:"N"`

	Site   []string `help:"Sites that it sees; default: what you see." placeholder:"SITE"`
	Cohort []string `help:"Cohorts that it sees." placeholder:"COHORT"`
	Tag    []string `help:"Tags of devices that it sees." placeholder:"TAG"`
}

// Run creates the token.
func (c *TokenCreateCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.NewToken](ctx, g, http.MethodPost, "/tokens", api.TokenRequest{Name: c.Name, Role: operator.Role(c.Role), Days: c.Days, Scope: scopeOf(c.Site, c.Cohort, c.Tag)})
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "Token %s (%s), good until %s; it is shown only now:\n\n    %s\n", out.Token.Name, out.Token.Role, when(out.Token.ExpiresAt), out.Secret)
	})
}

// TokenRevokeCmd revokes a token.
type TokenRevokeCmd struct {
	ID string `arg:"" help:"The token's id."`
}

// Run revokes the token.
func (c *TokenRevokeCmd) Run(ctx context.Context, g *Globals) error {
	client, err := connect(g)
	if err != nil {
		return err
	}
	if err := client.Do(ctx, http.MethodDelete, "/tokens/"+url.PathEscape(c.ID), nil, nil); err != nil {
		return err
	}
	return show(g, map[string]string{"revoked": c.ID}, func(w io.Writer) { row(w, c.ID, "revoked") })
}
