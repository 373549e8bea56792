import { useElementSize } from "@mantine/hooks";
import { useMemo } from "react";
import type { IncidentsInHour } from "../../api/types";
import { useNow } from "../../parts/When";
import { hhmm } from "../../words/format";
import { rank, type Severity, severityWord, worstFirst } from "../../words/words";

const height = 150;
const left = 28;
const bottom = 20;
const top = 10;

/** Incidents that opened in each of the last 24 hours, the worst at the bottom; large segments carry their bars. */
export function IncidentBars({ rows }: { rows: readonly IncidentsInHour[] }) {
  const { ref, width } = useElementSize<HTMLDivElement>();
  const hour = Math.floor(useNow() / 3_600_000) * 3_600_000;
  const hours = useMemo(() => {
    const list = Array.from({ length: 24 }, (_, i) => ({
      at: hour - (23 - i) * 3_600_000,
      by: new Map<Severity, number>(),
      total: 0,
    }));
    for (const r of rows) {
      const slot = list[23 - Math.round((hour - Date.parse(r.hour)) / 3_600_000)];
      if (!slot) continue;
      slot.by.set(r.severity, (slot.by.get(r.severity) ?? 0) + r.count);
      slot.total += r.count;
    }
    return list;
  }, [rows, hour]);
  const most = Math.max(2, ...hours.map((h) => h.total));
  const step = niceStep(most);
  const ceiling = Math.ceil(most / step) * step;
  const plot = Math.max(100, width) - left - 8;
  const slot = plot / 24;
  const bar = Math.min(30, slot * 0.74);
  const y = (n: number) => top + (height - top - bottom) * (1 - n / ceiling);
  const all = hours.reduce((n, h) => n + h.total, 0);
  const every = width < 500 ? 6 : 4;
  return (
    <div ref={ref}>
      <svg
        width="100%"
        height={height}
        role="img"
        aria-label={`${all} incidents opened in the last 24 hours. ${said(hours)}`}
        className="cd-bars"
      >
        {Array.from({ length: ceiling / step + 1 }, (_, i) => i * step).map((n) => (
          <g key={n}>
            <line x1={left} x2="100%" y1={y(n)} y2={y(n)} stroke="var(--cd-line)" />
            <text x={left - 8} y={y(n) + 4} textAnchor="end">
              {n}
            </text>
          </g>
        ))}
        {width > 0 &&
          hours.map((h, i) => {
            const x = left + i * slot + (slot - bar) / 2;
            let base = 0;
            return (
              <g key={h.at}>
                {worstFirst.map((s) => {
                  const n = h.by.get(s) ?? 0;
                  if (n === 0) return null;
                  const y0 = y(base);
                  const y1 = y(base + n);
                  base += n;
                  return (
                    <Segment
                      key={s}
                      severity={s}
                      x={x}
                      y={y1 + 1}
                      width={bar}
                      height={Math.max(1, y0 - y1 - 1)}
                      title={`${hhmm(new Date(h.at))}: ${n} ${severityWord[s].toLowerCase()}`}
                    />
                  );
                })}
                {(i % every === 0 || i === 23) && (i === 23 || i < 22) && (
                  <text x={x + bar / 2} y={height - 4} textAnchor="middle">
                    {i === 23 ? "now" : hhmm(new Date(h.at))}
                  </text>
                )}
              </g>
            );
          })}
      </svg>
    </div>
  );
}

function Segment({
  severity,
  x,
  y,
  width,
  height: h,
  title,
}: {
  severity: Severity;
  x: number;
  y: number;
  width: number;
  height: number;
  title: string;
}) {
  const n = rank(severity);
  const outline = severity === "informational";
  const notches = h >= 12 && width >= 12 ? n - 1 : 0;
  const gap = 3.2;
  const start = y + h / 2 - ((notches - 1) * gap) / 2;
  return (
    <g>
      <title>{title}</title>
      <rect
        x={outline ? x + 0.75 : x}
        y={outline ? y + 0.75 : y}
        width={outline ? width - 1.5 : width}
        height={outline ? Math.max(1, h - 1.5) : h}
        rx="2"
        fill={outline ? "none" : `var(--cd-${severity}-fill)`}
        stroke={outline ? "var(--cd-info-fill)" : "none"}
        strokeWidth="1.3"
      />
      {Array.from({ length: notches }, (_, i) => {
        const w = 4 + (notches - 1 - i) * 2;
        return (
          <rect
            key={`${w}`}
            x={x + width / 2 - w / 2}
            y={start + i * gap - 0.8}
            width={w}
            height="1.6"
            rx=".4"
            fill="var(--cd-surface)"
          />
        );
      })}
    </g>
  );
}

function niceStep(most: number): number {
  const raw = most / 4;
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw) ?? 10 * power;
}

function said(hours: { at: number; total: number }[]): string {
  const busiest = hours.reduce((a, b) => (b.total > a.total ? b : a));
  return busiest.total > 0 ? `Most, ${busiest.total}, in the hour from ${hhmm(new Date(busiest.at))}.` : "";
}
