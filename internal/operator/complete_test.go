package operator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/operator"
	"cordon/internal/seal"
)

// person adds an operator who has chosen a password.
func person(t *testing.T, d *operator.Directory, name string, role operator.Role) (operator.Principal, string) {
	t.Helper()
	_, once, err := d.Add(t.Context(), "test", name, role)
	require.NoError(t, err)
	p, _, err := d.SignIn(t.Context(), name, once, "10.0.0.1")
	require.NoError(t, err)
	p, secret, err := d.ChangePassword(t.Context(), p, once, good, "10.0.0.1")
	require.NoError(t, err)
	return p, secret
}

func TestSecondFactor(t *testing.T) {
	d, c, b := start(t)
	p, _ := person(t, d, "ada", operator.Analyst)
	secret, uri, err := d.BeginSecondFactor(t.Context(), p)
	require.NoError(t, err)
	require.Contains(t, uri, "otpauth://totp/Cordon:ada")
	_, err = d.ConfirmSecondFactor(t.Context(), p, "000000", "10.0.0.1")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	code := func() string {
		text, err := totp.GenerateCode(secret, c.Now())
		require.NoError(t, err)
		return text
	}
	codes, err := d.ConfirmSecondFactor(t.Context(), p, code(), "10.0.0.1")
	require.NoError(t, err)
	require.Len(t, codes, 10)
	requireAbsent(t, b, secret)
	requireAbsent(t, b, codes[0])

	enter := func(code string) error {
		c.add(time.Minute) // past the delay of the failures before
		_, _, err := d.Enter(t.Context(), operator.Credentials{Name: "ada", Password: good, Code: code, Source: "10.0.0.1"})
		return err
	}
	require.ErrorIs(t, enter(""), operator.ErrSecondFactor)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(enter("123456")))
	coming := func() string {
		text, err := totp.GenerateCode(secret, c.Now().Add(time.Minute))
		require.NoError(t, err)
		return text
	}
	used := coming()
	require.NoError(t, enter(used))
	_, _, err = d.Enter(t.Context(), operator.Credentials{Name: "ada", Password: good, Code: used, Source: "10.0.0.1"})
	require.Error(t, err, "a code is good once")
	require.NoError(t, enter(codes[3]))
	require.Error(t, enter(codes[3]), "a recovery code is good once")
	o, err := d.Operator(t.Context(), "ada")
	require.NoError(t, err)
	require.Len(t, o.Recovery, 9)
	require.Contains(t, o.Notices[0].Text, "recovery code")

	fresh, err := d.NewRecoveryCodes(t.Context(), p)
	require.NoError(t, err)
	require.Error(t, enter(codes[4]), "the old codes are void")
	require.NoError(t, enter(fresh[0]))
	require.NoError(t, d.RemoveSecondFactor(t.Context(), operator.Principal{Name: "boss", Role: operator.Admin}, "ada"))
	require.NoError(t, enter(""))
}

func TestSecondFactor_guessesAreSlowed(t *testing.T) {
	d, c, _ := start(t)
	p, _ := person(t, d, "ada", operator.Analyst)
	secret, _, err := d.BeginSecondFactor(t.Context(), p)
	require.NoError(t, err)
	code, err := totp.GenerateCode(secret, c.Now())
	require.NoError(t, err)
	_, err = d.ConfirmSecondFactor(t.Context(), p, code, "10.0.0.1")
	require.NoError(t, err)
	tried := 0
	for range 600 { // ten minutes, one guess a second
		_, _, err := d.Enter(t.Context(), operator.Credentials{Name: "ada", Password: good, Code: "000000", Source: "10.6.6.6"})
		var delay *operator.DelayError
		if !errors.As(err, &delay) {
			tried++
		}
		c.add(time.Second)
	}
	require.Less(t, tried, 20)
}

func TestSecondFactor_keyRotation(t *testing.T) {
	d, c, b := start(t)
	first, err := seal.New([]byte(strings.Repeat("1", 32)))
	require.NoError(t, err)
	both, err := seal.New([]byte(strings.Repeat("2", 32)), []byte(strings.Repeat("1", 32)))
	require.NoError(t, err)
	second, err := seal.New([]byte(strings.Repeat("2", 32)))
	require.NoError(t, err)
	cfg := operator.DefaultConfig()
	cfg.Hashing = operator.Cost{MemoryKiB: 64, Passes: 1}
	with := func(ring *seal.Ring) *operator.Directory {
		return operator.New(cfg, operator.Deps{Bus: b, Log: slog.New(slog.DiscardHandler), Clock: c.Now, Secrets: ring})
	}
	p, _ := person(t, d, "ada", operator.Analyst)
	secret, _, err := with(first).BeginSecondFactor(t.Context(), p)
	require.NoError(t, err)
	code, err := totp.GenerateCode(secret, c.Now())
	require.NoError(t, err)
	_, err = with(first).ConfirmSecondFactor(t.Context(), p, code, "10.0.0.1")
	require.NoError(t, err)
	require.NoError(t, with(both).Reseal(t.Context()))
	c.add(time.Minute)
	code, err = totp.GenerateCode(secret, c.Now())
	require.NoError(t, err)
	_, _, err = with(second).Enter(t.Context(), operator.Credentials{Name: "ada", Password: good, Code: code, Source: "10.0.0.1"})
	require.NoError(t, err, "the old key is not needed any more")
}

