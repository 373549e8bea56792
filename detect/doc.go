// Package detect is stage 2 of 4: it reads the FLEET log and says what is
// wrong.
//
// Input: the FLEET stream, on a consumer of its own. Output: findings on
// cordon.finding.<device> (stream FINDINGS), each once: the id of a finding is
// its message id, and after a restart those that are already in the stream are
// not published again. Next stop: alert/incident and alert/quarantine.
//
// The work is done by the pure engine in detect/engine; this package feeds
// it, publishes what it finds, and writes its state to the object store
// "checkpoint" and the position key "detect". A restart restores the state
// and reads on after it: the state holds everything, so findings before and
// after a restart are what they would have been without one.
//
// Rules reach the engine only through the log (fleet.control.rule.<id>): on
// start, rules of the pack that differ from bucket "rule" are put there, and
// SetMode does the same.
package detect
