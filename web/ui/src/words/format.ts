// Numbers, units and times as people read them, in the viewer's locale and zone.

const NNBSP = " ";

const grouped = new Intl.NumberFormat(undefined, { maximumFractionDigits: 3 });

/** 12480 → "12,480". */
export function count(n: number | undefined): string {
  return n === undefined || !Number.isFinite(n) ? "" : grouped.format(n);
}

/** Three significant digits, grouped: what prose and small labels show. */
export function figure(n: number): string {
  if (n === 0) return "0";
  const magnitude = Math.floor(Math.log10(Math.abs(n)));
  const digits = Math.max(0, Math.min(6, 2 - magnitude));
  return new Intl.NumberFormat(undefined, { maximumFractionDigits: digits }).format(n);
}

/** 41200 → "41.2 k": rates and large counts where room is short. */
export function short(n: number): string {
  const abs = Math.abs(n);
  if (abs >= 1e9) return `${figure(n / 1e9)}${NNBSP}G`;
  if (abs >= 1e6) return `${figure(n / 1e6)}${NNBSP}M`;
  if (abs >= 1e4) return `${figure(n / 1e3)}${NNBSP}k`;
  return figure(n);
}

export interface Scale {
  /** Multiply a raw value by this before it is shown. */
  factor: number;
  /** The unit as it is written, without a leading space; empty for plain counts. */
  unit: string;
}

const prefixes = [
  { from: 1e12, factor: 1e-12, prefix: "T" },
  { from: 1e9, factor: 1e-9, prefix: "G" },
  { from: 1e6, factor: 1e-6, prefix: "M" },
  { from: 1e3, factor: 1e-3, prefix: "k" },
];

const plainUnits: Record<string, string> = {
  Cel: "°C",
  "%": "%",
  s: "s",
  ms: "ms",
  V: "V",
  A: "A",
  W: "W",
  Hz: "Hz",
  "/s": "per s",
  "/min": "per min",
  "1/s": "per s",
  "1/min": "per min",
  "1": "",
  "": "",
};

/** Which scale shows values up to max in unit (UCUM-like: Cel, By/s, %, 1). */
export function scaleFor(unit: string | undefined, max: number): Scale {
  const u = unit ?? "";
  if (u === "By" || u.startsWith("By/")) {
    const per = u.slice(2);
    const step = prefixes.find((p) => Math.abs(max) >= p.from);
    return step ? { factor: step.factor, unit: `${step.prefix}B${per}` } : { factor: 1, unit: `B${per}` };
  }
  const known = plainUnits[u];
  return { factor: 1, unit: known ?? u.replace(/[{}]/g, "") };
}

/** 36100000 in By/min → "36.1 MB/min". */
export function quantity(value: number, unit?: string): string {
  const scale = scaleFor(unit, value);
  const text = figure(value * scale.factor);
  return scale.unit ? `${text}${NNBSP}${scale.unit}` : text;
}

/** "6 to 14 MB/min"; both ends in the scale of the higher one. */
export function range(low: number, high: number, unit?: string): string {
  const scale = scaleFor(unit, Math.max(Math.abs(low), Math.abs(high)));
  const a = figure(low * scale.factor);
  const b = figure(high * scale.factor);
  const both = a === b ? a : `${a} to ${b}`;
  return scale.unit ? `${both}${NNBSP}${scale.unit}` : both;
}

/** 1234567 → "1.23 MB". */
export function bytes(n: number): string {
  return quantity(n, "By");
}

/** Milliseconds → "0.9 ms", "434 ms", "2.9 s". */
export function took(ms: number): string {
  if (ms < 1000) return `${ms < 10 ? figure(Math.round(ms * 10) / 10) : Math.round(ms)}${NNBSP}ms`;
  return `${figure(ms / 1000)}${NNBSP}s`;
}

/** A length of time in at most two parts: "3 h 14 min", "47 min", "12 s". */
export function duration(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s}${NNBSP}s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min}${NNBSP}min`;
  const h = Math.floor(min / 60);
  if (h < 24) return min % 60 ? `${h}${NNBSP}h ${min % 60}${NNBSP}min` : `${h}${NNBSP}h`;
  const d = Math.floor(h / 24);
  if (d < 60) return h % 24 && d < 7 ? `${d}${NNBSP}d ${h % 24}${NNBSP}h` : `${d}${NNBSP}d`;
  return `${Math.floor(d / 30.44)}${NNBSP}months`;
}

const sameYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const otherYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const zoned = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
  timeZoneName: "short",
});

/** Go writes absent times as year 1. */
export function isTime(at: string | undefined | null): at is string {
  return !!at && !at.startsWith("0001-");
}

export function date(at: Date): string {
  return at.getFullYear() === new Date().getFullYear() ? sameYear.format(at) : otherYear.format(at);
}

/** "14:32" today, "3 Feb 14:32" on another day. */
export function at(time: Date, now: Date = new Date()): string {
  return time.toDateString() === now.toDateString() ? clock.format(time) : `${date(time)} ${clock.format(time)}`;
}

export function hhmm(time: Date): string {
  return clock.format(time);
}

/** To the millisecond, for proof, evidence and logs: "13:46:03.512". */
export function precise(time: Date): string {
  const pad = (n: number, width = 2) => String(n).padStart(width, "0");
  return `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}.${pad(time.getMilliseconds(), 3)}`;
}

/** Date as well when it is not today: "24 Nov 13:46:03.512". */
export function preciseDay(time: Date, now: Date = new Date()): string {
  return time.toDateString() === now.toDateString() ? precise(time) : `${date(time)} ${precise(time)}`;
}

/** With zone and UTC, for hover and focus. */
export function absolute(time: Date): string {
  return `${zoned.format(time)} (${time.toISOString()})`;
}

/** How long ago, short: "now", "18 min", "4 h 02", then the date. */
export function age(time: Date, now: number): string {
  const s = Math.round((now - time.getTime()) / 1000);
  if (s < -2) return `in ${duration(-s * 1000)}`;
  if (s < 2) return "now";
  if (s < 60) return `${s}${NNBSP}s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min}${NNBSP}min`;
  const h = Math.floor(min / 60);
  if (h < 6) return `${h}${NNBSP}h ${String(min % 60).padStart(2, "0")}`;
  if (h < 24) return `${h}${NNBSP}h`;
  return date(time);
}

export function plural(n: number, one: string, many: string): string {
  return n === 1 ? one : many;
}

/** The unit of a metric; names say what a plain rate counts. */
export function unitOf(metric: string, unit: string | undefined): string {
  if (unit === "1/s" && metric.includes("bytes")) return "By/s";
  if (unit === "1/s" && metric.includes("packets")) return "packets/s";
  return unit ?? "";
}

/** cpu_temp_celsius → "Cpu temp celsius" would be ugly; known parts become words. */
export function metricName(metric: string): string {
  const words = metric
    .replace(/_(celsius|percent|seconds|total|ratio|count|watts|per_second|per_minute)$/g, "")
    .split(/[_.]/)
    .map(
      (w) =>
        ({
          cpu: "CPU",
          temp: "temperature",
          net: "network",
          mem: "memory",
          tx: "sent",
          rx: "received",
          tcp: "TCP",
          udp: "UDP",
          dns: "DNS",
          io: "I/O",
          conn: "connections",
          pct: "",
        })[w] ?? w,
    )
    .filter(Boolean);
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Unix milliseconds with the fractions that Go writes and Date drops. */
export function unixMs(time: string): number {
  const fraction = /\.(\d{3})(\d+)/.exec(time)?.[2];
  return Date.parse(time) + (fraction ? Number(`0.${fraction}`) : 0);
}
