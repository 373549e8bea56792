package codec_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest/codec"
	"cordon/internal/fleet"
)

// decodeLines decodes syslog lines of a historic device.
func decodeLines(t *testing.T, text string) []fleet.AuditEvent {
	t.Helper()
	rec, rej := codec.Decode("fleet.audit.d1", nil, []byte(text), received, 1, true, codec.DefaultLimits())
	require.Nil(t, rej)
	return rec.Audit
}

func TestDecode_moreWordsOfSSH(t *testing.T) {
	for line, want := range map[string]string{
		"sshd[1]: Failed password for root from 192.0.2.1 ssh2":                                             `authentication logon failure actor=192.0.2.1 user="root"`,
		"sshd[1]: Failed password for root from scanner.example.net port 22 ssh2":                           `authentication logon failure actor=scanner.example.net user="root"`,
		"sshd[1]: Failed keyboard-interactive/pam for invalid user a from fe80::1%eth0 port 22 ssh2":        `authentication logon failure actor=fe80::1%eth0 user="a"`,
		"sshd[1]: Failed password for invalid user a\\nb from 192.0.2.1 port 1 ssh2":                        `authentication logon failure actor=192.0.2.1 user="a\\nb"`,
		"sshd[1]: Failed publickey for root from 192.0.2.1 port 22 ssh2: RSA SHA256:abc":                    `authentication preauth failure actor=192.0.2.1 user="root"`,
		"sshd[1]: error: PAM: Authentication failure for illegal user x from 192.0.2.1":                     `authentication pam failure actor=192.0.2.1 user="x"`,
		"sshd[1]: Starting session: shell on pts/1 for root from 192.0.2.1 port 5 id 0":                     `authentication session success actor=192.0.2.1 user="root"`,
		"sshd[1]: banner exchange: Connection from 192.0.2.9 port 5: invalid format":                        `authentication preauth  actor=192.0.2.9 user=""`,
		"sshd[1]: drop connection #0 from [2001:db8::9]:55 on [192.0.2.1]:22 penalty: failed":               `authentication preauth  actor=2001:db8::9 user=""`,
		"sshd-session[1]: Failed password for root from 2001:db8::1 port 5 ssh2":                            `authentication logon failure actor=2001:db8::1 user="root"`,
		"dropbear[7]: Bad password attempt for 'root' from 192.0.2.1:4242":                                  `authentication logon failure actor=192.0.2.1 user="root"`,
		"dropbear[7]: Bad password attempt for 'o'neil from x' from 2001:db8::1:4242":                       `authentication logon failure actor=2001:db8::1 user="o'neil from x"`,
		"dropbear[7]: Login attempt for nonexistent user from 192.0.2.1:4242":                               `authentication logon failure actor=192.0.2.1 user=""`,
		"dropbear[7]: Password auth succeeded for 'root' from 192.0.2.1:4242":                               `authentication logon success actor=192.0.2.1 user="root"`,
		"dropbear[7]: Pubkey auth succeeded for 'root' with key sha1!! 0c:1d from 192.0.2.1:4242":           `authentication logon success actor=192.0.2.1 user="root"`,
		"dropbear[7]: Child connection from 192.0.2.1:4242":                                                 `authentication preauth  actor=192.0.2.1 user=""`,
		"dropbear[7]: Exit before auth from <192.0.2.1:4242>: (user 'root', 3 fails): Max auth tries":       `authentication preauth  actor=192.0.2.1 user=""`,
		"dropbear[7]: Exit (root): Disconnect received":                                                     `authentication logoff  actor= user="root"`,
		"kernel: [ 12.5] DROP IN=eth0 OUT= MAC=aa SRC=192.0.2.7 DST=10.0.0.1 LEN=40 PROTO=TCP SPT=1 DPT=23": `network packet  actor=192.0.2.7 user=""`,
		"kernel: device eth0 entered promiscuous mode":                                                      `network promiscuous  actor= user=""`,
		"kernel: Out of memory: Killed process 77 (app)":                                                    `process stop failure actor= user=""`,
	} {
		e := decodeLines(t, "Nov 24 11:59:58 host "+line)
		require.Len(t, e, 1, line)
		require.Equal(t, want, words(e[0]), line)
	}
}

