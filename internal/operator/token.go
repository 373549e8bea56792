package operator

import (
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// TokenPrefix begins every API token, so that leaked ones can be found.
const TokenPrefix = "cordon_"

// Token is an API token: an entry of bucket "operator" (key token.<id>).
type Token struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Role       Role      `json:"role"`
	Hash       string    `json:"hash"` // SHA-256 of the secret, hex
	CreatedAt  time.Time `json:"created_at"`
	CreatedBy  string    `json:"created_by"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"` // zero: never, only for the local one
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	Scope      Scope     `json:"scope,omitzero"` // besides its owner's
}

const (
	tokenKeyPrefix = "token."
	localToken     = "local" // of the client verbs on the same host
	localActor     = "cordon"
)

// CreateToken makes a token for the caller; secret is shown once.
func (d *Directory) CreateToken(ctx context.Context, by Principal, name string, role Role, life time.Duration) (Token, string, error) {
	return d.CreateScopedToken(ctx, by, name, role, life, Scope{})
}

// CreateScopedToken is CreateToken for a token that sees only a part of what
// its owner sees.
func (d *Directory) CreateScopedToken(ctx context.Context, by Principal, name string, role Role, life time.Duration, scope Scope) (Token, string, error) {
	if scope.Whole() {
		scope = by.TokenScope // a token can't make one that sees more
	} else if !by.TokenScope.Whole() {
		return Token{}, "", fleet.Errorf(fleet.CodeForbidden, "a token with a scope makes tokens of the same scope only").On("body.scope")
	}
	if err := scope.check(); err != nil {
		return Token{}, "", err
	}
	switch {
	case strings.TrimSpace(name) == "":
		return Token{}, "", fleet.Errorf(fleet.CodeInvalid, "a token needs a name that says what it is for").On("body.name")
	case !by.Role.Allows(role):
		return Token{}, "", fleet.Errorf(fleet.CodeForbidden, "your role is %s; a token of yours can't have role %s", by.Role, role).On("body.role")
	case life <= 0:
		return Token{}, "", fleet.Errorf(fleet.CodeInvalid, "a token needs an end").On("body.days")
	}
	own, err := d.Tokens(ctx)
	if err != nil {
		return Token{}, "", err
	}
	own = slices.DeleteFunc(own, func(t Token) bool {
		return t.CreatedBy != by.Name || !t.ExpiresAt.IsZero() && d.deps.Clock().After(t.ExpiresAt)
	})
	if len(own) >= d.cfg.MaxTokens {
		return Token{}, "", fleet.Errorf(fleet.CodeTooMany, "you have %d tokens, the limit is %d; revoke one", len(own), d.cfg.MaxTokens)
	}
	now := d.deps.Clock().UTC()
	t := Token{
		ID: strings.ToLower(randomText(10)), Name: name, Role: role,
		CreatedAt: now, CreatedBy: by.Name, ExpiresAt: now.Add(life), Scope: scope,
	}
	secret := t.issue()
	if err := d.create(ctx, bus.BucketOperator, tokenKeyPrefix+t.ID, t); err != nil {
		return Token{}, "", err
	}
	return t, secret, nil
}

// issue gives the token a new secret.
func (t *Token) issue() string {
	secret := TokenPrefix + t.ID + "_" + strings.ToLower(randomText(32))
	t.Hash = digest(secret)
	return secret
}

// Tokens lists every token by id, ended ones included.
func (d *Directory) Tokens(ctx context.Context) ([]Token, error) {
	return list[Token](ctx, d, bus.BucketOperator, tokenKeyPrefix)
}

