// Package incident is the first part of stage 3: findings → incidents. It
// reads FINDINGS (modes alert and armed) in stream order on the durable
// consumer "incident", groups them by device into entries of the key-value
// bucket "incident", and tells every change on cordon.incident.<id>, from
// where alert/notify, the dashboard and ClickHouse take it.
//
// # Grouping: one cause, one incident
//
// A device has at most one unresolved incident of its own. A finding attaches
// to it, or opens the next one, unless it belongs to a group: a campaign (one
// actor on 3 devices, one technique on 5, within 15 minutes) or a common cause
// (one rule on 5 devices, at least four fifths of them behind one gateway, at
// one site, with one firmware or of one cohort; silence while Cordon itself
// is in trouble; one rule everywhere; a flood). The device that completes the
// number opens the group's incident, and the incidents that are wholly
// explained by it and that nobody works on become part of it ("merged").
// Findings of historic devices are never grouped: their times are the past's.
//
// What a person is told is less than what is attached: a change "finding" is
// published only for a (rule, actor) pair that the incident has not seen (for
// a group: a rule, or ten times as many devices), "escalated" only when the
// severity gets worse, "flapping" once when a finding came back three times
// within an hour; everything else is counted. A resolved incident stays
// resolved: a later finding opens a new one, and a finding whose window ended
// before the resolution is counted on the resolved one.
//
// # Risk
//
// Every incident has a risk: each finding adds the points of its severity
// (2, 8, 20, 50, 100), a fifth of them when only its actor or device is new,
// times the weight of the device's tag criticality:low|medium|high|critical
// (0.5, 1, 1.5, 2). It halves every six hours. The same points turn it back
// into the incident's severity, which never gets milder while it is open.
//
// # Delivery guarantee
//
// A finding leads to one incident change however often it is delivered and
// wherever the process dies. The bucket is the truth; there are four steps,
// and each can be repeated:
//
//  1. Reserve. The key incident-device.<device> of the bucket "counter" names
//     the device's current incident. To open one, a number is drawn (key
//     "incident", compare-and-set) and written there by compare-and-set. Who
//     loses that race starts over. A crash before it costs a number, nothing
//     else; a crash after it leaves a name without an entry, and the next
//     finding of the device (the same one, redelivered) fills exactly that
//     entry. So no finding can open two incidents.
//  2. Apply. One compare-and-set writes the entry with everything that
//     follows from the findings: counts, their ids, the next change numbers
//     and the changes themselves, in the entry's outbox. A redelivered or
//     republished finding is known by its id (the newest 200), and past those
//     by its place: not after the last FLEET sequence seen and not after the
//     last event time seen.
//  3. Publish. The outbox goes out in order with Nats-Msg-Id <incident>.<n>,
//     then a second compare-and-set empties it. A crash in between leaves the
//     outbox; the sweep at start compares it with the last message of the
//     incident's own subject, so that a change that did go out is not told
//     again, even outside the broker's two-minute window.
//  4. Acknowledge the findings. Unacknowledged ones come again and are known.
//
// Incidents that become part of a group are named in its entry in the same
// compare-and-set that counts them, and closed afterwards; the sweep repeats
// that until it is done. A group knows its newest 4,096 findings by hash.
//
// Operator actions take steps 2 and 3 of the same path. Writers in one
// process take turns per device; writers in several are kept apart by the
// compare-and-set.
//
// # Bounds
//
// 200 finding ids, 200 timeline entries (256 KiB of text), 100 actors, 100
// rules, 100 techniques and 200 (rule, actor) pairs per incident; past them
// findings are only counted. Findings are taken in batches of 256, so that a
// flood of one device costs one write per batch. Lists come from memory,
// which holds incidents without timeline and finding ids. Incidents stay in
// the bucket; nothing removes resolved ones yet.
package incident
