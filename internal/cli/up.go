package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"cordon/internal/app"
	"cordon/internal/store"
)

// UpCmd runs everything in one process.
type UpCmd struct {
	app.Config `embed:""`
	ReadyFile  string `help:"Write where everything answers, as JSON, once it does." env:"CORDON_READY_FILE" type:"path" placeholder:"FILE"`
	Demo       bool   `help:"Show a simulated fleet with real detections, on http://localhost only."`

	DemoDevices int           `help:"Devices of the demo." default:"200" hidden:""`
	DemoHistory time.Duration `help:"Simulated past of the demo." default:"72h" hidden:""`
}

// Run starts Cordon and blocks until a signal ends it.
func (c *UpCmd) Run(ctx context.Context, g *Globals) error {
	c.Receivers, c.Policy = g.File.Receivers(), g.File.Policy()
	c.Version = Version
	var show *app.DemoConfig
	var chat string
	if c.Demo {
		show = &app.DemoConfig{Devices: c.DemoDevices, History: c.DemoHistory, Progress: bars(g.Err), Begun: func(address string) {
			chat = address
			fmt.Fprintln(g.Err, "The demo fleet first lives through its past, so that baselines are ready.")
		}}
	}
	return app.Up(ctx, g.Data, c.Config, show, g.Log, func(_ context.Context, r app.Ready) error {
		if c.ReadyFile != "" {
			if err := r.WriteFile(c.ReadyFile); err != nil {
				return err
			}
		}
		return printReady(g, r, chat)
	})
}

func printReady(g *Globals, r app.Ready, chat string) error {
	if g.JSON {
		return json.NewEncoder(g.Out).Encode(r)
	}
	password := "changed; forgotten? cordon user reset " + r.AdminUser
	raw, err := os.ReadFile(r.AdminPasswordFile)
	switch {
	case err == nil:
		password = strings.TrimSpace(string(raw)) + "   (one time, you choose another)"
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("read one-time password: %w", err)
	}
	fmt.Fprintf(g.Out, "\n  Cordon is up.\n\n    Dashboard   %s\n    User        %s\n    Password    %s\n\n    Devices     %s (NATS), %s (MQTT)\n",
		r.URL, r.AdminUser, password, r.NATS, r.MQTT)
	if chat != "" {
		fmt.Fprintf(g.Out, "    Chat        %s shows what is sent\n\n  Attacks on the demo fleet begin within a minute.\n", chat)
	}
	_, err = fmt.Fprint(g.Out, "    Stop with   Ctrl-C\n\n")
	return err
}

// ServeCmd runs some roles against external servers.
type ServeCmd struct {
	app.ServeConfig `embed:""`
	Role            []string `help:"Roles to run: ingest, detect, alert, web." required:"" env:"CORDON_ROLE" placeholder:"ROLE"`
}

// Run starts the roles and blocks until a signal ends them.
func (c *ServeCmd) Run(ctx context.Context, g *Globals) error {
	roles, err := app.ParseRoles(c.Role)
	if err != nil {
		return err
	}
	c.Receivers, c.Policy = g.File.Receivers(), g.File.Policy()
	c.Version = Version
	return app.Serve(ctx, g.Data, c.ServeConfig, roles, g.Log)
}

// InitCmd makes the keys that roles, broker and devices share.
type InitCmd struct {
	Keys string   `help:"Directory for the keys." required:"" env:"CORDON_KEYS" type:"path" placeholder:"DIR"`
	Host []string `help:"Names and addresses of the broker and of the dashboard, for their certificates." required:"" env:"CORDON_HOST" placeholder:"NAME"`
}

// Run makes what is missing and leaves what is there.
func (c *InitCmd) Run(_ context.Context, g *Globals) error {
	if err := app.Init(c.Keys, c.Host); err != nil {
		return err
	}
	fmt.Fprintf(g.Out, "%s has the authority (ca.crt), the broker's keys (broker.json) and nats.conf.\nStart the broker with: nats-server -c %s/nats.conf\n", c.Keys, c.Keys)
	return nil
}

// HealthCmd asks a running role whether it is well.
type HealthCmd struct {
	Status string `help:"Address where the role tells its state." default:"127.0.0.1:9464" env:"CORDON_STATUS" placeholder:"HOST:PORT"`
}

// Run succeeds when the role is well.
func (c *HealthCmd) Run(ctx context.Context, g *Globals) error {
	if err := app.CheckHealth(ctx, c.Status); err != nil {
		return err
	}
	_, err := fmt.Fprintln(g.Out, "well")
	return err
}

// EngineCmd is the embedded ClickHouse itself, started by cordon up.
type EngineCmd struct {
	store.ChildConfig `embed:""`
}

// Run blocks until the parent closes the pipe.
func (c *EngineCmd) Run(_ context.Context, _ *Globals) error {
	if code := store.RunEngine(c.ChildConfig); code != 0 {
		return fmt.Errorf("engine ended with code %d", code)
	}
	return nil
}
