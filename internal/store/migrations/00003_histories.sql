-- +goose Up
-- Histories: what buckets and streams of NATS held, one row per revision, in full as JSON and in part as columns.
-- Conventions: partition and expire by received_at (the stream's clock), times in UTC with milliseconds,
-- non_replicated_deduplication_window on every table that a repeated insert may reach, views' targets too.
-- Days kept: 1100; devices and rules: for ever.

-- A finding published again replaces the earlier one.
CREATE TABLE IF NOT EXISTS findings
(
    id String,
    revision UInt64,
    at DateTime64(3, 'UTC'),
    device LowCardinality(String),
    rule_id LowCardinality(String),
    rule_version LowCardinality(String),
    mode LowCardinality(String),
    evidence LowCardinality(String),
    severity LowCardinality(String),
    technique LowCardinality(String),
    actor String,
    window_start DateTime64(3, 'UTC'),
    window_end DateTime64(3, 'UTC'),
    received_at DateTime64(3, 'UTC'),
    stream_seq UInt64,
    cleared UInt8,
    json String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (device, id)
TTL toDateTime(received_at) + INTERVAL 1100 DAY
SETTINGS non_replicated_deduplication_window = 10000;

-- Every revision of every incident.
CREATE TABLE IF NOT EXISTS incidents
(
    id String,
    revision UInt64,
    at DateTime64(3, 'UTC'),
    deleted UInt8,
    device LowCardinality(String),
    severity LowCardinality(String),
    state LowCardinality(String),
    verdict LowCardinality(String),
    opened_at DateTime64(3, 'UTC'),
    json String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (id, revision)
TTL toDateTime(at) + INTERVAL 1100 DAY
SETTINGS non_replicated_deduplication_window = 10000;

-- Every revision of every decision; id is <device>.<decision number>.
CREATE TABLE IF NOT EXISTS quarantines
(
    device LowCardinality(String),
    id String,
    revision UInt64,
    at DateTime64(3, 'UTC'),
    deleted UInt8,
    level LowCardinality(String),
    state LowCardinality(String),
    actor String,
    requested_at DateTime64(3, 'UTC'),
    json String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (device, id, revision)
TTL toDateTime(at) + INTERVAL 1100 DAY
SETTINGS non_replicated_deduplication_window = 10000;

-- Every revision of every entry of the registry, without token hashes.
CREATE TABLE IF NOT EXISTS devices
(
    id String,
    revision UInt64,
    at DateTime64(3, 'UTC'),
    deleted UInt8,
    state LowCardinality(String),
    cohort LowCardinality(String),
    site LowCardinality(String),
    json String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (id, revision)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every change of a rule.
CREATE TABLE IF NOT EXISTS rules
(
    id String,
    revision UInt64,
    at DateTime64(3, 'UTC'),
    deleted UInt8,
    mode LowCardinality(String),
    actor String,
    json String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (id, revision)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every state of every notification.
CREATE TABLE IF NOT EXISTS deliveries
(
    id String,
    revision UInt64,
    at DateTime64(3, 'UTC'),
    deleted UInt8,
    receiver LowCardinality(String),
    incident String,
    state LowCardinality(String),
    created_at DateTime64(3, 'UTC'),
    json String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (id, revision)
TTL toDateTime(at) + INTERVAL 1100 DAY
SETTINGS non_replicated_deduplication_window = 10000;
