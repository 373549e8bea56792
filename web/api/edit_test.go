package api

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
	"cordon/internal/operator"
)

func (r *rig) with(token, method, path string, body any, header ...string) answer {
	r.t.Helper()
	return r.request(method, Prefix+path, body, func(req *http.Request) {
		req.Header.Set("Authorization", "Bearer "+token)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
	})
}

func TestConditional_changesOnlyWhatWasRead(t *testing.T) {
	r := start(t)
	r.fill()
	admin := r.token(operator.Admin)
	for _, c := range []struct {
		read, method, path string
		body               any
	}{
		{"/devices/d1", http.MethodPatch, "/devices/d1", map[string]any{"owner": "ann"}},
		{"/incidents/INC-1", http.MethodPost, "/incidents/INC-1/acknowledge", nil},
		{"/rules/hot", http.MethodPut, "/rules/hot/mode", ModeRequest{Mode: fleet.Shadow, Reason: "r"}},
	} {
		tag := r.as(admin, http.MethodGet, c.read, nil).header.Get("ETag")
		require.NotEmpty(t, tag, c.read)
		require.Equal(t, tag, r.as(admin, http.MethodGet, c.read, nil).header.Get("ETag"))
		require.Equal(t, http.StatusPreconditionFailed, r.with(admin, c.method, c.path, c.body, "If-Match", `"other"`).status)
		require.Equal(t, http.StatusOK, r.with(admin, c.method, c.path, c.body, "If-Match", tag).status, c.path)
		late := r.with(admin, c.method, c.path, c.body, "If-Match", tag)
		require.Equal(t, http.StatusPreconditionFailed, late.status, c.path)
		require.Equal(t, codeChanged, late.problem(t).Code)
		require.Equal(t, late.header.Get("ETag"), r.as(admin, http.MethodGet, c.read, nil).header.Get("ETag"))
	}
	require.Equal(t, http.StatusPreconditionFailed, r.with(admin, http.MethodPost, "/tokens", TokenRequest{Name: "t", Role: operator.Viewer, Days: 1}, "If-Match", "*").status)

	// Of many who read the same, one changes it.
	tag := r.as(admin, http.MethodGet, "/devices/d1", nil).header.Get("ETag")
	var mu sync.Mutex
	var all sync.WaitGroup
	done := 0
	for n := range 8 {
		all.Go(func() {
			got := r.with(admin, http.MethodPatch, "/devices/d1", map[string]any{"owner": strings.Repeat("x", n+1)}, "If-Match", tag)
			mu.Lock()
			defer mu.Unlock()
			if got.status == http.StatusOK {
				done++
			}
		})
	}
	all.Wait()
	require.Equal(t, 1, done)
}

func TestIdempotency_actsOnce(t *testing.T) {
	r := start(t)
	admin, viewer := r.token(operator.Admin), r.token(operator.Viewer)
	body := TokenRequest{Name: "t", Role: operator.Viewer, Days: 1}
	first := r.with(admin, http.MethodPost, "/tokens", body, "Idempotency-Key", "k1")
	require.Equal(t, http.StatusOK, first.status)
	again := r.with(admin, http.MethodPost, "/tokens", body, "Idempotency-Key", "k1")
	require.Equal(t, string(first.body), string(again.body))
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	other := r.with(admin, http.MethodPost, "/tokens", TokenRequest{Name: "u", Role: operator.Viewer, Days: 1}, "Idempotency-Key", "k1")
	require.Equal(t, http.StatusUnprocessableEntity, other.status)
	mine := r.with(viewer, http.MethodPost, "/tokens", body, "Idempotency-Key", "k1")
	require.Equal(t, http.StatusOK, mine.status, "keys belong to their caller")
	require.NotEqual(t, string(first.body), string(mine.body))
	require.Equal(t, http.StatusUnprocessableEntity, r.with(admin, http.MethodPost, "/tokens", body, "Idempotency-Key", strings.Repeat("k", 200)).status)
	tokens := decode[TokenList](t, r.as(admin, http.MethodGet, "/tokens", nil))
	require.Len(t, tokens.Items, 4, "two of the rig, two made here")

	r.sleep(25 * time.Hour)
	admin = r.scopedToken("zoe", operator.Admin, operator.Scope{})
	require.Equal(t, http.StatusOK, r.with(admin, http.MethodPost, "/tokens", body, "Idempotency-Key", "k1").status)

	// At the same time, one acts and the others get its answer or are told to wait.
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			got := r.with(admin, http.MethodPost, "/devices", EnrollRequest{ID: "d5"}, "Idempotency-Key", "k2")
			require.Contains(t, []int{http.StatusOK, http.StatusConflict}, got.status)
		})
	}
	all.Wait()
}

