package api

import (
	"context"
	"strings"
	"time"

	"cordon/internal/operator"
)

func (a *API) signIn(ctx context.Context, in *signInInput) (*sessionOutput, error) {
	name := strings.ToLower(strings.TrimSpace(in.Body.Name))
	if done, ok := ctx.Value(keyAct).(*act); ok {
		done.actor = name
	}
	p, secret, err := a.deps.Operators.Enter(ctx, operator.Credentials{
		Name: name, Password: in.Body.Password, Code: in.Body.Code, Solution: in.Body.Challenge, Source: source(ctx), Agent: in.Agent,
	})
	if err != nil {
		return nil, err
	}
	return &sessionOutput{SetCookie: a.cookie(secret, p.ExpiresAt), Body: sessionView(p)}, nil
}

func sessionView(p operator.Principal) Session {
	out := Session{
		Operator: Person{Name: p.Name, Role: p.Role}, MustChangePassword: p.MustChange, ExpiresAt: p.ExpiresAt, Token: p.TokenName,
		MustSetUpSecondFactor: p.MustSetUp, SecondFactor: p.Factor, RecoveryCodesLeft: p.Recovery, ProvedAt: p.ProvedAt,
		Notices: []AccountNotice{}, Scope: p.Scope,
	}
	for _, n := range p.Notices {
		out.Notices = append(out.Notices, AccountNotice(n))
	}
	return out
}

func (a *API) getSession(ctx context.Context, _ *noInput) (*currentSessionOutput, error) {
	return &currentSessionOutput{Body: sessionView(caller(ctx))}, nil
}

func (a *API) signOut(ctx context.Context, _ *noInput) (*signOutOutput, error) {
	if err := a.deps.Operators.SignOut(ctx, caller(ctx)); err != nil {
		return nil, err
	}
	return &signOutOutput{SetCookie: a.cookie("", time.Time{})}, nil
}

func (a *API) changePassword(ctx context.Context, in *passwordInput) (*sessionOutput, error) {
	p, secret, err := a.deps.Operators.ChangePassword(ctx, caller(ctx), in.Body.Current, in.Body.New, source(ctx))
	if err != nil {
		return nil, err
	}
	return &sessionOutput{SetCookie: a.cookie(secret, p.ExpiresAt), Body: sessionView(p)}, nil
}

func operatorView(o operator.Operator) Operator {
	return Operator{
		Name: o.Name, Role: o.Role, MustChangePassword: o.MustChange, CreatedAt: o.CreatedAt, CreatedBy: o.CreatedBy, LastSignInAt: o.LastSignInAt,
		Disabled: o.Disabled, Scope: o.Scope, SecondFactor: o.TOTP != "",
	}
}

func (a *API) listOperators(ctx context.Context, _ *noInput) (*operatorsOutput, error) {
	all, err := a.deps.Operators.Operators(ctx)
	if err != nil {
		return nil, err
	}
	out := OperatorList{Items: make([]Operator, 0, len(all)), Total: uint64(len(all))}
	for _, o := range all {
		out.Items = append(out.Items, operatorView(o))
	}
	return &operatorsOutput{Body: out}, nil
}

func (a *API) addOperator(ctx context.Context, in *addOperatorInput) (*addOperatorOutput, error) {
	note(ctx, in.Body.Name, nil, in.Body)
	o, password, err := a.deps.Operators.AddScoped(ctx, caller(ctx).Name, in.Body.Name, in.Body.Role, in.Body.Scope)
	if err != nil {
		return nil, err
	}
	return &addOperatorOutput{Body: NewOperator{Operator: operatorView(o), Password: password}}, nil
}

func tokenView(t operator.Token) Token {
	return Token{
		ID: t.ID, Name: t.Name, Role: t.Role, CreatedAt: t.CreatedAt, CreatedBy: t.CreatedBy, ExpiresAt: t.ExpiresAt, LastUsedAt: t.LastUsedAt, Scope: t.Scope,
	}
}

func (a *API) listTokens(ctx context.Context, _ *noInput) (*tokensOutput, error) {
	all, err := a.deps.Operators.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	p := caller(ctx)
	out := TokenList{Items: []Token{}}
	for _, t := range all {
		if t.CreatedBy == p.Name || p.Role.Allows(operator.Admin) {
			out.Items = append(out.Items, tokenView(t))
		}
	}
	out.Total = uint64(len(out.Items))
	return &tokensOutput{Body: out}, nil
}

func (a *API) createToken(ctx context.Context, in *createTokenInput) (*createTokenOutput, error) {
	t, secret, err := a.deps.Operators.CreateScopedToken(ctx, caller(ctx), in.Body.Name, in.Body.Role, time.Duration(in.Body.Days)*24*time.Hour, in.Body.Scope)
	if err != nil {
		note(ctx, in.Body.Name, nil, nil)
		return nil, err
	}
	note(ctx, t.ID, nil, tokenView(t))
	return &createTokenOutput{Body: NewToken{Token: tokenView(t), Secret: secret}}, nil
}

func (a *API) revokeToken(ctx context.Context, in *revokeTokenInput) (*emptyOutput, error) {
	note(ctx, in.ID, nil, nil)
	t, err := a.deps.Operators.RevokeToken(ctx, caller(ctx), in.ID)
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, tokenView(t), nil)
	return &emptyOutput{}, nil
}

func (a *API) resetOperator(ctx context.Context, in *operatorInput) (*addOperatorOutput, error) {
	note(ctx, in.Name, nil, nil)
	o, password, err := a.deps.Operators.Reset(ctx, caller(ctx).Name, in.Name)
	if err != nil {
		return nil, err
	}
	return &addOperatorOutput{Body: NewOperator{Operator: operatorView(o), Password: password}}, nil
}
