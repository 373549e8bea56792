import type { Range } from "../../router";

export const rangeMs: Record<Range, number> = {
  "1h": 3_600_000,
  "3h": 3 * 3_600_000,
  "24h": 24 * 3_600_000,
  "7d": 7 * 86_400_000,
  "30d": 30 * 86_400_000,
  "1y": 365 * 86_400_000,
};

export const rangeOptions = (Object.keys(rangeMs) as Range[]).map((value) => ({
  value,
  label: value.replace(/(\d+)(\D)/, "$1 $2"),
}));

/** The shortest range in which a window is seen with what was before it. */
export function fittingRange(from: number, to: number): Range {
  const need = Math.max(to - from, 0) * 2.5;
  return (Object.keys(rangeMs) as Range[]).find((r) => rangeMs[r] >= Math.max(need, rangeMs["1h"])) ?? "1y";
}

/** Where a chart about a window that ended at last begins and ends; never in the future. */
export function frame(last: number, range: Range, now: number): { from: number; to: number } {
  const length = rangeMs[range];
  const quantum = Math.max(15_000, length / 720);
  const present = Math.ceil(now / quantum) * quantum;
  // What is recent is shown up to now; what is old with some room after it.
  const to = present - last < length * 0.6 ? present : Math.ceil((last + length * 0.2) / quantum) * quantum;
  return { from: to - length, to };
}
