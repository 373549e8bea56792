package codec_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/ingest/codec"
	"cordon/internal/fleet"
)

// words puts the classification of an event on one line.
func words(e fleet.AuditEvent) string {
	out := strings.Join([]string{e.Class, e.Activity, e.Outcome, "actor=" + e.Actor, fmt.Sprintf("user=%q", e.User)}, " ")
	if e.Repeat != 0 {
		out += fmt.Sprint(" repeat=", e.Repeat)
	}
	return out
}

func TestDecode_sshdLines(t *testing.T) {
	data, err := os.ReadFile("testdata/auth.log")
	require.NoError(t, err)
	data = []byte(strings.TrimSuffix(strings.ReplaceAll(string(data), "\n", "\r\n"), "\r\n"))
	header := map[string][]string{"Cordon-Year": {"2024"}, "Content-Type": {"text/plain; charset=utf-8"}}
	rec, rej := codec.Decode("fleet.audit.gw7", header, data, received, 1, true, codec.DefaultLimits())
	require.Nil(t, rej)
	var got []string
	for _, e := range rec.Audit {
		require.Equal(t, "sshd", e.Program)
		require.Equal(t, 2024, e.ObservedAt.Year())
		require.Equal(t, "gw7", e.Fields["device.hostname"])
		got = append(got, words(e))
	}
	require.Equal(t, []string{
		`authentication preauth failure actor=203.0.113.9 user=""`,
		`authentication preauth failure actor=203.0.113.9 user="deploy"`,
		`authentication preauth failure actor= user="deploy"`,
		`authentication pam failure actor= user=""`,
		`authentication pam failure actor=203.0.113.9 user=""`,
		`authentication logon failure actor=203.0.113.9 user="deploy"`,
		`authentication preauth  actor=203.0.113.9 user=""`,
		`authentication pam failure actor=198.51.100.4.dyn.example.com user="root"`,
		`authentication logon failure actor=198.51.100.4 user="root"`,
		`authentication logon failure actor=198.51.100.4 user="root" repeat=5`,
		`authentication preauth failure actor= user="root"`,
		`authentication pam failure actor=198.51.100.4.dyn.example.com user="root" repeat=5`,
		`authentication pam failure actor= user=""`,
		`authentication preauth failure actor=203.0.113.77 user="admin"`,
		`authentication logon failure actor=203.0.113.77 user=" 0101"`,
		`authentication logon failure actor=203.0.113.77 user=""`,
		`authentication logon failure actor=203.0.113.77 user="x from 192.0.2.1 port 1 ssh2"`,
		`authentication preauth  actor=203.0.113.78 user=""`,
		`authentication preauth  actor=203.0.113.79 user=""`,
		`authentication logon success actor=192.0.2.50 user="ops"`,
		`authentication session success actor= user="ops"`,
		`authentication logoff  actor=192.0.2.50 user=""`,
		`authentication logoff success actor= user="ops"`,
		`authentication logon failure actor=2001:db8::7 user="root"`,
		`authentication preauth  actor=2001:db8::7 user="root"`,
		`authentication logon success actor=192.0.2.50 user="ops"`,
		`authentication preauth failure actor=203.0.113.80 user="pi"`,
		`authentication preauth failure actor=203.0.113.81 user="a b"`,
		`authentication preauth  actor= user=""`,
		`authentication logon failure actor=203.0.113.82 user="root"`,
	}, got)
}

func TestDecode_otherPrograms(t *testing.T) {
	for line, want := range map[string]string{
		"sudo:      bob : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/bin/sh -c ls ; id":                 "authentication elevate success actor=bob user=\"root\"",
		"sudo[12]: bob : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls": "authentication elevate failure actor=bob user=\"root\"",
		"sudo: eve : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls":               "authentication elevate failure actor=eve user=\"root\"",
		"su[1]: (to root) bob on pts/1":                                                               `authentication elevate success actor=bob user="root"`,
		"su[1]: FAILED SU (to root) bob on pts/1":                                                     `authentication elevate failure actor=bob user="root"`,
		"su: Successful su for root by bob":                                                           `authentication elevate success actor=bob user="root"`,
		"login[9]: FAILED LOGIN 1 FROM 10.0.0.9 FOR root, Authentication failure":                     `authentication logon failure actor=10.0.0.9 user="root"`,
		"login[9]: ROOT LOGIN ON tty1":                                                                `authentication logon success actor= user="root"`,
		"useradd[7]: new user: name=mallory, UID=1001, GID=1001, home=/home/mallory, shell=/bin/bash": `account create success actor= user="mallory"`,
		"userdel[7]: delete user 'mallory'":                                                           `account delete success actor= user="mallory"`,
		"usermod[7]: add 'mallory' to group 'sudo'":                                                   `account change success actor= user="mallory"`,
		"passwd[7]: pam_unix(passwd:chauthtok): password changed for root":                            `account change success actor= user="root"`,
		"chpasswd[7]: password changed for root":                                                      `account change success actor= user="root"`,
		"systemd[1]: Started OpenBSD Secure Shell server.":                                            `process start  actor= user=""`,
		"systemd[1]: Failed to start Foo.":                                                            `process start failure actor= user=""`,
		"systemd-logind[5]: New session 3 of user bob.":                                               `authentication session success actor= user="bob"`,
		"CRON[5]: (root) CMD (run-parts /etc/cron.hourly)":                                            `process start  actor=root user="root"`,
		"kernel: [ 12.5] usb 1-1: new device":                                                         `system kernel  actor= user=""`,
		"klogind[1]: Authentication failed from 192.0.2.3 (192.0.2.3): Permission denied":             `authentication logon failure actor=192.0.2.3 user=""`,
		"ftpd[1]: connection from 192.0.2.4 (host) at Sat Jun 18":                                     `network connect  actor=192.0.2.4 user=""`,
		"weirdd: what is this":                                                                        `system message  actor= user=""`,
		"sshd[3]: words nobody knows":                                                                 `system message  actor= user=""`,
	} {
		rec, rej := decode(t, "fleet.audit.d1", "Nov 24 11:59:58 host "+line)
		require.Nil(t, rej, line)
		require.Len(t, rec.Audit, 1)
		require.Equal(t, want, words(rec.Audit[0]), line)
	}
}

