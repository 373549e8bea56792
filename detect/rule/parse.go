package rule

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"cordon/internal/fleet"
)

// Error is a fault in a rule file.
type Error struct {
	File   string
	Line   int
	Column int
	Text   string // what is wrong and why
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
}

// maxSource bounds the size of one rule.
const maxSource = 64 << 10

// Parse parses and checks one rule: a document of Cordon's own, or Sigma's
// with the rules that a correlation counts. file only serves errors.
func Parse(file string, source []byte) (*Rule, error) {
	rules, err := ParseAll(file, source)
	if err != nil {
		return nil, err
	}
	if len(rules) != 1 {
		return nil, &Error{file, 1, 1, fmt.Sprintf("file holds %d rules where one is wanted", len(rules))}
	}
	return rules[0], nil
}

// ParseAll parses and checks every rule of a file. Sigma's files may hold
// several.
func ParseAll(file string, source []byte) ([]*Rule, error) {
	s := &set{}
	s.file(file, source)
	return s.finish()
}

// parseOwn parses one rule in Cordon's own language.
func parseOwn(file string, source []byte, tree *ast.File) (*Rule, error) {
	docs := documents(tree)
	if docs != 1 {
		return nil, &Error{file, 1, 1, fmt.Sprintf("file holds %d documents: write one rule per file", docs)}
	}
	r := &Rule{}
	decoder := yaml.NewDecoder(bytes.NewReader(source), yaml.Strict())
	if err := decoder.Decode(r); err != nil && !errors.Is(err, io.EOF) {
		return nil, located(file, err)
	}
	r.sourced(string(source))
	c := &checker{rule: r, file: file, tree: tree}
	c.check()
	if len(c.faults) > 0 {
		return nil, errors.Join(c.faults...)
	}
	return r, nil
}

// sourced sets the rule's text and its version.
func (r *Rule) sourced(source string) {
	r.Source = source
	sum := sha256.Sum256([]byte(source))
	r.Version = hex.EncodeToString(sum[:])[:12]
}

// ParseFS parses every .yaml and .yml file of a folder, in order of id. Every
// fault of every file is in the error.
func ParseFS(files fs.FS) ([]*Rule, error) {
	s := &set{}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".yaml" && path.Ext(name) != ".yml" {
			return err
		}
		source, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("read rule %s: %w", name, err)
		}
		s.file(name, source)
		return nil
	})
	if err != nil {
		s.faults = append(s.faults, err)
	}
	return s.finish()
}

// set gathers the rules of some files: correlations may name rules of another.
type set struct {
	rules  []*Rule
	sigma  []sigmaIn
	faults []error
	names  []string // file of each rule
}

func (s *set) file(name string, source []byte) {
	if len(source) > maxSource {
		s.faults = append(s.faults, &Error{name, 1, 1, fmt.Sprintf("rule has %d bytes, the limit is %d", len(source), maxSource)})
		return
	}
	tree, err := parser.ParseBytes(source, 0)
	if err != nil {
		s.faults = append(s.faults, located(name, err))
		return
	}
	if isSigma(tree) {
		s.sigmaFile(name, source)
		return
	}
	r, err := parseOwn(name, source, tree)
	s.add(name, r, err)
}

func (s *set) add(name string, r *Rule, err error) {
	if err != nil {
		s.faults = append(s.faults, err)
		return
	}
	s.rules, s.names = append(s.rules, r), append(s.names, name)
}

func (s *set) finish() ([]*Rule, error) {
	s.assemble()
	seen := map[string]string{}
	for i, r := range s.rules {
		if other, ok := seen[r.ID]; ok {
			s.faults = append(s.faults, &Error{s.names[i], 1, 1, fmt.Sprintf("id %q is already the id of a rule in %s: ids are unique", r.ID, other)})
		}
		seen[r.ID] = s.names[i]
	}
	rules := slices.Clone(s.rules)
	slices.SortStableFunc(rules, func(a, b *Rule) int { return strings.Compare(a.ID, b.ID) })
	return rules, errors.Join(s.faults...)
}

func documents(tree *ast.File) int {
	n := 0
	for _, doc := range tree.Docs {
		if doc.Body != nil {
			n++
		}
	}
	return n
}

// located turns an error of the YAML library into an Error.
func located(file string, err error) error {
	var positioned yaml.Error
	if errors.As(err, &positioned) {
		at := positioned.GetToken()
		if at != nil && at.Position != nil {
			return &Error{file, at.Position.Line, at.Position.Column, strings.TrimSpace(positioned.GetMessage())}
		}
		return &Error{file, 1, 1, positioned.GetMessage()}
	}
	return &Error{file, 1, 1, err.Error()}
}

type checker struct {
	rule   *Rule
	file   string
	tree   *ast.File
	prefix string // of keys: the block of a Sigma rule
	offset int    // lines before the tree's
	faults []error
}

