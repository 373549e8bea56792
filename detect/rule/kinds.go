package rule

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cordon/detect/threshold"
)

// The checks of the kinds about audit events.

func (c *checker) count() {
	r := c.rule
	r.AtLeast = orDefault(r.AtLeast, 1)
	c.atMost("threshold", r.AtLeast, 100_000)
	c.window()
	c.groups()
	if r.Distinct != "" {
		c.atMost("threshold", r.AtLeast, threshold.MaxDistinct)
		c.eventField("distinct", r.Distinct)
		if r.Then != "" {
			c.fault("distinct", 0, "distinct and then do not go together: write a rule of kind sequence")
		}
	}
	for i, id := range r.YieldsTo {
		if id == r.ID || !idPattern.MatchString(id) {
			c.fault(fmt.Sprintf("yields_to[%d]", i), 0, "yields_to %q is no id of another rule", id)
		}
	}
	r.events = c.event("events", r.Events)
	if r.Then != "" {
		r.then = c.event("then", r.Then)
	}
}

func (c *checker) window() {
	if c.rule.Window <= 0 {
		c.fault("window", 0, "window is missing: say in how long, such as 5m")
	}
}

// groups checks group_by.
func (c *checker) groups() {
	for i, name := range c.rule.GroupBy {
		c.eventField(fmt.Sprintf("group_by[%d]", i), name)
	}
}

func (c *checker) eventField(key, name string) {
	if rest, ok := strings.CutPrefix(name, "fields."); ok && rest != "" || slices.Contains(GroupFields, name) {
		return
	}
	bare, _, _ := strings.Cut(key, "[")
	c.fault(key, 0, "%s %q is not one of %s or fields.NAME", bare, name, strings.Join(GroupFields, ", "))
}

func (c *checker) event(key, text string) Event {
	if text == "" {
		c.fault(key, 0, `%s is missing: write a condition such as class == "authentication"`, key)
		return nil
	}
	compiled, err := compileEvent(text)
	if err != nil {
		c.condition(key, err)
	}
	return compiled
}

// maxSteps bounds a sequence.
const maxSteps = 16

func (c *checker) sequence() {
	r := c.rule
	c.window()
	c.groups()
	if len(r.Steps) < 2 || len(r.Steps) > maxSteps {
		c.fault("steps", 0, "steps has %d conditions: write 2 to %d, in their order", len(r.Steps), maxSteps)
	}
	for i, text := range r.Steps {
		r.steps = append(r.steps, c.event(fmt.Sprintf("steps[%d]", i), text))
	}
	r.AtLeast = 1
}

func (c *checker) change() {
	r := c.rule
	c.groups()
	r.events = c.event("events", r.Events)
	if r.Of == "" {
		c.fault("of", 0, "of is missing: name the field whose value is watched, such as fields.version")
		return
	}
	c.eventField("of", r.Of)
	r.AtLeast, r.Window = 1, time.Hour
}