func TestEditDevice(t *testing.T) {
	r := start(t)
	r.fill()
	responder := r.token(operator.Responder)
	got := decode[Device](t, r.as(responder, http.MethodPatch, "/devices/d1", map[string]any{"owner": "ann", "tags": []string{"b", "a", "a"}, "time_zone": "Asia/Seoul"}))
	require.Equal(t, "ann", got.Owner)
	require.Equal(t, []string{"a", "b"}, got.Tags)
	require.Equal(t, "north", got.Site, "what is left out stays")
	for field, value := range map[string]any{"time_zone": "Mars/Base", "owner": "a\nb", "cohort": "", "tags": []string{""}, "site": strings.Repeat("x", 200)} {
		bad := r.as(responder, http.MethodPatch, "/devices/d1", map[string]any{field: value})
		require.Equal(t, http.StatusUnprocessableEntity, bad.status, field)
		require.True(t, strings.HasPrefix(bad.problem(t).Errors[0].Location, "body."+field), string(bad.body))
	}
	require.Equal(t, http.StatusNotFound, r.as(responder, http.MethodPatch, "/devices/none", map[string]any{"owner": "x"}).status)

	file := "\xef\xbb\xbfid,owner,tags\nd1,bob,x; y\nzz-south,,\nnone,x,\nd1,bob,y;x\nd1\n"
	dry := decode[DeviceImport](t, r.with(responder, http.MethodPost, "/devices/import?dry_run=true", file, "Content-Type", "text/csv"))
	require.Equal(t, DeviceImport{DryRun: true, Changed: 3, Failed: 2, Faults: dry.Faults}, dry)
	require.Equal(t, "ann", decode[DeviceDetail](t, r.as(responder, http.MethodGet, "/devices/d1", nil)).Owner)
	done := decode[DeviceImport](t, r.with(responder, http.MethodPost, "/devices/import", file, "Content-Type", "text/csv"))
	require.Equal(t, 2, done.Changed)
	require.Equal(t, 1, done.Unchanged)
	require.Equal(t, []ImportFault{{4, "none", "no device none in the registry"}, {6, "", "not 3 fields of CSV"}}, done.Faults)
	for _, head := range []string{"owner\n", "id\n", "id,secret\n", "id,owner,owner\n"} {
		require.Equal(t, http.StatusUnprocessableEntity, r.with(responder, http.MethodPost, "/devices/import", head, "Content-Type", "text/csv").status, head)
	}
}

func TestExport(t *testing.T) {
	r := start(t)
	r.fill()
	admin := r.token(operator.Admin)
	require.Equal(t, http.StatusOK, r.as(admin, http.MethodPatch, "/devices/d1", map[string]any{"owner": `=cmd|' /C calc'!A0`}).status)
	require.Eventually(t, func() bool { d, _ := r.devices.Get("d1"); return d.Owner != "" }, 5*time.Second, 5*time.Millisecond)
	got := r.as(admin, http.MethodGet, "/export/devices?format=csv", nil)
	require.Equal(t, "text/csv; charset=utf-8", got.header.Get("Content-Type"))
	rows, err := csv.NewReader(bytes.NewReader(got.body)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 3)
	require.Equal(t, "'=cmd|' /C calc'!A0", rows[1][6], "no formula")

	var devices []Device
	require.NoError(t, json.Unmarshal(r.as(admin, http.MethodGet, "/export/devices?format=json&site=north", nil).body, &devices))
	require.Len(t, devices, 1)
	require.NoError(t, json.Unmarshal(r.as(admin, http.MethodGet, "/export/devices?format=json&site=none", nil).body, &devices))
	require.Empty(t, devices)

	lines := strings.Split(strings.TrimSpace(string(r.as(admin, http.MethodGet, "/export/incidents?format=ocsf", nil).body)), "\n")
	require.Len(t, lines, 2)
	var ocsf map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &ocsf))
	require.EqualValues(t, 2005, ocsf["class_uid"])
	require.EqualValues(t, 200501, ocsf["type_uid"])
	require.EqualValues(t, 4, ocsf["severity_id"])
	require.Equal(t, http.StatusOK, r.as(admin, http.MethodGet, "/export/findings?format=ocsf", nil).status)

	finding := ocsfFinding(fleet.Finding{ID: "f", Device: "d1", RuleID: "hot", Severity: fleet.Critical, Technique: "T1496"}, "1")
	require.Equal(t, 2004, finding["class_uid"])
	require.Equal(t, 5, finding["severity_id"])
}

