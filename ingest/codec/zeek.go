package codec

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// maxLineFields bounds what is kept of a line with names for its values.
const maxLineFields = 64

// object reads a line that is one JSON object: a log of Zeek, or journald's
// export.
func (p *lineParser) object(line string, e *fleet.AuditEvent) bool {
	if len(line) < 2 || line[0] != '{' {
		return false
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal([]byte(line), &raw) != nil {
		return false
	}
	values := make(map[string]string, len(raw))
	for name, value := range raw {
		if text, ok := scalar(value); ok {
			values[name] = text
		}
	}
	switch {
	case values["id.orig_h"] != "":
		return p.zeek(values, e)
	case values["__REALTIME_TIMESTAMP"] != "":
		return p.journal(values, e)
	}
	return false
}

// scalar is a text, number or truth value as its text.
func scalar(raw json.RawMessage) (string, bool) {
	switch raw[0] {
	case '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return text, err == nil
	case '{', '[', 'n':
		return "", false
	}
	return string(raw), true
}

// table reads a line of a Zeek log with tabs, once its header was read.
func (p *lineParser) table(line string, e *fleet.AuditEvent) bool {
	if rest, ok := strings.CutPrefix(line, "#fields\t"); ok {
		p.columns = strings.Split(rest, "\t")
		if len(p.columns) > 4*maxLineFields {
			p.columns = nil
		}
	} else if rest, ok := strings.CutPrefix(line, "#path\t"); ok {
		p.path = rest
	}
	if strings.HasPrefix(line, "#") || p.columns == nil {
		return false
	}
	cells := strings.Split(line, "\t")
	if len(cells) != len(p.columns) {
		return false
	}
	values := make(map[string]string, len(cells))
	for i, name := range p.columns {
		switch cells[i] {
		case "-", "(empty)":
		case "T":
			values[name] = "true"
		case "F":
			values[name] = "false"
		default:
			values[name] = cells[i]
		}
	}
	if values["_path"] == "" && p.path != "" {
		values["_path"] = p.path
	}
	return values["id.orig_h"] != "" && p.zeek(values, e)
}

// zeekNames are OCSF's names for what Zeek calls otherwise.
var zeekNames = map[string]string{
	"id.orig_p": fieldPort, "id.resp_h": "dst_endpoint.ip", "id.resp_p": "dst_endpoint.port", "uid": "connection_info.uid",
	"proto": "connection_info.protocol_name", "service": fieldService,
}

// zeek classifies a line of a Zeek log. An ssh session is one logon: it
// failed, succeeded, or Zeek could not tell, which is activity preauth.
func (p *lineParser) zeek(values map[string]string, e *fleet.AuditEvent) bool {
	at, ok := zeekTime(values["ts"])
	if !ok {
		at = p.last
	}
	e.ObservedAt, p.last = at, at
	e.Program, e.Actor = "zeek", values["id.orig_h"]
	set(e, classNetwork, "connect", "")
	_, attempted := values["auth_attempts"]
	if values["_path"] == "ssh" || attempted {
		set(e, classAuth, preauth, "")
		setField(e, fieldService, "ssh")
		switch values["auth_success"] {
		case "true":
			set(e, classAuth, logon, success)
		case "false":
			set(e, classAuth, logon, failure)
		}
	}
	e.User = values["user"]
	for _, name := range slices.Sorted(maps.Keys(values)) {
		to, renamed := zeekNames[name]
		if !renamed {
			to = name
		}
		if name != "ts" && name != "id.orig_h" && len(e.Fields) < maxLineFields {
			setField(e, to, values[name])
		}
	}
	return true
}

// zeekTime reads seconds since 1970 or ISO 8601.
func zeekTime(text string) (time.Time, bool) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC(), inYears(at.UTC())
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return time.Time{}, false
	}
	at, rej := unixTime(v)
	return at, rej == nil && inYears(at)
}

// journal reads an entry of journalctl -o json.
func (p *lineParser) journal(values map[string]string, e *fleet.AuditEvent) bool {
	micros, err := strconv.ParseInt(values["__REALTIME_TIMESTAMP"], 10, 64)
	at := time.UnixMicro(micros).UTC()
	if err != nil || !inYears(at) {
		return false
	}
	e.ObservedAt, p.last = at, at
	e.Message = values["MESSAGE"]
	e.Fields = make(map[string]string, 4)
	program(values["SYSLOG_IDENTIFIER"], e)
	for from, to := range map[string]string{"_HOSTNAME": fieldHost, "_PID": fieldPID, "_SYSTEMD_UNIT": "service.unit", "_EXE": "process.file.path", "_CMDLINE": fieldCommand} {
		setField(e, to, values[from])
	}
	classify(e)
	return true
}
