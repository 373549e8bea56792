// Package store is everything that Cordon knows about ClickHouse: the embedded
// engine as a supervised child process, the migrations, and the only SQL.
//
// In: blocks of decoded records and history entries from the mover, each with
// a token that makes a repeated insert harmless, also in every roll-up.
// Out: bounded, parameterised queries for the API and for backtests.
//
// Guarantee: an insert that returned nil survives the death of any process and
// counts once, however often it is repeated with the same token. An insert
// that failed may or may not be stored: repeat it with the same token and the
// same rows. (Like the broker, ClickHouse leaves it to the system when pages
// reach the disk: a power cut may cost the last seconds of both.)
//
// Tables are partitioned and expire by received_at, the stream's clock: a
// replayed device may carry readings of any age.
package store
