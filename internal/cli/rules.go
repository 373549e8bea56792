package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"cordon/detect/replay"
	"cordon/detect/rule"
	"cordon/detect/rules"
	"cordon/internal/fleet"
)

// RulesCmd holds the verbs about rules.
type RulesCmd struct {
	List  RulesListCmd     `cmd:"" help:"List the rules of a running Cordon, or with --pack the shipped ones."`
	Check RulesCheckCmd    `cmd:"" help:"Check rule files: every fault with file, line and column."`
	Test  RulesTestCmd     `cmd:"" help:"Run scenario folders: rules, input.ndjson and findings.golden."`
	Back  RulesBacktestCmd `cmd:"" name:"backtest" help:"Say what a rule would have done over stored history, and what it would change."`
	Mode  RulesModeCmd     `cmd:"" help:"Set a rule's mode: off, shadow, alert or armed."`
}

// RulesListCmd lists rules.
type RulesListCmd struct {
	Pack bool `help:"The rules that this program ships; needs no running Cordon."`
}

// Run lists the rules.
func (c *RulesListCmd) Run(ctx context.Context, g *Globals) error {
	list, err := c.rules(ctx, g)
	if err != nil {
		return err
	}
	return show(g, items(list), func(w io.Writer) {
		row(w, "RULE", "KIND", "MODE", "EVIDENCE", "SEVERITY", "LEVEL", "TECHNIQUE", "TITLE")
		for _, r := range list {
			row(w, r.ID, r.Kind, r.Mode, r.Evidence, r.Severity, r.Level, r.Technique, r.Title)
		}
	})
}

func (c *RulesListCmd) rules(ctx context.Context, g *Globals) ([]fleet.Rule, error) {
	if !c.Pack {
		return pages[fleet.Rule](ctx, g, "/rules", nil, 0)
	}
	pack, err := rule.ParseFS(rules.FS)
	if err != nil {
		return nil, err
	}
	list := make([]fleet.Rule, len(pack))
	for i, r := range pack {
		list[i] = r.Fleet()
	}
	return list, nil
}

// RulesCheckCmd checks rule files.
type RulesCheckCmd struct {
	Paths []string `arg:"" help:"Rule files or directories with *.yaml and *.yml, in Cordon's own language or Sigma's." type:"existingpath"`
}

// Run checks the files.
func (c *RulesCheckCmd) Run(_ context.Context, g *Globals) error {
	var list []fleet.Rule
	var faults []error
	for _, path := range c.Paths {
		parsed, err := parsePath(path)
		if err != nil {
			faults = append(faults, err)
		}
		for _, r := range parsed {
			list = append(list, r.Fleet())
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	return show(g, items(list), func(w io.Writer) { fmt.Fprintf(w, "%d rules are sound.\n", len(list)) })
}

func parsePath(path string) ([]*rule.Rule, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	if info.IsDir() {
		return rule.ParseFS(os.DirFS(path))
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read rule: %w", err)
	}
	return rule.ParseAll(path, source)
}

// RulesTestCmd runs scenario folders.
type RulesTestCmd struct {
	Folders []string `arg:"" help:"Scenario folders." type:"existingdir"`
	Update  bool     `help:"Rewrite findings.golden."`
}

// Run runs the scenarios.
func (c *RulesTestCmd) Run(_ context.Context, g *Globals) error {
	var faults []error
	for _, folder := range c.Folders {
		if err := testScenario(folder, c.Update); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", folder, err))
			continue
		}
		fmt.Fprintf(g.Out, "ok  %s\n", folder)
	}
	return errors.Join(faults...)
}

func testScenario(folder string, update bool) error {
	got, err := replay.Scenario(os.DirFS(folder))
	if err != nil {
		return err
	}
	golden := filepath.Join(folder, "findings.golden")
	if update {
		return os.WriteFile(golden, got, 0o644) //nolint:gosec // a test's expectation
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		return fmt.Errorf("read expectation (make it with --update): %w", err)
	}
	if string(want) != string(got) {
		return fmt.Errorf("findings differ\nwant:\n%sgot:\n%s", want, got)
	}
	return nil
}

// RulesModeCmd sets a rule's mode.
type RulesModeCmd struct {
	ID     string `arg:"" help:"The rule."`
	Mode   string `arg:"" help:"off, shadow, alert or armed."`
	Reason string `help:"Why; others read it." required:"" placeholder:"TEXT"`
}

// Run sets the mode.
func (c *RulesModeCmd) Run(ctx context.Context, g *Globals) error {
	r, err := call[fleet.Rule](ctx, g, http.MethodPut, "/rules/"+url.PathEscape(c.ID)+"/mode", map[string]string{"mode": c.Mode, "reason": c.Reason})
	if err != nil {
		return err
	}
	return show(g, r, func(w io.Writer) { fmt.Fprintf(w, "Rule %s is now in mode %s.\n", r.ID, r.Mode) })
}
