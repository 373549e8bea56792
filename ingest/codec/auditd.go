package codec

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cordon/internal/fleet"
)

// recordTypes are the numbers that the kernel writes where no daemon names
// the type.
var recordTypes = map[string]string{
	"1100": "USER_AUTH", "1101": "USER_ACCT", "1103": "CRED_ACQ", "1104": "CRED_DISP", "1105": "USER_START", "1106": "USER_END", "1108": "USER_CHAUTHTOK",
	"1109": "USER_ERR", "1112": "USER_LOGIN", "1113": "USER_LOGOUT", "1114": "ADD_USER", "1115": "DEL_USER", "1116": "ADD_GROUP", "1117": "DEL_GROUP",
	"1123": "USER_CMD", "1130": "SERVICE_START", "1131": "SERVICE_STOP", "1200": "DAEMON_START", "1201": "DAEMON_END", "1203": "DAEMON_CONFIG",
	"1300": "SYSCALL", "1302": "PATH", "1305": "CONFIG_CHANGE", "1306": "SOCKADDR", "1307": "CWD", "1309": "EXECVE", "1325": "NETFILTER_CFG", "1326": "SECCOMP",
	"1327": "PROCTITLE", "1400": "AVC", "1700": "ANOM_PROMISCUOUS", "1701": "ANOM_ABEND",
}

// auditd reads a line of the audit daemon's own log:
// "node=h type=USER_AUTH msg=audit(1364481363.243:24287): pid=1 … msg='… res=failed'".
func (p *lineParser) auditd(line string, e *fleet.AuditEvent) bool {
	rest, node := line, ""
	if after, ok := strings.CutPrefix(rest, "node="); ok {
		node, rest, _ = strings.Cut(after, " ")
	}
	if !strings.HasPrefix(rest, "type=") || !auditRecord(e, rest) {
		return false
	}
	setField(e, fieldHost, node)
	if e.ObservedAt.IsZero() {
		e.ObservedAt = p.last
	}
	p.last = e.ObservedAt
	e.Program = "auditd"
	return true
}

// auditRecord reads "type=T msg=audit(seconds:serial): key=value …", as the
// daemon, the kernel and journald write it.
func auditRecord(e *fleet.AuditEvent, text string) bool {
	kind, rest, ok := strings.Cut(text, " ")
	if after, cut := strings.CutPrefix(kind, "type="); cut {
		kind = after
	}
	if name, known := recordTypes[kind]; known {
		kind = name
	}
	if !ok || kind == "" || strings.Trim(kind, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789[]") != "" {
		return false
	}
	rest = strings.TrimPrefix(rest, "msg=")
	if inside, cut := strings.CutPrefix(rest, "audit("); cut {
		var stamp string
		if stamp, rest, ok = strings.Cut(inside, "):"); !ok {
			return false
		}
		auditTime(e, stamp)
	}
	setField(e, "audit.type", kind)
	auditPairs(e, rest)
	auditClass(e, kind)
	return true
}

func auditTime(e *fleet.AuditEvent, stamp string) {
	seconds, serial, _ := strings.Cut(stamp, ":")
	if v, err := strconv.ParseFloat(seconds, 64); err == nil && e.ObservedAt.IsZero() {
		if at := time.UnixMilli(int64(v*1000 + 0.5)).UTC(); v > 0 && v < 1e11 && inYears(at) {
			e.ObservedAt = at
		}
	}
	setField(e, "audit.serial", serial)
}

// auditNames are OCSF's names for the keys of records.
var auditNames = map[string]string{
	"pid": fieldPID, "ppid": "process.parent_process.pid", "exe": "process.file.path", "comm": "process.name", "cwd": "process.working_directory",
	"proctitle": fieldCommand, "cmd": fieldCommand, "terminal": fieldTerminal, "tty": fieldTerminal, "addr": "src_endpoint.ip", "hostname": "src_endpoint.hostname",
	"auid": "actor.user.uid", "uid": "user.uid", "ses": "session.uid", "name": "file.path", "unit": "service.unit",
}

// encoded are the keys whose value is hexadecimal when it holds a space, a
// quote or a control character.
func encoded(key string) bool {
	switch key {
	case "proctitle", "exe", "comm", "cwd", "name", "acct", "cmd", "data", "path", "dir", "vm", "ocomm", "new-disk", "old-disk", "id":
		return true
	}
	return len(key) > 1 && key[0] == 'a' && strings.Trim(key[1:], "0123456789[]") == "" // EXECVE's arguments
}

