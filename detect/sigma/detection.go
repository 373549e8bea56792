package sigma

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"cordon/internal/fleet"
)

// detection compiles the searches and the condition that joins them.
func (d *document) detection(node ast.Node, expand map[string][]string) test {
	m, ok := mapping(node)
	if !ok {
		d.fault(node, "detection is no mapping of searches and a condition")
		return nil
	}
	before := len(d.faults)
	searches := map[string]test{}
	var condition ast.Node
	for _, v := range m.Values {
		switch key := keyOf(v); key {
		case "condition":
			condition = v.Value
		case "timeframe":
			d.fault(v, "timeframe belongs to the old aggregations: write a correlation")
		default:
			if t := d.search(v.Value, expand); t != nil {
				searches[key] = t
			}
		}
	}
	if condition == nil {
		d.fault(node, "condition is missing: say how the searches are joined")
	}
	if len(d.faults) > before {
		return nil
	}
	texts := d.texts(condition)
	tests := make([]test, 0, len(texts))
	for i, text := range texts {
		at := condition
		if list, ok := condition.(*ast.SequenceNode); ok {
			at = list.Values[i]
		}
		if t := d.condition(at, text, searches); t != nil {
			tests = append(tests, t)
		}
	}
	if len(tests) == 0 || len(d.faults) > before {
		return nil
	}
	return disjunction(tests)
}

// search compiles a map (all of its fields), a list of maps (any of them) or a
// list of keywords (any of them).
func (d *document) search(node ast.Node, expand map[string][]string) test {
	before := len(d.faults)
	empty := func() test {
		if len(d.faults) == before { // else its parts have said what is wrong
			d.fault(node, "search is empty: it says nothing")
		}
		return nil
	}
	if m, ok := mapping(node); ok {
		var tests []test
		for _, v := range m.Values {
			if t := d.item(v.Key, keyOf(v), v.Value, expand); t != nil {
				tests = append(tests, t)
			}
		}
		if len(tests) == 0 {
			return empty()
		}
		return conjunction(tests)
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return d.item(node, "", node, expand)
	}
	var tests []test
	for _, item := range list.Values {
		var t test
		if _, isMap := mapping(item); isMap {
			t = d.search(item, expand)
		} else {
			t = d.item(item, "", item, expand)
		}
		if t != nil {
			tests = append(tests, t)
		}
	}
	if len(tests) == 0 {
		return empty()
	}
	return disjunction(tests)
}

// condition compiles: or, and, not, parentheses, names of searches, and
// "1 of name*", "all of them".
func (d *document) condition(node ast.Node, text string, searches map[string]test) test {
	p := &conditionParser{document: d, node: node, words: words(text), searches: searches}
	if strings.Contains(text, "|") {
		d.fault(node, "condition has an aggregation behind |, which Sigma dropped: write a correlation")
		return nil
	}
	t := p.or()
	if t != nil && p.at < len(p.words) {
		p.fail("condition goes on with %q", p.words[p.at])
	}
	if p.failed {
		return nil
	}
	return t
}

func words(text string) []string {
	return strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text))
}

type conditionParser struct {
	*document
	node     ast.Node
	words    []string
	at       int
	depth    int
	searches map[string]test
	failed   bool
}

func (p *conditionParser) fail(format string, args ...any) test {
	if !p.failed {
		p.failed = true
		p.fault(p.node, format, args...)
	}
	return nil
}

func (p *conditionParser) take(word string) bool {
	if p.at < len(p.words) && strings.EqualFold(p.words[p.at], word) {
		p.at++
		return true
	}
	return false
}

func (p *conditionParser) or() test {
	tests := []test{p.and()}
	for p.take("or") {
		tests = append(tests, p.and())
	}
	if p.failed {
		return nil
	}
	return disjunction(tests)
}

func (p *conditionParser) and() test {
	tests := []test{p.not()}
	for p.take("and") {
		tests = append(tests, p.not())
	}
	if p.failed {
		return nil
	}
	return conjunction(tests)
}

func (p *conditionParser) not() test {
	if p.depth++; p.depth > 100 {
		return p.fail("condition is nested more than 100 deep")
	}
	defer func() { p.depth-- }()
	if p.take("not") {
		t := p.not()
		if t == nil {
			return nil
		}
		return negation(t)
	}
	if p.take("(") {
		t := p.or()
		if !p.take(")") {
			return p.fail("condition lacks a )")
		}
		return t
	}
	if p.at >= len(p.words) {
		return p.fail("condition ends where a search is expected")
	}
	word := p.words[p.at]
	p.at++
	if p.at < len(p.words) && strings.EqualFold(p.words[p.at], "of") {
		return p.some(word)
	}
	t, ok := p.searches[word]
	if !ok {
		return p.fail("condition names %q, which is no search of this rule", word)
	}
	return t
}

// some compiles "N of pattern", "all of them".
func (p *conditionParser) some(quantity string) test {
	p.at++
	if p.at >= len(p.words) {
		return p.fail("condition ends behind of")
	}
	name := p.words[p.at]
	p.at++
	var keys []string
	for key := range p.searches {
		matched, err := path.Match(name, key)
		if name == "them" && !strings.HasPrefix(key, "_") || name != "them" && err == nil && matched {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return p.fail("condition asks for %s of %s, and no search has such a name", quantity, name)
	}
	slices.Sort(keys)
	tests := make([]test, len(keys))
	for i, key := range keys {
		tests[i] = p.searches[key]
	}
	switch {
	case strings.EqualFold(quantity, "all"):
		return conjunction(tests)
	case strings.EqualFold(quantity, "any"), quantity == "1":
		return disjunction(tests)
	}
	n, err := strconv.Atoi(quantity)
	if err != nil || n < 1 || n > len(tests) {
		return p.fail("condition asks for %q of %d searches: use all, any or a number", quantity, len(tests))
	}
	return func(e *fleet.AuditEvent) bool {
		met := 0
		for _, t := range tests {
			if t(e) {
				met++
			}
		}
		return met >= n
	}
}
