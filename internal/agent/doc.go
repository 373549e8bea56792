// Package agent is the device's side of Cordon: it gives a machine its
// identity, connects to the broker with its certificate and sends readings
// and audit events so that none is lost.
//
// Input: this host's metrics and its authentication log, or whatever a caller
// hands to a Sender (recorded files and simulated devices use the same one).
// Output: messages on fleet.telemetry.<device> and fleet.audit.<device>.
// Guarantee: a message stays in the buffer until the broker acknowledged it.
// Every message carries (boot, seq), so a resent one is recognised and
// counted once. A full buffer drops its oldest messages and says how many.
// Next stop: the gate, then the FLEET stream.
package agent
