package sigma

import (
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Correlation counts the events of other rules.
type Correlation struct {
	Type     string   // event_count or value_count
	Rules    []string // ids or names
	GroupBy  []string
	Timespan time.Duration
	Field    string // value_count: whose distinct values are counted
	AtLeast  int
	Generate bool                         // the rules counted also speak for themselves
	Aliases  map[string]map[string]string // a name in GroupBy → rule → its field
	Line     int
}

func (d *document) correlation(node ast.Node) *Correlation {
	m, ok := mapping(node)
	if !ok {
		d.fault(node, "correlation is no mapping")
		return nil
	}
	c := &Correlation{Line: d.offset + node.GetToken().Position.Line, Aliases: map[string]map[string]string{}}
	var condition ast.Node
	for _, v := range m.Values {
		switch key := keyOf(v); key {
		case "type":
			c.Type = d.text(v)
			switch c.Type {
			case "event_count", "value_count":
			case "temporal", "temporal_ordered":
				d.fault(v.Value, "correlation type %s is not evaluated: write a rule of kind sequence", c.Type)
			default:
				d.fault(v.Value, "correlation type %q is not evaluated: use event_count or value_count", c.Type)
			}
		case "rules":
			c.Rules = d.texts(v.Value)
		case "group-by":
			c.GroupBy = d.texts(v.Value)
		case "timespan", "timeframe":
			c.Timespan = d.timespan(v)
		case "condition":
			condition = v.Value
		case "generate":
			c.Generate = d.text(v) == "true"
		case "aliases":
			d.aliases(c, v.Value)
		default:
			d.fault(v, "correlation has %s, which is not evaluated", key)
		}
	}
	if len(c.Rules) == 0 {
		d.fault(node, "rules is missing: name the rules to count by id or name")
	}
	if c.Timespan == 0 && len(d.faults) == 0 {
		d.fault(node, "timespan is missing: say in how long, such as 5m")
	}
	d.threshold(c, node, condition)
	if c.Type == "value_count" && c.AtLeast > MaxDistinct {
		d.fault(condition, "value_count of %d: use at most %d distinct values", c.AtLeast, MaxDistinct)
	}
	if c.Type == "value_count" && c.Field == "" {
		d.fault(node, "value_count needs condition.field: whose distinct values are counted")
	}
	return c
}

func (d *document) timespan(v *ast.MappingValueNode) time.Duration {
	text := d.text(v)
	units := map[string]time.Duration{
		"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "M": 30 * 24 * time.Hour,
	}
	if len(text) > 1 {
		unit, known := units[text[len(text)-1:]]
		n, err := strconv.Atoi(text[:len(text)-1])
		if known && err == nil && n > 0 && n < 10_000 {
			return time.Duration(n) * unit
		}
	}
	d.fault(v.Value, "timespan %q is no number with s, m, h, d, w or M", text)
	return 0
}

// threshold reads the condition; a count can only be said to have reached a
// number while the window is still open.
func (d *document) threshold(c *Correlation, node, condition ast.Node) {
	m, ok := mapping(condition)
	if !ok {
		d.fault(node, "condition is missing: such as {gte: 10}")
		return
	}
	for _, v := range m.Values {
		key := keyOf(v)
		if key == "field" {
			fields := d.texts(v.Value)
			if len(fields) != 1 {
				d.fault(v.Value, "condition.field must be one field")
				continue
			}
			c.Field = fields[0]
			continue
		}
		n, err := strconv.Atoi(d.text(v))
		switch {
		case err != nil:
			d.fault(v.Value, "%s is no whole number", key)
			continue
		case c.AtLeast != 0:
			d.fault(v, "condition has two limits: only one lower limit is evaluated")
		case key == "gte" || key == "eq":
			c.AtLeast = n
		case key == "gt":
			c.AtLeast = n + 1
		case key == "lt" || key == "lte" || key == "neq":
			d.fault(v, "condition %s is true of every window that has just begun: it can't be judged while events arrive; use gte, gt or eq, or a rule of kind absence", key)
			continue
		default:
			d.fault(v, "condition has %s: known are gte, gt, eq and field", key)
			continue
		}
		if c.AtLeast < 1 || c.AtLeast > MaxCount {
			d.fault(v.Value, "condition %s %d: use 1 to %d", key, n, MaxCount)
		}
	}
	if c.AtLeast == 0 && len(d.faults) == 0 {
		d.fault(condition, "condition has no limit: use gte, gt or eq")
	}
}

// What a correlation may count to: events and distinct values.
const (
	MaxCount    = 10_000
	MaxDistinct = 1000
)

func (d *document) aliases(c *Correlation, node ast.Node) {
	m, ok := mapping(node)
	if !ok {
		d.fault(node, "aliases is no mapping of names to rules and fields")
		return
	}
	for _, v := range m.Values {
		inner, ok := mapping(v.Value)
		if !ok {
			d.fault(v.Value, "alias %s is no mapping of rules to fields", keyOf(v))
			continue
		}
		fields := map[string]string{}
		for _, f := range inner.Values {
			fields[keyOf(f)] = d.text(f)
		}
		c.Aliases[keyOf(v)] = fields
	}
}

// Technique is the first ATT&CK technique among the tags, such as T1110.001.
func (r *Rule) Technique() string {
	for _, tag := range r.Tags {
		rest, ok := strings.CutPrefix(strings.ToLower(tag), "attack.t")
		if ok && len(rest) >= 4 && strings.Trim(rest, "0123456789.") == "" {
			return "T" + rest
		}
	}
	return ""
}
