package sigma

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"cordon/internal/fleet"
)

type test = func(*fleet.AuditEvent) bool

// products are what devices send; the empty one is any.
var products = []string{"", "linux", "zeek", "cordon"}

// services are what their events look like. Any other service of Linux is the
// program of that name.
var services = map[string]test{
	"syslog": func(*fleet.AuditEvent) bool { return true },
	"auth":   func(e *fleet.AuditEvent) bool { return e.Class == "authentication" || e.Class == "account" },
	"auditd": func(e *fleet.AuditEvent) bool { return e.Program == "auditd" || e.Fields["audit.type"] != "" },
	"cron":   func(e *fleet.AuditEvent) bool { return slices.Contains([]string{"cron", "CRON", "crond"}, e.Program) },
	"sshd":   func(e *fleet.AuditEvent) bool { return e.Program == "sshd" },
	"ssh":    func(e *fleet.AuditEvent) bool { return e.Program == "zeek" && e.Fields["service.name"] == "ssh" },
}

var categories = map[string]test{
	"process_creation":   func(e *fleet.AuditEvent) bool { return e.Class == "process" && e.Activity != "stop" },
	"network_connection": class("network"),
	"firewall":           class("network"),
	"file_event":         class("file"),
	"file_change":        class("file"),
	"authentication":     class("authentication"),
	"account":            class("account"),
	"integrity":          class("integrity"),
	"source":             class("source"),
	"process":            class("process"),
	"system":             class("system"),
}

func class(name string) test {
	return func(e *fleet.AuditEvent) bool { return e.Class == name }
}

// logsource turns the log source into a test of events.
func (d *document) logsource(node ast.Node) test {
	m, ok := mapping(node)
	if !ok {
		d.fault(node, "logsource is missing: say what the rule looks at, such as {product: linux, service: sshd}")
		return nil
	}
	var tests []test
	product := ""
	for _, v := range m.Values {
		value := strings.ToLower(d.text(v))
		switch key := keyOf(v); key {
		case "product":
			product = value
			if !slices.Contains(products, value) {
				d.fault(v.Value, "logsource product %q: Cordon's devices send none of its events", value)
			}
			if value == "zeek" {
				tests = append(tests, func(e *fleet.AuditEvent) bool { return e.Program == "zeek" })
			}
		case "service":
			known, ok := services[value]
			if !ok {
				known = func(e *fleet.AuditEvent) bool { return strings.EqualFold(e.Program, value) }
			}
			tests = append(tests, known)
		case "category":
			known, ok := categories[value]
			if !ok {
				d.fault(v.Value, "logsource category %q has no class of events here", value)
				continue
			}
			tests = append(tests, known)
		case "definition":
		default:
			d.fault(v, "logsource has %s: known are product, service, category and definition", key)
		}
	}
	if len(tests) == 0 && product == "" {
		d.fault(node, "logsource names neither product, service nor category")
	}
	return conjunction(tests)
}

func conjunction(tests []test) test {
	if len(tests) == 1 {
		return tests[0]
	}
	return func(e *fleet.AuditEvent) bool {
		for _, t := range tests {
			if !t(e) {
				return false
			}
		}
		return true
	}
}

func disjunction(tests []test) test {
	if len(tests) == 1 {
		return tests[0]
	}
	return func(e *fleet.AuditEvent) bool {
		for _, t := range tests {
			if t(e) {
				return true
			}
		}
		return false
	}
}

func negation(t test) test { return func(e *fleet.AuditEvent) bool { return !t(e) } }

// names are the fields of an event by the names that rules use for them:
// Sigma's taxonomy, OCSF's attributes and auditd's keys.
var names = map[string]string{
	"CommandLine": "process.cmd_line", "Image": "process.file.path", "ProcessId": "process.pid", "ParentProcessId": "process.parent_process.pid",
	"CurrentDirectory": "process.working_directory", "TargetFilename": "file.path", "Computer": "device.hostname", "ComputerName": "device.hostname",
	"hostname": "device.hostname", "host": "device.hostname", "DestinationIp": "dst_endpoint.ip", "dst_ip": "dst_endpoint.ip",
	"DestinationPort": "dst_endpoint.port", "dst_port": "dst_endpoint.port", "SourcePort": "src_endpoint.port", "src_port": "src_endpoint.port",
	"type": "audit.type", "exe": "process.file.path", "comm": "process.name", "name": "file.path", "pid": "process.pid", "ppid": "process.parent_process.pid",
	"cwd": "process.working_directory", "proctitle": "process.cmd_line", "uid": "user.uid", "auid": "actor.user.uid", "unit": "service.unit",
	"id.resp_h": "dst_endpoint.ip", "id.resp_p": "dst_endpoint.port", "id.orig_p": "src_endpoint.port", "service": "service.name",
	"proto": "connection_info.protocol_name", "tty": "session.terminal", "terminal": "session.terminal", "Protocol": "connection_info.protocol_name",
}

// Value is a field of an event by any of its names; false means that the
// event does not have it.
func Value(e *fleet.AuditEvent, name string) (string, bool) {
	var v string
	switch name {
	case "class", "class_name":
		v = e.Class
	case "activity", "activity_name":
		v = e.Activity
	case "outcome", "status", "success", "res":
		v = e.Outcome
	case "program", "process", "metadata.product.name", "SYSLOG_IDENTIFIER":
		v = e.Program
	case "actor", "src_ip", "SourceIp", "IpAddress", "src_endpoint.ip", "id.orig_h", "addr", "c-ip", "rhost":
		v = e.Actor
	case "user", "User", "user.name", "username", "TargetUserName", "acct", "AccountName":
		v = e.User
	case "message", "Message", "msg", "Details":
		v = e.Message
	default:
		v, ok := e.Fields[name]
		if ok {
			return v, true
		}
		if other, known := names[name]; known {
			v, ok = e.Fields[other]
		}
		return v, ok
	}
	return v, v != ""
}

// everything calls yield with each text of an event until it returns true,
// and says whether one did.
func everything(e *fleet.AuditEvent, yield func(string) bool) bool {
	for _, v := range []string{e.Message, e.User, e.Actor, e.Program, e.Class, e.Activity} {
		if v != "" && yield(v) {
			return true
		}
	}
	for _, v := range e.Fields { // the order does not matter: any match is one
		if yield(v) {
			return true
		}
	}
	return false
}
