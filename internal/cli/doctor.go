package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"cordon/internal/app"
	"cordon/internal/fleet"
	"cordon/internal/operator"
	"cordon/web/api"
)

// DoctorCmd looks for what is wrong.
type DoctorCmd struct {
	Security bool `help:"Say too what weakens this installation, and how to mend it."`
}

// ill is something that the doctor found.
type ill struct {
	Level string `json:"level"` // wrong, weak or hint
	What  string `json:"what"`
	Mend  string `json:"mend"`
}

// Run examines; something wrong makes it fail.
func (c *DoctorCmd) Run(ctx context.Context, g *Globals) error {
	ills := examineFiles(g.Data, time.Now())
	ready, err := readReady(g.Data)
	if err != nil && g.URL == "" {
		ills = append(ills, ill{"wrong", "no Cordon answers here: " + err.Error(), "start it, or name it with --url"})
	} else {
		ills = append(ills, examineSystem(ctx, g)...)
		if c.Security {
			ills = append(ills, examineSecurity(ctx, g, ready)...)
		}
	}
	wrong := 0
	for _, i := range ills {
		if i.Level == "wrong" {
			wrong++
		}
	}
	if err := show(g, items(ills), func(w io.Writer) {
		for _, i := range ills {
			row(w, i.Level, i.What)
			row(w, "", "→ "+i.Mend)
		}
		if len(ills) == 0 {
			row(w, "nothing found")
		}
	}); err != nil {
		return err
	}
	if wrong > 0 {
		return fleet.Errorf(fleet.CodeUnavailable, "%d things are wrong", wrong)
	}
	return nil
}

// examineFiles looks at the data directory: who may read it, and what ends.
func examineFiles(data string, now time.Time) (ills []ill) {
	info, err := os.Stat(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		ills = append(ills, ill{"wrong", "others on this host can read " + data, "chmod 700 " + data})
	}
	err = filepath.WalkDir(filepath.Join(data, "keys"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 && filepath.Ext(path) != ".pub" && filepath.Ext(path) != ".crt" {
			ills = append(ills, ill{"wrong", "others on this host can read " + path, "chmod go= " + path})
		}
		if filepath.Ext(path) == ".crt" {
			ills = append(ills, examineCertificate(path, now)...)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		ills = append(ills, ill{"wrong", "keys can't be looked at: " + err.Error(), "run the doctor as the user that runs Cordon"})
	}
	if _, err := os.Stat(filepath.Join(data, "run", "admin-password")); err == nil {
		ills = append(ills, ill{"weak", "the first administrator's one-time password was not changed", "sign in with it and choose another"})
	}
	return ills
}

func examineCertificate(path string, now time.Time) []ill {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return []ill{{"wrong", path + " is no certificate", "restore it from the backup"}}
	}
	if left := certificate.NotAfter.Sub(now); left < 90*24*time.Hour {
		return []ill{{"weak", fmt.Sprintf("%s ends in %d days", path, int(left.Hours()/24)), "rotate the authority before it ends"}}
	}
	return nil
}

func examineSystem(ctx context.Context, g *Globals) (ills []ill) {
	system, err := call[api.System](ctx, g, http.MethodGet, "/system", nil)
	if err != nil {
		return []ill{{"wrong", "Cordon does not say how it is: " + err.Error(), "look into its log"}}
	}
	for _, advice := range system.Advice {
		ills = append(ills, ill{"wrong", advice, "look at the page System, and into Cordon's log"})
	}
	return ills
}

func examineSecurity(ctx context.Context, g *Globals, ready app.Ready) (ills []ill) {
	found := func(level, what, mend string) { ills = append(ills, ill{level, what, mend}) }
	verdict, err := call[operator.Verdict](ctx, g, http.MethodGet, "/operator-log/verify", nil)
	if err == nil && !verdict.OK {
		found("wrong", fmt.Sprintf("the operator log is not what it was: %s", verdict.Faults[0].Detail), "say \"cordon log verify\", compare with the syslog server, and find out who had the data directory")
	}
	policy, policyErr := call[operator.Policy](ctx, g, http.MethodGet, "/operator-policy", nil)
	if policyErr == nil && len(policy.SecondFactor) == 0 {
		found("weak", "no role must have a second factor", "cordon user policy --second-factor admin --second-factor responder")
	}
	operators, operatorsErr := call[api.OperatorList](ctx, g, http.MethodGet, "/operators", nil)
	admins := 0
	for _, o := range operators.Items {
		if o.Role == operator.Admin && !o.Disabled {
			admins++
			if !o.SecondFactor {
				found("weak", "administrator "+o.Name+" has no second factor", o.Name+" sets one up on the page Account")
			}
		}
		if !o.Disabled && !o.LastSignInAt.IsZero() && time.Since(o.LastSignInAt) > 90*24*time.Hour {
			found("hint", o.Name+" has not signed in for 90 days", "cordon user change "+o.Name+" --disable")
		}
	}
	if operatorsErr == nil && admins == 1 {
		found("hint", "there is one administrator only", "make a second one, so that one can help the other")
	}
	tokens, tokensErr := call[api.TokenList](ctx, g, http.MethodGet, "/tokens", nil)
	for _, t := range tokens.Items {
		if t.ID != "local" && t.LastUsedAt.IsZero() && time.Since(t.CreatedAt) > 30*24*time.Hour {
			found("hint", "token "+t.Name+" of "+t.CreatedBy+" was never used", "cordon token revoke "+t.ID)
		}
		if t.ID != "local" && t.Role == operator.Admin {
			found("hint", "token "+t.Name+" of "+t.CreatedBy+" can do everything", "make one with the role that it needs")
		}
	}
	if err := errors.Join(err, policyErr, operatorsErr, tokensErr); err != nil {
		found("wrong", "not everything could be examined: "+err.Error(), "use an administrator's token")
	}
	if g.URL == "" && len(ready.URL) > 5 && ready.URL[:5] == "http:" {
		found("weak", "the dashboard has no TLS (demo)", "run cordon up without --demo")
	}
	if g.URL == "" && storedInTheClear(g.Data) {
		found("weak", "the broker's files are not encrypted at rest", "start with --store-key FILE on another disk, or CORDON_STORE_KEY")
	}
	return ills
}

// storedInTheClear looks whether JetStream's streams have a key.
func storedInTheClear(data string) bool {
	metas, err := filepath.Glob(filepath.Join(data, "broker", "jetstream", "*", "streams", "*", "meta.inf"))
	if err != nil || len(metas) == 0 {
		return false
	}
	for _, meta := range metas {
		if _, err := os.Stat(filepath.Join(filepath.Dir(meta), "meta.key")); err != nil {
			return true
		}
	}
	return false
}
