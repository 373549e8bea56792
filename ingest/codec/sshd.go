package codec

import (
	"net/netip"
	"strconv"
	"strings"

	"cordon/internal/fleet"
)

// Classes and activities that lines are given.
const (
	classAuth    = "authentication"
	classAccount = "account"
	classProcess = "process"
	classNetwork = "network"
	classSystem  = "system"

	logon   = "logon"
	logoff  = "logoff"
	preauth = "preauth" // what happens before and around a logon
	pam     = "pam"     // PAM's words about a logon that sshd reports itself
	session = "session"
	elevate = "elevate"

	// Fields have the names of OCSF's attributes where it has one.
	fieldHost     = "device.hostname"
	fieldPID      = "process.pid"
	fieldPort     = "src_endpoint.port"
	fieldMethod   = "auth_protocol"
	fieldCommand  = "process.cmd_line"
	fieldTerminal = "session.terminal"
	fieldService  = "service.name"

	success = "success"
	failure = "failure"
)

// set fills the classification of an event.
func set(e *fleet.AuditEvent, class, activity, outcome string) {
	e.Class, e.Activity, e.Outcome = class, activity, outcome
}

func setField(e *fleet.AuditEvent, name, value string) {
	if value == "" {
		return
	}
	if e.Fields == nil {
		e.Fields = make(map[string]string, 2)
	}
	e.Fields[name] = value
}

// sshd classifies what OpenSSH says, in its old and new words. text is the
// message, or what a "message repeated" line repeats.
func sshd(e *fleet.AuditEvent, text string) bool {
	text = strings.TrimPrefix(strings.TrimPrefix(text, "error: "), "fatal: ")
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "Failed", "Accepted", "Postponed":
		return sshdAttempt(e, word, rest)
	case "Invalid", "Illegal":
		if who, ok := strings.CutPrefix(rest, "user "); ok {
			set(e, classAuth, preauth, failure)
			e.User, e.Actor, _ = userFrom(who)
			return true
		}
	case "input_userauth_request:":
		set(e, classAuth, preauth, failure)
		if who, ok := strings.CutPrefix(rest, "invalid user "); ok {
			e.User = strings.TrimSuffix(who, " [preauth]")
		}
		return true
	case "Connection", "Received", "Disconnected", "Disconnecting:", "Disconnecting", "Did", "Bad", "Unable", "ssh_dispatch_run_fatal:", "Timeout", "Write":
		return sshdConnection(e, text)
	case "reverse", "Address", "Nasty":
		if strings.Contains(text, "POSSIBLE BREAK-IN ATTEMPT") || strings.Contains(text, "does not map back") {
			sshdReverse(e, text)
			return true
		}
	case "maximum":
		if _, who, ok := strings.Cut(rest, "exceeded for "); ok {
			set(e, classAuth, preauth, failure)
			e.User, e.Actor, _ = userFrom(strings.TrimPrefix(who, "invalid user "))
			return true
		}
	case "User":
		if who, _, ok := strings.Cut(rest, " from "); ok && strings.Contains(rest, "not allowed because") {
			set(e, classAuth, preauth, failure)
			e.User, e.Actor = who, firstAddress(rest[len(who):])
			return true
		}
	case "Server":
		set(e, classProcess, "start", "")
		return true
	case "Starting":
		set(e, classAuth, session, success)
		if _, who, ok := strings.Cut(rest, " for "); ok {
			e.User, e.Actor, _ = userFrom(who)
		}
		return true
	case "banner", "kex_exchange_identification:", "drop", "Protocol", "srclimit_penalise:":
		set(e, classAuth, preauth, "")
		e.Actor = firstAddress(text)
		return true
	case "PAM:": // keyboard-interactive: "PAM: Authentication failure for [illegal user ]X from A"
		set(e, classAuth, pam, failure)
		if _, who, ok := strings.Cut(rest, " for "); ok {
			e.User, e.Actor, _ = userFrom(strings.TrimPrefix(who, "illegal user "))
		}
		return true
	}
	return strings.HasPrefix(word, "Received") && sshdConnection(e, text)
}

