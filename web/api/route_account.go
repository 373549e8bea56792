package api

import (
	"context"
	"net/http"
	"time"

	"cordon/internal/operator"
)

type (
	challengeOutput struct{ Body operator.Challenge }
	proofInput      struct{ Body ProofRequest }
	sessionsOutput  struct{ Body SessionList }
	sessionInput    struct {
		ID string `path:"id" maxLength:"32" pattern:"^[a-f0-9]+$" doc:"The session's id."`
	}
	factorOutput        struct{ Body SecondFactor }
	codeInput           struct{ Body CodeRequest }
	recoveryOutput      struct{ Body RecoveryCodes }
	modifyOperatorInput struct {
		OperatorPath
		Body OperatorChange
	}
	operatorOutput struct{ Body Operator }
	policyOutput   struct{ Body operator.Policy }
	policyInput    struct{ Body operator.Policy }
)

// ProofRequest proves again who one is.
type ProofRequest struct {
	Password string `json:"password" minLength:"1" maxLength:"256" format:"password"`
	Code     string `json:"code,omitempty" maxLength:"32" doc:"Of the second factor, where one is set up."`
}

// OpenSession is a session as its owner sees it.
type OpenSession struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"`
	Source    string    `json:"source" doc:"The address that signed in."`
	Agent     string    `json:"agent" doc:"The program that signed in, as it calls itself."`
	Current   bool      `json:"current"`
}

// SessionList lists sessions.
type SessionList struct {
	Items []OpenSession `json:"items"`
	Next  string        `json:"next"`
	Total uint64        `json:"total"`
}

// SecondFactor is what an authenticator app needs.
type SecondFactor struct {
	Secret string `json:"secret" doc:"Base 32, to type in by hand."`
	URI    string `json:"uri" doc:"otpauth://…, to show as a QR code. It counts once a code of it was confirmed."`
}

// CodeRequest is a code of the second factor.
type CodeRequest struct {
	Code string `json:"code" minLength:"6" maxLength:"32"`
}

// RecoveryCodes stand in for the second factor, each once.
type RecoveryCodes struct {
	Codes []string `json:"codes" doc:"Shown only now."`
}

// OperatorChange says what to change of an operator; what is left out stays.
type OperatorChange struct {
	Role     *operator.Role  `json:"role,omitempty"`
	Disabled *bool           `json:"disabled,omitempty" doc:"Whether they may not sign in; their tokens do not work either."`
	Scope    *operator.Scope `json:"scope,omitempty" doc:"The part of the fleet that they see; {}: all of it."`
}

func (a *API) accountRoutes() {
	add(a, route{"get-challenge", http.MethodGet, "/session/challenge", "Get a proof-of-work challenge for sign-in (ALTCHA)", "session"}, a.getChallenge)
	add(a, route{"prove-session", http.MethodPost, "/session/proof", "Give password and second factor again, before dangerous acts", "session"}, a.proveSession)
	add(a, route{"list-sessions", http.MethodGet, "/sessions", "List one's own sessions", "session"}, a.listSessions)
	add(a, route{"end-session", http.MethodDelete, "/sessions/{id}", "End a session: one's own, or any for an administrator", "session"}, a.endSession)
	add(a, route{"begin-second-factor", http.MethodPost, "/session/second-factor", "Begin to set up a second factor (TOTP)", "session"}, a.beginSecondFactor)
	add(a, route{"confirm-second-factor", http.MethodPost, "/session/second-factor/confirm", "Turn the second factor on and get recovery codes; ends every other session", "session"}, a.confirmSecondFactor)
	add(a, route{"remove-second-factor", http.MethodDelete, "/session/second-factor", "Turn one's own second factor off", "session"}, a.removeSecondFactor)
	add(a, route{"make-recovery-codes", http.MethodPost, "/session/recovery-codes", "Replace the recovery codes", "session"}, a.makeRecoveryCodes)
	add(a, route{"modify-operator", http.MethodPatch, "/operators/{name}", "Change an operator's role, scope or access; ends their sessions", "operators"}, a.modifyOperator)
	add(a, route{"remove-operator", http.MethodDelete, "/operators/{name}", "Remove an operator with their sessions and tokens", "operators"}, a.removeOperator)
	add(a, route{"list-operator-sessions", http.MethodGet, "/operators/{name}/sessions", "List an operator's sessions", "operators"}, a.listOperatorSessions)
	add(a, route{"drop-second-factor", http.MethodDelete, "/operators/{name}/second-factor", "Turn off the second factor of an operator who lost it; ends their sessions", "operators"}, a.dropSecondFactor)
	add(a, route{"get-policy", http.MethodGet, "/operator-policy", "Show what is asked of operators", "operators"}, a.getPolicy)
	add(a, route{"set-policy", http.MethodPut, "/operator-policy", "Change what is asked of operators", "operators"}, a.setPolicy)
}

