// Package quarantine decides that a device is held back: one of the parts of
// stage 3, the response to a finding.
//
// Input: findings of armed rules from stream FINDINGS, and requests of
// operators. Output: decisions in bucket "quarantine", in state requested. The
// gate (ingest/gate) enforces and confirms them.
//
// Every automatic decision passes guards first: the rule is armed, its
// evidence is the device's own, the device is not protected, the finding is
// not older than the last release, and neither the rule nor the fleet is at
// its cap. A guard that stops a decision says so: an event on
// cordon.quarantine.<device>, a counter, a log line and Stopped. Operators are
// not bound by guards.
//
// Guarantee: a finding leads to at most one decision however often it is
// delivered, because the decision carries the finding's id.
package quarantine
