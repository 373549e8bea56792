package rule

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"cordon/detect/sigma"
	"cordon/internal/fleet"
)

// block is what a Sigma rule says to Cordon, under cordon: or custom:.
type block struct {
	ID             string              `yaml:"id"`
	Mode           fleet.Mode          `yaml:"mode"`
	Evidence       fleet.Evidence      `yaml:"evidence"`
	Severity       fleet.Severity      `yaml:"severity"`
	Level          fleet.Level         `yaml:"level"`
	Window         time.Duration       `yaml:"window"`   // findings of one group are one within this time
	GroupBy        []string            `yaml:"group_by"` // actor and user
	Sentence       string              `yaml:"sentence"`
	Runbook        string              `yaml:"runbook"`
	Scope          Scope               `yaml:"scope"`
	Schedule       *Schedule           `yaml:"schedule"`
	Placeholders   map[string][]string `yaml:"placeholders"` // read by detect/sigma
	FalsePositives []string            `yaml:"false_positives"`
}

// sigmaIn is a Sigma document and the file it stands in.
type sigmaIn struct {
	file string
	*sigma.Rule
}

func isSigma(tree *ast.File) bool {
	return slices.ContainsFunc(tree.Docs, func(doc *ast.DocumentNode) bool { return doc.Body != nil && sigma.Detect(doc.Body) })
}

func (s *set) sigmaFile(name string, source []byte) {
	docs, err := sigma.Parse(name, source)
	if err != nil {
		s.faults = append(s.faults, err)
	}
	for _, r := range docs {
		s.sigma = append(s.sigma, sigmaIn{name, r})
	}
}

// assemble makes rules of the Sigma documents. What a correlation counts does
// not speak for itself, unless the correlation says generate.
func (s *set) assemble() {
	silent := map[*sigma.Rule]bool{}
	for _, in := range s.sigma {
		c := in.Correlation
		if c == nil {
			continue
		}
		base, err := s.counted(in)
		if err == nil {
			var r *Rule
			r, err = fromSigma(in, base)
			s.add(in.file, r, err)
		} else {
			s.faults = append(s.faults, err)
		}
		for _, b := range base {
			silent[b] = silent[b] || !c.Generate
		}
	}
	for _, in := range s.sigma {
		if in.Correlation == nil && !silent[in.Rule] {
			r, err := fromSigma(in, nil)
			s.add(in.file, r, err)
		}
	}
}

// counted finds the rules that a correlation names.
func (s *set) counted(in sigmaIn) ([]*sigma.Rule, error) {
	var base []*sigma.Rule
	for _, name := range in.Correlation.Rules {
		i := slices.IndexFunc(s.sigma, func(o sigmaIn) bool { return o.Is(name) })
		switch {
		case i < 0:
			return nil, &Error{in.file, in.Correlation.Line, 1, fmt.Sprintf("rule %q, which the correlation counts, is not among these files, or has a fault itself", name)}
		case s.sigma[i].Correlation != nil:
			return nil, &Error{in.file, in.Correlation.Line, 1, fmt.Sprintf("rule %q is a correlation: correlations of correlations are not evaluated", name)}
		}
		base = append(base, s.sigma[i].Rule)
	}
	return base, nil
}

// severityOf is Sigma's level as Cordon's severity.
func severityOf(level string) fleet.Severity {
	if level == "" {
		return fleet.Low
	}
	return fleet.Severity(level)
}

