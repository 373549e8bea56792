// Package bus is everything that Cordon knows about NATS: the embedded
// server, the four broker accounts, the streams and key-value buckets, and
// the subjects.
//
// Accounts keep devices away from Cordon's own state. DEVICES holds only the
// device subjects and the FLEET stream; CORDON holds findings, incidents and
// every bucket. In one shared account a device could name
// $KV.quarantine.victim as the reply subject of a publish, and JetStream's
// acknowledgement would overwrite the entry.
package bus