// auditPairs reads key=value pairs; a value in single quotes holds more pairs.
func auditPairs(e *fleet.AuditEvent, text string) {
	var arguments []string
	for text = strings.TrimLeft(text, " '\x1d"); text != "" && len(e.Fields) < maxLineFields; text = strings.TrimLeft(text, " ',\x1d") {
		word, rest, ok := strings.Cut(text, "=")
		if !ok {
			break
		}
		if space := strings.LastIndexByte(word, ' '); space >= 0 { // words without a value
			word = word[space+1:]
		}
		if rest != "" && rest[0] == '\'' {
			text = rest[1:]
			continue
		}
		var value string
		quoted := false
		if rest != "" && rest[0] == '"' {
			value, text, quoted = strings.Cut(rest[1:], `"`)
		} else {
			end := strings.IndexAny(rest, " '\x1d")
			if end < 0 {
				end = len(rest)
			}
			value, text = rest[:end], rest[end:]
		}
		if !quoted && encoded(word) {
			value = unhex(value)
		}
		if e.Fields["audit.type"] == "EXECVE" && len(word) > 1 && word[0] == 'a' && word != "argc" {
			arguments = append(arguments, value)
			if len(word) == 2 { // a0 to a9, for rules that name them
				setField(e, word, value)
			}
			continue
		}
		auditPair(e, word, value)
	}
	setField(e, fieldCommand, strings.Join(arguments, " "))
}

func auditPair(e *fleet.AuditEvent, key, value string) {
	switch key {
	case "acct":
		if value != "?" {
			e.User = value
		}
	case "res", "success":
		switch value {
		case "success", "yes", "1":
			e.Outcome = success
		case "failed", "no", "0":
			e.Outcome = failure
		}
	default:
		if renamed, ok := auditNames[key]; ok {
			key = renamed
		}
		if value != "?" && value != "(null)" && len(key) <= 64 {
			setField(e, key, value)
		}
	}
}

// unhex decodes a value that the kernel wrote as hexadecimal; zero bytes part
// the words of a command line.
func unhex(value string) string {
	if len(value) < 2 || len(value)%2 != 0 {
		return value
	}
	raw, err := hex.DecodeString(value)
	if err != nil {
		return value
	}
	text := strings.TrimRight(strings.ReplaceAll(string(raw), "\x00", " "), " ")
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	return text
}

// speaks says whether a program reports its sign-ins itself, so that the record
// of the same attempt must not count twice.
func speaks(exe string) bool {
	switch exe[strings.LastIndexByte(exe, '/')+1:] {
	case "sshd", "sshd-session", "sshd-auth", "su", "sudo", "login", "dropbear":
		return true
	}
	return false
}

func auditClass(e *fleet.AuditEvent, kind string) {
	outcome := e.Outcome
	class, activity := classSystem, "audit"
	switch kind {
	case "USER_AUTH", "USER_LOGIN", "USER_ERR":
		class, activity = classAuth, logon
		if speaks(e.Fields["process.file.path"]) {
			activity = pam
		}
	case "USER_START":
		class, activity = classAuth, session
	case "USER_END", "USER_LOGOUT":
		class, activity = classAuth, logoff
	case "USER_ACCT", "CRED_ACQ", "CRED_DISP", "CRED_REFR":
		class, activity = classAuth, pam
	case "USER_CMD":
		class, activity = classAuth, elevate
	case "ADD_USER", "ADD_GROUP":
		class, activity = classAccount, "create"
	case "DEL_USER", "DEL_GROUP":
		class, activity = classAccount, "delete"
	case "USER_CHAUTHTOK", "USER_MGMT", "GRP_MGMT", "CHUSER_ID", "CHGRP_ID", "ROLE_ASSIGN":
		class, activity = classAccount, "change"
	case "EXECVE", "SERVICE_START":
		class, activity = classProcess, "start"
	case "SERVICE_STOP", "ANOM_ABEND":
		class, activity = classProcess, "stop"
	case "SYSCALL":
		class, activity = classProcess, "syscall"
	case "PATH", "CWD":
		class, activity = "file", "access"
	case "ANOM_PROMISCUOUS":
		class, activity = classNetwork, "promiscuous"
	case "DAEMON_END", "DAEMON_ABORT":
		class, activity = "integrity", "log_stopped"
	case "CONFIG_CHANGE", "DAEMON_CONFIG":
		class, activity = "integrity", "audit_config"
	}
	set(e, class, activity, outcome)
	e.Actor = e.Fields["src_endpoint.ip"]
	if e.Actor == "" && e.Fields["src_endpoint.hostname"] != "" {
		e.Actor = e.Fields["src_endpoint.hostname"]
	}
}
