package operator

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// session is an entry of bucket "session"; its key is session.<hash of the
// secret>.
type session struct {
	Name      string    `json:"name"`
	Key       string    `json:"key"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"`
	ProvedAt  time.Time `json:"proved_at,omitzero"` // password and second factor given; zero: at CreatedAt
	Source    string    `json:"source"`
	Agent     string    `json:"agent,omitempty"`
}

// Session is an open session as its owner sees it.
type Session struct {
	ID        string // names it; not what the cookie holds
	Operator  string
	CreatedAt time.Time
	SeenAt    time.Time
	Source    string
	Agent     string
	Current   bool
}

const (
	sessionPrefix = "session."
	touchEvery    = time.Minute
	maxAgent      = 200
)

func sessionKey(secret string) string { return sessionPrefix + digest(secret) }

var errSignIn = fleet.Errorf(fleet.CodeUnauthenticated, "name or password is wrong")

// Credentials are what a person shows to sign in.
type Credentials struct {
	Name, Password string
	Code           string // of the second factor: from the app, or a recovery code
	Solution       string // of a proof-of-work challenge
	Source         string // the caller's address
	Agent          string // the caller's program
}

// SignIn checks a password and makes a session; secret is what the cookie
// holds. source is the caller's address.
func (d *Directory) SignIn(ctx context.Context, name, password, source string) (p Principal, secret string, err error) {
	return d.Enter(ctx, Credentials{Name: name, Password: password, Source: source})
}

// Enter is SignIn with a second factor. Codes: unauthenticated (also
// ErrSecondFactor), too_many (*DelayError).
func (d *Directory) Enter(ctx context.Context, c Credentials) (p Principal, secret string, err error) {
	if err := d.check(ctx, c); err != nil {
		return Principal{}, "", err
	}
	now := d.deps.Clock().UTC()
	var o Operator
	if err := d.change(ctx, c.Name, func(current *Operator) error {
		current.signedIn(c.Source, now)
		o = *current
		return nil
	}); err != nil {
		return Principal{}, "", err
	}
	return d.begin(ctx, o, c.Source, c.Agent)
}

// check compares a password and, where there is one, the second factor, slowly
// for those who guess.
func (d *Directory) check(ctx context.Context, c Credentials) error {
	now := d.deps.Clock()
	o, err := d.Operator(ctx, c.Name)
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		return err
	}
	last, known := o.Sources[c.Source]
	a := attempt{account: c.Name, source: c.Source, now: now, known: known && now.Sub(last) < sourceFor}
	a.solved = d.puzzles.solved(c.Solution, now)
	if err := d.slow.enter(a); err != nil {
		d.deps.Log.Warn("sign-in delayed", "operator", c.Name, "source", c.Source)
		return err
	}
	ok, err := d.hasher.matches(ctx, c.Password, o.Hash)
	if err != nil {
		return err
	}
	if !ok || o.Disabled {
		d.deps.Log.Warn("sign-in failed", "operator", c.Name, "source", c.Source)
		return errSignIn
	}
	if o.MustChange && !o.OneTimeUntil.IsZero() && now.After(o.OneTimeUntil) {
		return fleet.Errorf(fleet.CodeUnauthenticated, "the one-time password has ended; ask an administrator for another")
	}
	if o.TOTP != "" {
		if c.Code == "" {
			d.slow.clear(c.Name, c.Source)
			return ErrSecondFactor
		}
		if err := d.useCode(ctx, c.Name, c.Code); err != nil {
			d.deps.Log.Warn("second factor failed", "operator", c.Name, "source", c.Source)
			return err
		}
	}
	d.slow.clear(c.Name, c.Source)
	return nil
}