// RevokeToken removes a token: one's own, or any for an administrator.
func (d *Directory) RevokeToken(ctx context.Context, by Principal, id string) (Token, error) {
	var t Token
	_, err := d.read(ctx, bus.BucketOperator, tokenKeyPrefix+id, &t)
	missing := errors.Is(err, jetstream.ErrKeyNotFound)
	if err != nil && !missing {
		return Token{}, err
	}
	if missing || (t.CreatedBy != by.Name && !by.Role.Allows(Admin)) {
		return Token{}, fleet.Errorf(fleet.CodeNotFound, "there is no token %q of yours", id)
	}
	if t.ID == localToken {
		return Token{}, fleet.Errorf(fleet.CodeConflict, "this is the token of the client verbs on Cordon's own host; it is made again at every start")
	}
	return t, d.remove(ctx, bus.BucketOperator, tokenKeyPrefix+id)
}

// Token finds who a token acts for. Its role is never more than its owner's
// role is now. Code: unauthenticated.
func (d *Directory) Token(ctx context.Context, secret string) (Principal, error) {
	bad := fleet.Errorf(fleet.CodeUnauthenticated, "the API token is unknown, revoked or has ended; make a new one")
	id, _, ok := strings.Cut(strings.TrimPrefix(secret, TokenPrefix), "_")
	if !ok || !strings.HasPrefix(secret, TokenPrefix) || len(secret) > 128 || !tokenID(id) {
		return Principal{}, bad
	}
	var t Token
	revision, err := d.read(ctx, bus.BucketOperator, tokenKeyPrefix+id, &t)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Principal{}, bad
	}
	if err != nil {
		return Principal{}, err
	}
	now := d.deps.Clock().UTC()
	if subtle.ConstantTimeCompare([]byte(digest(secret)), []byte(t.Hash)) != 1 || (!t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)) {
		return Principal{}, bad
	}
	role := t.Role
	var scope Scope
	if t.CreatedBy != localActor {
		owner, err := d.Operator(ctx, t.CreatedBy)
		if fleet.CodeOf(err) == fleet.CodeNotFound || err == nil && owner.Disabled {
			return Principal{}, bad
		}
		if err != nil {
			return Principal{}, err
		}
		scope = owner.Scope
		if !owner.Role.Allows(role) {
			role = owner.Role
		}
	}
	if now.Sub(t.LastUsedAt) > touchEvery {
		t.LastUsedAt = now
		if err := d.write(ctx, bus.BucketOperator, tokenKeyPrefix+id, t, revision); err != nil {
			d.deps.Log.Debug("use of token was not recorded", "token", id, "error", err)
		}
	}
	return Principal{
		Name: t.CreatedBy, Role: role, Scope: scope, TokenScope: t.Scope, ExpiresAt: t.ExpiresAt, TokenID: t.ID, TokenName: t.Name,
	}, nil
}

func tokenID(id string) bool {
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return id != "" && len(id) <= 32
}

// Recheck says whether a principal may still act, without counting as use: a
// page that is left open does not keep its session alive.
func (d *Directory) Recheck(ctx context.Context, p Principal) (Principal, error) {
	over := fleet.Errorf(fleet.CodeUnauthenticated, "your session has ended; sign in again")
	now := d.deps.Clock()
	if !p.ExpiresAt.IsZero() && !now.Before(p.ExpiresAt) {
		return Principal{}, over
	}
	var err error
	if p.session != "" {
		var s session
		if _, err = d.read(ctx, bus.BucketSession, p.session, &s); err == nil && d.ended(s, now) {
			return Principal{}, over
		}
	} else {
		_, err = d.tokenOwner(ctx, p.TokenID)
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) || fleet.CodeOf(err) == fleet.CodeNotFound {
		return Principal{}, over
	}
	return p, err
}

// tokenOwner is who a token belongs to; the zero value for the local one.
func (d *Directory) tokenOwner(ctx context.Context, id string) (Operator, error) {
	var t Token
	if _, err := d.read(ctx, bus.BucketOperator, tokenKeyPrefix+id, &t); err != nil || t.CreatedBy == localActor {
		return Operator{}, err
	}
	o, err := d.Operator(ctx, t.CreatedBy)
	if err == nil && o.Disabled {
		err = fleet.Errorf(fleet.CodeNotFound, "operator %s is disabled", o.Name)
	}
	return o, err
}