func TestDecode_syslogForms(t *testing.T) {
	at := time.Date(2026, 11, 24, 11, 59, 58, 0, time.UTC)
	for name, tc := range map[string]struct {
		line string
		want fleet.AuditEvent
	}{
		"RFC 5424": {
			`<38>1 2026-11-24T11:59:58Z h1 sshd 77 ID9 [meta x="1"] Accepted password for a from 10.0.0.1 port 5 ssh2`,
			fleet.AuditEvent{
				ObservedAt: at, Class: "authentication", Activity: "logon", Outcome: "success", Program: "sshd", Actor: "10.0.0.1", User: "a",
				Message: "Accepted password for a from 10.0.0.1 port 5 ssh2",
				Fields:  map[string]string{"device.hostname": "h1", "process.pid": "77", "msgid": "ID9", "meta.x": "1", "facility": "4", "level": "6", "auth_protocol": "password", "src_endpoint.port": "5"},
			},
		},
		"RFC 3164": {
			`<13>Nov 24 11:59:58 h1 app: hello`,
			fleet.AuditEvent{
				ObservedAt: at, Class: "system", Activity: "message", Program: "app", Message: "hello",
				Fields: map[string]string{"device.hostname": "h1", "facility": "1", "level": "5"},
			},
		},
		"ISO": {
			`2026-11-24T12:59:58.000+01:00 h1 app[5]: hello`,
			fleet.AuditEvent{
				ObservedAt: at, Class: "system", Activity: "message", Program: "app", Message: "hello",
				Fields: map[string]string{"device.hostname": "h1", "process.pid": "5"},
			},
		},
		"no host": {
			`Nov 24 11:59:58 app[5]: hello`,
			fleet.AuditEvent{
				ObservedAt: at, Class: "system", Activity: "message", Program: "app", Message: "hello", Fields: map[string]string{"process.pid": "5"},
			},
		},
		"no known form": {
			"no time at all \xff",
			fleet.AuditEvent{ObservedAt: received, Class: "system", Activity: "message", Message: "no time at all \uFFFD"},
		},
		"ahead of UTC": {
			`Nov 24 20:59:58 h1 app: hello`,
			fleet.AuditEvent{
				ObservedAt: received, Class: "system", Activity: "message", Program: "app", Message: "hello",
				Fields: map[string]string{"device.hostname": "h1", "log_time": "Nov 24 20:59:58"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			rec, rej := decode(t, "fleet.audit.d1", tc.line)
			require.Nil(t, rej)
			require.Equal(t, []fleet.AuditEvent{tc.want}, rec.Audit)
		})
	}
}

func TestDecode_yearlessTimes(t *testing.T) {
	for _, tc := range []struct {
		received string
		line     string
		year     string
		want     string
	}{
		{"2026-01-01T00:00:05Z", "Dec 31 23:59:59 h a: x", "", "2025-12-31T23:59:59Z"},
		{"2025-12-31T23:59:59Z", "Jan  1 00:00:01 h a: x", "", "2026-01-01T00:00:01Z"},
		{"2026-11-24T12:00:00Z", "Nov 24 12:00:02 h a: x", "", "2026-11-24T12:00:02Z"},
		{"2026-11-24T12:00:00Z", "Nov 26 12:00:00 h a: x", "", "2025-11-26T12:00:00Z"},
		{"2026-11-24T12:00:00Z", "Feb 29 12:00:00 h a: x", "", "2024-02-29T12:00:00Z"},
		{"2026-11-24T12:00:00Z", "Dec 10 06:55:46 h a: x", "2015", "2015-12-10T06:55:46Z"},
		{"2026-11-24T12:00:00Z", "Dec 10 2014 06:55:46 h a: x", "2015", "2014-12-10T06:55:46Z"},
	} {
		at, err := time.Parse(time.RFC3339, tc.received)
		require.NoError(t, err)
		var header map[string][]string
		if tc.year != "" {
			header = map[string][]string{"cordon-year": {tc.year}}
		}
		rec, rej := codec.Decode("fleet.audit.d1", header, []byte(tc.line), at, 1, true, codec.DefaultLimits())
		require.Nil(t, rej)
		require.Equal(t, tc.want, rec.Audit[0].ObservedAt.Format(time.RFC3339), tc.line)
	}
}

func TestDecode_everyLineIsAnEvent(t *testing.T) {
	rec, rej := decode(t, "fleet.audit.d1", "Nov 24 11:59:58 h app: one\r\n\r\n  continued\n\n[   1.0] three\r\nfour")
	require.Nil(t, rej)
	var got []string
	for _, e := range rec.Audit {
		got = append(got, e.Message)
	}
	require.Equal(t, []string{"one", "  continued", "[   1.0] three", "four"}, got)
	require.Equal(t, rec.Audit[0].ObservedAt, rec.Audit[1].ObservedAt, "a continuation has the time of the line before")
}
