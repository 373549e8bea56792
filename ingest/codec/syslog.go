package codec

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/leodido/go-syslog/v4"
	"github.com/leodido/go-syslog/v4/rfc5424"

	"cordon/internal/fleet"
)

// auditLines makes one event of every line that is not empty.
func (m *message) auditLines(rec *fleet.Record) *Rejection {
	year := 0
	if text := m.get(HeaderYear); text != "" {
		var err error
		if year, err = strconv.Atoi(text); err != nil || year < minYear || year > maxYear {
			return reject(Mistyped, "header %s %q is not a year from %d to %d", HeaderYear, clip(text), minYear, maxYear)
		}
	}
	text := string(m.payload)
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	lines := lineParser{receivedAt: rec.ReceivedAt, year: year, ahead: m.limits.MaxAhead, historic: m.historic, last: rec.ReceivedAt}
	for n := 1; text != ""; n++ {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		line = strings.TrimRight(line, "\r\x00")
		if line == "" {
			continue
		}
		if len(rec.Audit) >= m.limits.MaxEvents {
			return reject(TooMany, "message holds more than %d lines", m.limits.MaxEvents)
		}
		rec.Audit = append(rec.Audit, lines.event(line))
	}
	if len(rec.Audit) == 0 {
		return reject(Malformed, "message holds no line")
	}
	return nil
}

// lineParser reads the lines of one message.
type lineParser struct {
	receivedAt time.Time
	year       int // of times without one; 0: the one that puts them nearest before receipt
	ahead      time.Duration
	historic   bool
	last       time.Time // of the line before: continuation lines have none of their own

	columns []string // of a Zeek log, from its header
	path    string   // of the same: ssh, conn, …

	machine syslog.Machine
}

// event reads one line. A line of no known form keeps its text.
func (p *lineParser) event(line string) fleet.AuditEvent {
	e := fleet.AuditEvent{Message: line}
	if p.object(line, &e) || p.table(line, &e) || p.auditd(line, &e) {
		return e
	}
	rest, pri, hasPri := priority(line)
	if hasPri && len(rest) > 2 && rest[0] >= '1' && rest[0] <= '9' {
		if p.structured(line, &e) {
			p.last = e.ObservedAt
			classify(&e)
			return e
		}
	}
	at, rest, shifted, ok := p.stamp(rest)
	if !ok {
		e.ObservedAt, e.Class, e.Activity = p.last, classSystem, "message"
		return e
	}
	e.ObservedAt, p.last = at, at
	e.Fields = make(map[string]string, 4)
	if shifted != "" {
		e.Fields["log_time"] = shifted
	}
	if hasPri {
		priorityFields(e.Fields, pri)
	}
	body, tagged := tag(rest, &e)
	if tagged {
		e.Message = body
	}
	classify(&e)
	if len(e.Fields) == 0 {
		e.Fields = nil
	}
	return e
}

// priority reads <0> to <191>.
func priority(line string) (rest string, pri int, ok bool) {
	if len(line) < 3 || line[0] != '<' {
		return line, 0, false
	}
	end := strings.IndexByte(line[:min(len(line), 5)], '>')
	if end < 2 {
		return line, 0, false
	}
	pri, err := strconv.Atoi(line[1:end])
	if err != nil || pri < 0 || pri > 191 {
		return line, 0, false
	}
	return line[end+1:], pri, true
}

func priorityFields(fields map[string]string, pri int) {
	fields["facility"] = strconv.Itoa(pri >> 3)
	fields["level"] = strconv.Itoa(pri & 7)
}

