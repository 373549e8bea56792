// Package notify is the second part of stage 3: incident changes →
// notifications. It reads INCIDENTS on the durable consumer "notify", makes
// one work item per change and receiver that wants it on the work queue
// DELIVERIES (cordon.notification.<receiver>), and a worker per receiver
// sends them: a signed webhook or a Slack message.
//
// # Delivery guarantee
//
// A change reaches every receiver that wants it once, whichever process dies,
// or ends as a visible failure:
//
//  1. Route. For each receiver the delivery is recorded in the bucket
//     "delivery" (key <change>.<receiver>) and its item put on the queue with
//     the same id as Nats-Msg-Id; then the change is acknowledged. A change
//     that comes again finds the record.
//  2. Send. Any 2xx is success. The record says delivered before the item is
//     acknowledged: a redelivered item finds that and is not sent again.
//     Between the receiver's 2xx and that record there is a moment in which a
//     crash means a repeat; it carries the same webhook-id, by which the
//     receiver can drop it.
//  3. Retry. What failed waits by exponential backoff with jitter, or as the
//     receiver's Retry-After says (bounded). Attempts and the time of the
//     next one are in the record, so that a restart goes on where it was.
//     Answers that no repetition changes (400, 401, 403, 404, 410, 422 and
//     their like) fail at once; so does the last of MaxAttempts.
//
// Changes of one incident reach a receiver in order: an item waits for those
// before it. Receivers share nothing: one that is dead, slow or full holds
// back no other. A receiver that keeps failing is probed with one item at a
// time.
//
// # Bounds
//
// 64 items per receiver in memory, 4 in flight; 10,000 items per receiver on
// the queue, after which new ones are recorded as failed; items older than a
// day are given up; 10,000 deliveries in the log; bodies under 128 KiB,
// answers read to 4 KiB, 10 s per attempt.
//
// # Outbound safety
//
// Only http and https, no proxy, no redirects. Private, loopback, link-local
// and other special addresses are refused at dial time, after the name was
// resolved, unless the receiver says allow_private. Addresses and secrets of
// receivers are in no log, error or record.
package notify
