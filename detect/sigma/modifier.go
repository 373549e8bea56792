package sigma

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"cordon/internal/fleet"
)

// modifiers are all that a field's name may carry.
var modifiers = []string{
	"contains", "startswith", "endswith", "all", "re", "i", "m", "s", "cidr", "gt", "gte", "lt", "lte", "neq", "base64", "base64offset",
	"utf16", "utf16le", "utf16be", "wide", "windash", "exists", "cased", "expand", "fieldref",
}

// how is what the modifiers of one field ask for.
type how struct {
	field  string
	mods   []string
	values map[string][]string // for expand
}

func (h *how) has(mod string) bool { return slices.Contains(h.mods, mod) }

// item compiles "field|modifiers: values".
func (d *document) item(key ast.Node, name string, value ast.Node, expand map[string][]string) test {
	h := &how{values: expand}
	h.field, h.mods = name, nil
	if field, mods, ok := strings.Cut(name, "|"); ok {
		h.field, h.mods = field, strings.Split(mods, "|")
	}
	for i, mod := range h.mods {
		if !slices.Contains(modifiers, mod) {
			d.fault(key, "modifier %q is not supported: known are %s", mod, strings.Join(modifiers, ", "))
			return nil
		}
		if slices.Contains([]string{"i", "m", "s"}, mod) && !slices.Contains(h.mods[:i], "re") {
			d.fault(key, "modifier %q belongs behind re", mod)
			return nil
		}
	}
	values := []ast.Node{value}
	if list, ok := value.(*ast.SequenceNode); ok {
		values = list.Values
		if len(values) == 0 {
			d.fault(value, "%s has an empty list: it can never match", name)
			return nil
		}
	}
	tests := make([]test, 0, len(values))
	for _, v := range values {
		t, err := h.value(v)
		if err != nil {
			d.fault(v, "%s: %v", name, err)
			return nil
		}
		tests = append(tests, t)
	}
	all := disjunction(tests)
	if h.has("all") {
		all = conjunction(tests)
	}
	if h.has("neq") {
		return negation(all)
	}
	return all
}

// of tests the field, or for a keyword every text of the event.
func (h *how) of(match func(string) bool) test {
	if h.field == "" {
		return func(e *fleet.AuditEvent) bool { return everything(e, match) }
	}
	return func(e *fleet.AuditEvent) bool {
		v, ok := Value(e, h.field)
		return ok && match(v)
	}
}

func (h *how) value(node ast.Node) (test, error) {
	if _, null := node.(*ast.NullNode); null {
		if len(h.mods) > 0 || h.field == "" {
			return nil, fmt.Errorf("null stands for a field without a value: it takes no modifier")
		}
		return func(e *fleet.AuditEvent) bool { v, _ := Value(e, h.field); return v == "" }, nil
	}
	text, ok := scalarText(node)
	if !ok {
		return nil, fmt.Errorf("value is no text, number, truth value or null")
	}
	switch {
	case h.has("exists"):
		want, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("exists takes true or false, not %q", text)
		}
		return func(e *fleet.AuditEvent) bool { _, have := Value(e, h.field); return have == want }, nil
	case h.has("re"):
		return h.regexp(text)
	case h.has("cidr"):
		return h.network(text)
	case h.has("gt"), h.has("gte"), h.has("lt"), h.has("lte"):
		return h.number(text)
	case h.has("fieldref"):
		return h.reference(text), nil
	case h.has("expand"):
		return h.expanded(text)
	}
	return h.text(text, node)
}

func (h *how) regexp(text string) (test, error) {
	flags := ""
	for _, f := range []string{"i", "m", "s"} {
		if h.has(f) {
			flags += f
		}
	}
	if flags != "" {
		text = "(?" + flags + ")" + text
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("regular expression (RE2, without look-around and back references): %w", err)
	}
	return h.of(re.MatchString), nil
}

func (h *how) network(text string) (test, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no network such as 10.0.0.0/8", text)
	}
	return h.of(func(v string) bool {
		addr, err := netip.ParseAddr(v)
		return err == nil && prefix.Contains(addr.Unmap().WithZone(""))
	}), nil
}

