package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cordon/internal/agent"
	"cordon/internal/fleet"
)

// AgentCmd streams this host.
type AgentCmd struct {
	Dir        string        `help:"Directory for the device's key, certificate and buffer; default: agent in --data." env:"CORDON_AGENT_DIR" type:"path" placeholder:"DIR"`
	Interval   time.Duration `help:"Time between measurements." default:"10s" env:"CORDON_AGENT_INTERVAL" placeholder:"DURATION"`
	AuthLog    string        `help:"Authentication log to follow; default: the journal, else /var/log/auth.log or /var/log/secure." env:"CORDON_AGENT_AUTH_LOG" type:"path" placeholder:"FILE"`
	Device     string        `help:"The id to enrol as, with a fleet token." env:"CORDON_AGENT_DEVICE" placeholder:"ID"`
	HardwareID string        `help:"Serial number or the like, told at enrolment: no two devices share one." env:"CORDON_AGENT_HARDWARE_ID" placeholder:"TEXT"`
	BufferMB   int64         `name:"buffer-mb" help:"Size of the disk buffer; when full, the oldest messages are dropped and counted." default:"256" env:"CORDON_AGENT_BUFFER_MB" placeholder:"MB"`
}

// Help explains what the flags of the whole program mean here.
func (AgentCmd) Help() string {
	return "At its first start the agent needs --url, --ca and, as --token, the one-time token of \"cordon device enroll ID\". Afterwards --dir is enough."
}

// Run enrols if need be and streams until a signal ends it.
func (c *AgentCmd) Run(ctx context.Context, g *Globals) error {
	dir := c.Dir
	if dir == "" {
		dir = filepath.Join(g.Data, "agent")
	}
	identity, err := agent.Load(dir)
	if errors.Is(err, agent.ErrNoIdentity) {
		identity, err = c.enroll(ctx, g, dir)
	}
	if err != nil {
		return err
	}
	if identity.Expired(time.Now()) {
		return fleet.Errorf(fleet.CodeUnauthenticated, "the certificate in %s has ended: move the directory away and enrol again with a new token", dir)
	}
	cfg := agent.DefaultConfig()
	cfg.Dir, cfg.Interval, cfg.AuthLog, cfg.Buffer = dir, c.Interval, c.AuthLog, c.BufferMB<<20
	g.Log.Info("agent streams this host", "device", identity.Device, "broker", identity.NATS, "dir", dir)
	return agent.New(cfg, agent.Deps{Identity: identity, Log: g.Log}).Run(ctx)
}

func (c *AgentCmd) enroll(ctx context.Context, g *Globals, dir string) (*agent.Identity, error) {
	if g.URL == "" || g.Token == "" {
		return nil, fleet.Errorf(fleet.CodeInvalid, "%s holds no identity: give --url, --ca and --token, the one-time token of \"cordon device enroll ID\"", dir)
	}
	pool, err := authority(g.CA)
	if err != nil {
		return nil, err
	}
	client, err := agent.NewClient(g.URL, "", pool)
	if err != nil {
		return nil, err
	}
	return agent.EnrollWith(ctx, client.For(c.Device, c.HardwareID), g.Token, dir)
}

// authority reads --ca; without it the system's authorities are trusted.
func authority(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fleet.Errorf(fleet.CodeInvalid, "%s holds no certificate in PEM form", path).On("ca")
	}
	return pool, nil
}

// deviceClient reaches Cordon with --url, --token and --ca, or through what a
// Cordon on this host left in --data.
func deviceClient(g *Globals) (*agent.Client, error) {
	url, token, ca := g.URL, g.Token, g.CA
	if url == "" {
		ready, err := readReady(g.Data)
		if err != nil {
			return nil, err
		}
		if url = ready.URL; ca == "" {
			ca = ready.CA
		}
		if token == "" {
			secret, err := os.ReadFile(ready.CLITokenFile)
			if err != nil {
				return nil, fmt.Errorf("read token: %w", err)
			}
			token = strings.TrimSpace(string(secret))
		}
	}
	pool, err := authority(ca)
	if err != nil {
		return nil, err
	}
	return agent.NewClient(url, token, pool)
}

// progress shows how far long work has come: in place on a terminal, else as
// a line now and then.
type progress struct {
	to       io.Writer
	what     string
	total    uint64
	terminal bool
	shown    time.Time
	text     string
}

func newProgress(to io.Writer, what string, total uint64) *progress {
	return &progress{to: to, what: what, total: total, terminal: isTerminal(to)}
}

func (p *progress) set(verb string, n uint64) {
	text := fmt.Sprintf("%s: %s %d of %d", p.what, verb, n, p.total)
	if p.total > 0 {
		text += fmt.Sprintf(" (%d %%)", 100*n/p.total)
	}
	pause := 5 * time.Second
	if p.terminal {
		pause = 100 * time.Millisecond
	}
	p.text = text
	if now := time.Now(); now.Sub(p.shown) >= pause {
		p.shown = now
		p.print()
	}
}

func (p *progress) print() {
	if p.terminal {
		fmt.Fprintf(p.to, "\r\x1b[K%s", p.text)
		return
	}
	fmt.Fprintln(p.to, p.text)
}

// end leaves the last state on the screen.
func (p *progress) end() {
	if p.text == "" {
		return
	}
	p.print()
	if p.terminal {
		fmt.Fprintln(p.to)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
