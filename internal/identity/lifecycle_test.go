package identity_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/identity"
	"cordon/internal/seal"
)

func TestParseBulk_tellsEveryFaultWithItsLine(t *testing.T) {
	_, faults := identity.ParseBulk(strings.NewReader("\xef\xbb\xbfid,cohort,tags,historic\n" +
		"ok-1,pumps,a; b,true\n" +
		"bad id,pumps,,\n" +
		"ok-2,pumps,,maybe\n" +
		"ok-1,pumps,,\n" +
		"short,pumps\n" +
		"\"ok-3\",\"two\nlines\",,\n"))
	var told []string
	for _, f := range faults {
		told = append(told, f.String())
	}
	require.Equal(t, []string{
		`line 3, id: device id has ' ' at byte 4: use 1 to 64 of A-Z a-z 0-9 _ -`,
		`line 4, historic: "maybe" is not true or false`,
		`line 5, id: ok-1 is on line 2 already`,
		`line 6: 2 fields, the header has 4`,
		`line 7, cohort: cohort holds a control character`,
	}, told)
	for name, text := range map[string]string{
		"": "the file is empty", "id,colour\n": "unknown or repeated column", "site\n": "no column id", "id\n": "no device", "id\n\"x\n": "quote",
	} {
		rows, faults := identity.ParseBulk(strings.NewReader(name))
		require.Empty(t, rows)
		require.Len(t, faults, 1)
		require.Contains(t, faults[0].String(), text)
	}
	rows, faults := identity.ParseBulk(strings.NewReader("ID, Tags ,gateway\r\nc1,\"a;b\",gw\r\ngw,,\r\n"))
	require.Empty(t, faults)
	require.Equal(t, []string{"a", "b"}, rows[0].Tags)
	require.Equal(t, 2, rows[0].Line)
}

func TestRegistry_bulkIsAllOrNothing(t *testing.T) {
	w := start(t)
	_, token, err := w.reg.Enroll(t.Context(), identity.Enrolment{ID: "taken"})
	require.NoError(t, err)
	_, _, err = w.reg.Redeem(t.Context(), token, request(t, &x509.CertificateRequest{}))
	require.NoError(t, err)
	parse := func(text string) []identity.Row {
		rows, faults := identity.ParseBulk(strings.NewReader(text))
		require.Empty(t, faults)
		return rows
	}
	done, faults, err := w.reg.EnrollAll(t.Context(), parse("id,gateway,maker\nnew,,\ntaken,,\nc1,nobody,\nm1,,acme\n"), "ada", false)
	require.NoError(t, err)
	require.Empty(t, done)
	require.Len(t, faults, 3)
	require.Equal(t, "line 3, id: device taken has a certificate: ask for a re-issue to replace it", faults[0].String())
	_, known := w.reg.Get("new")
	require.False(t, known)

	good := parse("id,gateway,credential,cohort\nc1,gw,,pumps\ngw,,,\nt1,,token,\n")
	done, faults, err = w.reg.EnrollAll(t.Context(), good, "ada", true)
	require.NoError(t, err)
	require.Empty(t, faults)
	require.Empty(t, done, "a dry run")
	done, faults, err = w.reg.EnrollAll(t.Context(), good, "ada", false)
	require.NoError(t, err)
	require.Empty(t, faults)
	require.Len(t, done, 3)
	require.Empty(t, done[0].Secret, "a child has none")
	require.Equal(t, "gw", done[0].Device.Gateway)
	require.True(t, strings.HasPrefix(done[1].Secret, "cordon_enroll_"))
	require.True(t, strings.HasPrefix(done[2].Secret, "cordon_device_"))
}