// sshdAttempt reads "Failed password for [invalid user ]X from A port N ssh2"
// and its siblings. X is whatever the client sent, so the last " from " counts.
func sshdAttempt(e *fleet.AuditEvent, word, rest string) bool {
	method, who, ok := strings.Cut(rest, " for ")
	if !ok || strings.Contains(method, " ") {
		return false
	}
	user, invalid := strings.CutPrefix(who, "invalid user ")
	if !invalid {
		user, invalid = strings.CutPrefix(who, "illegal user ")
	}
	var port string
	e.User, e.Actor, port = userFrom(user)
	if e.Actor == "" {
		return false
	}
	setField(e, fieldMethod, method)
	setField(e, fieldPort, port)
	if invalid {
		setField(e, "invalid_user", "true")
	}
	switch {
	case word == "Accepted":
		set(e, classAuth, logon, success)
	case word == "Postponed":
		set(e, classAuth, preauth, "")
	case method == "none", method == "publickey", method == "hostbased", strings.HasPrefix(method, "gssapi"):
		// The client asked which methods there are, or offers one of its keys
		// after the other: no guess at a password.
		set(e, classAuth, preauth, failure)
	default:
		set(e, classAuth, logon, failure)
	}
	return true
}

// userFrom splits "X from A port N …", where X is anything at all: the last
// " from " that an address or host and the end or a port follow.
func userFrom(text string) (user, address, port string) {
	for end := len(text); ; {
		at := strings.LastIndex(text[:end], " from ")
		if at < 0 {
			if strings.HasPrefix(text, "from ") { // an empty user, trimmed
				address, port = peer(text[len("from "):])
				return "", address, port
			}
			return text, "", ""
		}
		if address, port = peer(text[at+len(" from "):]); address != "" {
			return text[:at], address, port
		}
		end = at
	}
}

// peer reads "A", "A port N", "A port N ssh2" or either with " [preauth]" or
// ": more" behind.
func peer(text string) (address, port string) {
	text = strings.TrimSuffix(text, " [preauth]")
	address, rest, more := strings.Cut(text, " ")
	if address == "" {
		return "", ""
	}
	if !more {
		return strings.TrimSuffix(address, ":"), ""
	}
	if rest, more = strings.CutPrefix(rest, "port "); !more {
		if rest == "ssh2" || rest == "ssh" { // some forwarders drop the port
			return address, ""
		}
		return "", ""
	}
	end := 0
	for end < len(rest) && rest[end]-'0' <= 9 {
		end++
	}
	tail := strings.TrimPrefix(rest[end:], " ssh2")
	if end == 0 || tail != "" && tail[0] != ':' && tail[0] != ' ' {
		return "", ""
	}
	return address, rest[:end]
}

// sshdConnection reads the lines about connections that come and go.
func sshdConnection(e *fleet.AuditEvent, text string) bool {
	set(e, classAuth, logoff, "")
	if strings.HasSuffix(text, "[preauth]") || !strings.HasPrefix(text, "Received disconnect") && !strings.HasPrefix(text, "Disconnected from") && !strings.HasPrefix(text, "Connection closed") {
		set(e, classAuth, preauth, "")
	}
	if strings.Contains(text, "Too many authentication failures") {
		set(e, classAuth, preauth, failure)
		if _, who, ok := strings.Cut(text, "failures for "); ok {
			e.User, e.Actor, _ = userFrom(strings.TrimSuffix(strings.TrimPrefix(who, "invalid user "), " [preauth]"))
		}
	}
	for _, form := range []string{"invalid user ", "authenticating user ", "Disconnected from user "} {
		// "… invalid user X A port N": X may hold spaces, the address is the word before " port ".
		_, who, ok := strings.Cut(text, form)
		if !ok {
			continue
		}
		if end := strings.LastIndex(who, " port "); end >= 0 {
			if gap := strings.LastIndexByte(who[:end], ' '); gap >= 0 {
				e.User, e.Actor = who[:gap], who[gap+1:end]
			} else {
				e.Actor = who[:end]
			}
			return true
		}
	}
	if e.Actor == "" {
		e.Actor = firstAddress(text)
	}
	return true
}

// sshdReverse reads the warnings about names that do not map back.
func sshdReverse(e *fleet.AuditEvent, text string) {
	set(e, classAuth, preauth, failure)
	setField(e, "warning", "reverse_mapping")
	if _, rest, ok := strings.Cut(text, "getaddrinfo for "); ok {
		name, rest, _ := strings.Cut(rest, " ")
		setField(e, "name", name)
		if open := strings.IndexByte(rest, '['); open >= 0 {
			if end := strings.IndexByte(rest[open:], ']'); end > 0 {
				e.Actor = rest[open+1 : open+end]
				return
			}
		}
		e.Actor = name // the oldest form has no address
		return
	}
	e.Actor = firstAddress(text)
}

