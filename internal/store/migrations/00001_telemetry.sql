-- +goose Up
-- Conventions: partition and expire by received_at (the stream's clock), times in UTC with milliseconds,
-- non_replicated_deduplication_window on every table that a repeated insert may reach, views' targets too.
-- Days kept: telemetry 90, telemetry_1m 430, ingest_rate 90 (see Retention in the Go package, which may change them).

CREATE TABLE IF NOT EXISTS telemetry
(
    device      LowCardinality(String),
    metric      LowCardinality(String),
    observed_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    value       Float64 CODEC(Gorilla, ZSTD(1)),
    boot        LowCardinality(String),
    seq         UInt64 CODEC(DoubleDelta, ZSTD(1)),
    stream_seq  UInt64 CODEC(DoubleDelta, ZSTD(1)),
    n           UInt32 CODEC(ZSTD(1)),
    INDEX received_at_range received_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toMonday(received_at)
ORDER BY (device, metric, observed_at)
TTL toDateTime(received_at) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- One row per device, metric, minute of the device's clock and month of receipt.
CREATE TABLE IF NOT EXISTS telemetry_1m
(
    device         LowCardinality(String),
    metric         LowCardinality(String),
    minute         DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    received_month Date,
    min_value      SimpleAggregateFunction(min, Float64) CODEC(Gorilla, ZSTD(1)),
    max_value      SimpleAggregateFunction(max, Float64) CODEC(Gorilla, ZSTD(1)),
    sum_value      SimpleAggregateFunction(sum, Float64) CODEC(Gorilla, ZSTD(1)),
    readings       SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY received_month
ORDER BY (device, metric, minute, received_month)
TTL received_month + INTERVAL 430 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry_1m_view TO telemetry_1m AS
SELECT
    device,
    metric,
    fromUnixTimestamp64Milli(toUnixTimestamp64Milli(observed_at) - positiveModulo(toUnixTimestamp64Milli(observed_at), 60000), 'UTC') AS minute,
    toStartOfMonth(received_at) AS received_month,
    min(value) AS min_value,
    max(value) AS max_value,
    sum(value) AS sum_value,
    count() AS readings
FROM telemetry
GROUP BY device, metric, minute, received_month;

-- When each device was last heard of, and how much of it was stored, ever.
CREATE TABLE IF NOT EXISTS device_last
(
    device           LowCardinality(String),
    last_received_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    readings         SimpleAggregateFunction(sum, UInt64),
    audit_events     SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
ORDER BY device
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS device_last_telemetry_view TO device_last AS
SELECT device, max(received_at) AS last_received_at, count() AS readings
FROM telemetry
GROUP BY device;

-- What was stored, per ten seconds of the stream's clock.
CREATE TABLE IF NOT EXISTS ingest_rate
(
    at           DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    readings     SimpleAggregateFunction(sum, UInt64),
    audit_events SimpleAggregateFunction(sum, UInt64),
    messages     SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toStartOfMonth(at)
ORDER BY at
TTL at + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- The first reading of each message has n = 0.
CREATE MATERIALIZED VIEW IF NOT EXISTS ingest_rate_telemetry_view TO ingest_rate AS
SELECT toDateTime(toStartOfInterval(received_at, INTERVAL 10 SECOND), 'UTC') AS at, count() AS readings, countIf(n = 0) AS messages
FROM telemetry
GROUP BY at;
