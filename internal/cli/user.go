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

	Change   UserChangeCmd   `cmd:"" help:"Change an operator's role, scope or access; ends their sessions."`
	Remove   UserRemoveCmd   `cmd:"" help:"Remove an operator with their sessions and tokens."`
	Unfactor UserUnfactorCmd `cmd:"" help:"Turn off the second factor of an operator who lost it."`
	Sessions UserSessionsCmd `cmd:"" help:"List an operator's sessions."`
	Policy   UserPolicyCmd   `cmd:"" help:"Show or change what is asked of operators."`
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
		row(w, "NAME", "ROLE", "SCOPE", "PASSWORD", "2ND FACTOR", "ACCESS", "CREATED", "LAST SIGN-IN")
		for _, o := range out.Items {
			password := "own"
			if o.MustChangePassword {
				password = "one-time"
			}
			row(w, o.Name, o.Role, o.Scope, password, yesNo(o.SecondFactor), access(o.Disabled), o.CreatedAt, o.LastSignInAt)
		}
	})
}

// UserAddCmd adds an operator.
type UserAddCmd struct {
	Name string `arg:"" help:"The operator's name: a-z 0-9 _ -, beginning with a letter."`
	Role string `help:"viewer, analyst, responder or admin." enum:"viewer,analyst,responder,admin" default:"viewer" placeholder:"ROLE"`

	Site   []string `help:"Sites that they see; default: all." placeholder:"SITE"`
	Cohort []string `help:"Cohorts that they see; default: all." placeholder:"COHORT"`
	Tag    []string `help:"Tags of devices that they see; default: all." placeholder:"TAG"`
}

// Run adds the operator.
func (c *UserAddCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.NewOperator](ctx, g, http.MethodPost, "/operators", api.OperatorRequest{Name: c.Name, Role: operator.Role(c.Role), Scope: scopeOf(c.Site, c.Cohort, c.Tag)})
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

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func access(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "enabled"
}

// UserChangeCmd changes an operator.
type UserChangeCmd struct {
	Name    string   `arg:"" help:"The operator's name."`
	Role    string   `help:"viewer, analyst, responder or admin." enum:",viewer,analyst,responder,admin" default:"" placeholder:"ROLE"`
	Disable bool     `help:"Let them sign in no more; their tokens stop too." xor:"access"`
	Enable  bool     `help:"Let them sign in again." xor:"access"`
	Whole   bool     `help:"Let them see the whole fleet."`
	Site    []string `help:"Sites that they see." placeholder:"SITE"`
	Cohort  []string `help:"Cohorts that they see." placeholder:"COHORT"`
	Tag     []string `help:"Tags of devices that they see." placeholder:"TAG"`
}

// Run changes the operator.
func (c *UserChangeCmd) Run(ctx context.Context, g *Globals) error {
	var change api.OperatorChange
	if c.Role != "" {
		role := operator.Role(c.Role)
		change.Role = &role
	}
	if c.Disable || c.Enable {
		change.Disabled = &c.Disable
	}
	if scope := scopeOf(c.Site, c.Cohort, c.Tag); c.Whole || !scope.Whole() {
		change.Scope = &scope
	}
	out, err := call[api.Operator](ctx, g, http.MethodPatch, "/operators/"+url.PathEscape(c.Name), change)
	if err != nil {
		return err
	}
	return show(g, out, func(w io.Writer) { row(w, out.Name, out.Role, out.Scope, access(out.Disabled)) })
}

// UserRemoveCmd removes an operator.
type UserRemoveCmd struct {
	Name string `arg:"" help:"The operator's name."`
}

// Run removes the operator.
func (c *UserRemoveCmd) Run(ctx context.Context, g *Globals) error {
	return act(ctx, g, http.MethodDelete, "/operators/"+url.PathEscape(c.Name), c.Name, "removed")
}

// UserUnfactorCmd turns a second factor off.
type UserUnfactorCmd struct {
	Name string `arg:"" help:"The operator's name."`
}

// Run turns it off.
func (c *UserUnfactorCmd) Run(ctx context.Context, g *Globals) error {
	return act(ctx, g, http.MethodDelete, "/operators/"+url.PathEscape(c.Name)+"/second-factor", c.Name, "second factor removed")
}

func act(ctx context.Context, g *Globals, method, path, what, done string) error {
	client, err := connect(g)
	if err != nil {
		return err
	}
	if err := client.Do(ctx, method, path, nil, nil); err != nil {
		return err
	}
	return show(g, map[string]string{"operator": what, "done": done}, func(w io.Writer) { row(w, what, done) })
}

// UserSessionsCmd lists sessions.
type UserSessionsCmd struct {
	Name string `arg:"" help:"The operator's name."`
}

// Run lists them.
func (c *UserSessionsCmd) Run(ctx context.Context, g *Globals) error {
	out, err := call[api.SessionList](ctx, g, http.MethodGet, "/operators/"+url.PathEscape(c.Name)+"/sessions", nil)
	if err != nil {
		return err
	}
	return show(g, items(out.Items), func(w io.Writer) {
		row(w, "ID", "SIGNED IN", "LAST USED", "FROM", "PROGRAM")
		for _, s := range out.Items {
			row(w, s.ID, s.CreatedAt, s.SeenAt, s.Source, s.Agent)
		}
	})
}

// UserPolicyCmd shows or changes the policy.
type UserPolicyCmd struct {
	SecondFactor []string `help:"Roles that must have a second factor; none: nobody must." placeholder:"ROLE"`
	Days         int      `help:"Passwords are changed after this many days; 0: never." default:"-1" placeholder:"N"`
	History      int      `help:"This many former passwords may not be used again." default:"-1" placeholder:"N"`
}

// Run shows or changes it.
func (c *UserPolicyCmd) Run(ctx context.Context, g *Globals) error {
	policy, err := call[operator.Policy](ctx, g, http.MethodGet, "/operator-policy", nil)
	if err != nil {
		return err
	}
	if len(c.SecondFactor) > 0 || c.Days >= 0 || c.History >= 0 {
		if len(c.SecondFactor) > 0 {
			policy.SecondFactor = []operator.Role{}
		}
		for _, role := range c.SecondFactor {
			if role != "none" {
				policy.SecondFactor = append(policy.SecondFactor, operator.Role(role))
			}
		}
		if c.Days >= 0 {
			policy.PasswordDays = c.Days
		}
		if c.History >= 0 {
			policy.PasswordHistory = c.History
		}
		if policy, err = call[operator.Policy](ctx, g, http.MethodPut, "/operator-policy", policy); err != nil {
			return err
		}
	}
	return show(g, policy, func(w io.Writer) {
		row(w, "roles that must have a second factor", policy.SecondFactor)
		row(w, "days until a password must be changed", policy.PasswordDays)
		row(w, "former passwords that may not be used", policy.PasswordHistory)
	})
}
