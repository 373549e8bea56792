package codec

import (
	"strings"

	"cordon/internal/fleet"
)

// classify gives an event its class, activity, outcome, actor and user by its
// program and message. What nothing is known about becomes class system.
func classify(e *fleet.AuditEvent) {
	text, repeat := repeated(e.Message)
	if repeat > 0 {
		e.Repeat = repeat
	}
	known := false
	switch e.Program {
	case "sshd":
		known = pamLine(e, text) || sshd(e, text)
	case "sudo":
		known = pamLine(e, text) || sudo(e, text)
	case "su":
		known = pamLine(e, text) || su(e, text)
	case "login":
		known = pamLine(e, text) || login(e, text)
	case "useradd", "adduser", "usermod", "userdel", "groupadd", "groupmod", "groupdel", "passwd", "chpasswd", "gpasswd", "chage":
		known = true
		if !pamLine(e, text) {
			account(e, text)
		}
	case "systemd", "systemd-logind":
		known = true
		if !pamLine(e, text) {
			systemd(e, text)
		}
	case "CRON", "cron", "crond":
		known = pamLine(e, text) || cron(e, text)
	case "klogind", "ftpd":
		known = remote(e, text)
	case "dropbear":
		known = pamLine(e, text) || dropbear(e, text)
	case "kernel":
		known = true
		kernel(e, text)
	case "audit", "auditd", "audispd":
		known = auditRecord(e, text)
	default:
		known = pamLine(e, text)
	}
	if !known {
		set(e, classSystem, "message", "")
	}
}

// sudo reads "bob : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls".
func sudo(e *fleet.AuditEvent, text string) bool {
	who, rest, ok := strings.Cut(strings.TrimLeft(text, " "), " : ")
	if !ok {
		return false
	}
	e.Actor = who
	set(e, classAuth, elevate, failure)
	for part := range strings.SplitSeq(rest, " ; ") {
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			continue
		}
		switch name {
		case "USER":
			e.User = value
		case "COMMAND":
			// The command is the last part and may hold separators itself.
			_, command, _ := strings.Cut(rest, "COMMAND=")
			setField(e, fieldCommand, command)
			if strings.HasPrefix(rest, "TTY=") || strings.HasPrefix(rest, "PWD=") {
				e.Outcome = success
			}
			return true
		case "TTY":
			setField(e, fieldTerminal, value)
		}
	}
	return true
}

// su reads "(to root) bob on pts/1", "FAILED SU (to root) bob on pts/1" and
// "Successful su for root by bob".
func su(e *fleet.AuditEvent, text string) bool {
	outcome := success
	if rest, ok := strings.CutPrefix(text, "FAILED SU "); ok {
		text, outcome = rest, failure
	}
	if rest, ok := strings.CutPrefix(text, "(to "); ok {
		var who string
		e.User, who, _ = strings.Cut(rest, ") ")
		e.Actor, _, _ = strings.Cut(who, " on ")
		set(e, classAuth, elevate, outcome)
		return true
	}
	if strings.HasPrefix(text, "FAILED su ") {
		outcome = failure
	}
	if _, rest, ok := strings.Cut(text, " su for "); ok {
		e.User, e.Actor, _ = strings.Cut(rest, " by ")
		set(e, classAuth, elevate, outcome)
		return true
	}
	return false
}

// login reads "FAILED LOGIN 1 FROM A FOR X, …" and "ROOT LOGIN ON tty1".
func login(e *fleet.AuditEvent, text string) bool {
	switch {
	case strings.HasPrefix(text, "FAILED LOGIN"):
		set(e, classAuth, logon, failure)
		if _, rest, ok := strings.Cut(text, " FROM "); ok {
			e.Actor, _, _ = strings.Cut(rest, " ")
		}
		if _, rest, ok := strings.Cut(text, " FOR "); ok {
			user, _, _ := strings.Cut(rest, ",")
			e.User = strings.Trim(user, "'")
		}
	case strings.Contains(text, "LOGIN ON "):
		set(e, classAuth, logon, success)
		if strings.HasPrefix(text, "ROOT") {
			e.User = "root"
		}
		if _, rest, ok := strings.Cut(text, " BY "); ok {
			e.User, _, _ = strings.Cut(rest, " ")
		}
		if _, rest, ok := strings.Cut(text, " FROM "); ok {
			e.Actor = rest
		}
	default:
		return false
	}
	return true
}

// account reads what the tools that change accounts say.
func account(e *fleet.AuditEvent, text string) {
	activity := "change"
	switch {
	case strings.HasPrefix(text, "new user"), strings.HasPrefix(text, "new group"), strings.HasPrefix(text, "new account"):
		activity = "create"
	case strings.HasPrefix(text, "delete user"), strings.HasPrefix(text, "remove"), strings.HasPrefix(text, "delete '"):
		activity = "delete"
	}
	set(e, classAccount, activity, success)
	if strings.HasPrefix(text, "failed ") {
		e.Outcome = failure
	}
	for _, form := range []string{" to group '", " to shadow group '", " from group '"} {
		if _, rest, ok := strings.Cut(text, form); ok {
			group, _, _ := strings.Cut(rest, "'")
			setField(e, "group.name", group)
		}
	}
	for _, form := range []struct{ before, after string }{
		{"name=", ","}, {"user '", "'"}, {"account '", "'"}, {"password changed for ", " "}, {"user ", " "}, {"delete '", "'"}, {"add '", "'"},
	} {
		if _, rest, ok := strings.Cut(text, form.before); ok {
			e.User, _, _ = strings.Cut(rest, form.after)
			return
		}
	}
}

