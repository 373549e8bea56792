package sigma

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"cordon/internal/fleet"
)

// Error is a fault in a rule file.
type Error struct {
	File   string
	Line   int
	Column int
	Text   string // what is wrong and why
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text) }

// Rule is one Sigma document.
type Rule struct {
	ID, Name, Title, Description string
	Level                        string // informational, low, medium, high, critical or empty
	Tags                         []string
	FalsePositives               []string
	Cordon                       ast.Node     // the block cordon: (or custom:), nil if none
	Correlation                  *Correlation // nil for a rule about single events
	Line                         int          // where the document begins
	Source                       string       // the document's text

	match func(*fleet.AuditEvent) bool
}

// Matches says whether an event is what a rule about single events describes.
func (r *Rule) Matches(e *fleet.AuditEvent) bool { return r.match != nil && r.match(e) }

// Is says whether a reference of a correlation means the rule.
func (r *Rule) Is(reference string) bool {
	return reference != "" && (r.ID == reference || r.Name == reference)
}

// Detect says whether a YAML document is a Sigma rule: it has a detection or a
// correlation.
func Detect(body ast.Node) bool {
	m, ok := mapping(body)
	if !ok {
		return false
	}
	for _, v := range m.Values {
		if key := keyOf(v); key == "detection" || key == "correlation" || key == "logsource" {
			return true
		}
	}
	return false
}

// maxDocuments bounds the documents of one file.
const maxDocuments = 1000

// Parse reads every document of a file. Every fault is in the error.
func Parse(file string, source []byte) ([]*Rule, error) {
	var rules []*Rule
	var faults []error
	for _, part := range split(string(source)) {
		if len(rules) >= maxDocuments {
			return nil, &Error{file, part.line, 1, fmt.Sprintf("file holds more than %d documents", maxDocuments)}
		}
		r, err := parseDocument(file, part)
		if err != nil {
			faults = append(faults, err)
		} else if r != nil {
			rules = append(rules, r)
		}
	}
	if len(faults) == 0 && len(rules) == 0 {
		faults = append(faults, &Error{file, 1, 1, "file holds no rule"})
	}
	return rules, errors.Join(faults...)
}

type part struct {
	line int // of its first line, from 1
	text string
}

// split cuts a file at its document marks.
func split(source string) []part {
	var parts []part
	at, line := 1, 1
	var text strings.Builder
	flush := func() {
		if strings.TrimSpace(text.String()) != "" {
			parts = append(parts, part{at, text.String()})
		}
		text.Reset()
	}
	for l := range strings.Lines(source) {
		if strings.TrimRight(l, " \t\r\n") == "---" {
			flush()
			at = line + 1
		} else {
			text.WriteString(l)
		}
		line++
	}
	flush()
	return parts
}

// document is one that is being read; its faults have the file's lines.
type document struct {
	file   string
	offset int
	faults []error
}

func (d *document) fault(node ast.Node, format string, args ...any) {
	var t *token.Token
	if node != nil {
		t = node.GetToken()
	}
	d.faultAt(t, format, args...)
}

func (d *document) faultAt(t *token.Token, format string, args ...any) {
	e := &Error{File: d.file, Line: d.offset + 1, Column: 1, Text: fmt.Sprintf(format, args...)}
	if t != nil && t.Position != nil {
		e.Line, e.Column = d.offset+t.Position.Line, t.Position.Column
	}
	d.faults = append(d.faults, e)
}

func parseDocument(file string, p part) (*Rule, error) {
	d := &document{file: file, offset: p.line - 1}
	tree, err := parser.ParseBytes([]byte(p.text), 0)
	if err != nil {
		var positioned yaml.Error
		if errors.As(err, &positioned) {
			d.faultAt(positioned.GetToken(), "%s", strings.TrimSpace(positioned.GetMessage()))
		} else {
			d.fault(nil, "%v", err)
		}
		return nil, errors.Join(d.faults...)
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil, nil //nolint:nilnil // comments only
	}
	root, ok := mapping(tree.Docs[0].Body)
	if !ok {
		return nil, &Error{file, p.line, 1, "document is no mapping of keys to values"}
	}
	r := &Rule{Line: p.line, Source: p.text}
	d.rule(r, root)
	if len(d.faults) > 0 {
		return nil, errors.Join(d.faults...)
	}
	return r, nil
}