// firstAddress finds the first IP address among the words of a text.
func firstAddress(text string) string {
	for word := range strings.FieldsSeq(text) {
		word = strings.Trim(word, "[](),;")
		if addr, err := netip.ParseAddr(strings.TrimSuffix(word, ":")); err == nil {
			return addr.String()
		}
		if addr, err := netip.ParseAddrPort(strings.TrimSuffix(word, ":")); err == nil {
			return addr.Addr().String()
		}
		if host, _, ok := strings.Cut(word, "]:"); ok { // [A]:port with its bracket trimmed
			if addr, err := netip.ParseAddr(strings.TrimPrefix(host, "[")); err == nil {
				return addr.String()
			}
		}
		if host, _, ok := strings.Cut(word, ":"); ok {
			if addr, err := netip.ParseAddr(host); err == nil {
				return addr.String()
			}
		}
	}
	return ""
}

// repeated reads "message repeated N times: [ text]".
func repeated(message string) (text string, n int) {
	rest, ok := strings.CutPrefix(message, "message repeated ")
	if !ok {
		return message, 0
	}
	count, rest, ok := strings.Cut(rest, " times: [")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 1 || n > maxRepeat {
		return message, 0
	}
	return strings.TrimSuffix(strings.TrimPrefix(rest, " "), "]"), n
}

// pamLine reads what PAM's unix module says within another program's log.
func pamLine(e *fleet.AuditEvent, text string) bool {
	module, rest, ok := strings.Cut(text, "): ")
	switch {
	case ok && strings.HasPrefix(module, "pam_"):
		name, service, _ := strings.Cut(module, "(")
		setField(e, "module", name)
		setField(e, fieldService, service)
		return pamWords(e, rest)
	case strings.HasPrefix(text, "PAM "):
		set(e, classAuth, pam, failure)
		var count string
		count, rest, _ = strings.Cut(text[len("PAM "):], " more authentication failure")
		if n, err := strconv.Atoi(count); err == nil && n > 0 && n <= maxRepeat {
			e.Repeat = n
			pamPairs(e, rest)
		}
		return true
	case e.Fields["module"] == "pam_unix": // the old form: sshd(pam_unix)[pid]: …
		if !pamWords(e, text) {
			return false
		}
		if e.Activity == pam && strings.HasPrefix(text, "authentication failure") {
			e.Activity = logon // such logs have no other line about the attempt
		}
		return true
	}
	return false
}

func pamWords(e *fleet.AuditEvent, text string) bool {
	switch {
	case strings.HasPrefix(text, "authentication failure"):
		set(e, classAuth, pam, failure)
		pamPairs(e, text)
	case strings.HasPrefix(text, "check pass"):
		set(e, classAuth, pam, failure)
	case strings.HasPrefix(text, "session opened for user "):
		set(e, classAuth, session, success)
		e.User = sessionUser(text[len("session opened for user "):])
	case strings.HasPrefix(text, "session closed for user "):
		set(e, classAuth, logoff, success)
		e.User = sessionUser(text[len("session closed for user "):])
	case strings.HasPrefix(text, "password changed for "):
		set(e, classAccount, "change", success)
		e.User = text[len("password changed for "):]
	default:
		set(e, classAuth, pam, "")
	}
	return true
}

// sessionUser cuts "fztu by (uid=0)" and "root(uid=0) by (uid=0)" to the name.
func sessionUser(text string) string {
	name, _, _ := strings.Cut(text, " by ")
	name, _, _ = strings.Cut(name, "(uid=")
	return strings.TrimSpace(name)
}

// pamPairs takes rhost and user from "logname= uid=0 … rhost=A  user=X".
func pamPairs(e *fleet.AuditEvent, text string) {
	if _, rest, ok := strings.Cut(text, " rhost="); ok {
		e.Actor, rest, _ = strings.Cut(rest, " ")
		if _, user, ok := strings.Cut(" "+strings.TrimLeft(rest, " "), " user="); ok {
			e.User = strings.TrimRight(user, " ")
		}
	}
}
