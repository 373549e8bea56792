import { IconX } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { metricsQuery, seriesQuery } from "../../api/queries";
import type { DeviceDetail, MetricLast } from "../../api/types";
import { Empty, Failure, Skeleton } from "../../parts/Blocks";
import { Button } from "../../parts/Button";
import { BandChart } from "../../parts/chart/BandChart";
import { frame } from "../../parts/chart/ranges";
import { useNow } from "../../parts/When";
import type { Range } from "../../router";
import { figure, metricName, range as rangeText, scaleFor, unitOf } from "../../words/format";
import { holdsOf } from "../incidents/Evidence";

/** Small multiples of every metric with its band, the most unusual first; one opens to full width. */
export function Metrics({
  device,
  range,
  metric,
  onMetric,
}: {
  device: DeviceDetail;
  range: Range;
  metric?: string;
  onMetric: (metric: string | undefined) => void;
}) {
  const query = useQuery(metricsQuery(device.id));
  const now = useNow();
  const items = query.data?.items ?? [];
  if (query.isError)
    return <Failure what="The metrics can’t be read" error={query.error} retry={() => void query.refetch()} />;
  if (query.isPending) return <Skeleton rows={6} height={120} />;
  if (items.length === 0) {
    return (
      <Empty title="No readings yet">
        The device sends them on fleet.telemetry; each metric gets a chart of its own here.
      </Empty>
    );
  }
  const newest = Math.max(...items.map((m) => Date.parse(m.at)));
  const span = frame(newest, range, now);
  const bands = new Map(device.baselines.map((b) => [b.metric, b]));
  const odd = (m: MetricLast) => {
    const b = bands.get(m.metric);
    if (b?.state !== "ready" || b.high <= b.low) return 0;
    return Math.max(b.low - m.value, m.value - b.high, 0) / (b.high - b.low);
  };
  const sorted = [...items].sort((a, b) => odd(b) - odd(a) || a.metric.localeCompare(b.metric));
  const opened = sorted.find((m) => m.metric === metric);
  return (
    <>
      {opened && (
        <div className="cd-multiple" style={{ borderRight: 0 }}>
          <One
            device={device}
            m={opened}
            from={span.from}
            to={span.to}
            odd={odd(opened)}
            onClose={() => onMetric(undefined)}
          />
        </div>
      )}
      <div className="cd-multiples">
        {sorted
          .filter((m) => m !== opened)
          .map((m) => (
            <div key={m.metric} className="cd-multiple">
              <One device={device} m={m} from={span.from} to={span.to} odd={odd(m)} onOpen={() => onMetric(m.metric)} />
            </div>
          ))}
      </div>
    </>
  );
}

function One({
  device,
  m,
  from,
  to,
  odd,
  onOpen,
  onClose,
}: {
  device: DeviceDetail;
  m: MetricLast;
  from: number;
  to: number;
  odd: number;
  onOpen?: () => void;
  onClose?: () => void;
}) {
  const query = useQuery(seriesQuery({ device: device.id, metric: m.metric, from, to, points: onClose ? 800 : 240 }));
  const b = device.baselines.find((x) => x.metric === m.metric);
  const unit = unitOf(m.metric, m.unit || query.data?.unit);
  const scale = scaleFor(unit, m.value);
  const holds = useMemo(() => holdsOf(device, to), [device, to]);
  const height = onClose ? 260 : 112;
  const name = metricName(m.metric);
  return (
    <>
      <header>
        {onOpen ? (
          <button
            type="button"
            className="cd-multiple-name cd-el"
            title={`${m.metric}: open to full width`}
            onClick={onOpen}
          >
            {name}
          </button>
        ) : (
          <h2 className="cd-h2">{name}</h2>
        )}
        <span className="cd-sp" />
        <span className={`cd-num cd-nw ${odd > 0 ? "cd-critical" : ""}`}>
          <b className="cd-b">{figure(m.value * scale.factor)}</b> <span className="cd-2">{scale.unit}</span>
        </span>
        {onClose && (
          <Button
            size="small"
            kind="ghost"
            icon={<IconX className="cd-icon" />}
            aria-label="Back to small charts"
            onClick={onClose}
          />
        )}
      </header>
      <p className="cd-2 cd-sub">
        {b
          ? b.state === "ready"
            ? `Expected ${rangeText(b.low, b.high, unit)}`
            : "Learning what is usual"
          : `${m.count.toLocaleString()} readings, no baseline`}
      </p>
      {query.isError ? (
        <Failure what="No chart" error={query.error} retry={() => void query.refetch()} />
      ) : query.data && query.data.t.length > 0 ? (
        <BandChart
          series={query.data}
          from={from}
          to={to}
          holds={holds}
          height={height}
          compact={!onClose}
          sync={`device-${device.id}`}
          label={`${name} of ${device.id}, now ${figure(m.value * scale.factor)} ${scale.unit}`}
        />
      ) : (
        <div style={{ height }} className="cd-3 cd-sub" aria-busy={query.isPending || undefined}>
          {query.data ? "No readings in this range" : ""}
        </div>
      )}
    </>
  );
}
