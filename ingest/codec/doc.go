// Package codec turns messages of the FLEET log into fleet records and says,
// with a reason and a place, why a message is not one. It is pure: no clock,
// no I/O, no goroutines, so ingest and the detector decode alike.
//
// # Telemetry (fleet.telemetry.<device>, fleet.telemetry.<gateway>.<child>)
//
// One JSON object with any of these shapes, or both:
//
//	{"boot":"b1","seq":42,"ts":"2026-11-22T17:30:00Z","metrics":{"cpu_temp_celsius":61.2}}
//	{"boot":"b1","seq":42,"readings":[{"ts":1763832600.5,"metric":"cpu_temp_celsius","value":61.2}]}
//
// ts is RFC 3339 text or a Unix time in seconds or (from 1e11 on) in
// milliseconds. A reading without ts takes the message's, a message without
// one the time of receipt. boot and seq are optional: without both the message
// is accepted, but a resent copy cannot be told from a new message. Unknown
// fields are ignored.
//
// # Audit (fleet.audit.<device>)
//
// JSON (one event object, an array of them, or {"boot","seq","events":[…]})
// or syslog lines, one event per line that is not empty: RFC 5424, RFC 3164
// (with or without priority) and the ISO-time form of current rsyslog. A line
// that nothing is known about becomes an event of class system with its text;
// no line is lost.
// Headers: Cordon-Boot and Cordon-Seq identify a message that cannot carry
// them, Cordon-Year is the year of lines without one.
//
// # Limits
//
// Per message (see [DefaultLimits]): 1 MiB; 10,000 readings or events; a metric
// name is [A-Za-z0-9_.:/-]{1,128}; a boot id 64 printable bytes; seq 0 to
// 2^64-1; a text of an audit event 4,096 bytes apart from its message, 64
// fields, repeat up to 1,000,000; JSON nested 32 deep. Times may lie 10 minutes
// after and 7 days before receipt; for a historic device anywhere from 1971 to
// 2200. One bad reading or event rejects its message as a whole, and its raw
// bytes are kept. Dead letters have these reasons: malformed, oversized,
// mistyped, not_finite, too_old, too_new, too_many, rejected, forged_reply.
//
// A line's time without a zone counts as UTC. Does that put it after receipt,
// the event takes the time of receipt and keeps the text as field log_time. A
// time without a year takes Cordon-Year, else the year that puts it nearest
// before receipt.
//
// # What lines become
//
// Programs sshd, dropbear, sudo, su, login, useradd and its like, systemd, cron,
// klogind, ftpd, the kernel and the audit daemon are known. "Failed password for
// X from A" is class authentication, activity logon, outcome failure, actor A,
// user X; what PAM or an audit record says about the same attempt is activity
// pam, what goes on before a logon (invalid user, disconnects, "Failed none",
// keys that a client offers one after the other) activity preauth, so that
// counting logon failures counts attempts once. The old form sshd(pam_unix) has
// no other line for an attempt and is a logon. "message repeated N times: [ … ]"
// and "PAM N more authentication failures" set Repeat to N. X is whatever the
// client sent: the last " from " before an address counts.
//
// Lines of auditd ("type=USER_LOGIN msg=audit(…): …", values in hexadecimal
// decoded), of Zeek (JSON, or tabs behind a #fields header; an ssh session is
// one logon that failed, succeeded or, as activity preauth, is undecided) and of
// journalctl -o json are events too. Fields have the names of OCSF's attributes:
// device.hostname, process.pid, process.cmd_line, src_endpoint.port,
// auth_protocol, session.terminal, dst_endpoint.ip, …; what has no name there
// keeps its own.
//
// Class source is kept for what Cordon itself notices about a device's messages:
// activities sequence_gap (fields missing, from, to), boot_change, replay (a
// resent or copied message with other content), clock_jump (field seconds) and
// identity_shared (the same sequence from two connections). Rules of the pack
// listen for them.
//
// # Content type
//
// Header Content-Type: application/json, text/plain or application/syslog;
// without it, the first byte decides.
package codec
