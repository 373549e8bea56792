package rule_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/detect/rule"
	"cordon/internal/fleet"
)

const rest = "mode: alert\nevidence: own\nseverity: low\nrunbook: x\nfalse_positives: [y]\n"

func TestParse_faultsOfKinds(t *testing.T) {
	for text, fault := range map[string]string{
		"kind: sequence\nwindow: 5m\nsteps: [class == \"a\"]\n":                                         "3:8: steps has 1 conditions",
		"kind: sequence\nwindow: 5m\nsteps: [class == \"a\", klass == \"b\"]\n":                         "undeclared reference to 'klass'",
		"kind: sequence\nsteps: [class == \"a\", class == \"b\"]\n":                                     "window is missing",
		"kind: change\nevents: class == \"a\"\n":                                                        "of is missing",
		"kind: change\nevents: class == \"a\"\nof: colour\n":                                            "of \"colour\" is not one of",
		"kind: count\nevents: class == \"a\"\nwindow: 5m\ndistinct: fields.\n":                          "distinct \"fields.\" is not one of",
		"kind: count\nevents: class == \"a\"\nwindow: 5m\ndistinct: user\nthreshold: 5000\n":            "threshold is 5000: use 1 to 1000",
		"kind: count\nevents: class == \"a\"\nwindow: 5m\ndistinct: user\nthen: class == \"b\"\n":       "distinct and then do not go together",
		"kind: count\nevents: class == \"a\"\nwindow: 5m\nyields_to: [x]\n":                             "no id of another rule",
		"kind: count\nevents: in_networks(actor, 5)\nwindow: 5m\n":                                      "no matching overload",
		"kind: threshold\nmetric: m\nwhen: value > 1.0\nclear_when: value <\n":                          "clear_when",
		"kind: threshold\nmetric: m\nwhen: value > 1.0\ngrace: 1m\n":                                    "grace does not belong to kind threshold",
		"kind: absence\nafter: 5m\ngrace: 48h\n":                                                        "grace 48h0m0s is not between",
		"kind: baseline\nmetric: m\nschedule: {days: [mon]}\n":                                          "schedule does not belong to kind baseline",
		"kind: threshold\nmetric: m\nwhen: value > 1.0\nschedule: {days: [monday]}\n":                   "days has \"monday\"",
		"kind: threshold\nmetric: m\nwhen: value > 1.0\nschedule: {hours: \"9-17\"}\n":                  "hours \"9-17\" is no span",
		"kind: threshold\nmetric: m\nwhen: value > 1.0\nschedule: {hours: \"09:00-17:00\", zone: Oz}\n": "zone \"Oz\" is no time zone",
		"kind: threshold\nmetric: m\nwhen: value > 1.0\nschedule: {zone: UTC}\n":                        "restricts nothing",
		"kind: sigma\n": "logsource and detection instead of kind",
	} {
		_, err := rule.Parse("r.yaml", []byte("id: x\ntitle: X\n"+text+rest))
		require.ErrorContains(t, err, fault[max(0, indexAfterPlace(fault)):], text)
		require.Regexp(t, `^r\.yaml:\d+:\d+: `, err.Error())
	}
}

// indexAfterPlace skips "line:column: " at the start of an expectation.
func indexAfterPlace(s string) int {
	if len(s) > 5 && s[0] >= '0' && s[0] <= '9' {
		for i := range s {
			if s[i] == ' ' {
				return i + 1
			}
		}
	}
	return 0
}

func TestConditions_sets(t *testing.T) {
	for text, want := range map[string]bool{
		`in_networks(actor, ["10.0.0.0/8"])`:                           true,
		`in_networks(actor, ["11.0.0.0/8", "10.1.2.3"])`:               true,
		`in_networks(actor, ["nonsense"])`:                             false,
		`in_networks(user, ["10.0.0.0/8"])`:                            false,
		`in_ports(fields["p"], ["22", "8000-8100"])`:                   true,
		`in_ports(fields["p"], ["8051-"])`:                             false,
		`in_ports(fields["q"], ["22"])`:                                false,
		`"p" in fields && !in_ports(fields["p"], ["1-1024"])`:          true,
		`in_ports(fields["p"], ["8051-9000"]) || user in ["x", "bob"]`: true,
	} {
		r, err := rule.Parse("r.yaml", []byte("id: x\ntitle: X\nkind: count\nwindow: 5m\nevents: '"+text+"'\n"+rest))
		require.NoError(t, err, text)
		require.Equal(t, want, r.MatchesEvent(&fleet.AuditEvent{Actor: "10.1.2.3", User: "bob", Fields: map[string]string{"p": "8050"}}), text)
	}
}

func TestConditions_movement(t *testing.T) {
	for text, want := range map[string]bool{
		"rate > 1.5": true, "change == 120.0": true, "previous == 10.0": true, "value - previous > 119.0 && rate < 3.0": true, "rate >= 2.1": false,
	} {
		r, err := rule.Parse("r.yaml", []byte("id: x\ntitle: X\nkind: threshold\nmetric: m\nwhen: "+text+"\n"+rest))
		require.NoError(t, err, text)
		require.Equal(t, want, r.MatchesReading(&rule.ReadingVars{Value: 130, Previous: 10, Rate: 2}), text)
	}
}

func TestSchedule_looks(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for _, tc := range []struct {
		schedule, at string
		want         bool
	}{
		{`{hours: "08:00-18:00"}`, "2026-11-02T07:30:00Z", true}, // 08:30 in Berlin
		{`{hours: "08:00-18:00", zone: UTC}`, "2026-11-02T07:30:00Z", false},
		{`{hours: "08:00-18:00", outside: true}`, "2026-11-02T07:30:00Z", false},
		{`{days: [mon], hours: "22:00-06:00"}`, "2026-11-02T23:30:00Z", true},  // Tuesday 00:30, Monday's night
		{`{days: [mon], hours: "22:00-06:00"}`, "2026-11-02T03:30:00Z", false}, // Monday 04:30, Sunday's night
		{`{days: [sat, sun]}`, "2026-11-06T23:30:00Z", true},                   // Saturday 00:30
		{`{hours: "08:00-18:00"}`, "2026-07-02T06:30:00Z", true},               // summer time
		{`{hours: "08:00-24:00"}`, "2026-07-02T21:59:00Z", true},
	} {
		r, err := rule.Parse("r.yaml", []byte("id: x\ntitle: X\nkind: threshold\nmetric: m\nwhen: value > 1.0\nschedule: "+tc.schedule+"\n"+rest))
		require.NoError(t, err, tc.schedule)
		at, err := time.Parse(time.RFC3339, tc.at)
		require.NoError(t, err)
		require.Equal(t, tc.want, r.Looks(at.UnixMilli(), berlin), "%s at %s", tc.schedule, tc.at)
	}
}
