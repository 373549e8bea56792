package cli

import (
	"fmt"
	"io"

	"cordon/alert/notify"
)

// ConfigCmd holds the verbs about the settings file.
type ConfigCmd struct {
	Check ConfigCheckCmd `cmd:"" help:"Check a settings file: flags, receivers, routes, silences."`
}

// ConfigCheckCmd checks a settings file without starting anything.
type ConfigCheckCmd struct {
	File string `arg:"" type:"existingfile" help:"The settings file." placeholder:"FILE"`
}

// checked is what a check found.
type checked struct {
	File      string   `json:"file"`
	Receivers int      `json:"receivers"`
	Routes    int      `json:"routes"`
	Inhibit   int      `json:"inhibit"`
	Silences  int      `json:"silences"`
	Advice    []string `json:"advice"`
}

// Run checks the file; the error names every fault.
func (c *ConfigCheckCmd) Run(g *Globals) error {
	f, err := loadSettings(c.File)
	if err != nil {
		return err
	}
	parser, err := newParser(&root{Globals: Globals{Out: io.Discard, Err: io.Discard, File: f}}, f, io.Discard, io.Discard, func(int) {})
	if err != nil {
		return err
	}
	if err := f.Validate(parser.Model); err != nil {
		return err
	}
	cfg := notify.Config{Receivers: f.Receivers(), Policy: f.Policy()}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("%s:\n%w", c.File, err)
	}
	var names []string
	for _, r := range cfg.Receivers {
		names = append(names, r.Name)
	}
	out := checked{c.File, len(cfg.Receivers), len(cfg.Policy.Routes), len(cfg.Policy.Inhibit), len(cfg.Policy.Silences), cfg.Policy.Advice(names)}
	if out.Advice == nil {
		out.Advice = []string{}
	}
	return show(g, out, func(w io.Writer) {
		fmt.Fprintf(w, "%s is well: %d receivers, %d routes, %d inhibitions, %d silences.\n", out.File, out.Receivers, out.Routes, out.Inhibit, out.Silences)
		for _, line := range out.Advice {
			fmt.Fprintln(w, "Look again: "+line+".")
		}
	})
}