func (d *Directory) begin(ctx context.Context, o Operator, source, agent string) (Principal, string, error) {
	if err := d.makeRoom(ctx, o.Name); err != nil {
		return Principal{}, "", err
	}
	now := d.deps.Clock().UTC()
	secret := randomText(32)
	s := session{Name: o.Name, Key: sessionKey(secret), CreatedAt: now, SeenAt: now, ProvedAt: now, Source: source, Agent: strings.ToValidUTF8(agent[:min(len(agent), maxAgent)], "")}
	if err := d.create(ctx, bus.BucketSession, s.Key, s); err != nil {
		return Principal{}, "", err
	}
	p, err := d.principal(ctx, o, s)
	return p, secret, err
}

func (d *Directory) principal(ctx context.Context, o Operator, s session) (Principal, error) {
	policy, err := d.Policy(ctx)
	if err != nil {
		return Principal{}, err
	}
	p := Principal{
		Name: o.Name, Role: o.Role, Scope: o.Scope, Factor: o.TOTP != "", Recovery: len(o.Recovery), Notices: o.Notices,
		ExpiresAt: s.CreatedAt.Add(d.cfg.AbsoluteTimeout), ProvedAt: s.ProvedAt, session: s.Key,
	}
	p.MustChange, p.MustSetUp = policy.duties(o, d.deps.Clock())
	return p, nil
}

// Prove asks for password and second factor again: for acts that a thief of a
// session must not do. Codes: forbidden (a token), invalid, too_many.
func (d *Directory) Prove(ctx context.Context, p Principal, c Credentials) error {
	if p.session == "" {
		return fleet.Errorf(fleet.CodeForbidden, "an API token can't do this; sign in")
	}
	c.Name = p.Name
	if err := d.check(ctx, c); err != nil {
		if errors.Is(err, errSignIn) {
			err = fleet.Errorf(fleet.CodeInvalid, "the password is wrong").On("body.password")
		} else if fleet.CodeOf(err) == fleet.CodeUnauthenticated {
			err = fleet.Errorf(fleet.CodeInvalid, "%s", err.Error()).On("body.code")
		}
		return err
	}
	var s session
	revision, err := d.read(ctx, bus.BucketSession, p.session, &s)
	if err != nil {
		return err
	}
	s.ProvedAt = d.deps.Clock().UTC()
	return d.write(ctx, bus.BucketSession, s.Key, s, revision)
}

// Sessions lists the open sessions of an operator, the newest use first.
func (d *Directory) Sessions(ctx context.Context, p Principal, name string) ([]Session, error) {
	all, err := list[session](ctx, d, bus.BucketSession, sessionPrefix)
	if err != nil {
		return nil, err
	}
	now := d.deps.Clock()
	out := []Session{}
	for _, s := range all {
		if s.Name == name && !d.ended(s, now) {
			out = append(out, Session{sessionID(s.Key), s.Name, s.CreatedAt, s.SeenAt, s.Source, s.Agent, s.Key == p.session})
		}
	}
	slices.SortFunc(out, func(a, b Session) int { return b.SeenAt.Compare(a.SeenAt) })
	return out, nil
}

func sessionID(key string) string { return strings.TrimPrefix(key, sessionPrefix)[:20] }

