import { leveledWord, quarantineStateWord, rank, type Severity, severityWord } from "../words/words";
import "./marks.css";

const bars = [
  { x: 5.4, y: 12, width: 5.2 },
  { x: 4.2, y: 9.2, width: 7.6 },
  { x: 3, y: 6.4, width: 10 },
  { x: 1.8, y: 3.6, width: 12.4 },
];
const criticalBars = [
  { x: 6, y: 11.4, width: 4 },
  { x: 5, y: 9, width: 6 },
  { x: 4, y: 6.6, width: 8 },
  { x: 3, y: 4.2, width: 10 },
];

/** Severity as a number of bars; critical is the strongest shape on any page. */
export function SeverityMark({
  severity,
  size = 16,
  named = true,
}: {
  severity: string;
  size?: number;
  named?: boolean;
}) {
  const n = rank(severity);
  const name = severityWord[severity as Severity] ?? severity;
  const label = named ? { role: "img", "aria-label": name } : { "aria-hidden": true };
  if (n === 5) {
    return (
      <svg className="cd-mark" width={size} height={size} viewBox="0 0 16 16" {...label}>
        <rect width="16" height="16" rx="3.5" fill="var(--cd-critical-fill)" />
        {criticalBars.map((b) => (
          <rect key={b.y} {...b} height="1.5" rx=".4" fill="#fff" />
        ))}
      </svg>
    );
  }
  const fill = `var(--cd-${n === 1 ? "info" : severity}-fill)`;
  return (
    <svg className="cd-mark" width={size} height={size} viewBox="0 0 16 16" {...label}>
      {bars.map((b, i) => (
        <rect key={b.y} {...b} height="1.9" rx=".5" fill={i < n - 1 ? fill : "var(--cd-line-quiet)"} />
      ))}
      {n <= 1 && <rect {...bars[0]} height="1.9" rx=".5" fill="none" stroke={fill} strokeWidth=".9" />}
    </svg>
  );
}

export function SeverityLabel({ severity, size = 16 }: { severity: string; size?: number }) {
  return (
    <span className={`cd-sev cd-${severity}`}>
      <SeverityMark severity={severity} size={size} named={false} />
      {severityWord[severity as Severity] ?? severity}
    </span>
  );
}

export type GlyphName =
  | "requested"
  | "applied"
  | "confirmed"
  | "released"
  | "expired"
  | "failed"
  | "reporting"
  | "learning"
  | "silent"
  | "retired"
  | "open"
  | "acknowledged"
  | "resolved"
  | "armed"
  | "alert"
  | "shadow"
  | "off";

const violet = "var(--cd-cordon-fill)";
const grey = "var(--cd-text-3)";
const teal = "var(--cd-expected-fill)";

function ring(dash: string, cap?: "round") {
  return (
    <>
      <circle
        cx="8"
        cy="8"
        r="6.2"
        fill="none"
        stroke={violet}
        strokeWidth="1.7"
        strokeDasharray={dash}
        strokeLinecap={cap}
      />
      <circle cx="8" cy="8" r="2.3" fill={violet} />
    </>
  );
}

