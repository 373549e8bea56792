package sigma_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/detect/sigma"
	"cordon/internal/fleet"
)

// row is one line of the table in docs/sigma.md.
type row struct {
	name      string
	detection string   // indented by two where it is put in
	yes, no   []string // "user=a message=b c"; see event
	refused   string   // the reason
}

var rows = []row{
	{name: "map: all fields", detection: "s: {user: root, outcome: failure}\ncondition: s", yes: []string{"user=root|outcome=failure"}, no: []string{"user=root|outcome=success", "user=root"}},
	{name: "list of maps: any", detection: "s:\n  - user: root\n  - {user: admin, outcome: failure}\ncondition: s", yes: []string{"user=root", "user=admin|outcome=failure"}, no: []string{"user=admin"}},
	{name: "list of values: any", detection: "s: {user: [root, admin]}\ncondition: s", yes: []string{"user=admin"}, no: []string{"user=bob"}},
	{name: "keywords", detection: "k: [segfault, 'out of *memory']\ncondition: k", yes: []string{"message=app SEGFAULT at 0", "f.x=Out of all memory"}, no: []string{"message=fine"}},
	{name: "keywords with all", detection: "k:\n  '|all': [one, two]\ncondition: k", yes: []string{"message=two then one"}, no: []string{"message=one"}},
	{name: "letters of either case", detection: "s: {user: ROOT}\ncondition: s", yes: []string{"user=root", "user=Root"}, no: []string{"user=roo"}},
	{name: "wildcard *", detection: "s: {message: 'Failed * for *root*'}\ncondition: s", yes: []string{"message=Failed password for xrootx"}, no: []string{"message=a Failed password for root"}},
	{name: "wildcard ?", detection: "s: {user: 'r??t'}\ncondition: s", yes: []string{"user=root", "user=rüüt"}, no: []string{"user=rot", "user=rooot"}},
	{name: "escaped wildcards", detection: `s: {message: 'a\*b\?c'}` + "\ncondition: s", yes: []string{"message=a*b?c"}, no: []string{"message=axb?c", "message=a*bxc"}},
	{name: "backslashes", detection: `s: {message: ['C:\Windows\\\\x', 'e\\*f']}` + "\ncondition: s", yes: []string{`message=C:\Windows\\x`, `message=e\anythingf`}, no: []string{`message=e*f`}},
	{name: "number", detection: "s: {dst_port: 22}\ncondition: s", yes: []string{"f.dst_endpoint.port=22", "f.dst_endpoint.port=022"}, no: []string{"f.dst_endpoint.port=220"}},
	{name: "null: no value", detection: "s: {user: null, class: authentication}\ncondition: s", yes: []string{"class=authentication"}, no: []string{"class=authentication|user=root"}},
	{name: "empty text", detection: "s: {f.x: ''}\ncondition: s", yes: []string{"f.f.x="}, no: []string{"f.f.x=a", "user=a"}},
	{name: "contains", detection: "s: {message|contains: assw}\ncondition: s", yes: []string{"message=Password"}, no: []string{"message=Pass"}},
	{name: "startswith", detection: "s: {message|startswith: 'Failed '}\ncondition: s", yes: []string{"message=failed x"}, no: []string{"message=x failed "}},
	{name: "endswith", detection: "s: {exe|endswith: /nc}\ncondition: s", yes: []string{"f.process.file.path=/usr/bin/nc"}, no: []string{"f.process.file.path=/usr/bin/ncat"}},
	{name: "all", detection: "s: {CommandLine|contains|all: ['-e', sh]}\ncondition: s", yes: []string{"f.process.cmd_line=nc -e /bin/sh"}, no: []string{"f.process.cmd_line=nc -e x"}},
	{name: "re", detection: `s: {message|re: '^user [a-z]+\d$'}` + "\ncondition: s", yes: []string{"message=user ab1"}, no: []string{"message=User ab1"}},
	{name: "re with i", detection: `s: {message|re|i: 'ROOT$'}` + "\ncondition: s", yes: []string{"message=for root"}, no: []string{"message=rooty"}},
	{name: "re with m", detection: `s: {message|re|m: '^two$'}` + "\ncondition: s", yes: []string{"message=one\ntwo"}, no: []string{"message=one two"}},
	{name: "re with s", detection: `s: {message|re|s: 'one.two'}` + "\ncondition: s", yes: []string{"message=one\ntwo"}, no: []string{"message=onetwo"}},
	{name: "re look-around", detection: `s: {message|re: '(?=x)y'}` + "\ncondition: s", refused: "RE2"},
	{name: "cidr", detection: "s: {src_ip|cidr: [10.0.0.0/8, '2001:db8::/32']}\ncondition: s", yes: []string{"actor=10.9.8.7", "actor=2001:db8::1", "actor=::ffff:10.1.1.1"}, no: []string{"actor=11.0.0.1", "actor=host"}},
	{name: "gt, gte, lt, lte", detection: "a: {dst_port|gt: 1023}\nb: {dst_port|lte: 2000}\nc: {dst_port|gte: 9000}\nd: {dst_port|lt: 9002}\ncondition: a and b or c and d", yes: []string{"f.dst_endpoint.port=1024", "f.dst_endpoint.port=2000", "f.dst_endpoint.port=9001"}, no: []string{"f.dst_endpoint.port=1023", "f.dst_endpoint.port=9002", "f.dst_endpoint.port=x"}},
	{name: "neq", detection: "s: {user|neq: root}\ncondition: s", yes: []string{"user=bob"}, no: []string{"user=root"}},
	{name: "base64", detection: "s: {message|base64|contains: 'curl http'}\ncondition: s", yes: []string{"message=echo Y3VybCBodHRw"}, no: []string{"message=curl http"}},
	{name: "base64offset", detection: "s: {message|base64offset|contains: '/bin/sh'}\ncondition: s", yes: []string{"message=eCAvYmluL3NoIC1j", "message=L2Jpbi9zaA==", "message=eHgvYmluL3NoIQ=="}, no: []string{"message=/bin/sh"}},
	{name: "utf16le, utf16be, utf16, wide", detection: "s: {message|wide|base64offset|contains: 'ping'}\ncondition: s", yes: []string{"message=cABpAG4AZwA="}, no: []string{"message=cGluZw=="}},
	{name: "windash", detection: "s: {CommandLine|windash|contains: ' -exec'}\ncondition: s", yes: []string{"f.process.cmd_line=find /exec", "f.process.cmd_line=find –exec x"}, no: []string{"f.process.cmd_line=find exec"}},
	{name: "exists", detection: "s: {f.x|exists: true}\nn: {f.y|exists: false}\ncondition: s and n", yes: []string{"f.f.x=1"}, no: []string{"f.f.x=1|f.f.y=2", "user=a"}},
	{name: "cased", detection: "s: {user|cased: Root}\ncondition: s", yes: []string{"user=Root"}, no: []string{"user=root"}},
	{name: "expand", detection: "s: {user|expand: '%admins%'}\ncondition: s", yes: []string{"user=alice", "user=bob"}, no: []string{"user=%admins%"}},
	{name: "expand without values", detection: "s: {user|expand: '%nobody%'}\ncondition: s", refused: "no values"},
	{name: "fieldref", detection: "s: {user|fieldref: f.x}\nc: {message|fieldref|contains: user}\ncondition: s or c", yes: []string{"user=a|f.f.x=A", "user=bob|message=by bob!"}, no: []string{"user=a|f.f.x=b", "user=a"}},
	{name: "unknown modifier", detection: "s: {user|sounds: x}\ncondition: s", refused: `modifier "sounds" is not supported`},
	{name: "and, or, not", detection: "a: {user: a}\nb: {outcome: b}\nc: {program: c}\ncondition: a or b and not c", yes: []string{"user=a|program=c", "outcome=b"}, no: []string{"outcome=b|program=c"}},
	{name: "parentheses", detection: "a: {user: a}\nb: {outcome: b}\nc: {program: c}\ncondition: (a or b) and not (c)", yes: []string{"user=a", "outcome=b"}, no: []string{"user=a|program=c"}},
	{name: "1 of name*", detection: "sel_a: {user: a}\nsel_b: {outcome: b}\nother: {program: c}\ncondition: 1 of sel_*", yes: []string{"user=a", "outcome=b"}, no: []string{"program=c"}},
	{name: "all of name*", detection: "sel_a: {user: a}\nsel_b: {outcome: b}\ncondition: all of sel_*", yes: []string{"user=a|outcome=b"}, no: []string{"user=a"}},
	{name: "1 of them", detection: "a: {user: a}\n_b: {outcome: b}\ncondition: 1 of them", yes: []string{"user=a"}, no: []string{"outcome=b"}},
	{name: "all of them", detection: "a: {user: a}\nb: {outcome: b}\ncondition: all of them", yes: []string{"user=a|outcome=b"}, no: []string{"user=a"}},
	{name: "list of conditions: any", detection: "a: {user: a}\nb: {outcome: b}\ncondition: [a, b]", yes: []string{"user=a", "outcome=b"}, no: []string{"program=c"}},
	{name: "search that is not there", detection: "a: {user: a}\ncondition: a and b", refused: `names "b", which is no search`},
	{name: "old aggregation", detection: "a: {user: a}\ncondition: a | count() by user > 5", refused: "write a correlation"},
	{name: "timeframe", detection: "a: {user: a}\ntimeframe: 5m\ncondition: a", refused: "old aggregations"},
}

