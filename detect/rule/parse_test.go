package rule

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"cordon/internal/fleet"
)

const sound = `id: hot
title: Too hot
kind: threshold
metric: temp
when: value > 85.0
mode: alert
evidence: own
severity: high
runbook: Cool it.
false_positives: [Sun.]
`

func TestParse_sound(t *testing.T) {
	r, err := Parse("hot.yaml", []byte(sound))
	require.NoError(t, err)
	require.Equal(t, 1, r.RaiseAfter)
	require.Len(t, r.Version, 12)
	limit, op, ok := r.Limit()
	require.True(t, ok)
	require.InDelta(t, 85.0, limit, 0)
	require.Equal(t, ">", op)
	require.True(t, r.MatchesReading(&ReadingVars{Value: 86}))
	require.False(t, r.MatchesReading(&ReadingVars{Value: 85}))
}

// TestParse_faults looks at place and words of every sort of fault.
func TestParse_faults(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"unknown key":            {"mode: alert", "mode: alert\ncolour: red", `hot.yaml:7:1: unknown field "colour"`},
		"no YAML":                {"title: Too hot", "title: [", "hot.yaml:"},
		"wrong type":             {"when: value > 85.0", "when: value > 85.0\nraise_after: often", "hot.yaml:6:14: "},
		"unknown kind":           {"kind: threshold", "kind: guess", `hot.yaml:3:7: kind "guess" is not one of threshold, baseline, count, absence`},
		"bad id":                 {"id: hot", "id: Hot!", `hot.yaml:1:5: id "Hot!"`},
		"condition fault":        {"value > 85.0", "value > hot", "hot.yaml:5:15: when: undeclared reference to 'hot'"},
		"condition in quotes":    {"value > 85.0", `"value > hot"`, "hot.yaml:5:16: when: undeclared reference to 'hot'"},
		"condition is a number":  {"value > 85.0", "value", "when: condition gives double"},
		"key of another kind":    {"mode: alert", "window: 5m\nmode: alert", "hot.yaml:6:9: window does not belong to kind threshold"},
		"outside and armed":      {"mode: alert\nevidence: own", "mode: armed\nlevel: isolate\nevidence: outside", "hot.yaml:6:7: rule hot can't be armed: its evidence is outside"},
		"armed without level":    {"mode: alert", "mode: armed", "names no level"},
		"no runbook":             {"runbook: Cool it.\n", "", "runbook is missing"},
		"unknown severity":       {"severity: high", "severity: bad", `hot.yaml:8:11: severity "bad" is not one of`},
		"unknown placeholder":    {"mode: alert", "mode: alert\nsentence: '{devise} is hot'", "sentence has {devise}"},
		"two documents":          {"id: hot", "a: b\n---\nid: hot", "2 documents"},
		"nothing":                {sound, "", "0 documents"},
		"too many in a row":      {"mode: alert", "mode: alert\nraise_after: 100000", "raise_after is 100000: use 1 to 10000"},
		"technique of no matrix": {"mode: alert", "mode: alert\ntechnique: X1", "is no ATT&CK id"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(sound, c.from, c.to, 1)
			require.NotEqual(t, sound, text)
			_, err := Parse("hot.yaml", []byte(text))
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestConditions_quickEqualsCEL compares the closures with CEL's interpreter.
func TestConditions_quickEqualsCEL(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := eventCondition(t, 3)
		tree, program, err := compile(eventEnv, text)
		require.NoError(t, err, text)
		quick := fastEvent(tree)
		require.NotNil(t, quick, "%s should have a quick form", text)
		word := rapid.SampledFrom(words)
		e := &fleet.AuditEvent{
			Class: word.Draw(t, "class"), Activity: word.Draw(t, "activity"), Outcome: word.Draw(t, "outcome"),
			Actor: word.Draw(t, "actor"), Message: word.Draw(t, "message"),
		}
		require.Equal(t, slowEvent(program)(e), quick(e), "%s on %+v", text, e)
	})
}

var words = []string{"", "a", "ab", "abc", "logon", "failure"}

func eventCondition(t *rapid.T, depth int) string {
	name := rapid.SampledFrom([]string{"class", "activity", "outcome", "actor", "message"}).Draw(t, "variable")
	word := rapid.SampledFrom(words).Draw(t, "word")
	kind := rapid.IntRange(0, 8).Draw(t, "kind")
	if depth == 0 && kind > 5 {
		kind -= 3
	}
	switch kind {
	case 0:
		return fmt.Sprintf("%s == %q", name, word)
	case 1:
		return fmt.Sprintf("%s != %q", name, word)
	case 2:
		return fmt.Sprintf("%s.startsWith(%q)", name, word)
	case 3:
		return fmt.Sprintf("%s.endsWith(%q)", name, word)
	case 4:
		return fmt.Sprintf("%s.contains(%q)", name, word)
	case 5:
		return fmt.Sprintf("%s in [%q, %q]", name, word, "abc")
	case 6:
		return "!(" + eventCondition(t, depth-1) + ")"
	case 7:
		return "(" + eventCondition(t, depth-1) + " && " + eventCondition(t, depth-1) + ")"
	default:
		return "(" + eventCondition(t, depth-1) + " || " + eventCondition(t, depth-1) + ")"
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sound)
	f.Add("id: x\nkind: count\nevents: 'class == \"a\" || fields[\"b\"] == \"c\"'\nwindow: 5m\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse("fuzz.yaml", []byte(text))
		if err == nil && r.MatchesMetric("x") && r.Kind == Threshold {
			r.MatchesReading(&ReadingVars{Value: 1})
		}
	})
}