func (a *API) getChallenge(context.Context, *noInput) (*challengeOutput, error) {
	c, err := a.deps.Operators.Challenge()
	if err != nil {
		return nil, err
	}
	return &challengeOutput{Body: c}, nil
}

func (a *API) proveSession(ctx context.Context, in *proofInput) (*emptyOutput, error) {
	return &emptyOutput{}, a.deps.Operators.Prove(ctx, caller(ctx), operator.Credentials{
		Password: in.Body.Password, Code: in.Body.Code, Source: source(ctx),
	})
}

func (a *API) listSessions(ctx context.Context, _ *noInput) (*sessionsOutput, error) {
	return a.sessionsOf(ctx, caller(ctx).Name)
}

func (a *API) listOperatorSessions(ctx context.Context, in *operatorInput) (*sessionsOutput, error) {
	if _, err := a.deps.Operators.Operator(ctx, in.Name); err != nil {
		return nil, err
	}
	return a.sessionsOf(ctx, in.Name)
}

func (a *API) sessionsOf(ctx context.Context, name string) (*sessionsOutput, error) {
	all, err := a.deps.Operators.Sessions(ctx, caller(ctx), name)
	if err != nil {
		return nil, err
	}
	out := SessionList{Items: make([]OpenSession, 0, len(all)), Total: uint64(len(all))}
	for _, s := range all {
		out.Items = append(out.Items, OpenSession{s.ID, s.CreatedAt, s.SeenAt, s.Source, s.Agent, s.Current})
	}
	return &sessionsOutput{Body: out}, nil
}

func (a *API) endSession(ctx context.Context, in *sessionInput) (*emptyOutput, error) {
	note(ctx, in.ID, nil, nil)
	name, err := a.deps.Operators.EndSession(ctx, caller(ctx), in.ID)
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, map[string]any{"operator": name}, nil)
	return &emptyOutput{}, nil
}

func (a *API) beginSecondFactor(ctx context.Context, _ *noInput) (*factorOutput, error) {
	secret, uri, err := a.deps.Operators.BeginSecondFactor(ctx, caller(ctx))
	if err != nil {
		return nil, err
	}
	return &factorOutput{Body: SecondFactor{secret, uri}}, nil
}

func (a *API) confirmSecondFactor(ctx context.Context, in *codeInput) (*recoveryOutput, error) {
	codes, err := a.deps.Operators.ConfirmSecondFactor(ctx, caller(ctx), in.Body.Code, source(ctx))
	if err != nil {
		return nil, err
	}
	return &recoveryOutput{Body: RecoveryCodes{codes}}, nil
}

func (a *API) removeSecondFactor(ctx context.Context, _ *noInput) (*emptyOutput, error) {
	return &emptyOutput{}, a.deps.Operators.RemoveSecondFactor(ctx, caller(ctx), caller(ctx).Name)
}

func (a *API) makeRecoveryCodes(ctx context.Context, _ *noInput) (*recoveryOutput, error) {
	codes, err := a.deps.Operators.NewRecoveryCodes(ctx, caller(ctx))
	if err != nil {
		return nil, err
	}
	return &recoveryOutput{Body: RecoveryCodes{codes}}, nil
}

func (a *API) modifyOperator(ctx context.Context, in *modifyOperatorInput) (*operatorOutput, error) {
	note(ctx, in.Name, nil, in.Body)
	before, after, err := a.deps.Operators.Modify(ctx, caller(ctx), in.Name, operator.Change(in.Body))
	if err != nil {
		return nil, err
	}
	state := func(o operator.Operator) map[string]any {
		return map[string]any{"role": o.Role, "disabled": o.Disabled, "scope": o.Scope}
	}
	note(ctx, in.Name, state(before), state(after))
	return &operatorOutput{Body: operatorView(after)}, nil
}

func (a *API) removeOperator(ctx context.Context, in *operatorInput) (*emptyOutput, error) {
	note(ctx, in.Name, nil, nil)
	o, err := a.deps.Operators.Remove(ctx, caller(ctx), in.Name)
	if err != nil {
		return nil, err
	}
	note(ctx, in.Name, operatorView(o), nil)
	return &emptyOutput{}, nil
}

func (a *API) dropSecondFactor(ctx context.Context, in *operatorInput) (*emptyOutput, error) {
	note(ctx, in.Name, nil, nil)
	return &emptyOutput{}, a.deps.Operators.RemoveSecondFactor(ctx, caller(ctx), in.Name)
}

func (a *API) getPolicy(ctx context.Context, _ *noInput) (*policyOutput, error) {
	p, err := a.deps.Operators.Policy(ctx)
	if err != nil {
		return nil, err
	}
	return &policyOutput{Body: p}, nil
}

func (a *API) setPolicy(ctx context.Context, in *policyInput) (*policyOutput, error) {
	note(ctx, "policy", nil, in.Body)
	before, err := a.deps.Operators.SetPolicy(ctx, caller(ctx), in.Body)
	if err != nil {
		return nil, err
	}
	note(ctx, "policy", before, in.Body)
	return a.getPolicy(ctx, nil)
}
