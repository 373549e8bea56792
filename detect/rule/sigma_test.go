package rule_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"cordon/detect/rule"
	"cordon/internal/fleet"
)

const failed = `title: Failed sign-in
id: base-a
name: failed
logsource: {product: linux, service: sshd}
detection:
  s: {outcome: failure}
  condition: s
`

func correlation(text string) string { return "title: C\nid: corr\ncorrelation:\n  " + text + "\n" }

func folder(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestSigma_eventCount(t *testing.T) {
	for condition, atLeast := range map[string]int{"gte: 5": 5, "gt: 5": 6, "eq: 5": 5} {
		rules, err := rule.ParseFS(folder(map[string]string{
			"a.yml": failed, "c.yaml": correlation("type: event_count\n  rules: [failed]\n  group-by: [src_ip]\n  timespan: 5m\n  condition: {" + condition + "}"),
		}))
		require.NoError(t, err)
		require.Len(t, rules, 1, "what is counted does not speak for itself")
		r := rules[0]
		require.Equal(t, rule.Sigma, r.Kind)
		require.Equal(t, atLeast, r.AtLeast)
		event := &fleet.AuditEvent{Program: "sshd", Outcome: "failure", Actor: "192.0.2.1"}
		require.True(t, r.MatchesEvent(event))
		require.Equal(t, "192.0.2.1", r.Group(event))
		again, err := rule.Parse(r.ID, []byte(r.Source))
		require.NoError(t, err, "a rule's source is whole: the log carries nothing else")
		require.Equal(t, r.Version, again.Version)
		require.True(t, again.MatchesEvent(event))
	}
}

func TestSigma_generateKeepsTheCounted(t *testing.T) {
	rules, err := rule.ParseAll("x.yml", []byte(failed+"---\n"+correlation("type: event_count\n  rules: [base-a]\n  timespan: 5m\n  generate: true\n  condition: {gte: 2}")))
	require.NoError(t, err)
	require.Len(t, rules, 2)
}

func TestSigma_valueCount(t *testing.T) {
	rules, err := rule.ParseAll("x.yml", []byte(failed+"---\n"+correlation("type: value_count\n  rules: [failed]\n  group-by: [src_ip]\n  timespan: 1h\n  condition: {gte: 3, field: TargetUserName}")))
	require.NoError(t, err)
	require.Equal(t, "TargetUserName", rules[0].Distinct)
	require.Equal(t, "bob", rule.Value(&fleet.AuditEvent{User: "bob"}, rules[0].Distinct))
}

func TestSigma_aliases(t *testing.T) {
	other := "title: Sudo\nname: sudo\nlogsource: {product: linux, service: sudo}\ndetection:\n  s: {outcome: failure}\n  condition: s\n"
	rules, err := rule.ParseAll("x.yml", []byte(failed+"---\n"+other+"---\n"+
		correlation("type: event_count\n  rules: [failed, sudo]\n  group-by: [who]\n  timespan: 1h\n  aliases: {who: {failed: user, sudo: src_ip}}\n  condition: {gte: 3}")))
	require.NoError(t, err)
	r := rules[0]
	require.Equal(t, "bob", r.Group(&fleet.AuditEvent{Program: "sshd", Outcome: "failure", User: "bob", Actor: "192.0.2.1"}))
	require.Equal(t, "bob", r.Group(&fleet.AuditEvent{Program: "sudo", Outcome: "failure", User: "root", Actor: "bob"}))
}

func TestSigma_blockOfCordon(t *testing.T) {
	r, err := rule.Parse("x.yml", []byte(failed+"tags: [attack.credential_access, attack.t1110.001]\nlevel: high\ncordon:\n  id: own-name\n  mode: armed\n  evidence: own\n  level: isolate\n  window: 1h\n  scope: {tags: [edge]}\n"))
	require.NoError(t, err)
	require.Equal(t, "own-name", r.ID)
	require.Equal(t, fleet.Armed, r.Mode)
	require.Equal(t, fleet.High, r.Severity)
	require.Equal(t, "T1110.001", r.Technique)
	require.Equal(t, []string{"edge"}, r.Scope.Tags)
	r, err = rule.Parse("x.yml", []byte(failed))
	require.NoError(t, err)
	require.Equal(t, fleet.Shadow, r.Mode)
	require.Equal(t, fleet.Outside, r.Evidence)
}

func TestSigma_refusals(t *testing.T) {
	for text, reason := range map[string]string{
		failed + "cordon: {mode: armed, level: isolate}\n": "x.yml:8:16: rule base-a can't be armed: its evidence is outside",
		failed + "cordon:\n  mode: loud\n":                 "x.yml:9:9: ",
		failed + "cordon:\n  modus: alert\n":               `x.yml:9:3: unknown field "modus"`,
		"\n\n---\n" + failed + "cordon:\n  mode: loud\n":   "x.yml:12:9: ",
		failed + "level: bad\n":                            "x.yml:8:8: level",
		failed + "---\n" + correlation("type: event_count\n  rules: [nobody]\n  timespan: 5m\n  condition: {gte: 2}"): `x.yml:12:1: rule "nobody"`,
		failed + "---\n" + correlation("type: event_count\n  rules: [failed]\n  timespan: 5m\n  condition: {gte: 2}") +
			"---\ntitle: D\ncorrelation:\n  type: event_count\n  rules: [corr]\n  timespan: 5m\n  condition: {gte: 2}\n": "correlations of correlations",
		failed + "---\n" + failed: "ids are unique",
	} {
		_, err := rule.ParseAll("x.yml", []byte(text))
		require.ErrorContains(t, err, reason, text)
	}
}
