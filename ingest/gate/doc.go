// Package gate stands before stage 1: it says who may connect to the broker
// and what each connection may say and hear, and it enforces quarantines.
//
// Input: the broker's authorization requests (NATS auth callout, sealed), the
// broker's connect and disconnect events, buckets "quarantine" and "device".
// Output: user JWTs with the permissions of one device, kicks, the states
// applied, confirmed, failed and expired of a quarantine with their proof,
// control records and ticks on the FLEET log, and connected, disconnected and
// refused events on cordon.gate.<device>.
//
// Guarantee: a device under isolation has no connection on any broker once its
// quarantine is confirmed, and one under restriction none on full permissions.
// Two orders make this hold without locks. A connection is entered in the
// table before the quarantine state is read from the bucket's leader, so that
// either the callout sees the quarantine or the enforcer sees the connection.
// And a quarantine is confirmed only when no callout of the device is still
// open and the brokers, asked a while after the cut, list none of its connections. The gate
// fails closed: when it can't read, it refuses, and when it is away the broker
// refuses.
//
// A broker publishes an MQTT client's will when it kicks the client. The gate
// drops the session first, which makes the broker forget the will
// (bus.DropSession). Its session is held back by the broker for about two
// seconds after that: a released MQTT client comes back with its second try.
//
// Known limits:
//   - Within account DEVICES a device may name any reply subject, and
//     JetStream's acknowledgement {"stream","seq"} goes there: it can make one
//     appear on another device's telemetry, on control subjects and on the
//     broker's MQTT session subjects, though never with a text of its own.
//     Readers of the log refuse it as a record; seq names the message whose
//     sender did it. JetStream's API and account CORDON are out of reach.
//   - The proof covers open callouts of this gate only. Where several gates
//     run, each kicks what it admitted, but one does not wait for another's
//     open callouts.
//   - The broker takes no limit on subscriptions from a callout, so a device
//     may hold any number on its own subjects.
package gate
