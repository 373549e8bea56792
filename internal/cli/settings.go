package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"cordon/alert/notify"
)

// settingsFile is the YAML file of --config: every flag of up and serve under
// its own name with underscores, and the receivers, which have no flag.
type settingsFile struct {
	path      string
	values    map[string]ast.Node
	lines     map[string]int
	receivers []notify.Receiver
	policy    notify.Policy
}

// Keys of the file that no flag has: who is told of what, and what is not told.
const (
	receiversKey = "receivers"
	routesKey    = "routes"
	inhibitKey   = "inhibit"
	silencesKey  = "silences"
)

// configPath finds --config before the flags are parsed, because the file
// gives values to other flags.
func configPath(args []string) string {
	for i, arg := range args {
		if path, ok := strings.CutPrefix(arg, "--config="); ok {
			return path
		}
		if arg == "--config" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return os.Getenv("CORDON_CONFIG")
}

// loadSettings reads the file; without a path it is empty.
func loadSettings(path string) (*settingsFile, error) {
	f := &settingsFile{path: path, values: map[string]ast.Node{}, lines: map[string]int{}}
	if path == "" {
		return f, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	doc, err := parser.ParseBytes(raw, 0)
	if err != nil {
		return nil, fmt.Errorf("read settings %s: %s", path, yaml.FormatError(err, false, false))
	}
	for _, d := range doc.Docs {
		if d.Body == nil {
			continue
		}
		mapping, ok := d.Body.(*ast.MappingNode)
		if !ok {
			return nil, fmt.Errorf("read settings %s:%d: want \"key: value\" lines", path, d.Body.GetToken().Position.Line)
		}
		for _, entry := range mapping.Values {
			key := entry.Key.GetToken().Value
			f.values[key], f.lines[key] = entry.Value, entry.Key.GetToken().Position.Line
		}
	}
	for _, part := range []struct {
		key string
		to  any
	}{{receiversKey, &f.receivers}, {routesKey, &f.policy.Routes}, {inhibitKey, &f.policy.Inhibit}, {silencesKey, &f.policy.Silences}} {
		node, ok := f.values[part.key]
		if !ok {
			continue
		}
		if err := yaml.NodeToValue(node, part.to, yaml.Strict()); err != nil {
			// Without the source lines: they hold secrets.
			return nil, fmt.Errorf("read settings %s, %s: %s", path, part.key, yaml.FormatError(err, false, false))
		}
	}
	return f, nil
}

// Receivers are who is told, as the file says.
func (f *settingsFile) Receivers() []notify.Receiver { return f.receivers }

// Policy is who is told of what, as the file says.
func (f *settingsFile) Policy() notify.Policy { return f.policy }

// Validate refuses keys that no flag has.
func (f *settingsFile) Validate(app *kong.Application) error {
	known := []string{receiversKey, routesKey, inhibitKey, silencesKey}
	for _, node := range app.Leaves(false) {
		for _, group := range node.AllFlags(false) {
			for _, flag := range group {
				known = append(known, key(flag.Name))
			}
		}
	}
	for name, line := range f.lines {
		if !slices.Contains(known, name) {
			slices.Sort(known)
			return fmt.Errorf("%s:%d: unknown setting %q; known are %s", f.path, line, name, strings.Join(slices.Compact(known), ", "))
		}
	}
	return nil
}

// Resolve gives a flag its value from the file unless the environment has one.
func (f *settingsFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	node, ok := f.values[key(flag.Name)]
	if !ok {
		return nil, nil
	}
	for _, env := range flag.Envs {
		if _, set := os.LookupEnv(env); set {
			return nil, nil
		}
	}
	var value any
	if err := yaml.NodeToValue(node, &value); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", f.path, f.lines[key(flag.Name)], err)
	}
	return value, nil
}

func key(flag string) string { return strings.ReplaceAll(flag, "-", "_") }
