-- +goose Up
-- Hours and days, each made from the level below, so that a reading is aggregated once. The sketch is of the
-- minutes' means, weighted by their readings: one of every reading costs 15 times the insert.
-- Conventions: see 00001. Days kept: telemetry_1h 1100, telemetry_1d 3650.

CREATE TABLE IF NOT EXISTS telemetry_1h
(
    device         LowCardinality(String),
    metric         LowCardinality(String),
    hour           DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    received_month Date CODEC(ZSTD(1)),
    min_value      SimpleAggregateFunction(min, Float64) CODEC(Gorilla, ZSTD(1)),
    max_value      SimpleAggregateFunction(max, Float64) CODEC(Gorilla, ZSTD(1)),
    sum_value      SimpleAggregateFunction(sum, Float64) CODEC(Gorilla, ZSTD(1)),
    readings       SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    quantiles      AggregateFunction(quantilesTDigestWeighted(0.05, 0.5, 0.95), Float64, UInt64) CODEC(ZSTD(3))
)
ENGINE = AggregatingMergeTree
PARTITION BY toStartOfYear(received_month)
ORDER BY (device, metric, hour, received_month)
TTL received_month + INTERVAL 1100 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS telemetry_1d
(
    device         LowCardinality(String),
    metric         LowCardinality(String),
    day            DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    received_month Date CODEC(ZSTD(1)),
    min_value      SimpleAggregateFunction(min, Float64) CODEC(Gorilla, ZSTD(1)),
    max_value      SimpleAggregateFunction(max, Float64) CODEC(Gorilla, ZSTD(1)),
    sum_value      SimpleAggregateFunction(sum, Float64) CODEC(Gorilla, ZSTD(1)),
    readings       SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    quantiles      AggregateFunction(quantilesTDigestWeighted(0.05, 0.5, 0.95), Float64, UInt64) CODEC(ZSTD(3))
)
ENGINE = AggregatingMergeTree
PARTITION BY toStartOfYear(received_month)
ORDER BY (device, metric, day, received_month)
TTL received_month + INTERVAL 3650 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry_1d_view TO telemetry_1d AS
SELECT
    device,
    metric,
    fromUnixTimestamp64Milli(toUnixTimestamp64Milli(hour) - positiveModulo(toUnixTimestamp64Milli(hour), 86400000), 'UTC') AS day,
    received_month,
    min(min_value) AS min_value,
    max(max_value) AS max_value,
    sum(sum_value) AS sum_value,
    sum(readings) AS readings,
    quantilesTDigestWeightedMergeState(0.05, 0.5, 0.95)(t.quantiles) AS quantiles
FROM telemetry_1h AS t
GROUP BY device, metric, day, received_month;

-- What minutes hold already goes through the view above as well.
INSERT INTO telemetry_1h
SELECT
    device,
    metric,
    fromUnixTimestamp64Milli(toUnixTimestamp64Milli(minute) - positiveModulo(toUnixTimestamp64Milli(minute), 3600000), 'UTC') AS hour,
    received_month,
    min(min_value),
    max(max_value),
    sum(sum_value),
    sum(readings),
    quantilesTDigestWeightedState(0.05, 0.5, 0.95)(toFloat64(t.sum_value / t.readings), toUInt64(t.readings))
FROM telemetry_1m AS t
GROUP BY device, metric, hour, received_month
SETTINGS max_partitions_per_insert_block = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry_1h_view TO telemetry_1h AS
SELECT
    device,
    metric,
    fromUnixTimestamp64Milli(toUnixTimestamp64Milli(minute) - positiveModulo(toUnixTimestamp64Milli(minute), 3600000), 'UTC') AS hour,
    received_month,
    min(min_value) AS min_value,
    max(max_value) AS max_value,
    sum(sum_value) AS sum_value,
    sum(readings) AS readings,
    quantilesTDigestWeightedState(0.05, 0.5, 0.95)(toFloat64(t.sum_value / t.readings), toUInt64(t.readings)) AS quantiles
FROM telemetry_1m AS t
GROUP BY device, metric, hour, received_month;
