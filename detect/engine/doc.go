// Package engine is the detector's core: (state, record) → (state, findings).
// It is pure: it reads no clock, does no I/O and starts no goroutine, so that
// the same log gives byte-identical findings live, in replay, in a backtest
// and after any restart.
//
// Everything an answer depends on is a record: telemetry, audit events, ticks
// and control records (rules, devices, quarantines, verdicts). The time of a
// record is its device's monotone event time, taken from the stream where the
// device's clock is out of bounds; historic devices have no bounds.
//
// Silence is measured on a clock that only healthy ticks advance, so an
// outage of the gate silences nobody. A historic device is watched for
// silence only once its data are recent. Many devices that fall silent
// together make one finding about the pseudo device FleetDevice and none of
// their own.
package engine
