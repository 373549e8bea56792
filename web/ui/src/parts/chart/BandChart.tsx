import { useComputedColorScheme } from "@mantine/core";
import { useEffect, useId, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Series } from "../../api/types";
import { absolute, date, figure, hhmm } from "../../words/format";
import { axisRange, chartData } from "./data";
import { ink, type Marks, marksPlugin } from "./marks";
import "./chart.css";

export interface Span {
  from: number;
  to: number;
}

export interface Hold extends Span {
  /** What is written into the hatch. */
  title: string;
  detail?: string;
}

interface Props {
  series: Series;
  from: number;
  to: number;
  /** The limit in the metric's own unit. */
  threshold?: number;
  thresholdLabel?: string;
  /** The windows of findings. */
  windows?: readonly Span[];
  /** When the device was quarantined. */
  holds?: readonly Hold[];
  height: number;
  /** Small multiples: few ticks, no labels inside. */
  compact?: boolean;
  /** Charts with the same key share a cursor. */
  sync?: string;
  onZoom?: (from: number, to: number) => void;
  onReset?: () => void;
  /** One sentence that says what is seen. */
  label: string;
}

/** A metric over time with the band that was expected, the threshold, findings and quarantine. */
export function BandChart(props: Props) {
  const { series, from, to, threshold, thresholdLabel, windows, holds, height, compact, sync, label } = props;
  const box = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const callbacks = useRef(props);
  callbacks.current = props;
  const scheme = useComputedColorScheme("light");
  const data = useMemo(() => chartData(series, threshold), [series, threshold]);
  const [spoken, setSpoken] = useState("");
  const id = useId();

  useEffect(() => {
    const host = box.current;
    if (!host) return;
    const colours = ink(host);
    const marks: Marks = {
      windows: windows ?? [],
      holds: holds ?? [],
      threshold: threshold === undefined ? undefined : threshold * data.scale.factor,
      thresholdLabel: compact ? undefined : thresholdLabel,
      expectedLabel: !compact,
      learningUntil: series.expected?.learning_until ? Date.parse(series.expected.learning_until) : undefined,
      compact,
    };
    const rolled = series.resolution !== "raw";
    const span = to - from;
    const options: uPlot.Options = {
      width: Math.max(120, host.clientWidth),
      height,
      ms: 1,
      padding: compact ? [6, 2, 0, 0] : [14, 16, 0, 0],
      legend: { show: false },
      select: { show: true, left: 0, top: 0, width: 0, height: 0 },
      cursor: {
        y: false,
        drag: { x: !compact, y: false, setScale: false },
        points: { size: 7, fill: colours.text, stroke: colours.text },
        ...(sync ? { sync: { key: sync, setSeries: false } } : {}),
        bind: {
          dblclick: () => () => {
            callbacks.current.onReset?.();
            return null;
          },
        },
      },
      scales: {
        x: { time: true, range: () => [from, to] },
        y: { range: () => axisRange(data.bottom, data.top) },
      },
      axes: [
        {
          stroke: colours.muted,
          font: colours.font,
          size: 24,
          gap: 6,
          grid: { show: false },
          ticks: { show: false },
          space: compact ? 90 : 84,
          values: (_, splits) => splits.map((ms) => tickLabel(ms, span)),
        },
        {
          stroke: colours.muted,
          font: colours.font,
          size: (_, values) =>
            Math.max(compact ? 0 : 36, 14 + Math.max(1, ...(values ?? []).map((v) => v.length)) * 6.6),
          gap: 6,
          space: compact ? 40 : 46,
          grid: { stroke: colours.line, width: 1 },
          ticks: { show: false },
          values: (_, splits) => splits.map((v) => figure(v)),
        },
      ],
      series: [
        {},
        { stroke: colours.band, width: 1, points: { show: false } },
        { stroke: colours.band, width: 1, points: { show: false } },
        { stroke: colours.center, width: 1, dash: [2, 3], points: { show: false } },
        { stroke: "transparent", width: 0, points: { show: false } },
        { stroke: "transparent", width: 0, points: { show: false } },
        { stroke: colours.text, width: 1.4, points: { show: data.t.length < 3, size: 5 } },
        { stroke: colours.critical, width: 1.9, points: { show: false } },
      ],
      bands: [
        { series: [2, 1], fill: colours.wash },
        ...(rolled ? [{ series: [5, 4] as [number, number], fill: colours.spread }] : []),
      ],
      plugins: [marksPlugin(marks, colours)],
      hooks: {
        setSelect: [
          (u) => {
            if (u.select.width < 6) return;
            const a = u.posToVal(u.select.left, "x");
            const b = u.posToVal(u.select.left + u.select.width, "x");
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            callbacks.current.onZoom?.(Math.round(a), Math.round(b));
          },
        ],
        setCursor: [(u) => showTip(u)],
      },
    };
    const columns = [
      data.t,
      data.low,
      data.high,
      data.center,
      data.min,
      data.max,
      data.mean,
      data.outside,
    ] as uPlot.AlignedData;
    const u = new uPlot(options, columns, host);
    plot.current = u;

    function showTip(chart: uPlot) {
      const el = tip.current;
      if (!el) return;
      const idx = chart.cursor.idx;
      const left = chart.cursor.left ?? -1;
      if (idx === null || idx === undefined || left < 0) {
        el.hidden = true;
        return;
      }
      const i = nearest(data.mean, idx);
      const value = data.mean[i];
      const when = data.t[i];
      if (typeof value !== "number" || when === undefined) {
        el.hidden = true;
        return;
      }
      const low = around(data.t, data.low, when);
      const high = around(data.t, data.high, when);
      const lines = [
        `${figure(value)} ${data.scale.unit}`.trim(),
        low !== undefined && high !== undefined ? `Expected ${figure(low)} to ${figure(high)}` : "",
        `${date(new Date(when))} ${new Date(when).toLocaleTimeString(undefined, { hourCycle: "h23" })}`,
        rolled ? `${series.resolution} mean` : "raw reading",
      ];
      el.replaceChildren(
        ...lines.filter(Boolean).map((text, k) => {
          const line = document.createElement("div");
          line.textContent = text;
          line.className = k === 0 ? "cd-tip-value" : text.startsWith("Expected") ? "cd-expected" : "cd-3";
          return line;
        }),
      );
      el.hidden = false;
      const plotLeft = chart.bbox.left / devicePixelRatio;
      const wide = el.offsetWidth;
      const room = left + wide + 16 < chart.over.clientWidth;
      el.style.left = `${plotLeft + (room ? left + 12 : left - wide - 12)}px`;
      el.style.top = "18px";
    }

    const observer = new ResizeObserver(() => {
      if (host.clientWidth > 0) u.setSize({ width: host.clientWidth, height });
    });
    observer.observe(host);
    let alive = true;
    // Canvas text waits for no font: draw once more when they are there.
    void document.fonts?.ready.then(() => alive && u.redraw(false, true));
    return () => {
      alive = false;
      observer.disconnect();
      u.destroy();
      plot.current = undefined;
    };
  }, [data, from, to, threshold, thresholdLabel, windows, holds, height, compact, sync, scheme, series]);

  function move(step: number) {
    const u = plot.current;
    if (!u || data.t.length === 0) return;
    let i = u.cursor.idx ?? (step > 0 ? -1 : data.t.length);
    do i += step;
    while (i > 0 && i < data.t.length - 1 && typeof data.mean[i] !== "number");
    i = Math.max(0, Math.min(data.t.length - 1, i));
    const x = data.t[i] ?? 0;
    u.setCursor({ left: u.valToPos(x, "x"), top: 10 });
    const v = data.mean[i];
    if (typeof v === "number") setSpoken(`${figure(v)} ${data.scale.unit} at ${absolute(new Date(x))}`);
  }

  return (
    <div className="cd-chart" style={{ minHeight: height }}>
      <div
        ref={box}
        role="img"
        aria-label={label}
        aria-describedby={`${id}-at`}
        tabIndex={compact ? undefined : 0}
        onKeyDown={(e) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
          if (!step) return;
          e.preventDefault();
          move(e.shiftKey ? step * 10 : step);
        }}
      />
      <div ref={tip} className="cd-tip" hidden aria-hidden="true" />
      <span id={`${id}-at`} className="cd-hide" aria-live="polite">
        {spoken}
      </span>
    </div>
  );
}

function nearest(column: readonly (number | null | undefined)[], at: number): number {
  for (let d = 0; d < 60; d++) {
    if (typeof column[at - d] === "number") return at - d;
    if (typeof column[at + d] === "number") return at + d;
  }
  return at;
}

function around(t: readonly number[], column: readonly (number | null | undefined)[], x: number): number | undefined {
  let best: number | undefined;
  let distance = Number.POSITIVE_INFINITY;
  for (let i = 0; i < t.length; i++) {
    const v = column[i];
    const d = Math.abs((t[i] ?? 0) - x);
    if (typeof v === "number" && d < distance) {
      best = v;
      distance = d;
    }
  }
  return best;
}

function tickLabel(ms: number, span: number): string {
  const d = new Date(ms);
  if (span <= 10 * 60_000)
    return d.toLocaleTimeString(undefined, { hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  if (span <= 36 * 3_600_000) return hhmm(d);
  if (span <= 8 * 86_400_000) return d.getHours() === 0 && d.getMinutes() === 0 ? date(d) : `${date(d)} ${hhmm(d)}`;
  return date(d);
}