func fromSigma(in sigmaIn, base []*sigma.Rule) (*Rule, error) {
	c := &checker{file: in.file, offset: in.Line - 1}
	var err error
	if c.tree, err = parser.ParseBytes([]byte(in.Source), 0); err != nil {
		return nil, located(in.file, err)
	}
	b := block{}
	if in.Cordon != nil {
		c.prefix = blockName(c.tree) + "."
		if err := yaml.NodeToValue(in.Cordon, &b, yaml.Strict()); err != nil {
			at := &Error{File: in.file, Line: in.Line, Column: 1, Text: err.Error()}
			if errors.As(located(in.file, err), &at) {
				at.Line += c.offset
			}
			return nil, at
		}
	}
	r := &Rule{
		ID: b.ID, Title: in.Title, Description: in.Description, Kind: Sigma, Mode: b.Mode, Evidence: b.Evidence, Severity: b.Severity, Level: b.Level,
		Technique: in.Technique(), Window: b.Window, GroupBy: b.GroupBy, Sentence: b.Sentence, Runbook: b.Runbook, Scope: b.Scope, Schedule: b.Schedule,
		FalsePositives: append(b.FalsePositives, in.FalsePositives...), AtLeast: 1,
	}
	r.defaults(in.Rule)
	source := in.Source
	if in.Correlation != nil {
		r.correlate(in.Correlation, base)
		for _, counted := range base {
			source = strings.TrimRight(source, "\n") + "\n---\n" + counted.Source
		}
	} else {
		r.events = in.Matches
		r.group = groupOf(r.GroupBy, nil, nil)
	}
	r.sourced(source)
	c.rule = r
	if !idPattern.MatchString(r.ID) {
		c.prefix = ""
		c.fault("id", 0, "id %q: use 1 to 64 of a-z 0-9 -, starting with a letter or digit", r.ID)
	}
	c.common()
	if len(c.faults) > 0 {
		return nil, errors.Join(c.faults...)
	}
	return r, nil
}

func blockName(tree *ast.File) string {
	if root, ok := tree.Docs[0].Body.(*ast.MappingNode); ok {
		for _, v := range root.Values {
			if name := v.Key.String(); name == "cordon" || name == "custom" {
				return name
			}
		}
	}
	return "cordon"
}

// defaults fills what Sigma rules do not say.
func (r *Rule) defaults(in *sigma.Rule) {
	if r.ID == "" {
		r.ID = strings.ToLower(in.ID)
	}
	if r.ID == "" {
		r.ID = slug(orText(in.Name, in.Title))
	}
	if r.Evidence == "" {
		r.Evidence = fleet.Outside // nothing can be armed by accident
	}
	if r.Severity == "" {
		r.Severity = severityOf(in.Level)
	}
	if r.Window == 0 {
		r.Window = 10 * time.Minute
	}
	if len(r.GroupBy) == 0 {
		r.GroupBy = []string{"actor", "user"}
	}
	r.Runbook = orText(r.Runbook, orText(in.Description, "Read the events that the finding shows and what came before them."))
	if len(r.FalsePositives) == 0 {
		r.FalsePositives = []string{"The rule names none."}
	}
	if r.Sentence == "" && in.Correlation == nil {
		r.Sentence = "{device}: " + strings.NewReplacer("{", "(", "}", ")").Replace(in.Title) + ": {message}"
	}
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func slug(text string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(text) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == 64 {
			break
		}
	}
	return strings.Trim(b.String(), "-")
}

// correlate makes the rule count what other rules match.
func (r *Rule) correlate(c *sigma.Correlation, base []*sigma.Rule) {
	r.AtLeast, r.Window, r.GroupBy, r.Distinct = c.AtLeast, c.Timespan, c.GroupBy, c.Field
	if c.Type == "event_count" {
		r.Distinct = ""
	}
	r.events = func(e *fleet.AuditEvent) bool {
		return slices.ContainsFunc(base, func(b *sigma.Rule) bool { return b.Matches(e) })
	}
	r.group = groupOf(c.GroupBy, c.Aliases, base)
}

// groupOf joins the values of fields; an alias is the field that it names for
// the rule that matched.
func groupOf(names []string, aliases map[string]map[string]string, base []*sigma.Rule) func(*fleet.AuditEvent) string {
	return func(e *fleet.AuditEvent) string {
		var out strings.Builder
		for i, name := range names {
			if i > 0 {
				out.WriteByte(0)
			}
			if fields, ok := aliases[name]; ok {
				name = aliased(e, fields, base)
			}
			out.WriteString(field(e, name))
		}
		return out.String()
	}
}

func aliased(e *fleet.AuditEvent, fields map[string]string, base []*sigma.Rule) string {
	for _, b := range base {
		for _, rule := range slices.Sorted(maps.Keys(fields)) {
			if b.Is(rule) && b.Matches(e) {
				return fields[rule]
			}
		}
	}
	return ""
}
