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
// # Content type
//
// Header Content-Type: application/json, text/plain or application/syslog;
// without it, the first byte decides.
package codec