const shapes: Record<GlyphName, React.ReactNode> = {
  requested: ring("0.1 3.15", "round"),
  applied: ring("4.2 2.3"),
  confirmed: (
    <>
      <circle
        className="cd-closing"
        cx="8"
        cy="8"
        r="6"
        fill="none"
        stroke={violet}
        strokeWidth="2.4"
        pathLength="100"
      />
      <circle cx="8" cy="8" r="2.3" fill={violet} />
    </>
  ),
  released: (
    <>
      <path d="M10.6 2.4A6.2 6.2 0 1 0 14 9.6" fill="none" stroke={grey} strokeWidth="1.7" strokeLinecap="round" />
      <circle cx="13" cy="4" r="2.1" fill={grey} />
    </>
  ),
  expired: (
    <>
      <circle cx="8" cy="8" r="6.2" fill="none" stroke={grey} strokeWidth="1.7" strokeDasharray="4.2 2.3" />
      <path d="M8 4.8V8l2.2 1.6" stroke={grey} strokeWidth="1.5" fill="none" strokeLinecap="round" />
    </>
  ),
  failed: (
    <>
      <path
        d="M3.2 4.1A6.2 6.2 0 0 1 8 1.8M14.1 7A6.2 6.2 0 0 1 12 12.7M8 14.2A6.2 6.2 0 0 1 2 9.5"
        stroke="var(--cd-critical-fill)"
        strokeWidth="1.7"
        fill="none"
      />
      <path
        d="M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8"
        stroke="var(--cd-critical-fill)"
        strokeWidth="1.7"
        strokeLinecap="round"
      />
    </>
  ),
  reporting: <circle cx="8" cy="8" r="4" fill={teal} />,
  learning: (
    <>
      <circle cx="8" cy="8" r="4.2" fill="none" stroke={teal} strokeWidth="1.6" />
      <path d="M8 3.8a4.2 4.2 0 0 1 0 8.4z" fill={teal} />
    </>
  ),
  silent: (
    <>
      <circle cx="8" cy="8" r="4.2" fill="none" stroke={grey} strokeWidth="1.6" />
      <path d="M3.4 12.6l9.2-9.2" stroke={grey} strokeWidth="1.6" strokeLinecap="round" />
    </>
  ),
  retired: <path d="M4 8h8" stroke={grey} strokeWidth="2" strokeLinecap="round" />,
  open: <circle cx="8" cy="8" r="5.4" fill="none" stroke="var(--cd-text-2)" strokeWidth="1.7" />,
  acknowledged: (
    <>
      <circle cx="8" cy="8" r="5.4" fill="none" stroke="var(--cd-you-fill)" strokeWidth="1.7" />
      <path d="M8 4.6a3.4 3.4 0 0 1 0 6.8z" fill="var(--cd-you-fill)" />
    </>
  ),
  resolved: (
    <>
      <circle cx="8" cy="8" r="6.2" fill={teal} />
      <path
        d="M5.3 8.2l1.9 1.9 3.6-3.9"
        stroke="var(--cd-surface)"
        strokeWidth="1.7"
        fill="none"
        strokeLinecap="round"
        strokeLinejoin="round"
      />
    </>
  ),
  armed: (
    <>
      <rect x="2" y="2" width="12" height="12" rx="3" fill={teal} />
      <path
        d="M5.2 8.2l1.9 1.9 3.7-4"
        stroke="var(--cd-surface)"
        strokeWidth="1.7"
        fill="none"
        strokeLinecap="round"
        strokeLinejoin="round"
      />
    </>
  ),
  alert: (
    <>
      <rect x="2.8" y="2.8" width="10.4" height="10.4" rx="2.6" fill="none" stroke={teal} strokeWidth="1.6" />
      <circle cx="8" cy="8" r="2.1" fill={teal} />
    </>
  ),
  shadow: (
    <rect
      x="2.8"
      y="2.8"
      width="10.4"
      height="10.4"
      rx="2.6"
      fill="none"
      stroke={grey}
      strokeWidth="1.6"
      strokeDasharray="3 2.2"
    />
  ),
  off: (
    <>
      <rect x="2.8" y="2.8" width="10.4" height="10.4" rx="2.6" fill="none" stroke={grey} strokeWidth="1.4" />
      <path d="M5 8h6" stroke={grey} strokeWidth="1.6" strokeLinecap="round" />
    </>
  ),
};

/** State as a shape; its name stands beside it or in label. */
export function StateGlyph({ state, size = 14, label }: { state: GlyphName; size?: number; label?: string }) {
  const named = label ? { role: "img", "aria-label": label } : { "aria-hidden": true };
  return (
    <svg className="cd-mark" width={size} height={size} viewBox="0 0 16 16" data-state={state} {...named}>
      {label && <title>{label}</title>}
      {shapes[state]}
    </svg>
  );
}

/** What a quarantine is called in lists: its level once it is confirmed, else its state. */
export function quarantineName(level: string, state: string): string {
  return state === "confirmed" ? (leveledWord[level] ?? level) : (quarantineStateWord[state] ?? state);
}

export function QuarantineChip({ level, state, boxed }: { level: string; state: string; boxed?: boolean }) {
  const active = state === "requested" || state === "applied" || state === "confirmed";
  const ink = state === "failed" ? "cd-critical" : active ? "cd-cordon" : "cd-2";
  return (
    <span className={`cd-chip ${ink} ${boxed && active ? `cd-chip-box cd-chip-${state}` : ""}`}>
      <StateGlyph state={state as GlyphName} />
      {quarantineName(level, state)}
    </span>
  );
}

/** The glyph of a device's status; states without one of their own borrow the nearest. */
export function statusGlyph(status: string): GlyphName {
  switch (status) {
    case "reporting":
    case "learning":
    case "silent":
    case "retired":
      return status;
    case "revoked":
      return "retired";
    default:
      return "silent";
  }
}

export function Logo({ size = 24 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 20 20" aria-hidden="true">
      <circle
        cx="10"
        cy="10"
        r="8"
        fill="none"
        stroke="var(--cd-text)"
        strokeWidth="2"
        strokeDasharray="33.6 16.7"
        strokeDashoffset="-12.6"
        strokeLinecap="round"
        transform="rotate(-24 10 10)"
      />
      <path
        d="M10 2a8 8 0 0 1 7.2 4.5"
        fill="none"
        stroke="var(--cd-cordon-fill)"
        strokeWidth="2"
        strokeLinecap="round"
        transform="rotate(-2 10 10)"
      />
      <circle cx="10" cy="10" r="3" fill="var(--cd-text)" />
    </svg>
  );
}
