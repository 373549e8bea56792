import { IconLock } from "@tabler/icons-react";
import { Link, type LinkProps } from "@tanstack/react-router";
import type { ButtonHTMLAttributes, ReactNode } from "react";
import { useEffect, useState } from "react";
import "./button.css";

export type ButtonKind = "default" | "primary" | "quiet" | "ghost" | "quarantine" | "danger";

interface Look {
  kind?: ButtonKind;
  size?: "small" | "normal" | "large";
  icon?: ReactNode;
  keys?: string;
}

function look({ kind = "default", size = "normal" }: Look, extra = "") {
  return `cd-btn cd-btn-${kind} cd-btn-${size} ${extra}`;
}

function Inside({ icon, keys, children }: Look & { children?: ReactNode }) {
  return (
    <>
      {icon}
      {children}
      {keys && <Kbd>{keys}</Kbd>}
    </>
  );
}

/** A button whose `locked` reason makes it focusable but inert, and says why. */
export function Button({
  kind,
  size,
  icon,
  keys,
  busy,
  locked,
  children,
  className = "",
  onClick,
  ...rest
}: ButtonHTMLAttributes<HTMLButtonElement> & Look & { busy?: boolean; locked?: string }) {
  const spinning = useAfter(!!busy, 300);
  const iconOnly = icon && !children ? "cd-btn-icon" : "";
  return (
    <button
      type="button"
      {...rest}
      className={look({ kind, size }, `${locked ? "cd-btn-locked" : ""} ${iconOnly} ${className}`)}
      aria-disabled={locked || busy ? true : undefined}
      aria-busy={busy || undefined}
      title={locked ?? rest.title}
      onClick={(e) => {
        if (locked || busy) {
          e.preventDefault();
          return;
        }
        onClick?.(e);
      }}
    >
      {spinning && <span className="cd-spin" aria-hidden="true" />}
      <Inside icon={locked ? <IconLock className="cd-icon" /> : icon} keys={locked ? undefined : keys}>
        {children}
      </Inside>
    </button>
  );
}

export function ButtonLink({ kind, size, icon, keys, children, ...rest }: LinkProps & Look & { children?: ReactNode }) {
  return (
    <Link {...rest} className={look({ kind, size })}>
      <Inside icon={icon} keys={keys}>
        {children}
      </Inside>
    </Link>
  );
}

export function Kbd({ children }: { children: ReactNode }) {
  return <kbd className="cd-kbd">{children}</kbd>;
}

/** True once on has been true for ms; false at once when it ends. */
export function useAfter(on: boolean, ms: number): boolean {
  const [late, setLate] = useState(false);
  useEffect(() => {
    if (!on) {
      setLate(false);
      return;
    }
    const timer = setTimeout(() => setLate(true), ms);
    return () => clearTimeout(timer);
  }, [on, ms]);
  return late;
}