// fault reports what is wrong with a key; offset is a column inside its value.
func (c *checker) fault(key string, offset int, format string, args ...any) {
	at := &Error{File: c.file, Line: c.offset + 1, Column: 1, Text: fmt.Sprintf(format, args...)}
	if p, err := yaml.PathString("$." + c.prefix + key); err == nil {
		if node, err := p.FilterFile(c.tree); err == nil && node != nil && node.GetToken() != nil {
			token := node.GetToken()
			at.Line, at.Column = c.offset+token.Position.Line, token.Position.Column
			if offset > 0 {
				at.Column += offset
				if strings.HasPrefix(strings.TrimSpace(token.Origin), `"`) || strings.HasPrefix(strings.TrimSpace(token.Origin), `'`) {
					at.Column++
				}
			}
		}
	}
	c.faults = append(c.faults, at)
}

var (
	idPattern        = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	techniquePattern = regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`)
	metricPattern    = regexp.MustCompile(`^[A-Za-z0-9_.:/-]*\*?$`)
	placeholder      = regexp.MustCompile(`\{([a-z_]*)\}`)
)

func (c *checker) check() {
	r := c.rule
	if !idPattern.MatchString(r.ID) {
		c.fault("id", 0, "id %q: use 1 to 64 of a-z 0-9 -, starting with a letter or digit", r.ID)
	}
	if r.Title == "" {
		c.fault("title", 0, "title is missing: say in a few words what was detected")
	}
	if _, err := fleet.Parse("kind", string(r.Kind), Kinds); err != nil {
		c.fault("kind", 0, "%v", err)
		return
	}
	c.common()
	c.foreignKeys()
	switch r.Kind {
	case Threshold:
		c.limits()
	case Baseline:
		c.baseline()
	case Joint:
		c.metric()
		c.sustainedFor()
		r.Sustained = orDefault(r.Sustained, 3)
		r.ClearAfter = orDefault(r.ClearAfter, 5)
		c.atMost("sustained", r.Sustained, 1000)
		c.atMost("clear_after", r.ClearAfter, 10_000)
	case Count:
		c.count()
	case Absence:
		if r.After <= 0 {
			c.fault("after", 0, "after is missing: say how long a silence is too long, such as 10m")
		}
		if r.Grace < 0 || r.Grace > 24*time.Hour {
			c.fault("grace", 0, "grace %s is not between 0 and 24h", r.Grace)
		}
	case Sequence:
		c.sequence()
	case Change:
		c.change()
	case Sigma:
		c.fault("kind", 0, "kind sigma is that of rules in Sigma's syntax, with logsource and detection instead of kind")
	}
}

func (c *checker) common() {
	r := c.rule
	if r.Mode == "" {
		r.Mode = fleet.Shadow
	}
	if _, err := fleet.Parse("mode", string(r.Mode), fleet.Modes); err != nil {
		c.fault("mode", 0, "%v", err)
	}
	if _, err := fleet.Parse("evidence", string(r.Evidence), []fleet.Evidence{fleet.Own, fleet.Outside}); err != nil {
		c.fault("evidence", 0, "%v: own for the device's own behaviour, outside for what is done to it", err)
	}
	if _, err := fleet.Parse("severity", string(r.Severity), fleet.Severities); err != nil {
		c.fault("severity", 0, "%v", err)
	}
	if r.Level != "" {
		if _, err := fleet.Parse("level", string(r.Level), fleet.Levels); err != nil {
			c.fault("level", 0, "%v", err)
		}
	}
	if err := CheckMode(r, r.Mode); err != nil {
		c.fault("mode", 0, "%v", err)
	}
	if r.Technique != "" && !techniquePattern.MatchString(r.Technique) {
		c.fault("technique", 0, "technique %q is no ATT&CK id such as T1110 or T1110.001", r.Technique)
	}
	if r.Runbook == "" {
		c.fault("runbook", 0, "runbook is missing: say what a person should do first")
	}
	if len(r.FalsePositives) == 0 {
		c.fault("false_positives", 0, "false_positives is missing: say what harmless causes are known")
	}
	if r.Schedule != nil {
		c.schedule(r.Schedule)
	}
	for _, m := range placeholder.FindAllStringSubmatch(r.Sentence, -1) {
		if !slices.Contains(Placeholders, m[1]) {
			c.fault("sentence", 0, "sentence has {%s}: known are %s", m[1], strings.Join(Placeholders, ", "))
		}
	}
}

// CheckMode says why a rule may not have a mode: only evidence of a device's
// own compromise may quarantine it.
func CheckMode(r *Rule, mode fleet.Mode) error {
	if mode != fleet.Armed {
		return nil
	}
	if r.Evidence != fleet.Own {
		return fmt.Errorf("rule %s can't be armed: its evidence is outside, so an outsider could use it to cut a device off", r.ID)
	}
	if r.Level == "" {
		return fmt.Errorf("rule %s can't be armed: it names no level (observe, restrict or isolate)", r.ID)
	}
	return nil
}

// keysOf says which keys belong to one kind only.
var keysOf = map[string][]Kind{
	"metric": {Threshold, Baseline, Joint}, "unit": {Threshold, Baseline},
	"clear_when": {Threshold}, "counter": {Threshold, Baseline}, "distinct": {Count}, "yields_to": {Count}, "steps": {Sequence}, "of": {Change},
	"grace": {Absence}, "schedule": {Threshold, Count, Absence, Sequence, Change},
	"when": {Threshold}, "raise_after": {Threshold}, "clear_after": {Threshold, Baseline, Joint},
	"sensitivity": {Baseline}, "budget": {Baseline}, "direction": {Baseline}, "sustained": {Baseline, Joint}, "sustained_for": {Baseline, Joint}, "min_effect": {Baseline}, "min_change": {Baseline},
	"events": {Count, Change}, "group_by": {Count, Sequence, Change}, "threshold": {Count}, "window": {Count, Sequence}, "then": {Count},
	"after": {Absence},
}

func (c *checker) foreignKeys() {
	root, ok := c.tree.Docs[0].Body.(*ast.MappingNode)
	if !ok {
		return
	}
	for _, v := range root.Values {
		key := v.Key.String()
		kinds, bound := keysOf[key]
		if bound && !slices.Contains(kinds, c.rule.Kind) {
			c.fault(key, 0, "%s does not belong to kind %s, which would ignore it", key, c.rule.Kind)
		}
	}
}

func (c *checker) metric() {
	if c.rule.Metric == "" {
		c.fault("metric", 0, "metric is missing: name one, or * for every metric")
	} else if !metricPattern.MatchString(c.rule.Metric) {
		c.fault("metric", 0, "metric %q: use a name, or a prefix ending in *", c.rule.Metric)
	}
}

func (c *checker) limits() {
	r := c.rule
	c.metric()
	r.RaiseAfter = orDefault(r.RaiseAfter, 1)
	r.ClearAfter = orDefault(r.ClearAfter, r.RaiseAfter)
	c.atMost("raise_after", r.RaiseAfter, 10_000)
	c.atMost("clear_after", r.ClearAfter, 10_000)
	if r.When == "" {
		c.fault("when", 0, "when is missing: write a condition such as value > 85.0")
		return
	}
	program, err := compileReading(r.When)
	if err != nil {
		c.condition("when", err)
	}
	r.reading = program
	if r.ClearWhen != "" {
		if r.clears, err = compileReading(r.ClearWhen); err != nil {
			c.condition("clear_when", err)
		}
	}
}

func (c *checker) sustainedFor() {
	if d := c.rule.SustainedFor; d < 0 || d > 24*time.Hour {
		c.fault("sustained_for", 0, "sustained_for %s is not between 0 and 24h", d)
	}
}

func (c *checker) baseline() {
	r := c.rule
	c.metric()
	c.sustainedFor()
	if r.Sensitivity != 0 && r.Budget != 0 {
		c.fault("budget", 0, "budget and sensitivity both set the limit: keep one")
	}
	if r.Budget < 0 || r.Budget > 1 {
		c.fault("budget", 0, "budget %g: use false alarms per stream and day, more than 0 and at most 1", r.Budget)
	}
	if r.Sensitivity == 0 {
		r.Sensitivity = 1e-8
	}
	if r.Sensitivity < 1e-300 || r.Sensitivity > 0.01 {
		c.fault("sensitivity", 0, "sensitivity %g is no tail probability between 1e-300 and 0.01", r.Sensitivity)
	}
	if r.Direction == "" {
		r.Direction = Both
	}
	if _, err := fleet.Parse("direction", string(r.Direction), Directions); err != nil {
		c.fault("direction", 0, "%v", err)
	}
	r.Sustained = orDefault(r.Sustained, 3)
	r.ClearAfter = orDefault(r.ClearAfter, 5)
	c.atMost("sustained", r.Sustained, 1000)
	c.atMost("clear_after", r.ClearAfter, 10_000)
	if r.MinEffect < 0 {
		c.fault("min_effect", 0, "min_effect %g is negative", r.MinEffect)
	}
	if r.MinChange < 0 {
		c.fault("min_change", 0, "min_change %g is negative", r.MinChange)
	}
}

func (c *checker) condition(key string, err error) {
	var at *conditionError
	if errors.As(err, &at) && at.line == 1 {
		c.fault(key, at.column, "%s: %s", key, at.text)
		return
	}
	c.fault(key, 0, "%s: %v", key, err)
}

func (c *checker) atMost(key string, value, high int) {
	if value < 1 || value > high {
		c.fault(key, 0, "%s is %d: use 1 to %d", key, value, high)
	}
}

func orDefault(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}
