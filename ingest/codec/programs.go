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
	case "kernel":
		set(e, classSystem, "kernel", "")
		known = true
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
			field(e, "command", command)
			if strings.HasPrefix(rest, "TTY=") || strings.HasPrefix(rest, "PWD=") {
				e.Outcome = success
			}
			return true
		case "TTY":
			field(e, "tty", value)
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

// cron reads "(root) CMD (run-parts /etc/cron.hourly)".
func cron(e *fleet.AuditEvent, text string) bool {
	user, rest, ok := strings.Cut(strings.TrimPrefix(text, "("), ") ")
	command, isCommand := strings.CutPrefix(rest, "CMD (")
	if !ok || !isCommand {
		return false
	}
	set(e, classProcess, "start", "")
	e.Actor, e.User = user, user
	field(e, "command", strings.TrimSuffix(command, ")"))
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
