package operator

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// session is an entry of bucket "session"; its key is session.<name>.<hash of
// the secret>, so that an operator's sessions can be found.
type session struct {
	Name      string    `json:"name"`
	Key       string    `json:"key"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"`
	Source    string    `json:"source"`
}

const (
	sessionPrefix = "session."
	touchEvery    = time.Minute
)

func sessionKey(secret string) string { return sessionPrefix + digest(secret) }

var errSignIn = fleet.Errorf(fleet.CodeUnauthenticated, "name or password is wrong")

// SignIn checks a password and makes a session; secret is what the cookie
// holds. source is the caller's address.
func (d *Directory) SignIn(ctx context.Context, name, password, source string) (p Principal, secret string, err error) {
	if err := d.check(ctx, name, password, source); err != nil {
		return Principal{}, "", err
	}
	o, revision, err := d.operator(ctx, name)
	if err != nil {
		return Principal{}, "", err
	}
	now := d.deps.Clock().UTC()
	o.LastSignInAt = now
	if err := d.write(ctx, bus.BucketOperator, operatorPrefix+name, o, revision); err != nil {
		d.deps.Log.Warn("time of sign-in was not recorded", "operator", name, "error", err)
	}
	return d.begin(ctx, o, source)
}

// check compares a password, slowly for those who guess.
func (d *Directory) check(ctx context.Context, name, password, source string) error {
	now := d.deps.Clock()
	if err := d.slow.enter(name, source, now); err != nil {
		d.deps.Log.Warn("sign-in delayed", "operator", name, "source", source)
		return err
	}
	o, err := d.Operator(ctx, name)
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		d.slow.clear(name, source)
		return err
	}
	ok, err := d.hasher.matches(ctx, password, o.Hash)
	if err != nil {
		return err
	}
	if !ok {
		d.deps.Log.Warn("sign-in failed", "operator", name, "source", source)
		return errSignIn
	}
	d.slow.clear(name, source)
	return nil
}

func (d *Directory) begin(ctx context.Context, o Operator, source string) (Principal, string, error) {
	if err := d.makeRoom(ctx, o.Name); err != nil {
		return Principal{}, "", err
	}
	now := d.deps.Clock().UTC()
	secret := randomText(32)
	s := session{Name: o.Name, Key: sessionKey(secret), CreatedAt: now, SeenAt: now, Source: source}
	if err := d.create(ctx, bus.BucketSession, s.Key, s); err != nil {
		return Principal{}, "", err
	}
	return d.principal(o, s), secret, nil
}

func (d *Directory) principal(o Operator, s session) Principal {
	return Principal{
		Name: o.Name, Role: o.Role, MustChange: o.MustChange,
		ExpiresAt: s.CreatedAt.Add(d.cfg.AbsoluteTimeout), session: s.Key,
	}
}

// makeRoom removes ended sessions, and an operator's oldest when there are
// too many.
func (d *Directory) makeRoom(ctx context.Context, name string) error {
	all, err := list[session](ctx, d, bus.BucketSession, sessionPrefix)
	if err != nil {
		return err
	}
	now := d.deps.Clock()
	var own []session
	for _, s := range all {
		if d.ended(s, now) {
			if err := d.remove(ctx, bus.BucketSession, s.Key); err != nil {
				return err
			}
		} else if s.Name == name {
			own = append(own, s)
		}
	}
	slices.SortFunc(own, func(a, b session) int { return a.SeenAt.Compare(b.SeenAt) })
	for len(own) >= d.cfg.MaxSessions {
		if err := d.remove(ctx, bus.BucketSession, own[0].Key); err != nil {
			return err
		}
		own = own[1:]
	}
	return nil
}

func (d *Directory) ended(s session, now time.Time) bool {
	return now.Sub(s.SeenAt) > d.cfg.IdleTimeout || now.Sub(s.CreatedAt) > d.cfg.AbsoluteTimeout
}

