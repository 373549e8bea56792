package operator_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
	"cordon/internal/operator"
	"cordon/internal/seal"
)

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func start(t *testing.T) (*operator.Directory, *clock, *bus.Bus) {
	t.Helper()
	b := bustest.Start(t)
	c := &clock{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	cfg := operator.DefaultConfig()
	cfg.Hashing = operator.Cost{MemoryKiB: 64, Passes: 1}
	cfg.ChallengeWork = 500
	return operator.New(cfg, operator.Deps{Bus: b, Log: slog.New(slog.DiscardHandler), Clock: c.Now, Secrets: seal.Ephemeral()}), c, b
}

const good = "quill anvil tundra mosaic"

func TestSetup_makesOneAdministratorWhoMustChange(t *testing.T) {
	d, _, _ := start(t)
	file := filepath.Join(t.TempDir(), "run", "password")
	made, err := d.Setup(t.Context(), file)
	require.NoError(t, err)
	require.True(t, made)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	again, err := d.Setup(t.Context(), file)
	require.NoError(t, err)
	require.False(t, again)

	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	password := strings.TrimSpace(string(raw))
	p, secret, err := d.SignIn(t.Context(), operator.FirstAdmin, password, "10.0.0.1")
	require.NoError(t, err)
	require.True(t, p.MustChange)
	require.Equal(t, operator.Admin, p.Role)

	_, _, err = d.ChangePassword(t.Context(), p, password, "Password1234", "10.0.0.1")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	_, _, err = d.ChangePassword(t.Context(), p, "wrong", good, "10.0.0.1")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err))
	changed, fresh, err := d.ChangePassword(t.Context(), p, password, good, "10.0.0.1")
	require.NoError(t, err)
	require.False(t, changed.MustChange)
	require.NoFileExists(t, file)

	_, err = d.Session(t.Context(), secret)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), "every old session ends")
	got, err := d.Session(t.Context(), fresh)
	require.NoError(t, err)
	require.Equal(t, operator.FirstAdmin, got.Name)
	_, _, err = d.SignIn(t.Context(), operator.FirstAdmin, password, "10.0.0.1")
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), "the one-time password is used up")
}

func TestSession_endsIdleAndAbsolutely(t *testing.T) {
	d, c, _ := start(t)
	_, password, err := d.Add(t.Context(), "test", "ann", operator.Viewer)
	require.NoError(t, err)
	_, secret, err := d.SignIn(t.Context(), "ann", password, "a")
	require.NoError(t, err)
	for range 3 {
		c.add(7 * time.Hour)
		_, err = d.Session(t.Context(), secret)
		require.NoError(t, err, "use keeps it alive")
	}
	c.add(4 * time.Hour)
	_, err = d.Session(t.Context(), secret)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), "25 h after sign-in")

	_, secret, err = d.SignIn(t.Context(), "ann", password, "a")
	require.NoError(t, err)
	c.add(8*time.Hour + time.Second)
	_, err = d.Session(t.Context(), secret)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), "idle")
}

func TestSignIn_guessingIsSlowed(t *testing.T) {
	d, c, _ := start(t)
	_, password, err := d.Add(t.Context(), "test", "ann", operator.Viewer)
	require.NoError(t, err)
	for _, name := range []string{"ann", "nobody-here"} {
		t.Run(name, func(t *testing.T) {
			tried := 0
			for range 600 { // ten minutes, a guess a second, each from another address
				_, _, err := d.SignIn(t.Context(), name, "guess", c.Now().String())
				if fleet.CodeOf(err) == fleet.CodeUnauthenticated {
					tried++
				} else {
					var delay *operator.DelayError
					require.ErrorAs(t, err, &delay)
					require.Positive(t, delay.RetryAfterSeconds())
				}
				c.add(time.Second)
			}
			require.Less(t, tried, 30, "under three a minute")
			require.Greater(t, tried, 5)
		})
	}
	c.add(31 * time.Second)
	_, _, err = d.SignIn(t.Context(), "ann", password, "home")
	require.NoError(t, err, "the owner waits at most 30 s")
}

func TestSignIn_oneSourceManyNamesIsSlowed(t *testing.T) {
	d, c, _ := start(t)
	tried := 0
	for i := range 100 {
		_, _, err := d.SignIn(t.Context(), "name"+string(rune('a'+i%26))+string(rune('a'+i/26)), "guess", "10.9.9.9")
		if fleet.CodeOf(err) == fleet.CodeUnauthenticated {
			tried++
		}
		c.add(time.Second)
	}
	require.Less(t, tried, 12)
}

func TestSignIn_ownAccountDoesNotResetTheSource(t *testing.T) {
	d, c, _ := start(t)
	_, password, err := d.Add(t.Context(), "test", "mallory", operator.Viewer)
	require.NoError(t, err)
	guesses := 0
	for i := range 120 { // two minutes of guesses at ever new names, with good sign-ins in between
		if _, _, err := d.SignIn(t.Context(), "victim"+string(rune('a'+i%26)), "guess", "10.9.9.9"); fleet.CodeOf(err) == fleet.CodeUnauthenticated {
			guesses++
		}
		_, _, _ = d.SignIn(t.Context(), "mallory", password, "10.9.9.9")
		c.add(time.Second)
	}
	require.Less(t, guesses, 15)
}