func TestDecode_auditdRecords(t *testing.T) {
	at := time.Date(2026, 11, 24, 11, 59, 58, 243e6, time.UTC)
	const stamp = " msg=audit(1795521598.243:77): "
	for line, want := range map[string]string{
		"type=USER_LOGIN" + stamp + `pid=5 uid=0 msg='op=login acct=28756E6B6E6F776E207573657229 exe="/usr/bin/gdm" hostname=? addr=192.0.2.1 terminal=ssh res=failed'`: `authentication logon failure actor=192.0.2.1 user="(unknown user)"`,
		"type=USER_AUTH" + stamp + `pid=5 msg='op=PAM:authentication acct="root" exe="/usr/sbin/sshd" hostname=h addr=192.0.2.1 res=failed'`:                            `authentication pam failure actor=192.0.2.1 user="root"`,
		"node=gw type=ADD_USER" + stamp + `pid=5 msg='op=adding user id=1001 exe="/usr/sbin/useradd" res=success'`:                                                      `account create success actor= user=""`,
		"type=USER_CMD" + stamp + `pid=5 msg='cwd="/root" cmd=6C73202D6C terminal=pts/0 res=success'`:                                                                   `authentication elevate success actor= user=""`,
		"type=DAEMON_END" + stamp + "op=terminate res=success":                                                                                                          `integrity log_stopped success actor= user=""`,
		"type=SYSCALL" + stamp + `arch=c000003e syscall=59 success=yes exit=0 comm="ls" exe="/bin/ls" key=(null)`:                                                       `process syscall success actor= user=""`,
	} {
		e := decodeLines(t, line)
		require.Len(t, e, 1, line)
		require.Equal(t, want, words(e[0]), line)
		require.Equal(t, "auditd", e[0].Program)
		require.Equal(t, at, e[0].ObservedAt)
	}
	e := decodeLines(t, "type=EXECVE"+stamp+`argc=3 a0="sh" a1="-c" a2=6375726C20782079`)
	require.Equal(t, "sh -c curl x y", e[0].Fields["process.cmd_line"])
	require.Equal(t, "curl x y", e[0].Fields["a2"])
	e = decodeLines(t, "type=PROCTITLE"+stamp+"proctitle=2F62696E2F7368002D63006C73")
	require.Equal(t, "/bin/sh -c ls", e[0].Fields["process.cmd_line"])
	e = decodeLines(t, "Nov 24 11:59:58 h kernel: audit: type=1112 audit(1795521598.243:77): pid=1 msg='op=login acct=\"root\" exe=\"/bin/x\" addr=192.0.2.3 res=failed'")
	require.Equal(t, `authentication logon failure actor=192.0.2.3 user="root"`, words(e[0]))
	e = decodeLines(t, "Nov 24 11:59:58 h audit[5]: USER_LOGIN pid=1 msg='acct=\"root\" exe=\"/bin/x\" addr=192.0.2.3 res=success'")
	require.Equal(t, `authentication logon success actor=192.0.2.3 user="root"`, words(e[0]))
}