func TestRegistry_fleetToken(t *testing.T) {
	w := start(t)
	for name, bad := range map[string]struct {
		token identity.FleetToken
		life  time.Duration
	}{
		"too long":  {identity.FleetToken{Prefix: "p-", Most: 1}, 25 * time.Hour},
		"no cap":    {identity.FleetToken{Prefix: "p-"}, time.Hour},
		"no prefix": {identity.FleetToken{Most: 1}, time.Hour},
	} {
		_, _, err := w.reg.NewFleetToken(t.Context(), bad.token, bad.life)
		require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(err), name)
	}
	token, secret, err := w.reg.NewFleetToken(t.Context(), identity.FleetToken{Prefix: "p-", Most: 3, Cohort: "pumps", CreatedBy: "ada"}, time.Hour)
	require.NoError(t, err)
	admit := func(id string) error {
		_, _, err := w.reg.Admit(t.Context(), identity.Redemption{Token: secret, CSR: request(t, &x509.CertificateRequest{}), Device: id})
		return err
	}
	require.Equal(t, fleet.CodeForbidden, fleet.CodeOf(admit("q-1")), "another prefix")
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(admit("p-*")))
	require.Equal(t, fleet.CodeInvalid, fleet.CodeOf(admit("")))

	// The cap holds whoever comes at once.
	var won, lost int
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			err := admit(fmt.Sprintf("p-%d", i))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if fleet.CodeOf(err) == fleet.CodeForbidden {
				lost++
			}
		})
	}
	group.Wait()
	require.Equal(t, 3, won)
	require.Equal(t, 5, lost)
	for i := range 8 {
		if d, ok := w.reg.Get(fmt.Sprintf("p-%d", i)); ok {
			require.Equal(t, "pumps", d.Cohort)
			require.Equal(t, "fleet-token:"+token.ID, d.EnrolledBy)
			require.Equal(t, fleet.CodeConflict, fleet.CodeOf(admit(d.ID)), "it takes over nobody's identity")
		}
	}

	second, secret2, err := w.reg.NewFleetToken(t.Context(), identity.FleetToken{Prefix: "r-", Most: 3}, time.Hour)
	require.NoError(t, err)
	secret = secret2
	require.NoError(t, admit("r-1"))
	_, err = w.reg.RevokeFleetToken(t.Context(), second.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.CodeForbidden, fleet.CodeOf(admit("r-2")))
	_, err = w.reg.RevokeFleetToken(t.Context(), "nosuchtoken1")
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))
	w.advance(time.Second)
	third, secret3, err := w.reg.NewFleetToken(t.Context(), identity.FleetToken{Prefix: "s-", Most: 3}, time.Hour)
	require.NoError(t, err)
	secret = secret3
	w.advance(time.Hour)
	require.Equal(t, fleet.CodeForbidden, fleet.CodeOf(admit("s-1")), "expired")
	all, err := w.reg.FleetTokens(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Equal(t, third.ID, all[0].ID)
}

func TestCA_keysEncryptedAtRest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	plain, err := identity.LoadOrCreateCA(dir, time.Now)
	require.NoError(t, err)
	ring := seal.Ephemeral()
	sealed, err := identity.LoadOrCreateCA(dir, time.Now, identity.WithSealer(ring))
	require.NoError(t, err, "keys that were not encrypted are now")
	require.Equal(t, plain.PEM(), sealed.PEM())
	raw, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	require.NoError(t, err)
	require.Contains(t, string(raw), "SEALED")
	_, err = identity.LoadOrCreateCA(dir, time.Now, identity.WithSealer(ring))
	require.NoError(t, err)
	_, err = identity.LoadOrCreateCA(dir, time.Now)
	require.ErrorContains(t, err, identity.SealKeyEnv)
	_, err = identity.LoadOrCreateCA(dir, time.Now, identity.WithSealer(seal.Ephemeral()))
	require.ErrorContains(t, err, "another key")
}

func TestRegistry_rotatedAuthorityOutlivesRestarts(t *testing.T) {
	w := start(t)
	first := w.ca.Authorities()[0].ID
	_, err := w.reg.RotateAuthority(t.Context(), "ada")
	require.NoError(t, err)
	dir := w.ca.Dir()
	again, err := identity.LoadOrCreateCA(dir, time.Now)
	require.NoError(t, err)
	require.Equal(t, w.ca.Authorities(), again.Authorities())
	require.Equal(t, []string{"servers"}, again.Authorities()[0].Signs)
	require.Equal(t, []string{"devices"}, again.Authorities()[1].Signs)
	_, err = w.reg.RetireAuthority(t.Context(), first, "ada", "rotation", false)
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(dir, "ca.key"), "its key is destroyed")
	again, err = identity.LoadOrCreateCA(dir, time.Now)
	require.NoError(t, err)
	require.Len(t, again.Authorities(), 1)
	require.NotEqual(t, first, again.Authorities()[0].ID)
	for range 3 {
		_, err = w.reg.RotateAuthority(t.Context(), "ada")
		require.NoError(t, err)
	}
	_, err = w.reg.RotateAuthority(t.Context(), "ada")
	require.Equal(t, fleet.CodeConflict, fleet.CodeOf(err), "enough side by side")
}
