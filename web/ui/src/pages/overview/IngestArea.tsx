import { useElementSize } from "@mantine/hooks";
import type { Overview } from "../../api/types";
import { hhmm, short } from "../../words/format";

const height = 150;

/** Readings stored per second over the last hour. */
export function IngestArea({ points }: { points: Overview["ingest"]["series"] }) {
  const { ref, width } = useElementSize<HTMLDivElement>();
  if (points.length < 2) return <p className="cd-2">No readings were stored in the last hour.</p>;
  const step = Math.max(1, (Date.parse(points[1]?.at ?? "") - Date.parse(points[0]?.at ?? "")) / 1000);
  // The last minute is not over yet.
  const values = points.slice(0, -1).map((p) => ({ at: Date.parse(p.at), v: p.readings / step }));
  const top = Math.max(...values.map((p) => p.v), 1);
  const left = 40;
  const plot = Math.max(60, width) - left - 4;
  const first = values[0]?.at ?? 0;
  const last = values.at(-1)?.at ?? 1;
  const x = (t: number) => left + (last > first ? (t - first) / (last - first) : 0) * plot;
  const y = (v: number) => 8 + (height - 30) * (1 - v / (top * 1.1));
  const line = values.map((p) => `${x(p.at).toFixed(1)},${y(p.v).toFixed(1)}`).join(" ");
  return (
    <div ref={ref}>
      <svg
        width="100%"
        height={height}
        role="img"
        aria-label={`Readings per second over the last hour, at most ${short(top)}`}
        className="cd-bars"
      >
        {[0, 0.5, 1].map((f) => (
          <g key={f}>
            <line x1={left} x2="100%" y1={y(f * top)} y2={y(f * top)} stroke="var(--cd-line)" />
            <text x={left - 6} y={y(f * top) + 4} textAnchor="end">
              {short(f * top)}
            </text>
          </g>
        ))}
        {width > 0 && (
          <>
            <polygon
              points={`${x(first)},${y(0)} ${line} ${x(last)},${y(0)}`}
              fill="var(--cd-expected-fill)"
              opacity=".12"
            />
            <polyline points={line} fill="none" stroke="var(--cd-expected-fill)" strokeWidth="1.4" />
            <text x={left} y={height - 4}>
              {hhmm(new Date(first))}
            </text>
            <text x={left + plot} y={height - 4} textAnchor="end">
              now
            </text>
          </>
        )}
      </svg>
    </div>
  );
}
