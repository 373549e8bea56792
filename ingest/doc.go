// Package ingest is stage 1 of 3: it moves messages from the broker into
// ClickHouse, each exactly once.
//
// In: the FLEET stream (telemetry, audit events), the FINDINGS stream and the
// streams behind the buckets device, quarantine, incident, rule and delivery.
// Out: rows in ClickHouse, receipts on fleet.receipt.<device>, dead letters
// with reason and raw bytes. Next stop: the store. The detector reads FLEET on
// its own consumer; quarantine forensics (fleet.quarantine.>) are on no stream
// and never come here. Ticks and control records are read and not stored.
//
// # Guarantee
//
// What a stream acknowledged to its publisher is stored exactly once or is a
// dead letter exactly once, whichever process is killed whenever.
//
// # How
//
// Every stream has one worker. It reads the stream in order and cuts it into
// blocks by rows, bytes or age. For every block, in this order:
//
//  1. the intent {first, last, token, dropped, version} is written to the
//     bucket "position" by compare-and-set. A mover that was replaced fails
//     here and stops ([ErrFenced]);
//  2. telemetry, audit events and dead letters are inserted, each with the
//     block's token, which makes a repeated insert harmless;
//  3. receipts go out.
//
// On start a worker claims the intent, makes its consumer anew at the
// intent's first message and builds exactly that block again, with the token
// and the dropped messages that the intent names, before it goes on. Steps 2
// and 3 may thus happen twice, and count once. The token names stream,
// creation time of the stream and a generation besides the range: a broker
// that lost the tail of its stream starts a new generation, so that a sequence
// number used again is no duplicate.
//
// # Resent messages
//
// A device that saw no receipt sends again. Per (device, boot) a high-water
// mark and a window of 4,096 numbers ([fleet.SeenFilter]) tell copies from new
// messages; copies are dropped, counted and receipted. The filter's state
// after a block is a function of the log up to there, so it survives restarts
// like this: every 10 s the state after a stored block is written to the
// object store "checkpoint" (name "ingest-seen") with that block's last
// sequence; on start the state is loaded and brought forward by reading the log
// from there to the intent's first message, without storing anything. FLEET
// is trimmed only below the checkpoint, so what must be read again is there.
//
// # Fences of quarantines
//
// The control record that says that a quarantine is confirmed closes the device's
// fence; the one that ends it, or lowers it to observe, opens it. A device
// message behind a closed fence is a dead letter with reason "quarantined". The
// fences ([fleet.Fences]) are part of the checkpoint and, like the filter, a
// function of the log.
//
// # When something fails
//
// ClickHouse away: the worker repeats the insert with growing pauses for as
// long as it takes and reads no further meanwhile; messages wait in the
// stream. An insert refused for good: the block is halved down to the message
// at fault, which becomes a dead letter with reason "rejected"; the intent
// says that the block was halved, so that a repetition halves it again. A
// message that is no record: a dead letter with the codec's reason.
//
// # Limits
//
// A block has at most 100,000 rows, 50,000 messages or 32 MiB of payload and is
// at most 0.2 s old when the stream is drained, 1 s when it is not; per stream
// three blocks and 16 MiB read ahead are in memory. ClickHouse must remember the
// tokens of the last block of every stream, which 10,000 parts per table more
// than cover. The filter remembers eight boots per device, and 4,096 numbers
// below the highest of each: a message that comes later than that is taken for
// a copy. A device that sends no boot and seq gets no more than the broker's
// own two minutes of de-duplication, and over MQTT no receipt. When more than
// 1,000 messages of one block are refused one by one, that is taken for the
// store's fault: the mover waits instead of making all of them dead letters.
package ingest
