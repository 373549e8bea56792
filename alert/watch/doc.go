// Package watch makes alerts of what fails in silence: no delivery for long, a
// receiver that was disabled, a stage that is not well or lags behind, a
// stream that is nearly full, a certificate that is about to end, the engine
// down. It looks every few seconds and publishes findings about the device
// "cordon" (fleet.SystemDevice) on cordon.finding.cordon, so that they take
// the same way as every other finding: incident, routes, receivers.
//
// What watches can fail too. The heartbeat is for an outside watcher (a dead
// man's switch such as healthchecks.io): a request every minute while all is
// well; when it stays out, that watcher raises the alarm.
//
// Guarantee: a condition that holds for two looks in a row is published once
// until it is over; the end is published too. After a restart a condition that
// still holds is published again and attaches to the open incident.
package watch