func TestOperatorLog_listVerifyExport(t *testing.T) {
	r := start(t)
	r.fill()
	admin := r.token(operator.Admin)
	require.Equal(t, http.StatusOK, r.as(admin, http.MethodPatch, "/devices/d1", map[string]any{"owner": "ann"}).status)
	require.Equal(t, http.StatusUnprocessableEntity, r.as(admin, http.MethodPatch, "/devices/d1", map[string]any{"time_zone": "Mars"}).status)
	page := decode[fleet.Page[LogEntry]](t, r.as(admin, http.MethodGet, "/operator-log?limit=1&act=edit-device", nil))
	require.Equal(t, "refused", page.Items[0].Outcome)
	require.NotEmpty(t, page.Next)
	page = decode[fleet.Page[LogEntry]](t, r.as(admin, http.MethodGet, "/operator-log?limit=1&act=edit-device&cursor="+page.Next, nil))
	e := page.Items[0]
	require.Equal(t, "admin-one", e.Actor)
	require.Equal(t, "d1", e.Target)
	require.Empty(t, e.Before.(map[string]any)["owner"])
	require.Equal(t, "ann", e.After.(map[string]any)["owner"])
	verdict := decode[operator.Verdict](t, r.as(admin, http.MethodGet, "/operator-log/verify", nil))
	require.True(t, verdict.OK)
	require.EqualValues(t, 2, verdict.Entries)
	export := r.as(admin, http.MethodGet, "/operator-log/export", nil)
	offline, err := operator.VerifyExport(bytes.NewReader(export.body))
	require.NoError(t, err)
	require.Equal(t, verdict.Hash, offline.Hash)
	changed := bytes.Replace(export.body, []byte(`"ann"`), []byte(`"eve"`), 1)
	offline, err = operator.VerifyExport(bytes.NewReader(changed))
	require.NoError(t, err)
	require.False(t, offline.OK)
}

// TestSecondFactor_theStory: a policy asks for it, sign-in asks for the code,
// and until it is set up nothing else works.
func TestSecondFactor_theStory(t *testing.T) {
	r := start(t)
	admin := r.token(operator.Admin)
	ada := r.signedIn("ada", operator.Responder)
	require.Equal(t, http.StatusOK, ada(http.MethodGet, "/devices", nil).status)
	policy := decode[operator.Policy](t, r.as(admin, http.MethodPut, "/operator-policy", operator.Policy{SecondFactor: []operator.Role{operator.Responder}}))
	require.Equal(t, []operator.Role{operator.Responder}, policy.SecondFactor)
	got := ada(http.MethodGet, "/devices", nil)
	require.Equal(t, http.StatusForbidden, got.status)
	require.Equal(t, codeSecondFactorRequired, got.problem(t).Code)
	require.True(t, decode[Session](t, ada(http.MethodGet, "/session", nil)).MustSetUpSecondFactor)

	factor := decode[SecondFactor](t, ada(http.MethodPost, "/session/second-factor", nil))
	code, err := totp.GenerateCode(factor.Secret, r.now())
	require.NoError(t, err)
	require.Len(t, decode[RecoveryCodes](t, ada(http.MethodPost, "/session/second-factor/confirm", CodeRequest{Code: code})).Codes, 10)
	require.Equal(t, http.StatusOK, ada(http.MethodGet, "/devices", nil).status)

	asked := r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "ada", Password: ownPassword}, nil)
	require.Equal(t, http.StatusUnauthorized, asked.status)
	require.Equal(t, codeSecondFactorCode, asked.problem(t).Code)
	r.sleep(time.Minute)
	code, err = totp.GenerateCode(factor.Secret, r.now())
	require.NoError(t, err)
	in := decode[Session](t, r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "ada", Password: ownPassword, Code: code}, nil))
	require.True(t, in.SecondFactor)
	require.Equal(t, 10, in.RecoveryCodesLeft)

	sessions := decode[SessionList](t, ada(http.MethodGet, "/sessions", nil))
	require.Len(t, sessions.Items, 2)
	require.Equal(t, http.StatusNoContent, ada(http.MethodDelete, "/sessions/"+sessions.Items[0].ID, nil).status)
	require.Equal(t, http.StatusNoContent, r.as(admin, http.MethodDelete, "/operators/ada/second-factor", nil).status)
	require.Equal(t, http.StatusUnauthorized, ada(http.MethodGet, "/session", nil).status, "sessions end")
}

func TestChallenge_atTheDoor(t *testing.T) {
	r := start(t)
	r.signedIn("ada", operator.Viewer)
	for range 30 { // from elsewhere: the source of these is not an address
		_, _, _ = r.deps.Operators.SignIn(t.Context(), "ada", "guess", "elsewhere")
		_, _, _ = r.deps.Operators.SignIn(t.Context(), "eve", "guess", "elsewhere")
		r.sleep(20 * time.Second)
	}
	for n := range 6 {
		_, _, _ = r.deps.Operators.SignIn(t.Context(), "eve", "guess", strings.Repeat("s", n+1))
	}
	require.Equal(t, http.StatusOK, r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "ada", Password: ownPassword}, nil).status, "the owner is not locked out")
	got := r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "eve", Password: "x"}, nil)
	require.Equal(t, codeChallengeRequired, got.problem(t).Code)
	challenge := decode[operator.Challenge](t, r.request(http.MethodGet, Prefix+"/session/challenge", nil, nil))
	begun := time.Now()
	solution, err := operator.Solve(challenge)
	require.NoError(t, err)
	t.Logf("solved in %s", time.Since(begun))
	got = r.request(http.MethodPost, Prefix+"/session", SignInRequest{Name: "eve", Password: "x", Challenge: solution}, nil)
	require.Equal(t, http.StatusUnauthorized, got.status)
}