// structured reads RFC 5424.
func (p *lineParser) structured(line string, e *fleet.AuditEvent) bool {
	if p.machine == nil {
		p.machine = rfc5424.NewParser()
	}
	parsed, err := p.machine.Parse([]byte(line))
	m, ok := parsed.(*rfc5424.SyslogMessage)
	if err != nil || !ok {
		return false
	}
	e.ObservedAt = p.receivedAt
	if m.Timestamp != nil {
		e.ObservedAt = m.Timestamp.UTC()
	}
	e.Fields = make(map[string]string, 6)
	if m.Priority != nil {
		priorityFields(e.Fields, int(*m.Priority))
	}
	for name, text := range map[string]*string{fieldHost: m.Hostname, fieldPID: m.ProcID, "msgid": m.MsgID} {
		if text != nil {
			e.Fields[name] = *text
		}
	}
	if m.StructuredData != nil {
		for id, params := range *m.StructuredData {
			for name, value := range params {
				e.Fields[id+"."+name] = value
			}
		}
	}
	if m.Appname != nil {
		program(*m.Appname, e)
	}
	e.Message = ""
	if m.Message != nil {
		e.Message = strings.TrimPrefix(*m.Message, "\uFEFF")
	}
	return true
}

// zoneSlack is how far ahead of UTC a local time can be.
const zoneSlack = 14 * time.Hour

// inYear puts a time without a year into p.year, or into the year that puts
// it nearest before receipt.
func (p *lineParser) inYear(t time.Time) time.Time {
	in := func(year int) time.Time {
		return time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
	}
	if p.year != 0 {
		return in(p.year)
	}
	latest := p.receivedAt.Add(zoneSlack + p.ahead)
	for year := latest.Year(); ; year-- {
		if at := in(year); at.Day() == t.Day() && !at.After(latest) {
			return at
		}
	}
}

// tag reads "host program(module)[pid]: text" and returns the text. BusyBox
// puts "facility.level" in front of the program.
func tag(line string, e *fleet.AuditEvent) (string, bool) {
	line = busyBox(line, e)
	host, rest, ok := strings.Cut(line, " ")
	if strings.HasSuffix(host, ":") { // no host
		host, rest = "", line
	} else if !ok {
		return line, false
	}
	if host != "" {
		e.Fields[fieldHost] = host
		rest = busyBox(rest, e)
	}
	name, text, ok := strings.Cut(rest, ":")
	if !ok || len(name) > 128 || strings.ContainsAny(name, " \t") {
		if strings.HasPrefix(rest, "last message repeated ") {
			return rest, true
		}
		return rest, host != ""
	}
	if bare, pid, ok := strings.Cut(name, "["); ok && strings.HasSuffix(pid, "]") {
		name = bare
		e.Fields[fieldPID] = pid[:len(pid)-1]
	}
	program(name, e)
	return strings.TrimPrefix(text, " "), true
}

var facilities = []string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "security", "console", "clock",
	"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

var levels = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}

// busyBox takes "authpriv.warn " off the front of a line.
func busyBox(line string, e *fleet.AuditEvent) string {
	word, rest, ok := strings.Cut(line, " ")
	facility, level, dotted := strings.Cut(word, ".")
	if !ok || !dotted {
		return line
	}
	f, l := slices.Index(facilities, facility), slices.Index(levels, level)
	switch level {
	case "warning":
		l = 4
	case "error":
		l = 3
	}
	if f < 0 || l < 0 {
		return line
	}
	priorityFields(e.Fields, f<<3|l)
	return rest
}

// program sets the event's program from "sshd", "sshd-session",
// "sshd(pam_unix)" or "/usr/sbin/sshd".
func program(name string, e *fleet.AuditEvent) {
	if bare, module, ok := strings.Cut(name, "("); ok && strings.HasSuffix(module, ")") {
		name = bare
		e.Fields["module"] = module[:len(module)-1]
	}
	if slash := strings.LastIndexByte(name, '/'); slash >= 0 && slash+1 < len(name) && strings.HasPrefix(name, "/") {
		name = name[slash+1:]
	}
	switch name {
	case "sshd-session", "sshd-auth":
		e.Fields["process"] = name
		name = "sshd"
	}
	e.Program = name
}
