import { IconAlertTriangle, IconX } from "@tabler/icons-react";
import { type ReactNode, useState } from "react";
import { ApiError } from "../api/client";
import { Button, useAfter } from "./Button";
import "./blocks.css";
import "./layout.css";

export function Panel({
  title,
  aside,
  children,
  className = "",
  flush,
}: {
  title?: ReactNode;
  aside?: ReactNode;
  children?: ReactNode;
  className?: string;
  /** The content brings its own padding. */
  flush?: boolean;
}) {
  return (
    <section className={`cd-panel ${className}`}>
      {(title || aside) && (
        <header className="cd-panel-head">
          {title && <h2>{title}</h2>}
          <span className="cd-sp" />
          {aside && <div className="cd-panel-aside">{aside}</div>}
        </header>
      )}
      {flush ? children : <div className="cd-panel-body">{children}</div>}
    </section>
  );
}

/** Says what is not there and how to go on. */
export function Empty({
  title,
  children,
  actions,
  good,
}: {
  title: string;
  children?: ReactNode;
  actions?: ReactNode;
  /** Nothing here is the best that can be. */
  good?: boolean;
}) {
  return (
    <div className="cd-empty">
      <Dots good={good} />
      <h2>{title}</h2>
      {children && <p className="cd-2">{children}</p>}
      {actions && <div className="cd-row cd-wrap">{actions}</div>}
    </div>
  );
}

function Dots({ good }: { good?: boolean }) {
  const ink = good ? "var(--cd-expected-fill)" : "var(--cd-line-control)";
  return (
    <svg width="76" height="34" aria-hidden="true">
      {[6, 17, 28].map((y) =>
        [6, 18.5, 31, 43.5, 56, 68.5].map((x) => (
          <circle key={`${x}-${y}`} cx={x} cy={y} r="2.4" fill={ink} opacity=".6" />
        )),
      )}
    </svg>
  );
}

/** Says in the block that failed what can't be done, why, and what to do. */
export function Failure({ what, error, retry }: { what: string; error: unknown; retry?: () => void }) {
  const id = error instanceof ApiError ? error.requestId : "";
  const [copied, setCopied] = useState(false);
  return (
    <div className="cd-failure" role="alert">
      <div className="cd-row cd-critical cd-b">
        <IconAlertTriangle className="cd-icon" />
        {what}
      </div>
      <p className="cd-2">{error instanceof Error ? error.message : String(error)}</p>
      <div className="cd-row cd-wrap">
        {retry && <Button onClick={retry}>Try again</Button>}
        {id && (
          <button
            type="button"
            className="cd-mono cd-copy"
            title="Copy the request id"
            onClick={() => {
              void navigator.clipboard?.writeText(id);
              setCopied(true);
            }}
          >
            {copied ? "copied" : `request ${id}`}
          </button>
        )}
      </div>
    </div>
  );
}

/** The boxes of rows to come; shown only after 150 ms. */
export function Skeleton({ rows = 6, height = 34 }: { rows?: number; height?: number }) {
  const late = useAfter(true, 150);
  return (
    <div className="cd-skeleton" aria-busy="true">
      <span className="cd-hide">Loading</span>
      {late &&
        Array.from({ length: rows }, (_, i) => (
          <div key={i} style={{ height }}>
            <i style={{ width: 14 }} />
            <i style={{ width: `${38 + ((i * 17) % 30)}%` }} />
            <span className="cd-sp" />
            <i style={{ width: 44 }} />
          </div>
        ))}
    </div>
  );
}

export function Facts({ children }: { children: ReactNode }) {
  return <dl className="cd-facts">{children}</dl>;
}

export function Fact({ name, children }: { name: string; children?: ReactNode }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

export function Tag({
  children,
  mono,
  outline,
  title,
}: {
  children: ReactNode;
  mono?: boolean;
  outline?: boolean;
  title?: string;
}) {
  return (
    <span className={`cd-tag ${mono ? "cd-mono" : ""} ${outline ? "cd-tag-o" : ""}`} title={title}>
      {children}
    </span>
  );
}

/** One field of a filter, with its value; the cross removes it. */
export function FilterToken({ children, onRemove }: { children: ReactNode; onRemove: () => void }) {
  return (
    <button type="button" className="cd-token" onClick={onRemove}>
      <span>{children}</span>
      <IconX size={12} aria-hidden="true" />
      <span className="cd-hide">, remove this filter</span>
    </button>
  );
}

export interface Segment<T extends string> {
  value: T;
  label: ReactNode;
  count?: number;
}

/** A choice of one among a few, drawn as one bar. */
export function Segments<T extends string>({
  name,
  value,
  options,
  onChange,
}: {
  name: string;
  value: T;
  options: readonly Segment<T>[];
  onChange: (value: T) => void;
}) {
  return (
    <fieldset className="cd-seg">
      <legend className="cd-hide">{name}</legend>
      {options.map((o) => (
        <button key={o.value} type="button" aria-pressed={o.value === value} onClick={() => onChange(o.value)}>
          {o.label}
          {o.count !== undefined && <span className="cd-num"> {o.count.toLocaleString()}</span>}
        </button>
      ))}
    </fieldset>
  );
}

export interface Tab<T extends string> {
  value: T;
  label: string;
  count?: number | string;
}

export function Tabs<T extends string>({
  value,
  tabs,
  onChange,
  name,
}: {
  name: string;
  value: T;
  tabs: readonly Tab<T>[];
  onChange: (value: T) => void;
}) {
  return (
    <div className="cd-tabs" role="tablist" aria-label={name}>
      {tabs.map((t, i) => (
        <button
          key={t.value}
          type="button"
          role="tab"
          aria-selected={t.value === value}
          tabIndex={t.value === value ? 0 : -1}
          onClick={() => onChange(t.value)}
          onKeyDown={(e) => {
            const step = e.key === "ArrowRight" ? 1 : e.key === "ArrowLeft" ? -1 : 0;
            if (!step) return;
            const next = tabs[(i + step + tabs.length) % tabs.length];
            if (next) onChange(next.value);
            const all = e.currentTarget.parentElement?.querySelectorAll<HTMLElement>('[role="tab"]');
            all?.[(i + step + tabs.length) % tabs.length]?.focus();
          }}
        >
          {t.label}
          {t.count !== undefined && (
            <em className="cd-num">{typeof t.count === "number" ? t.count.toLocaleString() : t.count}</em>
          )}
        </button>
      ))}
    </div>
  );
}

export function Avatar({ name }: { name?: string }) {
  if (!name) return <span className="cd-avatar cd-avatar-none" role="img" aria-label="Unassigned" title="Unassigned" />;
  const letters = name.split(/[\s._-]+/).filter(Boolean);
  const text = letters.length > 1 ? `${letters[0]?.[0]}${letters[1]?.[0]}` : name.slice(0, 2);
  return (
    <span className="cd-avatar" title={name} role="img" aria-label={name}>
      {text.toUpperCase()}
    </span>
  );
}

/** A command with a button that copies it. */
export function Command({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  return (
    <div className="cd-command">
      <code className="cd-mono">{text}</code>
      <Button
        size="small"
        aria-label={copied ? `${label}: copied` : `Copy ${label}`}
        onClick={() => {
          void navigator.clipboard?.writeText(text);
          setCopied(true);
        }}
      >
        {copied ? "Copied" : "Copy"}
      </Button>
    </div>
  );
}
