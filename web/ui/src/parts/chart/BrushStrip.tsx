import { type PointerEvent, useRef, useState } from "react";
import type { Series } from "../../api/types";
import { absolute, at, hhmm } from "../../words/format";

/** The whole range with two handles; drag, or move the handles by arrow keys. */
export function BrushStrip({
  series,
  from,
  to,
  zoomFrom,
  zoomTo,
  onZoom,
}: {
  series: Series;
  from: number;
  to: number;
  zoomFrom: number;
  zoomTo: number;
  onZoom: (from: number, to: number) => void;
}) {
  const box = useRef<HTMLDivElement>(null);
  const [drag, setDrag] = useState<{ kind: "from" | "to" | "both" | "new"; start: number; a: number; b: number }>();
  const shownFrom = drag ? Math.min(drag.a, drag.b) : zoomFrom;
  const shownTo = drag ? Math.max(drag.a, drag.b) : zoomTo;
  const share = (x: number) => Math.min(1, Math.max(0, (x - from) / (to - from)));
  const least = (to - from) / 500;

  function time(e: PointerEvent): number {
    const r = box.current?.getBoundingClientRect();
    if (!r || r.width === 0) return from;
    return from + Math.min(1, Math.max(0, (e.clientX - r.left) / r.width)) * (to - from);
  }

  function begin(e: PointerEvent, kind: "from" | "to" | "both" | "new") {
    if (e.button !== 0) return;
    e.stopPropagation();
    box.current?.setPointerCapture(e.pointerId);
    const x = time(e);
    setDrag(kind === "new" ? { kind, start: x, a: x, b: x } : { kind, start: x, a: zoomFrom, b: zoomTo });
  }

  function move(e: PointerEvent) {
    if (!drag) return;
    const x = time(e);
    if (drag.kind === "from") setDrag({ ...drag, a: Math.min(x, zoomTo - least) });
    else if (drag.kind === "to") setDrag({ ...drag, b: Math.max(x, zoomFrom + least) });
    else if (drag.kind === "new") setDrag({ ...drag, b: x });
    else {
      const d = Math.max(from - zoomFrom, Math.min(to - zoomTo, x - drag.start));
      setDrag({ ...drag, a: zoomFrom + d, b: zoomTo + d });
    }
  }

  function end() {
    if (drag && Math.abs(drag.b - drag.a) > least) onZoom(Math.round(shownFrom), Math.round(shownTo));
    setDrag(undefined);
  }

  const handle = (which: "from" | "to") => {
    const value = which === "from" ? shownFrom : shownTo;
    return (
      <div
        role="slider"
        tabIndex={0}
        aria-label={which === "from" ? "Start of the zoomed part" : "End of the zoomed part"}
        aria-valuemin={Math.round(from / 1000)}
        aria-valuemax={Math.round(to / 1000)}
        aria-valuenow={Math.round(value / 1000)}
        aria-valuetext={absolute(new Date(value))}
        className="cd-brush-handle"
        style={{ left: `${share(value) * 100}%` }}
        onPointerDown={(e) => begin(e, which)}
        onKeyDown={(e) => {
          const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
          if (!step) return;
          e.preventDefault();
          e.stopPropagation();
          const d = (step * (to - from) * (e.shiftKey ? 10 : 1)) / 100;
          if (which === "from")
            onZoom(Math.round(Math.max(from, Math.min(zoomTo - least, zoomFrom + d))), Math.round(zoomTo));
          else onZoom(Math.round(zoomFrom), Math.round(Math.min(to, Math.max(zoomFrom + least, zoomTo + d))));
        }}
      />
    );
  };

  return (
    <div className="cd-brush-out">
      <div
        ref={box}
        className="cd-brush"
        onPointerDown={(e) => begin(e, "new")}
        onPointerMove={move}
        onPointerUp={end}
        onPointerCancel={() => setDrag(undefined)}
      >
        <Line series={series} from={from} to={to} />
        <div
          className="cd-brush-window"
          style={{ left: `${share(shownFrom) * 100}%`, width: `${(share(shownTo) - share(shownFrom)) * 100}%` }}
          onPointerDown={(e) => (zoomTo - zoomFrom < (to - from) * 0.98 ? begin(e, "both") : begin(e, "new"))}
        />
        {handle("from")}
        {handle("to")}
      </div>
      <div className="cd-brush-axis cd-cap cd-num" aria-hidden="true">
        {[0, 0.25, 0.5, 0.75, 1].map((f) => {
          const d = new Date(from + f * (to - from));
          return (
            <span key={f}>{to - from > 36 * 3_600_000 ? at(d, new Date(0)).replace(/ \d\d:\d\d$/, "") : hhmm(d)}</span>
          );
        })}
      </div>
    </div>
  );
}

function Line({ series, from, to }: { series: Series; from: number; to: number }) {
  const { t, mean } = series;
  if (t.length < 2) return null;
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const v of mean) {
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  const span = high - low || 1;
  const points = t.map(
    (x, i) =>
      `${(((x - from) / (to - from)) * 1000).toFixed(1)},${(30 - (((mean[i] ?? low) - low) / span) * 26).toFixed(1)}`,
  );
  return (
    <svg viewBox="0 0 1000 34" preserveAspectRatio="none" aria-hidden="true">
      <polyline
        points={points.join(" ")}
        fill="none"
        stroke="var(--cd-text-3)"
        strokeWidth="1.2"
        vectorEffect="non-scaling-stroke"
      />
    </svg>
  );
}
