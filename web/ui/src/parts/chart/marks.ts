import type uPlot from "uplot";
import { figure } from "../../words/format";

export interface Ink {
  text: string;
  muted: string;
  line: string;
  band: string;
  center: string;
  wash: string;
  spread: string;
  critical: string;
  criticalText: string;
  window: string;
  high: string;
  highText: string;
  cordon: string;
  cordonText: string;
  cordonWash: string;
  expectedText: string;
  surface: string;
  font: string;
}

/** The colours of the present scheme, for the canvas. */
export function ink(host: HTMLElement): Ink {
  const style = getComputedStyle(host);
  const v = (name: string) => style.getPropertyValue(`--cd-${name}`).trim();
  const clear = (colour: string, alpha: string) =>
    `${colour}${Math.round(Number.parseFloat(alpha) * 2.55)
      .toString(16)
      .padStart(2, "0")}`;
  return {
    text: v("text"),
    muted: v("text-3"),
    line: v("line"),
    band: clear(v("expected-fill"), "50%"),
    center: v("expected-fill"),
    wash: clear(v("expected-fill"), v("band-alpha")),
    spread: clear(v("text-3"), "22%"),
    critical: v("critical-fill"),
    criticalText: v("critical"),
    window: clear(v("critical-fill"), v("window-alpha")),
    high: v("high-fill"),
    highText: v("high"),
    cordon: v("cordon-fill"),
    cordonText: v("cordon"),
    cordonWash: v("cordon-wash"),
    expectedText: v("expected"),
    surface: v("surface"),
    font: `500 11px ${v("font")}`,
  };
}

export interface Marks {
  windows: readonly { from: number; to: number }[];
  holds: readonly { from: number; to: number; title: string; detail?: string }[];
  threshold?: number;
  thresholdLabel?: string;
  expectedLabel?: boolean;
  learningUntil?: number;
  compact?: boolean;
}

/** Draws what is not a line: quarantine hatch, finding windows, threshold and the words in the plot. */
export function marksPlugin(marks: Marks, colours: Ink): uPlot.Plugin {
  return { hooks: { drawAxes: [(u) => under(u, marks, colours)], draw: [(u) => over(u, marks, colours)] } };
}

function within(u: uPlot, draw: (ctx: CanvasRenderingContext2D, px: number) => void) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top - 12 * devicePixelRatio, bbox.width, bbox.height + 12 * devicePixelRatio);
  ctx.clip();
  draw(ctx, devicePixelRatio);
  ctx.restore();
}

function columnOf(u: uPlot, span: { from: number; to: number }, px: number): { x: number; w: number } | undefined {
  const { left, width } = u.bbox;
  const a = Math.max(left, u.valToPos(span.from, "x", true));
  const b = Math.min(left + width, u.valToPos(span.to, "x", true));
  if (b < left || a > left + width) return undefined;
  // A window of one instant still shows.
  return { x: b - a < 3 * px ? a - 1.5 * px : a, w: Math.max(b - a, 3 * px) };
}

function under(u: uPlot, marks: Marks, colours: Ink) {
  within(u, (ctx, px) => {
    const { top, height, left, width } = u.bbox;
    for (const hold of marks.holds) {
      const c = columnOf(u, hold, px);
      if (!c) continue;
      ctx.fillStyle = colours.cordonWash;
      ctx.fillRect(c.x, top, c.w, height);
      ctx.save();
      ctx.beginPath();
      ctx.rect(c.x, top, c.w, height);
      ctx.clip();
      ctx.strokeStyle = colours.cordon;
      ctx.globalAlpha = 0.35;
      ctx.lineWidth = px;
      const step = 9 * px;
      for (let x = c.x - height; x < c.x + c.w; x += step) {
        ctx.beginPath();
        ctx.moveTo(x, top + height);
        ctx.lineTo(x + height, top);
        ctx.stroke();
      }
      ctx.restore();
    }
    for (const w of marks.windows) {
      const c = columnOf(u, w, px);
      if (!c) continue;
      ctx.fillStyle = colours.window;
      ctx.fillRect(c.x, top, c.w, height);
      ctx.fillStyle = colours.critical;
      ctx.fillRect(c.x, top - 3 * px, c.w, 3 * px);
      ctx.strokeStyle = colours.critical;
      ctx.globalAlpha = 0.6;
      ctx.lineWidth = px;
      ctx.setLineDash([2 * px, 3 * px]);
      for (const x of [c.x, c.x + c.w]) {
        ctx.beginPath();
        ctx.moveTo(x, top);
        ctx.lineTo(x, top + height);
        ctx.stroke();
      }
      ctx.setLineDash([]);
      ctx.globalAlpha = 1;
    }
    if (marks.learningUntil) {
      const c = columnOf(u, { from: u.scales.x?.min ?? 0, to: marks.learningUntil }, px);
      if (c && c.x + c.w > left + 4 * px) {
        ctx.strokeStyle = colours.band;
        ctx.setLineDash([3 * px, 3 * px]);
        ctx.lineWidth = px;
        ctx.beginPath();
        ctx.moveTo(c.x + c.w, top);
        ctx.lineTo(c.x + c.w, top + height);
        ctx.stroke();
        ctx.setLineDash([]);
      }
    }
    if (marks.threshold !== undefined) {
      const y = u.valToPos(marks.threshold, "y", true);
      if (y >= top - 2 && y <= top + height) {
        ctx.strokeStyle = colours.high;
        ctx.lineWidth = 1.2 * px;
        ctx.setLineDash([6 * px, 4 * px]);
        ctx.beginPath();
        ctx.moveTo(left, y);
        ctx.lineTo(left + width, y);
        ctx.stroke();
        ctx.setLineDash([]);
      }
    }
  });
}

