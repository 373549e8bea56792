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

// UserCmd holds the verbs about operators.
type UserCmd struct {
	List  UserListCmd  `cmd:"" help:"List operators."`
	Add   UserAddCmd   `cmd:"" help:"Add an operator and print the one-time password."`
	Reset UserResetCmd `cmd:"" help:"Give an operator a new one-time password and end all sessions of theirs."`
}

// UserListCmd lists operators.
type UserListCmd struct{}

// Run lists them.
func (c *UserListCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.OperatorList](ctx, g, http.MethodGet, "/operators", nil)
	if err != nil {
		return err
	}
	return show(g, items(out.Items), func(w io.Writer) {
		row(w, "NAME", "ROLE", "PASSWORD", "CREATED", "LAST SIGN-IN")
		for _, o := range out.Items {
			password := "own"
			if o.MustChangePassword {
				password = "one-time"
			}
			row(w, o.Name, o.Role, password, o.CreatedAt, o.LastSignInAt)
		}
	})
}

// UserAddCmd adds an operator.
type UserAddCmd struct {
	Name string `arg:"" help:"The operator's name: a-z 0-9 _ -, beginning with a letter."`
	Role string `help:"viewer, analyst, responder or admin." enum:"viewer,analyst,responder,admin" default:"viewer" placeholder:"ROLE"`
}

// Run adds the operator.
func (c *UserAddCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.NewOperator](ctx, g, http.MethodPost, "/operators", api.OperatorRequest{Name: c.Name, Role: operator.Role(c.Role)})
	if err != nil {
		return err
	}
	return showPassword(g, out)
}

// UserResetCmd gives an operator a new password.
type UserResetCmd struct {
	Name string `arg:"" help:"The operator's name."`
}

// Run resets the password.
func (c *UserResetCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.NewOperator](ctx, g, http.MethodPost, "/operators/"+url.PathEscape(c.Name)+"/reset", nil)
	if err != nil {
		return err
	}
	return showPassword(g, out)
}

func showPassword(g *Globals, out api.NewOperator) error {
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s) signs in once with this password and then chooses another:\n\n    %s\n", out.Operator.Name, out.Operator.Role, out.Password)
	})
}