func (h *how) number(text string) (test, error) {
	limit, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no number", text)
	}
	compare := map[string]func(float64) bool{
		"gt": func(v float64) bool { return v > limit }, "gte": func(v float64) bool { return v >= limit },
		"lt": func(v float64) bool { return v < limit }, "lte": func(v float64) bool { return v <= limit },
	}
	for _, mod := range h.mods {
		if f, ok := compare[mod]; ok {
			return h.of(func(v string) bool {
				n, err := strconv.ParseFloat(v, 64)
				return err == nil && f(n)
			}), nil
		}
	}
	return nil, fmt.Errorf("no comparison")
}

func (h *how) reference(other string) test {
	cased := h.has("cased")
	return func(e *fleet.AuditEvent) bool {
		a, ok := Value(e, h.field)
		b, ok2 := Value(e, other)
		if !ok || !ok2 {
			return false
		}
		if !cased {
			a, b = strings.ToLower(a), strings.ToLower(b)
		}
		switch {
		case h.has("contains"):
			return strings.Contains(a, b)
		case h.has("startswith"):
			return strings.HasPrefix(a, b)
		case h.has("endswith"):
			return strings.HasSuffix(a, b)
		}
		return a == b
	}
}

var placeholder = regexp.MustCompile(`%([A-Za-z0-9_.-]+)%`)

// expanded puts the values of placeholders into a text.
func (h *how) expanded(text string) (test, error) {
	at := placeholder.FindStringSubmatchIndex(text)
	if at == nil {
		return h.text(text, nil)
	}
	name := text[at[2]:at[3]]
	values, ok := h.values[name]
	if !ok || len(values) == 0 {
		return nil, fmt.Errorf("placeholder %%%s%% has no values: list them under placeholders of the cordon block", name)
	}
	tests := make([]test, 0, len(values))
	for _, v := range values {
		t, err := h.expanded(text[:at[0]] + v + text[at[1]:])
		if err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	return disjunction(tests), nil
}

// text compares with a text that may have wildcards.
func (h *how) text(text string, node ast.Node) (test, error) {
	patterns := []pattern{parsePattern(text)}
	for _, mod := range h.mods {
		next, err := encode(mod, patterns)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", mod, err)
		}
		patterns = next
	}
	tests := make([]test, 0, len(patterns))
	for _, p := range patterns {
		if h.field == "" { // a keyword stands anywhere
			p = p.prefixed().suffixed()
		}
		cased := h.has("cased")
		if !cased {
			p = p.folded()
		}
		tests = append(tests, h.of(func(v string) bool {
			if !cased {
				v = strings.ToLower(v)
			}
			return p.match(v)
		}))
	}
	if _, integer := node.(*ast.IntegerNode); integer && len(h.mods) == 0 {
		if want, err := strconv.ParseFloat(text, 64); err == nil { // 022 and 22.0 are 22
			tests = append(tests, h.of(func(v string) bool {
				n, err := strconv.ParseFloat(v, 64)
				return err == nil && n == want
			}))
		}
	}
	return disjunction(tests), nil
}

// encode applies one modifier that changes the text itself.
func encode(mod string, patterns []pattern) ([]pattern, error) {
	var out []pattern
	for _, p := range patterns {
		switch mod {
		case "contains":
			out = append(out, p.prefixed().suffixed())
		case "startswith":
			out = append(out, p.suffixed())
		case "endswith":
			out = append(out, p.prefixed())
		case "windash":
			out = append(out, p.windash())
		case "base64", "base64offset", "utf16", "utf16le", "utf16be", "wide":
			raw, err := p.bytes()
			if err != nil {
				return nil, err
			}
			out = append(out, encodeBytes(mod, raw)...)
		default:
			out = append(out, p)
		}
	}
	return out, nil
}

func encodeBytes(mod string, raw []byte) []pattern {
	var out []pattern
	switch mod {
	case "base64":
		return []pattern{plain(base64.StdEncoding.EncodeToString(raw))}
	case "base64offset":
		for _, text := range offsets(raw) {
			out = append(out, plain(text))
		}
	case "utf16": // with its byte order mark
		return []pattern{plain(string(append([]byte{0xff, 0xfe}, utf16(raw, false)...)))}
	case "utf16be":
		return []pattern{plain(string(utf16(raw, true)))}
	default: // utf16le, wide
		return []pattern{plain(string(utf16(raw, false)))}
	}
	return out
}