// Session finds who a session belongs to. Code: unauthenticated.
func (d *Directory) Session(ctx context.Context, secret string) (Principal, error) {
	over := fleet.Errorf(fleet.CodeUnauthenticated, "your session has ended; sign in again")
	var s session
	revision, err := d.read(ctx, bus.BucketSession, sessionKey(secret), &s)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Principal{}, over
	}
	if err != nil {
		return Principal{}, err
	}
	now := d.deps.Clock().UTC()
	if d.ended(s, now) {
		return Principal{}, over
	}
	o, err := d.Operator(ctx, s.Name)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return Principal{}, over
	}
	if err != nil {
		return Principal{}, err
	}
	if now.Sub(s.SeenAt) > touchEvery {
		s.SeenAt = now
		// Losing the race to a parallel request of the same session is fine.
		if err := d.write(ctx, bus.BucketSession, s.Key, s, revision); err != nil {
			d.deps.Log.Debug("session was not touched", "operator", s.Name, "error", err)
		}
	}
	return d.principal(o, s), nil
}

// SignOut ends a session; a token stays.
func (d *Directory) SignOut(ctx context.Context, p Principal) error {
	if p.session == "" {
		return nil
	}
	return d.remove(ctx, bus.BucketSession, p.session)
}

// ChangePassword sets a new password, ends every session of the operator and
// begins a fresh one. Codes: invalid (weak), unauthenticated (current is
// wrong), forbidden (a token), too_many.
func (d *Directory) ChangePassword(ctx context.Context, p Principal, current, password, source string) (Principal, string, error) {
	if p.session == "" {
		return Principal{}, "", fleet.Errorf(fleet.CodeForbidden, "an API token can't change a password; sign in")
	}
	if err := d.check(ctx, p.Name, current, source); err != nil {
		if errors.Is(err, errSignIn) {
			err = fleet.Errorf(fleet.CodeInvalid, "the current password is wrong").On("body.current")
		}
		return Principal{}, "", err
	}
	if current == password {
		return Principal{}, "", fleet.Errorf(fleet.CodeInvalid, "the new password is the current one; choose another").On("body.new")
	}
	if err := CheckPassword(p.Name, password); err != nil {
		return Principal{}, "", err
	}
	hash, err := d.hasher.hash(ctx, password)
	if err != nil {
		return Principal{}, "", err
	}
	o, revision, err := d.operator(ctx, p.Name)
	if err != nil {
		return Principal{}, "", err
	}
	o.Hash, o.MustChange, o.ChangedAt = hash, false, d.deps.Clock().UTC()
	if err := d.write(ctx, bus.BucketOperator, operatorPrefix+o.Name, o, revision); err != nil {
		return Principal{}, "", err
	}
	if err := d.endSessions(ctx, o.Name); err != nil {
		return Principal{}, "", err
	}
	if o.Name == FirstAdmin && d.passwordFile != "" {
		if err := os.Remove(d.passwordFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.deps.Log.Warn("one-time password file was not removed", "file", d.passwordFile, "error", err)
		}
	}
	return d.begin(ctx, o, source)
}

func (d *Directory) endSessions(ctx context.Context, name string) error {
	all, err := list[session](ctx, d, bus.BucketSession, sessionPrefix)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Name == name {
			if err := d.remove(ctx, bus.BucketSession, s.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Reset gives an operator a new one-time password and ends every session of
// theirs; tokens stay.
func (d *Directory) Reset(ctx context.Context, name string) (Operator, string, error) {
	o, revision, err := d.operator(ctx, name)
	if err != nil {
		return Operator{}, "", err
	}
	password := oneTimePassword()
	if o.Hash, err = d.hasher.hash(ctx, password); err != nil {
		return Operator{}, "", err
	}
	o.MustChange, o.ChangedAt = true, d.deps.Clock().UTC()
	if err := d.write(ctx, bus.BucketOperator, operatorPrefix+name, o, revision); err != nil {
		return Operator{}, "", err
	}
	return o, password, d.endSessions(ctx, name)
}