func TestPolicy(t *testing.T) {
	d, c, _ := start(t)
	admin, adminSecret := person(t, d, "ann", operator.Admin)
	_, viewerSecret := person(t, d, "vic", operator.Viewer)
	_, err := d.SetPolicy(t.Context(), admin, operator.Policy{SecondFactor: []operator.Role{operator.Admin}})
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err), "nobody locks themself out")
	_, err = d.SetPolicy(t.Context(), admin, operator.Policy{SecondFactor: []operator.Role{"boss"}})
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))

	_, err = d.SetPolicy(t.Context(), admin, operator.Policy{SecondFactor: []operator.Role{operator.Viewer}, PasswordHistory: 2, PasswordDays: 30})
	require.NoError(t, err)
	p, err := d.Session(t.Context(), viewerSecret)
	require.NoError(t, err)
	require.True(t, p.MustSetUp)
	p, err = d.Session(t.Context(), adminSecret)
	require.NoError(t, err)
	require.False(t, p.MustSetUp)

	const other, third, fourth = "copper lantern orbit meadow", "velvet harbor cactus piano", "walnut comet ribbon ladder"
	now := good
	for _, next := range []string{other, third} {
		admin, _, err = d.ChangePassword(t.Context(), admin, now, next, "10.0.0.1")
		require.NoError(t, err)
		now = next
	}
	for _, former := range []string{good, other, third} {
		_, _, err = d.ChangePassword(t.Context(), admin, now, former, "10.0.0.1")
		require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err), former)
	}
	admin, _, err = d.ChangePassword(t.Context(), admin, now, fourth, "10.0.0.1")
	require.NoError(t, err)
	_, _, err = d.ChangePassword(t.Context(), admin, fourth, good, "10.0.0.1")
	require.NoError(t, err, "two are remembered")

	c.add(31 * 24 * time.Hour)
	p, _, err = d.SignIn(t.Context(), "vic", good, "10.0.0.1")
	require.NoError(t, err)
	require.True(t, p.MustChange, "the password is too old")
}

func TestManage(t *testing.T) {
	d, c, _ := start(t)
	ann, _ := person(t, d, "ann", operator.Admin)
	_, bobSecret := person(t, d, "bob", operator.Admin)
	viewer, yes := operator.Viewer, true
	_, _, err := d.Modify(t.Context(), ann, "ann", operator.Change{Role: &viewer})
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err), "not oneself")
	before, after, err := d.Modify(t.Context(), ann, "bob", operator.Change{Role: &viewer, Scope: &operator.Scope{Sites: []string{"north"}}})
	require.NoError(t, err)
	require.Equal(t, operator.Admin, before.Role)
	require.Equal(t, operator.Viewer, after.Role)
	_, err = d.Session(t.Context(), bobSecret)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), "sessions end")
	bob := operator.Principal{Name: "bob", Role: operator.Admin}
	_, _, err = d.Modify(t.Context(), bob, "ann", operator.Change{Disabled: &yes})
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err), "the last administrator stays")
	_, err = d.Remove(t.Context(), bob, "ann")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err))

	_, token, err := d.CreateToken(t.Context(), operator.Principal{Name: "bob", Role: operator.Viewer}, "t", operator.Viewer, time.Hour)
	require.NoError(t, err)
	held, err := d.Token(t.Context(), token)
	require.NoError(t, err)
	require.True(t, held.Scoped(), "a token sees what its owner sees")
	require.True(t, held.Sees(fleet.Device{Site: "north"}))
	require.False(t, held.Sees(fleet.Device{Site: "south"}))
	_, _, err = d.Modify(t.Context(), ann, "bob", operator.Change{Disabled: &yes})
	require.NoError(t, err)
	_, err = d.Token(t.Context(), token)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err))
	_, err = d.Recheck(t.Context(), held)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), "open streams end too")
	_, _, err = d.SignIn(t.Context(), "bob", good, "10.0.0.1")
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err))

	_, err = d.Remove(t.Context(), ann, "bob")
	require.NoError(t, err)
	_, err = d.Operator(t.Context(), "bob")
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
	tokens, err := d.Tokens(t.Context())
	require.NoError(t, err)
	require.Empty(t, tokens)

	_, once, err := d.Add(t.Context(), "ann", "eve", operator.Viewer)
	require.NoError(t, err)
	c.add(49 * time.Hour)
	_, _, err = d.SignIn(t.Context(), "eve", once, "10.0.0.1")
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), "a one-time password ends")
	_, once, err = d.Reset(t.Context(), "ann", "eve")
	require.NoError(t, err)
	p, _, err := d.SignIn(t.Context(), "eve", once, "10.0.0.1")
	require.NoError(t, err)
	require.Contains(t, p.Notices[0].Text, "reset by ann", "the owner is told")
}