func TestDecode_zeekLines(t *testing.T) {
	lines := `{"ts":1599755507.468005,"uid":"C1","id.orig_h":"2001:db8::5","id.orig_p":32140,"id.resp_h":"192.0.2.2","id.resp_p":22,"auth_success":false,"auth_attempts":3}
{"ts":"2020-09-10T16:31:47Z","id.orig_h":"192.0.2.9","auth_success":true,"auth_attempts":1}
{"ts":1599755507,"id.orig_h":"192.0.2.9","auth_attempts":0}
{"ts":1599755507,"id.orig_h":"192.0.2.9","id.resp_p":23,"proto":"tcp"}`
	for _, header := range []map[string][]string{nil, {"Content-Type": {"application/x-ndjson"}}, {"Content-Type": {"application/json"}}, {"Content-Type": {"application/syslog"}}} {
		rec, rej := codec.Decode("fleet.audit.d1", header, []byte(lines), received, 1, true, codec.DefaultLimits())
		require.Nil(t, rej, "%v", header)
		var got []string
		for _, e := range rec.Audit {
			got = append(got, words(e))
		}
		require.Equal(t, []string{
			`authentication logon failure actor=2001:db8::5 user=""`,
			`authentication logon success actor=192.0.2.9 user=""`,
			`authentication preauth  actor=192.0.2.9 user=""`,
			`network connect  actor=192.0.2.9 user=""`,
		}, got)
		first := rec.Audit[0]
		require.Equal(t, "zeek", first.Program)
		require.Equal(t, "2020-09-10T16:31:47Z", first.ObservedAt.Truncate(time.Second).Format(time.RFC3339))
		require.Equal(t, "22", first.Fields["dst_endpoint.port"])
		require.Equal(t, 1, first.Count(), "one session is one attempt")
	}
	table := "#separator \\x09\n#path\tssh\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tauth_success\tauth_attempts\n#types\ttime\tstring\n" +
		"1599755507.468005\tC1\t192.0.2.5\t1\t192.0.2.2\t22\tF\t1\n1599755507.468005\tC2\t192.0.2.6\t1\t192.0.2.2\t22\t-\t0"
	e := decodeLines(t, table)
	require.Equal(t, `authentication logon failure actor=192.0.2.5 user=""`, words(e[4]))
	require.Equal(t, `authentication preauth  actor=192.0.2.6 user=""`, words(e[5]))
}

func TestDecode_journalExport(t *testing.T) {
	e := decodeLines(t, `{"__REALTIME_TIMESTAMP":"1795521598243000","_HOSTNAME":"h","SYSLOG_IDENTIFIER":"sshd","_PID":"7","MESSAGE":"Failed password for root from 192.0.2.1 port 5 ssh2"}`)
	require.Equal(t, `authentication logon failure actor=192.0.2.1 user="root"`, words(e[0]))
	require.Equal(t, "h", e[0].Fields["device.hostname"])
}

func TestDecode_timesOfLines(t *testing.T) {
	for line, want := range map[string]string{
		"2026-11-24T11:59:58+0100 h sshd[1]: x":             "2026-11-24T10:59:58Z",
		"2026-11-24T11:59:58.123456+01 h sshd[1]: x":        "2026-11-24T10:59:58.123456Z",
		"2026-11-24T11:59:58 h sshd[1]: x":                  "2026-11-24T11:59:58Z",
		"2026-11-24 11:59:58,123 h sshd[1]: x":              "2026-11-24T11:59:58.123Z",
		"Tue 2026-11-24 11:59:58 UTC h sshd[1]: x":          "2026-11-24T11:59:58Z",
		"Tue Nov 24 11:59:58 2026 authpriv.warn sshd[1]: x": "2026-11-24T11:59:58Z",
		"Nov 24 11:59:58.250 h sshd[1]: x":                  "2026-11-24T11:59:58.25Z",
		"1795521598.250000 h sshd[1]: x":                    "2026-11-24T11:59:58.25Z",
		"Nov 24 11:59:58 OpenWrt authpriv.info sshd[1]: x":  "2026-11-24T11:59:58Z",
	} {
		e := decodeLines(t, line)
		require.Equal(t, want, e[0].ObservedAt.Format(time.RFC3339Nano), line)
		require.Equal(t, "sshd", e[0].Program, line)
		require.Equal(t, "x", e[0].Message, line)
	}
	e := decodeLines(t, "Nov 24 11:59:58 OpenWrt authpriv.warn dropbear[1]: Bad password attempt for 'root' from 192.0.2.1:1")
	require.Equal(t, "10", e[0].Fields["facility"])
	require.Equal(t, "4", e[0].Fields["level"])
	require.Equal(t, "OpenWrt", e[0].Fields["device.hostname"])
}