var levels = []string{"informational", "low", "medium", "high", "critical"}

func (d *document) rule(r *Rule, root *ast.MappingNode) {
	var logsource, detection, correlation ast.Node
	for _, v := range root.Values {
		switch key := keyOf(v); key {
		case "id":
			r.ID = d.text(v)
		case "name":
			r.Name = d.text(v)
		case "title":
			r.Title = d.text(v)
		case "description":
			r.Description = d.text(v)
		case "level":
			r.Level = d.text(v)
			if !slices.Contains(levels, r.Level) {
				d.fault(v.Value, "level %q is not one of %s", r.Level, strings.Join(levels, ", "))
			}
		case "tags":
			r.Tags = d.texts(v.Value)
		case "falsepositives":
			r.FalsePositives = d.texts(v.Value)
		case "cordon", "custom":
			r.Cordon = v.Value
		case "logsource":
			logsource = v.Value
		case "detection":
			detection = v.Value
		case "correlation":
			correlation = v.Value
		case "action":
			d.fault(v.Value, "action %q joins documents in the way of old collections: write whole rules", d.text(v))
		}
	}
	if r.Title == "" {
		d.fault(root, "title is missing")
	}
	switch {
	case correlation != nil && detection != nil:
		d.fault(correlation, "a document is a rule or a correlation: split it with ---")
	case correlation != nil:
		r.Correlation = d.correlation(correlation)
	case detection != nil:
		d.single(r, logsource, detection)
	default:
		d.fault(root, "neither detection nor correlation: nothing to look for")
	}
}

func (d *document) single(r *Rule, logsource, detection ast.Node) {
	from := d.logsource(logsource)
	looks := d.detection(detection, placeholders(r.Cordon))
	if from == nil || looks == nil {
		return
	}
	r.match = func(e *fleet.AuditEvent) bool { return from(e) && looks(e) }
}

// placeholders are the lists that a cordon block gives for |expand.
func placeholders(block ast.Node) map[string][]string {
	out := map[string][]string{}
	root, ok := mapping(block)
	if !ok {
		return out
	}
	for _, v := range root.Values {
		inner, ok := mapping(v.Value)
		if keyOf(v) != "placeholders" || !ok {
			continue
		}
		for _, p := range inner.Values {
			d := &document{}
			out[keyOf(p)] = d.texts(p.Value)
		}
	}
	return out
}

func mapping(node ast.Node) (*ast.MappingNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n, true
	case *ast.AnchorNode:
		return mapping(n.Value)
	}
	return nil, false
}

func keyOf(v *ast.MappingValueNode) string {
	switch k := v.Key.(type) {
	case *ast.StringNode:
		return k.Value
	case *ast.MappingKeyNode:
		return k.String()
	}
	return strings.Trim(v.Key.String(), `"'`)
}

func (d *document) text(v *ast.MappingValueNode) string {
	s, ok := scalarText(v.Value)
	if !ok {
		d.fault(v.Value, "%s is no text", keyOf(v))
	}
	return s
}

func scalarText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// texts reads a text or a list of texts.
func (d *document) texts(node ast.Node) []string {
	if s, ok := scalarText(node); ok {
		return []string{s}
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		if _, null := node.(*ast.NullNode); !null {
			d.fault(node, "expected a text or a list of texts")
		}
		return nil
	}
	var out []string
	for _, item := range list.Values {
		s, ok := scalarText(item)
		if !ok {
			d.fault(item, "expected a text")
			continue
		}
		out = append(out, s)
	}
	return out
}
