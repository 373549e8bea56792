import type { Series } from "../../api/types";
import { type Scale, scaleFor, unitOf } from "../../words/format";

type Column = (number | null | undefined)[];

/** A series and its band on one time axis, in the unit that is shown. Undefined: nothing at this instant; null: a gap. */
export interface ChartData {
  t: number[];
  mean: Column;
  /** The readings outside the band, with the neighbours that the line needs. */
  outside: Column;
  min: Column;
  max: Column;
  low: Column;
  high: Column;
  center: Column;
  scale: Scale;
  /** Lowest and highest of all that is drawn. */
  bottom: number;
  top: number;
  newest?: { t: number; value: number };
}

/** A hole this many times the steps around it is a gap: no line crosses it. */
const gapSteps = 4;

function usualStep(t: readonly number[]): number {
  const steps: number[] = [];
  const stride = Math.max(1, Math.floor(t.length / 200));
  for (let i = stride; i < t.length; i += stride) {
    steps.push(((t[i] ?? 0) - (t[i - stride] ?? 0)) / stride);
  }
  steps.sort((a, b) => a - b);
  return steps[Math.floor(steps.length / 2)] ?? 0;
}

/** The value at x of a line through (xs, ys), or nothing outside of it. */
export function interpolate(xs: readonly number[], ys: readonly number[], x: number): number | undefined {
  const n = xs.length;
  if (n === 0 || x < (xs[0] ?? 0) || x > (xs[n - 1] ?? 0)) return undefined;
  let a = 0;
  let b = n - 1;
  while (b - a > 1) {
    const m = (a + b) >> 1;
    if ((xs[m] ?? 0) <= x) a = m;
    else b = m;
  }
  const xa = xs[a] ?? 0;
  const xb = xs[b] ?? 0;
  const ya = ys[a] ?? 0;
  const yb = ys[b] ?? 0;
  return xb === xa ? ya : ya + ((yb - ya) * (x - xa)) / (xb - xa);
}

interface Spot {
  mean?: number | null;
  min?: number;
  max?: number;
  low?: number;
  high?: number;
  center?: number;
}

/** Puts readings and band on one axis, marks gaps, and finds what lies outside the band. */
export function chartData(series: Series, threshold?: number): ChartData {
  const { t, mean, min, max } = series;
  const e = series.expected;
  const spots = new Map<number, Spot>();
  const at = (x: number) => {
    let spot = spots.get(x);
    if (!spot) {
      spot = {};
      spots.set(x, spot);
    }
    return spot;
  };
  let largest = 0;
  const step = usualStep(t);
  for (let i = 0; i < t.length; i++) {
    const x = t[i] ?? 0;
    const before = t[i - 1];
    if (before !== undefined) {
      // A device may report at another pace than it once did: only the steps on either side count.
      const around = Math.max(step, before - (t[i - 2] ?? before), (t[i + 1] ?? x) - x);
      if (around > 0 && x - before > around * gapSteps) at(before + around).mean = null;
    }
    Object.assign(at(x), { mean: mean[i], min: min[i], max: max[i] });
    largest = Math.max(largest, Math.abs(max[i] ?? 0));
  }
  if (e) {
    for (let i = 0; i < e.t.length; i++) {
      Object.assign(at(e.t[i] ?? 0), { low: e.low[i], high: e.high[i], center: e.center[i] });
      largest = Math.max(largest, Math.abs(e.high[i] ?? 0));
    }
  }
  if (t.length === 0 && threshold !== undefined) largest = Math.abs(threshold);
  const scale = scaleFor(unitOf(series.metric, series.unit), largest);
  const f = scale.factor;
  const xs = [...spots.keys()].sort((a, b) => a - b);
  const out: ChartData = {
    t: xs,
    mean: [],
    outside: [],
    min: [],
    max: [],
    low: [],
    high: [],
    center: [],
    scale,
    bottom: Infinity,
    top: -Infinity,
  };
  const scaled = (v: number | null | undefined) => (typeof v === "number" ? v * f : v);
  const stray: boolean[] = [];
  for (const x of xs) {
    const s = spots.get(x) ?? {};
    out.mean.push(scaled(s.mean));
    out.min.push(scaled(s.min));
    out.max.push(scaled(s.max));
    out.low.push(scaled(s.low));
    out.high.push(scaled(s.high));
    out.center.push(scaled(s.center));
    let isStray = false;
    if (typeof s.mean === "number" && e) {
      const low = interpolate(e.t, e.low, x);
      const high = interpolate(e.t, e.high, x);
      isStray = low !== undefined && high !== undefined && (s.mean < low || s.mean > high);
    }
    stray.push(isStray);
    for (const v of [s.mean, s.min, s.max, s.low, s.high]) {
      if (typeof v !== "number") continue;
      out.bottom = Math.min(out.bottom, v * f);
      out.top = Math.max(out.top, v * f);
    }
    if (typeof s.mean === "number") out.newest = { t: x, value: s.mean * f };
  }
  // A stray reading is drawn with both neighbours, so that its line joins on.
  const real = xs.map((_, i) => i).filter((i) => typeof out.mean[i] === "number" || out.mean[i] === null);
  out.outside = xs.map(() => undefined);
  real.forEach((i, k) => {
    const near = stray[i] || stray[real[k - 1] ?? -1] || stray[real[k + 1] ?? -1];
    out.outside[i] = near && typeof out.mean[i] === "number" ? out.mean[i] : null;
  });
  if (threshold !== undefined && Number.isFinite(out.top)) {
    const span = Math.max(out.top - out.bottom, Math.abs(out.top) * 0.1, 1e-9);
    const th = threshold * f;
    // A far threshold would flatten the readings; near ones are always in view.
    if (th <= out.top + span * 1.6 && th >= out.bottom - span * 1.6) {
      out.top = Math.max(out.top, th);
      out.bottom = Math.min(out.bottom, th);
    }
  }
  return out;
}

/** Where the vertical axis begins and ends: from zero when the values are near it. */
export function axisRange(bottom: number, top: number): [number, number] {
  if (!Number.isFinite(bottom) || !Number.isFinite(top)) return [0, 1];
  const span = top - bottom || Math.abs(top) * 0.2 || 1;
  const high = top + span * 0.1;
  if (bottom >= 0 && (bottom < top * 0.6 || bottom === 0)) return [0, high];
  return [bottom - span * 0.1, high];
}