// event reads "user=a|outcome=b|f.name=c"; parts are kept apart by |.
func event(text string) *fleet.AuditEvent {
	e := &fleet.AuditEvent{Fields: map[string]string{}}
	for part := range strings.SplitSeq(text, "|") {
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			continue
		}
		switch key {
		case "user":
			e.User = value
		case "actor":
			e.Actor = value
		case "outcome":
			e.Outcome = value
		case "program":
			e.Program = value
		case "class":
			e.Class = value
		case "message":
			e.Message = value
		default:
			e.Fields[strings.TrimPrefix(key, "f.")] = value
		}
	}
	return e
}

const head = "title: T\nlogsource: {product: linux}\ncordon: {placeholders: {admins: [alice, bob]}}\ndetection:\n"

func indented(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") + "\n" }

func TestConformance(t *testing.T) {
	docs, err := os.ReadFile(filepath.Join("..", "..", "docs", "sigma.md"))
	require.NoError(t, err)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			require.Contains(t, string(docs), "| "+r.name+" |", "the table in docs/sigma.md lacks the row")
			rules, err := sigma.Parse("r.yml", []byte(head+indented(r.detection)))
			if r.refused != "" {
				require.ErrorContains(t, err, r.refused)
				require.Regexp(t, `^r\.yml:[5-9]:`, err.Error(), "the line of the fault")
				return
			}
			require.NoError(t, err)
			require.Len(t, rules, 1)
			for _, text := range r.yes {
				require.True(t, rules[0].Matches(event(text)), "must match %q", text)
			}
			for _, text := range r.no {
				require.False(t, rules[0].Matches(event(text)), "must not match %q", text)
			}
		})
	}
}

