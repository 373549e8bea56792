package bus

import (
	"strings"
	"time"
)

// Broker accounts.
const (
	AccountSystem  = "SYS"
	AccountAuth    = "AUTH"
	AccountDevices = "DEVICES"
	AccountCordon  = "CORDON"
)

// Streams. Fleet lives in DEVICES, the others in CORDON.
const (
	StreamFleet       = "FLEET"
	StreamFindings    = "FINDINGS"
	StreamIncidents   = "INCIDENTS"
	StreamDeliveries  = "DELIVERIES"
	StreamOperatorLog = "OPERATOR_LOG" // what operators did; never expires
)

// Key-value buckets, all in CORDON. The stream of a bucket is KV_<bucket>.
const (
	BucketDevice     = "device"     // fleet.Device by id
	BucketQuarantine = "quarantine" // fleet.Quarantine by device
	BucketIncident   = "incident"   // fleet.Incident by id
	BucketRule       = "rule"       // fleet.RuleChange by rule id: modes set by operators
	BucketOperator   = "operator"   // people, their sessions and tokens; never copied to ClickHouse
	BucketSession    = "session"
	BucketDelivery   = "delivery" // fleet.Delivery by id, newest state
	BucketPosition   = "position" // stream positions: intents of the mover, checkpoints of the detector
	BucketCounter    = "counter"  // counters advanced by compare-and-set
	BucketGuard      = "guard"    // approval requests, circuit breakers and idempotency keys of quarantines
	BucketSilence    = "silence"  // fleet.Silence by id
	BucketReceiver   = "receiver" // receivers with sealed secrets, what is known of them, undelivered messages; never copied to ClickHouse
	BucketIdentity   = "identity" // makers, fleet tokens, keys seen; never copied to ClickHouse
	BucketErasure    = "erasure"  // the erasure ledger, by device
)

// Buckets lists every bucket.
var Buckets = []string{
	BucketDevice, BucketQuarantine, BucketIncident, BucketRule, BucketOperator,
	BucketSession, BucketDelivery, BucketPosition, BucketCounter, BucketGuard, BucketIdentity, BucketErasure,
	BucketSilence, BucketReceiver,
}

// ObjectsCheckpoint is the object store that holds detector state.
const ObjectsCheckpoint = "checkpoint"

// Fixed subjects on the FLEET log.
const (
	SubjectTick        = "fleet.tick"
	SubjectControl     = "fleet.control" // + .<what>.<id>
	SubjectTelemetry   = "fleet.telemetry"
	SubjectAudit       = "fleet.audit"
	SubjectPosture     = "fleet.posture"
	SubjectReceipt     = "fleet.receipt"
	SubjectCommand     = "fleet.command"
	SubjectQuarantine  = "fleet.quarantine"
	SubjectIdentity    = "fleet.identity"      // + .<device>: a device asks for its next certificate; + .answer, .rotate: what it hears
	SubjectFinding     = "cordon.finding"      // + .<device>
	SubjectIncident    = "cordon.incident"     // + .<incident>
	SubjectDecision    = "cordon.quarantine"   // + .<device>: a quarantine changed
	SubjectDelivery    = "cordon.notification" // + .<receiver>
	SubjectGateChanges = "cordon.gate"         // + .<device>: connected, disconnected, refused
	SubjectOperatorLog = "cordon.operator"     // operator log entries
)

// FleetSubjects are the subjects that the FLEET stream stores. The quarantine
// subjects are not among them: nothing that a quarantined device says reaches
// the stream.
var FleetSubjects = []string{
	SubjectTelemetry + ".>", SubjectAudit + ".>", SubjectPosture + ".>", SubjectControl + ".>", SubjectTick,
}

// Device returns the device token of a device subject such as
// fleet.telemetry.<device>, or "" when there is none.
func Device(subject string) string {
	parts := strings.SplitN(subject, ".", 4)
	if len(parts) < 3 || parts[0] != "fleet" {
		return ""
	}
	return parts[2]
}

// Inbox is the inbox prefix of a device: it may subscribe to nothing wider.
func Inbox(device string) string { return "_INBOX." + device }

// Limits bound what the broker keeps and takes.
type Limits struct {
	MaxPayload    int32         // bytes of one message; larger ones are refused by the broker
	FleetBytes    int64         // size of the FLEET stream; when full, publishers get an error
	FindingBytes  int64         // size of FINDINGS, INCIDENTS and DELIVERIES, each
	StoreBytes    int64         // JetStream's whole file store
	FindingAge    time.Duration // age of FINDINGS and INCIDENTS entries
	HistoryPerKey uint8         // revisions kept per key of a bucket
	Replicas      int           // of every stream and bucket; 0: one
}

// DefaultLimits suit one node.
func DefaultLimits() Limits {
	return Limits{
		MaxPayload:    1 << 20,
		FleetBytes:    8 << 30,
		FindingBytes:  1 << 30,
		StoreBytes:    32 << 30,
		FindingAge:    30 * 24 * time.Hour,
		HistoryPerKey: 8,
	}
}