// systemd reads units that start, stop and fail, and logind's sessions.
func systemd(e *fleet.AuditEvent, text string) {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "Started", "Starting":
		set(e, classProcess, "start", "")
	case "Stopped", "Stopping":
		set(e, classProcess, "stop", "")
	case "Failed":
		set(e, classProcess, "start", failure)
	case "New":
		set(e, classAuth, session, success)
		if _, user, ok := strings.Cut(rest, "of user "); ok {
			e.User = strings.TrimSuffix(user, ".")
		}
	case "Removed":
		set(e, classAuth, logoff, success)
	default:
		set(e, classSystem, "message", "")
	}
}

// kernel reads audit records that no daemon took, packets that a firewall
// logged, and processes that were killed; the rest keeps its text.
func kernel(e *fleet.AuditEvent, text string) {
	set(e, classSystem, "kernel", "")
	if strings.HasPrefix(text, "[") { // seconds since the boot
		if _, rest, ok := strings.Cut(text, "] "); ok {
			text = strings.TrimLeft(rest, " ")
		}
	}
	switch {
	case strings.HasPrefix(text, "audit: "):
		auditRecord(e, text[len("audit: "):])
	case strings.Contains(text, "IN=") && strings.Contains(text, " SRC=") && strings.Contains(text, " DST="):
		set(e, classNetwork, "packet", "")
		for _, p := range []struct{ key, name string }{{"DST", "dst_endpoint.ip"}, {"DPT", "dst_endpoint.port"}, {"SPT", fieldPort}, {"PROTO", "connection_info.protocol_name"}} {
			setField(e, p.name, netfilter(text, p.key))
		}
		e.Actor = netfilter(text, "SRC")
	case strings.Contains(text, "entered promiscuous mode"):
		set(e, classNetwork, "promiscuous", "")
	case strings.Contains(text, "Killed process "), strings.Contains(text, "Kill process "):
		set(e, classProcess, "stop", failure)
	}
}

func netfilter(text, key string) string {
	_, rest, _ := strings.Cut(text, " "+key+"=")
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// dropbear reads the small SSH server of BusyBox systems: "Bad password
// attempt for 'X' from A:port", "Password auth succeeded for 'X' from A:port".
func dropbear(e *fleet.AuditEvent, text string) bool {
	outcome, activity := "", logon
	switch {
	case strings.HasPrefix(text, "Bad "), strings.HasPrefix(text, "Login attempt for nonexistent user"),
		strings.HasPrefix(text, "Login attempt with wrong user"), strings.HasPrefix(text, "PAM password auth failed"):
		outcome = failure
	case strings.Contains(text, " auth succeeded for "):
		outcome = success
		method, _, _ := strings.Cut(text, " auth ")
		setField(e, fieldMethod, strings.ToLower(method))
	case strings.HasPrefix(text, "Child connection from "), strings.HasPrefix(text, "Exit before auth"):
		activity = preauth
	case strings.HasPrefix(text, "Exit ("), strings.HasPrefix(text, "Exit:"):
		activity = logoff
	default:
		return false
	}
	set(e, classAuth, activity, outcome)
	if strings.HasPrefix(text, "Login attempt for nonexistent user") {
		setField(e, "invalid_user", "true")
	}
	if at := strings.LastIndex(text, " from "); at >= 0 {
		peer, _, _ := strings.Cut(strings.TrimPrefix(text[at+len(" from "):], "<"), " ")
		peer = strings.TrimRight(peer, ">:")
		e.Actor = peer
		if colon := strings.LastIndexByte(peer, ':'); colon > 0 {
			e.Actor = strings.Trim(peer[:colon], "[]")
			setField(e, fieldPort, peer[colon+1:])
		}
		text = text[:at]
	}
	if from := strings.IndexByte(text, '\''); from >= 0 {
		if to := strings.LastIndexByte(text, '\''); to > from {
			e.User = text[from+1 : to]
		}
	} else if _, rest, ok := strings.Cut(text, "Exit ("); ok {
		e.User, _, _ = strings.Cut(rest, ")")
	}
	return true
}

// cron reads "(root) CMD (run-parts /etc/cron.hourly)".
func cron(e *fleet.AuditEvent, text string) bool {
	user, rest, ok := strings.Cut(strings.TrimPrefix(text, "("), ") ")
	command, isCommand := strings.CutPrefix(rest, "CMD (")
	if !ok || !isCommand {
		return false
	}
	set(e, classProcess, "start", "")
	e.Actor, e.User = user, user
	setField(e, fieldCommand, strings.TrimSuffix(command, ")"))
	return true
}

// remote reads the old remote login and file transfer daemons.
func remote(e *fleet.AuditEvent, text string) bool {
	if rest, ok := strings.CutPrefix(text, "Authentication failed from "); ok {
		set(e, classAuth, logon, failure)
		e.Actor, _, _ = strings.Cut(rest, " ")
		return true
	}
	if rest, ok := strings.CutPrefix(text, "connection from "); ok {
		set(e, classNetwork, "connect", "")
		e.Actor, _, _ = strings.Cut(rest, " ")
		return true
	}
	return false
}
