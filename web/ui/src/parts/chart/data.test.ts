import { describe, expect, it } from "vitest";
import type { Series } from "../../api/types";
import { axisRange, chartData, interpolate } from "./data";
import { fittingRange, frame } from "./ranges";

function series(t: number[], mean: number[], expected?: { t: number[]; low: number[]; high: number[] }): Series {
  return {
    metric: "cpu_percent",
    unit: "%",
    resolution: "raw",
    t,
    mean,
    min: mean,
    max: mean,
    expected: expected && { ...expected, center: expected.low.map((l, i) => (l + (expected.high[i] ?? l)) / 2) },
  };
}

describe("chartData", () => {
  it("draws what lies outside the band apart, joined to its neighbours", () => {
    const d = chartData(series([0, 10, 20, 30], [5, 5, 50, 5], { t: [0, 30], low: [0, 0], high: [10, 10] }));
    expect(d.outside).toEqual([null, 5, 50, 5]);
    expect(d.top).toBe(50);
  });
  it("marks a hole in the readings as a gap", () => {
    const d = chartData(series([0, 10, 20, 30, 500, 510], [1, 1, 1, 1, 1, 1]));
    expect(d.t).toEqual([0, 10, 20, 30, 40, 500, 510]);
    expect(d.mean[4]).toBeNull();
  });
  it("sees no gap where the pace changes", () => {
    const t = [0, 60, 120, 180, 190, 200, 210, 220, 230, 240, 250, 260, 270, 280];
    expect(chartData(series(t, t)).mean).not.toContain(null);
  });
  it("leaves instants of the band without a reading out of the line", () => {
    const d = chartData(series([0, 20], [1, 1], { t: [0, 10, 20], low: [0, 0, 0], high: [2, 2, 2] }));
    expect(d.mean).toEqual([1, undefined, 1]);
  });
  it("shows a threshold that is near and not one that would flatten the readings", () => {
    expect(chartData(series([0, 10], [10, 20]), 25).top).toBe(25);
    expect(chartData(series([0, 10], [10, 20]), 1_000).top).toBe(20);
  });
  it("has no bounds without readings", () => {
    const d = chartData(series([], []));
    expect(axisRange(d.bottom, d.top)).toEqual([0, 1]);
  });
});

describe("interpolate", () => {
  it("is linear inside and silent outside", () => {
    expect(interpolate([0, 10], [0, 100], 5)).toBe(50);
    expect(interpolate([0, 10], [0, 100], 11)).toBeUndefined();
    expect(interpolate([], [], 1)).toBeUndefined();
  });
});

describe("ranges", () => {
  it("fit a window with what was before it", () => {
    expect(fittingRange(0, 60_000)).toBe("1h");
    expect(fittingRange(0, 2 * 3_600_000)).toBe("24h");
  });
  it("never reach into the future by more than their grain, and show old windows with some room", () => {
    const now = Date.UTC(2026, 10, 24, 12);
    expect(frame(now - 60_000, "1h", now).to).toBe(now);
    const old = frame(now - 30 * 86_400_000, "3h", now);
    expect(old.to).toBeGreaterThan(now - 30 * 86_400_000);
    expect(old.to).toBeLessThan(now - 29 * 86_400_000);
  });
});