// EndSession ends one session: one's own, or any for an administrator of the
// whole fleet.
func (d *Directory) EndSession(ctx context.Context, by Principal, id string) (string, error) {
	all, err := list[session](ctx, d, bus.BucketSession, sessionPrefix)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if sessionID(s.Key) == id && (s.Name == by.Name || by.Role.Allows(Admin) && !by.Scoped()) {
			return s.Name, d.remove(ctx, bus.BucketSession, s.Key)
		}
	}
	return "", fleet.Errorf(fleet.CodeNotFound, "there is no session %q of yours", id)
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
	if fleet.CodeOf(err) == fleet.CodeNotFound || err == nil && o.Disabled {
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
	return d.principal(ctx, o, s)
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
	if err := d.checkPassword(ctx, p.Name, current, source); err != nil {
		return Principal{}, "", err
	}
	if current == password {
		return Principal{}, "", fleet.Errorf(fleet.CodeInvalid, "the new password is the current one; choose another").On("body.new")
	}
	if err := CheckPassword(p.Name, password); err != nil {
		return Principal{}, "", err
	}
	policy, err := d.Policy(ctx)
	if err != nil {
		return Principal{}, "", err
	}
	o, _, err := d.operator(ctx, p.Name)
	if err != nil {
		return Principal{}, "", err
	}
	if err := d.checkFormer(ctx, o, password, policy.PasswordHistory); err != nil {
		return Principal{}, "", err
	}
	hash, err := d.hasher.hash(ctx, password)
	if err != nil {
		return Principal{}, "", err
	}
	old := o.Hash
	if err := d.change(ctx, p.Name, func(now *Operator) error {
		if now.Hash != old {
			return fleet.Errorf(fleet.CodeConflict, "the password was changed meanwhile; sign in again")
		}
		if !now.MustChange { // a one-time password is worth no memory
			now.Former = append([]string{now.Hash}, now.Former...)
		}
		now.Former = now.Former[:min(len(now.Former), policy.PasswordHistory)]
		now.Hash, now.MustChange, now.ChangedAt, now.OneTimeUntil = hash, false, d.deps.Clock().UTC(), time.Time{}
		o = *now
		return nil
	}); err != nil {
		return Principal{}, "", err
	}
	if err := d.endSessions(ctx, o.Name, ""); err != nil {
		return Principal{}, "", err
	}
	if o.Name == FirstAdmin && d.passwordFile != "" {
		if err := os.Remove(d.passwordFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.deps.Log.Warn("one-time password file was not removed", "file", d.passwordFile, "error", err)
		}
	}
	return d.begin(ctx, o, source, "")
}

// checkPassword compares the current password of somebody who is signed in.
func (d *Directory) checkPassword(ctx context.Context, name, password, source string) error {
	o, err := d.Operator(ctx, name)
	if err != nil {
		return err
	}
	if err := d.slow.enter(attempt{account: name, source: source, now: d.deps.Clock(), known: true}); err != nil {
		return err
	}
	ok, err := d.hasher.matches(ctx, password, o.Hash)
	if err != nil {
		return err
	}
	if !ok {
		d.deps.Log.Warn("current password was wrong", "operator", name, "source", source)
		return fleet.Errorf(fleet.CodeInvalid, "the current password is wrong").On("body.current")
	}
	d.slow.clear(name, source)
	return nil
}

func (d *Directory) checkFormer(ctx context.Context, o Operator, password string, remembered int) error {
	for _, hash := range o.Former[:min(len(o.Former), remembered)] {
		same, err := d.hasher.matches(ctx, password, hash)
		if err != nil {
			return err
		}
		if same {
			return fleet.Errorf(fleet.CodeInvalid, "you had this password before; choose another").On("body.new")
		}
	}
	return nil
}

// endSessions ends an operator's sessions, but for the one with key spare.
func (d *Directory) endSessions(ctx context.Context, name, spare string) error {
	all, err := list[session](ctx, d, bus.BucketSession, sessionPrefix)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Name == name && s.Key != spare {
			if err := d.remove(ctx, bus.BucketSession, s.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Reset gives an operator a new one-time password, which ends after a while,
// and ends every session of theirs; tokens stay. by is who did it: the
// operator is told.
func (d *Directory) Reset(ctx context.Context, by, name string) (Operator, string, error) {
	password := oneTimePassword()
	hash, err := d.hasher.hash(ctx, password)
	if err != nil {
		return Operator{}, "", err
	}
	var o Operator
	now := d.deps.Clock().UTC()
	err = d.change(ctx, name, func(current *Operator) error {
		current.Hash, current.MustChange, current.ChangedAt, current.OneTimeUntil = hash, true, now, now.Add(d.cfg.OneTimeLife)
		current.tell(now, "your password was reset by "+by)
		o = *current
		return nil
	})
	if err != nil {
		return Operator{}, "", err
	}
	return o, password, d.endSessions(ctx, name, "")
}
