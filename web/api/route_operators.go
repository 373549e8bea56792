package api

import (
	"net/http"
	"time"

	"cordon/internal/operator"
)

type (
	signInInput struct {
		Agent string `header:"User-Agent" maxLength:"1000" hidden:"true"`
		Body  SignInRequest
	}
	sessionOutput struct {
		SetCookie http.Cookie `header:"Set-Cookie"`
		Body      Session
	}
	noInput              struct{}
	currentSessionOutput struct{ Body Session }
	signOutOutput        struct {
		SetCookie http.Cookie `header:"Set-Cookie"`
	}
	passwordInput struct {
		Body PasswordRequest
	}
	operatorsOutput   struct{ Body OperatorList }
	addOperatorInput  struct{ Body OperatorRequest }
	addOperatorOutput struct{ Body NewOperator }
	// OperatorPath names an operator in the path.
	OperatorPath struct {
		Name string `path:"name" maxLength:"64" pattern:"^[a-z][a-z0-9_-]*$" doc:"The operator's name."`
	}
	operatorInput     struct{ OperatorPath }
	tokensOutput      struct{ Body TokenList }
	createTokenInput  struct{ Body TokenRequest }
	createTokenOutput struct{ Body NewToken }
	revokeTokenInput  struct {
		ID string `path:"id" maxLength:"32" pattern:"^[a-z0-9]+$" doc:"The token's id."`
	}
	emptyOutput struct{}
)

// SignInRequest is a name and a password.
type SignInRequest struct {
	Name     string `json:"name" minLength:"1" maxLength:"64"`
	Password string `json:"password" minLength:"1" maxLength:"256" format:"password"`
	Code     string `json:"code,omitempty" maxLength:"32" doc:"Of the second factor, or a recovery code: after the answer second_factor_required."`

	Challenge string `json:"challenge,omitempty" maxLength:"2048" doc:"The solved challenge (base64, as the ALTCHA widget gives it): after the answer challenge_required."`
}

// PasswordRequest changes one's own password.
type PasswordRequest struct {
	Current string `json:"current" minLength:"1" maxLength:"256" format:"password"`
	New     string `json:"new" minLength:"1" maxLength:"256" format:"password"`
}

// Person is an operator as everybody may see one.
type Person struct {
	Name string        `json:"name"`
	Role operator.Role `json:"role"`
}

// Session says who is signed in.
type Session struct {
	Operator           Person    `json:"operator"`
	MustChangePassword bool      `json:"must_change_password" doc:"Until then every other route answers 403 password_change_required."`
	ExpiresAt          time.Time `json:"expires_at,omitzero"`
	Token              string    `json:"token,omitempty" doc:"The name of the API token, when one was used."`

	MustSetUpSecondFactor bool            `json:"must_set_up_second_factor" doc:"Until then every other route answers 403 second_factor_setup_required."`
	SecondFactor          bool            `json:"second_factor"`
	RecoveryCodesLeft     int             `json:"recovery_codes_left"`
	ProvedAt              time.Time       `json:"proved_at,omitzero" doc:"When the password was last given; acts that need it to be at most 15 minutes ago answer 403 proof_required."`
	Notices               []AccountNotice `json:"notices" doc:"What happened to the account, newest first."`
	Scope                 operator.Scope  `json:"scope" doc:"The part of the fleet that this operator sees; {}: all of it."`
}

// AccountNotice says what happened to one's account.
type AccountNotice struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Operator is an operator as an administrator sees one.
type Operator struct {
	Name               string        `json:"name"`
	Role               operator.Role `json:"role"`
	MustChangePassword bool          `json:"must_change_password"`
	CreatedAt          time.Time     `json:"created_at"`
	CreatedBy          string        `json:"created_by"`
	LastSignInAt       time.Time     `json:"last_sign_in_at,omitzero"`

	Disabled     bool           `json:"disabled"`
	Scope        operator.Scope `json:"scope"`
	SecondFactor bool           `json:"second_factor"`
}

// OperatorList lists operators.
type OperatorList struct {
	Items []Operator `json:"items"`
	Next  string     `json:"next"`
	Total uint64     `json:"total"`
}

// OperatorRequest asks for a new operator.
type OperatorRequest struct {
	Name string        `json:"name" minLength:"2" maxLength:"64" pattern:"^[a-z][a-z0-9_-]*$"`
	Role operator.Role `json:"role"`

	Scope operator.Scope `json:"scope,omitzero" doc:"The part of the fleet that they see; without it: all of it."`
}

// NewOperator is an operator with the one-time password, shown only once.
type NewOperator struct {
	Operator Operator `json:"operator"`
	Password string   `json:"password" doc:"Must be changed at the first sign-in."`
}

// Token is an API token without its secret.
type Token struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	Role       operator.Role `json:"role"`
	CreatedAt  time.Time     `json:"created_at"`
	CreatedBy  string        `json:"created_by"`
	ExpiresAt  time.Time     `json:"expires_at,omitzero"`
	LastUsedAt time.Time     `json:"last_used_at,omitzero"`

	Scope operator.Scope `json:"scope"`
}

// TokenList lists tokens.
type TokenList struct {
	Items []Token `json:"items"`
	Next  string  `json:"next"`
	Total uint64  `json:"total"`
}

// TokenRequest asks for a new token.
type TokenRequest struct {
	Name string        `json:"name" minLength:"1" maxLength:"64"`
	Role operator.Role `json:"role" doc:"At most one's own role."`
	Days int           `json:"days,omitempty" minimum:"1" maximum:"366" default:"90" doc:"How long it is good for."`

	Scope operator.Scope `json:"scope,omitzero" doc:"Besides one's own."`
}

// NewToken is a token with its secret, shown only once.
type NewToken struct {
	Token  Token  `json:"token"`
	Secret string `json:"secret" doc:"Send it as Authorization: Bearer …"`
}

func (a *API) operatorRoutes() {
	add(a, route{"sign-in", http.MethodPost, "/session", "Sign in", "session"}, a.signIn)
	add(a, route{"get-session", http.MethodGet, "/session", "Say who is signed in", "session"}, a.getSession)
	add(a, route{"sign-out", http.MethodDelete, "/session", "Sign out", "session"}, a.signOut)
	add(a, route{"change-password", http.MethodPost, "/session/password", "Change one's own password; ends every other session", "session"}, a.changePassword)
	add(a, route{"list-operators", http.MethodGet, "/operators", "List operators", "operators"}, a.listOperators)
	add(a, route{"add-operator", http.MethodPost, "/operators", "Add an operator and get a one-time password", "operators"}, a.addOperator)
	add(a, route{"reset-operator", http.MethodPost, "/operators/{name}/reset", "Give an operator a new one-time password; ends every session of theirs", "operators"}, a.resetOperator)
	add(a, route{"list-tokens", http.MethodGet, "/tokens", "List API tokens: one's own, or all for an administrator", "operators"}, a.listTokens)
	add(a, route{"create-token", http.MethodPost, "/tokens", "Create an API token", "operators"}, a.createToken)
	add(a, route{"revoke-token", http.MethodDelete, "/tokens/{id}", "Revoke an API token", "operators"}, a.revokeToken)
}