func TestLogsource(t *testing.T) {
	for source, events := range map[string][2]string{
		"{product: linux, service: sshd}":              {"program=sshd", "program=sudo"},
		"{product: linux, service: sudo}":              {"program=sudo", "program=sshd"},
		"{product: linux, service: auditd}":            {"f.audit.type=SYSCALL", "program=sshd"},
		"{product: linux, service: auth}":              {"class=authentication", "class=process"},
		"{product: linux, service: cron}":              {"program=CRON", "program=sshd"},
		"{product: zeek, service: ssh}":                {"program=zeek|f.service.name=ssh", "program=zeek"},
		"{category: process_creation, product: linux}": {"class=process", "class=network"},
		"{category: network_connection}":               {"class=network", "class=process"},
		"{product: cordon, category: source}":          {"class=source", "class=system"},
	} {
		rules, err := sigma.Parse("r.yml", []byte("title: T\nlogsource: "+source+"\ndetection:\n  s: {x|exists: false}\n  condition: s\n"))
		require.NoError(t, err, source)
		require.True(t, rules[0].Matches(event(events[0])), source)
		require.False(t, rules[0].Matches(event(events[1])), source)
	}
	for source, reason := range map[string]string{
		"{product: windows, service: security}": "Cordon's devices send none of its events",
		"{category: registry_event}":            "has no class of events here",
		"{}":                                    "names neither product",
		"{produkt: linux}":                      "known are product",
	} {
		_, err := sigma.Parse("r.yml", []byte("title: T\nlogsource: "+source+"\ndetection:\n  s: {x: y}\n  condition: s\n"))
		require.ErrorContains(t, err, reason, source)
		require.ErrorContains(t, err, "r.yml:2:", source)
	}
}

func TestCorrelation_refusals(t *testing.T) {
	for text, reason := range map[string]string{
		"type: temporal\n  rules: [a]\n  timespan: 5m\n  condition: {gte: 2}":                    "kind sequence",
		"type: event_count\n  rules: [a]\n  timespan: 5m\n  condition: {lt: 2}":                  "window that has just begun",
		"type: event_count\n  rules: [a]\n  timespan: 5x\n  condition: {gte: 2}":                 "no number with s, m, h",
		"type: event_count\n  rules: [a]\n  timespan: 5m\n  condition: {gte: 2, lte: 9}":         "two limits",
		"type: value_count\n  rules: [a]\n  timespan: 5m\n  condition: {gte: 2}":                 "condition.field",
		"type: value_count\n  rules: [a]\n  timespan: 5m\n  condition: {gte: 2000, field: user}": "at most 1000 distinct",
		"type: event_count\n  timespan: 5m\n  condition: {gte: 2}":                               "rules is missing",
		"type: event_count\n  rules: [a]\n  timespan: 5m\n  condition: {gte: 2}\n  weight: 3":    "not evaluated",
	} {
		_, err := sigma.Parse("c.yml", []byte("title: C\ncorrelation:\n  "+text+"\n"))
		require.ErrorContains(t, err, reason, text)
	}
}

// FuzzParse holds that no text can crash the parser or a rule it makes.
func FuzzParse(f *testing.F) {
	for _, r := range rows {
		f.Add(head+indented(r.detection), "message with root")
	}
	f.Fuzz(func(t *testing.T, source, message string) {
		rules, err := sigma.Parse("r.yml", []byte(source))
		if err != nil {
			return
		}
		for _, r := range rules {
			r.Matches(&fleet.AuditEvent{Message: message, User: message})
		}
	})
}