function over(u: uPlot, marks: Marks, colours: Ink) {
  if (marks.compact) return;
  within(u, (ctx, px) => {
    const { top, height, left, width } = u.bbox;
    const write = (text: string, x: number, y: number, colour: string, align: CanvasTextAlign = "left") => {
      ctx.font = colours.font.replace("11px", `${11 * px}px`);
      ctx.textAlign = align;
      ctx.textBaseline = "middle";
      ctx.lineWidth = 4 * px;
      ctx.lineJoin = "round";
      ctx.strokeStyle = colours.surface;
      ctx.globalAlpha = 0.85;
      ctx.strokeText(text, x, y);
      ctx.globalAlpha = 1;
      ctx.fillStyle = colour;
      ctx.fillText(text, x, y);
    };
    if (marks.threshold !== undefined && marks.thresholdLabel) {
      const y = u.valToPos(marks.threshold, "y", true);
      if (y >= top - 2 && y <= top + height)
        write(marks.thresholdLabel, left + 6 * px, y - 9 * px > top ? y - 9 * px : y + 9 * px, colours.highText);
    }
    if (marks.expectedLabel) expected(u, colours, write, px, marks.learningUntil);
    for (const hold of marks.holds) {
      const c = columnOf(u, hold, px);
      if (!c || c.w < 84 * px) continue;
      const middle = c.x + c.w / 2;
      write(hold.title, middle, top + height * 0.16, colours.cordonText, "center");
      if (hold.detail && c.w > 190 * px)
        write(hold.detail, middle, top + height * 0.16 + 15 * px, colours.cordonText, "center");
    }
    void width;
  });
}

/** "Expected 6 to 14", above the band where the newest of it is. */
function expected(
  u: uPlot,
  colours: Ink,
  write: (text: string, x: number, y: number, colour: string, align?: CanvasTextAlign) => void,
  px: number,
  learningUntil: number | undefined,
) {
  const t = u.data[0];
  const low = u.data[1];
  const high = u.data[2];
  if (!low || !high) return;
  const min = u.scales.x?.min ?? 0;
  const max = u.scales.x?.max ?? 0;
  const goal = min + (max - min) * 0.42;
  let best = -1;
  for (let i = 0; i < t.length; i++) {
    const x = t[i] ?? 0;
    if (typeof low[i] !== "number" || typeof high[i] !== "number" || x < min || x > max) continue;
    if (best < 0 || Math.abs(x - goal) < Math.abs((t[best] ?? 0) - goal)) best = i;
  }
  if (best < 0) return;
  const x = u.valToPos(t[best] ?? 0, "x", true);
  const y = u.valToPos(high[best] as number, "y", true) - 10 * px;
  const learning = learningUntil && learningUntil > (t[best] ?? 0) ? ", still learning" : "";
  const { top, left, width } = u.bbox;
  const text = `Expected ${figure(low[best] as number)} to ${figure(high[best] as number)}${learning}`;
  write(
    text,
    Math.min(Math.max(x, left + 70 * px), left + width - 70 * px),
    Math.max(y, top + 8 * px),
    colours.expectedText,
    "center",
  );
}