func TestToken(t *testing.T) {
	d, c, b := start(t)
	_, _, err := d.Add(t.Context(), "test", "ann", operator.Responder)
	require.NoError(t, err)
	ann := operator.Principal{Name: "ann", Role: operator.Responder}
	_, _, err = d.CreateToken(t.Context(), ann, "ci", operator.Admin, time.Hour)
	require.Equal(t, fleet.CodeForbidden, fleet.CodeOf(err), "not above one's own role")
	token, secret, err := d.CreateToken(t.Context(), ann, "ci", operator.Analyst, time.Hour)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(secret, operator.TokenPrefix))

	p, err := d.Token(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, operator.Analyst, p.Role)
	require.Equal(t, "ann", p.Name)
	for _, bad := range []string{"", "cordon_", secret + "x", secret[:len(secret)-1], "cordon_*_x", "cordon_" + token.ID + "_"} {
		_, err = d.Token(t.Context(), bad)
		require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), bad)
	}
	requireAbsent(t, b, secret)

	c.add(2 * time.Hour)
	_, err = d.Token(t.Context(), secret)
	require.Equal(t, fleet.CodeUnauthenticated, fleet.CodeOf(err), "expired")
	_, err = d.RevokeToken(t.Context(), operator.Principal{Name: "bob", Role: operator.Responder}, token.ID)
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err), "not somebody else's")
	_, err = d.RevokeToken(t.Context(), ann, token.ID)
	require.NoError(t, err)
	left, err := d.Tokens(t.Context())
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestLocalToken_survivesRestartAndLoss(t *testing.T) {
	d, _, _ := start(t)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, d.LocalToken(t.Context(), file))
	first, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, d.LocalToken(t.Context(), file))
	second, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.NoError(t, os.Remove(file))
	require.NoError(t, d.LocalToken(t.Context(), file))
	third, err := os.ReadFile(file)
	require.NoError(t, err)
	p, err := d.Token(t.Context(), strings.TrimSpace(string(third)))
	require.NoError(t, err)
	require.Equal(t, operator.Admin, p.Role)
	_, err = d.Token(t.Context(), strings.TrimSpace(string(first)))
	require.Error(t, err, "the lost one is void")
}

func TestSessionSecret_isNotStored(t *testing.T) {
	d, _, b := start(t)
	_, password, err := d.Add(t.Context(), "test", "ann", operator.Viewer)
	require.NoError(t, err)
	_, secret, err := d.SignIn(t.Context(), "ann", password, "a")
	require.NoError(t, err)
	requireAbsent(t, b, secret)
	requireAbsent(t, b, password)
}

func TestAudit_isWritten(t *testing.T) {
	d, _, b := start(t)
	require.NoError(t, d.Audit(t.Context(), operator.Entry{Actor: "ann", Act: "quarantine-device", Target: "d1", Outcome: "done"}))
	stream, err := b.Core.Stream(t.Context(), bus.StreamOperatorLog)
	require.NoError(t, err)
	message, err := stream.GetLastMsgForSubject(t.Context(), bus.SubjectOperatorLog)
	require.NoError(t, err)
	var r operator.Record
	require.NoError(t, json.Unmarshal(message.Data, &r))
	require.Equal(t, "d1", r.Entry.Target)
	require.False(t, r.Entry.At.IsZero())
}

func TestCheckPassword(t *testing.T) {
	for password, ok := range map[string]bool{
		good: true, "Tr7#kd92!pQmzv": true, "lavender-otter-93-copper": true,
		"short1!A": false, "Password1234": false, "P@ssw0rd2026!": false, "aaaaaaaaaaaaaaaa": false, "123456789012": false,
		"annann-quill-tundra": false, "qwertyuiop123": false, strings.Repeat("quill anvil ", 40): false,
	} {
		err := operator.CheckPassword("annann", password)
		require.Equal(t, ok, err == nil, "%s: %v", password, err)
	}
}

func TestRole_order(t *testing.T) {
	require.True(t, operator.Admin.Allows(operator.Viewer))
	require.False(t, operator.Viewer.Allows(operator.Analyst))
	require.False(t, operator.Role("").Allows(operator.Viewer))
	require.False(t, operator.Admin.Allows(""))
}

// requireAbsent looks for a secret in every value of the operator buckets.
func requireAbsent(t *testing.T, b *bus.Bus, secret string) {
	t.Helper()
	for _, name := range []string{bus.BucketOperator, bus.BucketSession} {
		kv, err := b.Bucket(t.Context(), name)
		require.NoError(t, err)
		keys, err := kv.Keys(context.Background())
		if err != nil {
			continue
		}
		for _, key := range keys {
			require.NotContains(t, key, secret)
			entry, err := kv.Get(t.Context(), key)
			require.NoError(t, err)
			require.NotContains(t, string(entry.Value()), secret)
		}
	}
}
