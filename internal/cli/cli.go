package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"
)

// Globals are the flags that every verb has.
type Globals struct {
	Data     string     `help:"Directory with Cordon's data; on the same host it is all that a client verb needs." default:"${data}" env:"CORDON_DATA" type:"path" placeholder:"DIR"`
	URL      string     `help:"Address of a running Cordon, e.g. https://cordon.example:8443." env:"CORDON_URL" placeholder:"URL"`
	Token    string     `help:"API token for --url." env:"CORDON_TOKEN" placeholder:"TOKEN"`
	CA       string     `help:"Certificate of the authority that signed --url's certificate." env:"CORDON_CA" type:"path" placeholder:"FILE"`
	JSON     bool       `help:"Print JSON for programs." env:"CORDON_JSON"`
	LogLevel slog.Level `help:"Least level to log: debug, info, warn, error." default:"info" env:"CORDON_LOG_LEVEL" placeholder:"LEVEL"`
	Config   string     `help:"YAML file with settings; flags and environment win over it." env:"CORDON_CONFIG" type:"path" placeholder:"FILE"`

	Out  io.Writer     `kong:"-"` // results
	Err  io.Writer     `kong:"-"` // progress and problems
	Log  *slog.Logger  `kong:"-"`
	File *settingsFile `kong:"-"` // nil without --config
}

// root lists every verb.
type root struct {
	Globals

	Up     UpCmd     `cmd:"" help:"Run everything in one process, broker and ClickHouse embedded."`
	Serve  ServeCmd  `cmd:"" help:"Run some roles against an external broker and ClickHouse."`
	Init   InitCmd   `cmd:"" help:"Make the keys and the broker configuration that serve needs."`
	Health HealthCmd `cmd:"" help:"Ask a running role whether it is well."`

	Device     DeviceCmd     `cmd:"" help:"Enrol, show, quarantine and release devices."`
	Quarantine QuarantineCmd `cmd:"" help:"Quarantines: list, extend, approve, guards."`
	Incident   IncidentCmd   `cmd:"" help:"See incidents, acknowledge and resolve them."`
	Alerts     AlertsCmd     `cmd:"" help:"Who is told of incidents: routes, receivers, silences."`
	Evidence   EvidenceCmd   `cmd:"" help:"Sealed evidence of incidents: get, verify."`
	Config     ConfigCmd     `cmd:"" name:"config" help:"The settings file: check."`
	FleetToken FleetTokenCmd `cmd:"" help:"Fleet tokens, with which many devices enrol by themselves: list, create, revoke."`
	Maker      MakerCmd      `cmd:"" help:"Device makers whose certificates are trusted: list, trust, distrust."`
	Keys       KeysCmd       `cmd:"" help:"Cordon's own certificate authorities: list, rotate, retire."`

	User       UserCmd  `cmd:"" help:"Operators: list, add, change, remove, reset a password."`
	Tokens     TokenCmd `cmd:"" name:"token" help:"API tokens: list, create, revoke."`
	Operations LogCmd   `cmd:"" name:"log" help:"The operator log: list, verify, export."`

	Agent    AgentCmd    `cmd:"" help:"Make this host a device: send its metrics and authentication log."`
	Replay   ReplayCmd   `cmd:"" help:"Play recorded series and logs as devices, over real connections."`
	Simulate SimulateCmd `cmd:"" help:"Stream a fleet that does not exist, with labelled attacks."`

	Rules RulesCmd `cmd:"" help:"Rules: list, check, test, set the mode."`
	Eval  EvalCmd  `cmd:"" help:"What the detector says about recorded data, for scorers."`
	Bench BenchCmd `cmd:"" help:"Measure Cordon on this machine."`

	Backup  BackupCmd  `cmd:"" help:"Copy a stopped Cordon into one file, keys sealed."`
	Restore RestoreCmd `cmd:"" help:"Bring a backup back, or check it."`
	Doctor  DoctorCmd  `cmd:"" help:"Say what is wrong, and with --security what is weak."`

	Version VersionCmd `cmd:"" help:"Print the version."`
	Engine  EngineCmd  `cmd:"" hidden:"" help:"The embedded ClickHouse, started by up."`
}

// Main runs one command line and returns the exit code: 0 for success, 1 for
// failure, 2 for a command line or settings that could not be understood.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	file, err := loadSettings(configPath(args))
	if err != nil {
		fmt.Fprintf(stderr, "cordon: %v\n", err)
		return 2
	}
	r := &root{Globals: Globals{Out: stdout, Err: stderr, File: file}}
	exit := -1
	parser, err := newParser(r, file, stdout, stderr, func(code int) { exit = code })
	if err != nil {
		fmt.Fprintf(stderr, "cordon: %v\n", err)
		return 2
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 {
		return exit
	}
	if err != nil {
		fmt.Fprintf(stderr, "cordon: %v\nSay \"cordon --help\" or \"cordon VERB --help\" for what is understood.\n", err)
		return 2
	}
	r.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: r.LogLevel}))
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(&r.Globals); err != nil {
		fmt.Fprintf(stderr, "cordon: %v\n", err)
		return 1
	}
	return 0
}

func newParser(r *root, file *settingsFile, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(r,
		kong.Name("cordon"),
		kong.Description("Watches a fleet of devices and draws a cordon around those that go wrong."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Vars{"data": defaultData()},
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.Resolvers(file),
	)
}

// defaultData is the user's state directory for Cordon (XDG base directory
// specification).
func defaultData() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "cordon")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "cordon")
	}
	return "cordon-data"
}

// VersionCmd prints the version.
type VersionCmd struct{}

// Version is set when the binary is built.
var Version = "dev"

// Run prints the version.
func (VersionCmd) Run(g *Globals) error {
	_, err := fmt.Fprintln(g.Out, strings.TrimSpace("cordon "+Version))
	return err
}
