-- +goose Up
-- Conventions: partition and expire by received_at (the stream's clock), times in UTC with milliseconds,
-- non_replicated_deduplication_window on every table that a repeated insert may reach, views' targets too.
-- Days kept: 400.

CREATE TABLE IF NOT EXISTS audit
(
    device      LowCardinality(String),
    received_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_seq  UInt64 CODEC(DoubleDelta, ZSTD(1)),
    n           UInt32 CODEC(ZSTD(1)),
    observed_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    boot        LowCardinality(String),
    seq         UInt64 CODEC(DoubleDelta, ZSTD(1)),
    class       LowCardinality(String),
    activity    LowCardinality(String),
    outcome     LowCardinality(String),
    program     LowCardinality(String),
    actor       String CODEC(ZSTD(1)),
    user        String CODEC(ZSTD(1)),
    message     String CODEC(ZSTD(3)),
    fields      Map(String, String) CODEC(ZSTD(3)),
    repeat      Int64 CODEC(ZSTD(1)),
    INDEX observed_at_range observed_at TYPE minmax GRANULARITY 1,
    INDEX received_at_range received_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toStartOfMonth(received_at)
ORDER BY (device, received_at, stream_seq, n)
TTL toDateTime(received_at) + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS device_last_audit_view TO device_last AS
SELECT device, max(received_at) AS last_received_at, count() AS audit_events
FROM audit
GROUP BY device;

CREATE MATERIALIZED VIEW IF NOT EXISTS ingest_rate_audit_view TO ingest_rate AS
SELECT toDateTime(toStartOfInterval(received_at, INTERVAL 10 SECOND), 'UTC') AS at, count() AS audit_events, countIf(n = 0) AS messages
FROM audit
GROUP BY at;

-- raw is encrypted by Cordon, see the Go package.
CREATE TABLE IF NOT EXISTS dead_letters
(
    device      LowCardinality(String),
    received_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_seq  UInt64 CODEC(DoubleDelta, ZSTD(1)),
    subject     String CODEC(ZSTD(1)),
    reason      LowCardinality(String),
    detail      String CODEC(ZSTD(3)),
    raw         String CODEC(NONE)
)
ENGINE = MergeTree
PARTITION BY toStartOfMonth(received_at)
ORDER BY (device, received_at, stream_seq)
TTL toDateTime(received_at) + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;
