package operator

import (
	"context"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	totpPeriod    = 30 // seconds
	recoveryCodes = 10
	pendingFor    = 15 * time.Minute
)

var (
	// ErrSecondFactor says that the password was right and a code is wanted.
	ErrSecondFactor = fleet.Errorf(fleet.CodeUnauthenticated, "send the code of your authenticator app, or a recovery code, as well").On("body.code")
	errCode         = fleet.Errorf(fleet.CodeUnauthenticated, "the code is wrong or was used already; take the next one").On("body.code")
)

func totpName(operator string) string { return "operator/" + operator + "/totp" }

// BeginSecondFactor makes a secret for an authenticator app; it counts once
// ConfirmSecondFactor has had a code of it. Codes: forbidden (a token),
// conflict (there is one).
func (d *Directory) BeginSecondFactor(ctx context.Context, p Principal) (secret, uri string, err error) {
	if p.session == "" {
		return "", "", fleet.Errorf(fleet.CodeForbidden, "an API token can't set up a second factor; sign in")
	}
	if d.deps.Secrets == nil {
		return "", "", fleet.Errorf(fleet.CodeUnavailable, "second factors need a key for secrets at rest")
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Cordon", AccountName: p.Name, SecretSize: 20})
	if err != nil {
		return "", "", err
	}
	sealed, err := d.deps.Secrets.Seal(totpName(p.Name), []byte(key.Secret()))
	if err != nil {
		return "", "", err
	}
	err = d.change(ctx, p.Name, func(o *Operator) error {
		if o.TOTP != "" {
			return fleet.Errorf(fleet.CodeConflict, "you have a second factor; remove it first")
		}
		o.PendingTOTP, o.PendingUntil = sealed, d.deps.Clock().UTC().Add(pendingFor)
		return nil
	})
	return key.Secret(), key.URL(), err
}

// ConfirmSecondFactor turns the second factor on and returns recovery codes,
// each good once, shown only now. Every other session ends.
func (d *Directory) ConfirmSecondFactor(ctx context.Context, p Principal, code, source string) ([]string, error) {
	if p.session == "" {
		return nil, fleet.Errorf(fleet.CodeForbidden, "an API token can't set up a second factor; sign in")
	}
	codes, hashes := newRecoveryCodes()
	now := d.deps.Clock().UTC()
	if err := d.slow.enter(attempt{account: p.Name, source: source, now: now}); err != nil {
		return nil, err
	}
	err := d.change(ctx, p.Name, func(o *Operator) error {
		if o.PendingTOTP == "" || now.After(o.PendingUntil) {
			return fleet.Errorf(fleet.CodeConflict, "begin again: POST /api/v1/session/second-factor")
		}
		step, ok := d.totpStep(o.Name, o.PendingTOTP, code, now)
		if !ok {
			return fleet.Errorf(fleet.CodeInvalid, "the code is wrong; is the clock of your phone right?").On("body.code")
		}
		o.TOTP, o.TOTPStep, o.Recovery = o.PendingTOTP, step, hashes
		o.PendingTOTP, o.PendingUntil = "", time.Time{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.slow.clear(p.Name, source)
	return codes, d.endSessions(ctx, p.Name, p.session)
}

// NewRecoveryCodes replaces the recovery codes.
func (d *Directory) NewRecoveryCodes(ctx context.Context, p Principal) ([]string, error) {
	codes, hashes := newRecoveryCodes()
	return codes, d.change(ctx, p.Name, func(o *Operator) error {
		if o.TOTP == "" {
			return fleet.Errorf(fleet.CodeConflict, "you have no second factor")
		}
		o.Recovery = hashes
		return nil
	})
}

// RemoveSecondFactor turns an operator's second factor off; their sessions
// end when another did it.
func (d *Directory) RemoveSecondFactor(ctx context.Context, by Principal, name string) error {
	err := d.change(ctx, name, func(o *Operator) error {
		if o.TOTP == "" {
			return fleet.Errorf(fleet.CodeConflict, "%s has no second factor", name)
		}
		o.TOTP, o.TOTPStep, o.Recovery = "", 0, nil
		if by.Name != name {
			o.tell(d.deps.Clock(), "your second factor was removed by "+by.Name)
		}
		return nil
	})
	if err != nil || by.Name == name {
		return err
	}
	return d.endSessions(ctx, name, "")
}

// totpStep says which time step a code belongs to: the one now or a neighbour.
func (d *Directory) totpStep(name, sealed, code string, now time.Time) (int64, bool) {
	if d.deps.Secrets == nil {
		return 0, false
	}
	secret, err := d.deps.Secrets.Open(totpName(name), sealed)
	if err != nil {
		d.deps.Log.Error("second factor can't be read: was the key for secrets replaced?", "operator", name, "error", err)
		return 0, false
	}
	for _, step := range []int64{0, -1, 1} {
		at := now.Add(time.Duration(step) * totpPeriod * time.Second)
		want, err := totp.GenerateCodeCustom(string(secret), at, totp.ValidateOpts{Period: totpPeriod, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			return at.Unix() / totpPeriod, true
		}
	}
	return 0, false
}

// useCode checks a second factor and uses it up. Error: errCode.
func (d *Directory) useCode(ctx context.Context, name, code string) error {
	code = strings.ToLower(strings.NewReplacer(" ", "", "-", "").Replace(code))
	now := d.deps.Clock().UTC()
	return d.change(ctx, name, func(o *Operator) error {
		if step, ok := d.totpStep(name, o.TOTP, code, now); ok && step > o.TOTPStep {
			o.TOTPStep = step
			return nil
		}
		if i := slices.Index(o.Recovery, digest(code)); i >= 0 {
			o.Recovery = slices.Delete(slices.Clone(o.Recovery), i, i+1)
			o.tell(now, "a recovery code was used")
			return nil
		}
		return errCode
	})
}

func newRecoveryCodes() (codes, hashes []string) {
	for range recoveryCodes {
		text := strings.ToLower(randomText(10))[:16] // 80 random bits
		codes = append(codes, text[:4]+"-"+text[4:8]+"-"+text[8:12]+"-"+text[12:])
		hashes = append(hashes, digest(text))
	}
	return codes, hashes
}

// Reseal seals every second factor with the newest key.
func (d *Directory) Reseal(ctx context.Context) error {
	if d.deps.Secrets == nil {
		return nil
	}
	all, err := d.Operators(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.TOTP == "" {
			continue
		}
		sealed, changed, err := d.deps.Secrets.Rewrap(totpName(o.Name), o.TOTP)
		if err != nil {
			return fleet.Errorf(fleet.CodeUnavailable, "second factor of %s: %w", o.Name, err)
		}
		if !changed {
			continue
		}
		if err := d.change(ctx, o.Name, func(now *Operator) error {
			if now.TOTP == o.TOTP {
				now.TOTP = sealed
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// change changes an operator by compare-and-set; do may run several times.
func (d *Directory) change(ctx context.Context, name string, do func(*Operator) error) error {
	for range 8 {
		o, revision, err := d.operator(ctx, name)
		if err != nil {
			return err
		}
		if err := do(&o); err != nil {
			return err
		}
		if err = d.write(ctx, bus.BucketOperator, operatorPrefix+name, o, revision); err == nil || !wrongRevision(err) {
			return err
		}
	}
	return fleet.Errorf(fleet.CodeConflict, "operator %s is being changed by others; try again", name)
}
