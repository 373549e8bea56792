import type { ReactNode } from "react";
import { Logo } from "../parts/Marks";
import "./door.css";

/** What is around sign-in: a still drawing of a fleet with one device surrounded. */
export function Door({ children }: { children: ReactNode }) {
  return (
    <div className="cd-door">
      <div className="cd-door-art" aria-hidden="true">
        <Fleet />
      </div>
      <header className="cd-door-brand">
        <Logo size={24} />
        Cordon
      </header>
      <main className="cd-door-form">{children}</main>
    </div>
  );
}

function Fleet() {
  const dots: ReactNode[] = [];
  let seed = 7;
  const jitter = () => {
    seed = (seed * 16807) % 2147483647;
    return (seed / 2147483647 - 0.5) * 5;
  };
  for (let y = 14; y < 900; y += 22) {
    for (let x = 14; x < 880; x += 22) {
      const cx = x + jitter();
      const cy = y + jitter();
      const far = Math.hypot(cx - 440, cy - 450);
      if (far < 20) continue;
      const inside = far < 118;
      dots.push(
        <circle
          key={`${x}-${y}`}
          cx={cx.toFixed(1)}
          cy={cy.toFixed(1)}
          r="1.7"
          fill={inside ? "var(--cd-text-3)" : "var(--cd-expected-fill)"}
          opacity={inside ? 0.3 : Math.max(0.12, 0.62 - far / 850).toFixed(2)}
        />,
      );
    }
  }
  return (
    <svg viewBox="0 0 880 900" preserveAspectRatio="xMidYMid slice">
      <circle
        cx="440"
        cy="450"
        r="118"
        fill="var(--cd-cordon-wash)"
        fillOpacity=".55"
        stroke="var(--cd-cordon-fill)"
        strokeWidth="2.5"
      />
      {dots}
      <circle cx="440" cy="450" r="13" fill="none" stroke="var(--cd-critical-fill)" strokeOpacity=".5" />
      <circle cx="440" cy="450" r="6" fill="var(--cd-critical-fill)" />
    </svg>
  );
}