func TestSessions(t *testing.T) {
	d, _, _ := start(t)
	p, _ := person(t, d, "ada", operator.Viewer)
	other, secret, err := d.Enter(t.Context(), operator.Credentials{Name: "ada", Password: good, Source: "10.0.0.2", Agent: "curl"})
	require.NoError(t, err)
	all, err := d.Sessions(t.Context(), p, "ada")
	require.NoError(t, err)
	require.Len(t, all, 2)
	for _, s := range all {
		require.NotContains(t, secret, s.ID)
		if s.Current {
			continue
		}
		require.Equal(t, "curl", s.Agent)
		_, err = d.EndSession(t.Context(), operator.Principal{Name: "eve", Role: operator.Responder}, s.ID)
		require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err), "not another's")
		_, err = d.EndSession(t.Context(), p, s.ID)
		require.NoError(t, err)
	}
	_, err = d.Session(t.Context(), secret)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err))
	_, err = d.Recheck(t.Context(), other)
	require.Error(t, err)
}

func TestProve(t *testing.T) {
	d, c, _ := start(t)
	p, secret := person(t, d, "ada", operator.Admin)
	c.add(time.Hour)
	require.Error(t, d.Prove(t.Context(), p, operator.Credentials{Password: "wrong", Source: "10.0.0.1"}))
	require.NoError(t, d.Prove(t.Context(), p, operator.Credentials{Password: good, Source: "10.0.0.1"}))
	p, err := d.Session(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, c.Now(), p.ProvedAt)
}

// TestLockout_isNoWeapon: from a hundred addresses somebody guesses at an
// account as fast as Cordon answers, for ten minutes.
func TestLockout_isNoWeapon(t *testing.T) {
	d, c, _ := start(t)
	person(t, d, "ada", operator.Analyst)
	guessed := 0
	for second := range 600 {
		for n := range 3 {
			_, _, err := d.SignIn(t.Context(), "ada", "guess", fmt.Sprintf("10.6.%d.%d", second%100, n))
			if fleet.CodeOf(err) == fleet.CodeUnauthenticated {
				guessed++
			}
		}
		c.add(time.Second)
	}
	require.Less(t, guessed, 10*10, "fewer than ten guesses a minute")

	_, _, err := d.SignIn(t.Context(), "ada", good, "10.0.0.1")
	require.NoError(t, err, "the owner comes in from where they always come from")
	for range 10 {
		_, _, _ = d.SignIn(t.Context(), "ada", "guess", fmt.Sprintf("10.7.0.%d", guessed))
		guessed++
	}
	// From a new place the owner solves a challenge.
	_, _, err = d.SignIn(t.Context(), "ada", good, "192.0.2.7")
	var delay *operator.DelayError
	require.ErrorAs(t, err, &delay)
	require.True(t, delay.Challenge)
	challenge, err := d.Challenge()
	require.NoError(t, err)
	solution, err := operator.Solve(challenge)
	require.NoError(t, err)
	_, _, err = d.Enter(t.Context(), operator.Credentials{Name: "ada", Password: good, Source: "192.0.2.7", Solution: solution})
	require.NoError(t, err)
}

func TestChallenge_isGoodOnceAndNotForLong(t *testing.T) {
	d, c, _ := start(t)
	person(t, d, "ada", operator.Analyst)
	guess := func(solution, source string) error {
		_, _, err := d.Enter(t.Context(), operator.Credentials{Name: "ada", Password: "guess", Source: source, Solution: solution})
		return err
	}
	for n := range 10 {
		_ = guess("", fmt.Sprintf("10.8.0.%d", n))
	}
	make := func() (operator.Challenge, string) {
		challenge, err := d.Challenge()
		require.NoError(t, err)
		solution, err := operator.Solve(challenge)
		require.NoError(t, err)
		return challenge, solution
	}
	var delay *operator.DelayError
	_, solution := make()
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(guess(solution, "10.8.1.1")))
	require.ErrorAs(t, guess(solution, "10.8.1.2"), &delay, "used")
	_, late := make()
	c.add(6 * time.Minute)
	for n := range 10 {
		_ = guess("", fmt.Sprintf("10.8.2.%d", n))
	}
	require.ErrorAs(t, guess(late, "10.8.1.3"), &delay, "too late")
	challenge, _ := make()
	challenge.MaxNumber, challenge.Challenge = 1, strings.Repeat("0", 64)
	raw, err := json.Marshal(challenge)
	require.NoError(t, err)
	for _, forged := range []string{"x", string(raw), strings.Repeat("A", 5000)} {
		require.ErrorAs(t, guess(forged, "10.8.1.4"), &delay, "forged")
	}
}

func TestLocalActor_isNoOperator(t *testing.T) {
	d, _, _ := start(t)
	_, _, err := d.Add(t.Context(), "test", "cordon", operator.Viewer)
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
}
