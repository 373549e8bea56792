package codec_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest/codec"
)

// No message of the size limit may keep a decoder busy: time must grow with
// the size, not with its square.
func TestDecode_hostileInputIsCheap(t *testing.T) {
	const size = 1 << 20
	fill := func(head, body, tail string) string {
		return head + strings.Repeat(body, (size-len(head)-len(tail))/len(body)) + tail
	}
	for name, tc := range map[string]struct{ subject, payload string }{
		"spaces":            {"fleet.telemetry.d", fill("{", " ", "")},
		"deep":              {"fleet.telemetry.d", fill(`{"a":`, "[", "")},
		"long name":         {"fleet.telemetry.d", fill(`{"metrics":{"`, "a", `":1}}`)},
		"long number":       {"fleet.telemetry.d", fill(`{"metrics":{"a":1`, "0", `}}`)},
		"escapes":           {"fleet.telemetry.d", fill(`{"x":"`, `\u0041`, `"}`)},
		"open escapes":      {"fleet.telemetry.d", fill(`{"x":"`, `\\`, "")},
		"empty texts":       {"fleet.telemetry.d", fill(`{"x":[`, `"",`, `1]}`)},
		"unknown fields":    {"fleet.telemetry.d", fill(`{`, `"x":1,`, `"y":1}`)},
		"short readings":    {"fleet.telemetry.d", fill(`{"metrics":{`, `"a":1,`, `"b":1}}`)},
		"from":              {"fleet.audit.d", fill("Nov 24 11:00:00 h sshd[1]: Failed password for ", " from x", "")},
		"from port":         {"fleet.audit.d", fill("Nov 24 11:00:00 h sshd[1]: Failed password for ", " from x port y", "")},
		"long from":         {"fleet.audit.d", fill("Nov 24 11:00:00 h sshd[1]: Failed password for "+strings.Repeat(" from ", 80_000), "9", "")},
		"reverse":           {"fleet.audit.d", fill("Nov 24 11:00:00 h sshd[1]: reverse ", "[", "POSSIBLE BREAK-IN ATTEMPT")},
		"addresses":         {"fleet.audit.d", fill("Nov 24 11:00:00 h sshd[1]: Connection closed by ", "1.1.1: ", "")},
		"separators":        {"fleet.audit.d", fill("Nov 24 11:00:00 h sudo: a : ", " ; X=", "")},
		"pairs":             {"fleet.audit.d", fill("Nov 24 11:00:00 h sshd[1]: pam_unix(sshd:auth): authentication failure; ", " rhost= user=", "")},
		"audit record":      {"fleet.audit.d", fill("type=SYSCALL msg=audit(1.1:1): ", `a=b `, "")},
		"audit quotes":      {"fleet.audit.d", fill("type=SYSCALL msg=audit(1.1:1): ", `a="`, "")},
		"audit arguments":   {"fleet.audit.d", fill("type=EXECVE msg=audit(1.1:1): ", `a1=61 `, "")},
		"zeek names":        {"fleet.audit.d", fill(`{"id.orig_h":"1.1.1.1"`, `,"a":1`, "}")},
		"zeek table":        {"fleet.audit.d", fill("#fields\tts\tid.orig_h\n", "1\t1.1.1.1\n", "")},
		"dropbear":          {"fleet.audit.d", fill("Nov 24 11:00:00 h dropbear[1]: Bad password attempt for ", "' from ", "")},
		"firewall":          {"fleet.audit.d", fill("Nov 24 11:00:00 h kernel: IN=", " SRC= DST=", "")},
		"one line":          {"fleet.audit.d", fill("", "a", "")},
		"lines":             {"fleet.audit.d", fill("", "Feb 29 00:00:00 h a: b\n", "")},
		"empty lines":       {"fleet.audit.d", fill("", "\r\n", "x")},
		"structured":        {"fleet.audit.d", fill(`<1>1 - - - - - [a`, ` b="c"`, `] x`)},
		"structured open":   {"fleet.audit.d", fill(`<1>1 - - - - - [a b="`, `\"`, ``)},
		"not UTF-8":         {"fleet.audit.d", fill("", "\xff", "")},
		"audit objects":     {"fleet.audit.d", fill(`[`, `{},`, `{}]`)},
		"audit fields":      {"fleet.audit.d", fill(`{"message":"x","fields":{`, `"a":"b",`, `"c":"d"}}`)},
		"audit deep":        {"fleet.audit.d", fill(`{"x":`, `[`, ``)},
		"control deep":      {"fleet.control.rule.x", fill(`{"rule":`, `{"rule":`, ``)},
		"repeated repeated": {"fleet.audit.d", fill("Nov 24 11:00:00 h sshd[1]: ", "message repeated 2 times: [ ", "")},
	} {
		require.LessOrEqual(t, len(tc.payload), size)
		start := time.Now()
		_, _ = codec.Decode(tc.subject, nil, []byte(tc.payload), received, 1, false, codec.DefaultLimits())
		took := time.Since(start)
		if took > 100*time.Millisecond {
			t.Logf("%s took %s", name, took)
		}
		require.Less(t, took, 5*time.Second, name)
	}
}
