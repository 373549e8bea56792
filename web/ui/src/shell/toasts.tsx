import { IconAlertTriangle, IconCheck, IconX } from "@tabler/icons-react";
import { useEffect, useState, useSyncExternalStore } from "react";
import { ApiError } from "../api/client";
import { useKeys } from "./keys";
import "./toasts.css";

interface Toast {
  id: number;
  text: string;
  error?: boolean;
  undo?: () => void;
}

const most = 3;
const stayMs = 10_000;
let toasts: readonly Toast[] = [];
let lastId = 0;
const listeners = new Set<() => void>();

function set(next: readonly Toast[]) {
  toasts = next;
  for (const listener of listeners) listener();
}

function drop(id: number) {
  set(toasts.filter((t) => t.id !== id));
}

/** Says what happened; undo is offered where it is safe. */
export function say(text: string, undo?: () => void) {
  set([...toasts, { id: ++lastId, text, undo }].slice(-most));
}

/** Says why something did not happen; stays until it is closed. */
export function sayError(what: string, error: unknown) {
  const why = error instanceof ApiError ? error.message : error instanceof Error ? error.message : String(error);
  set([...toasts, { id: ++lastId, text: `${what} ${why}`, error: true }].slice(-most));
}

export function Toasts() {
  const shown = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => toasts,
  );
  const undoable = [...shown].reverse().find((t) => t.undo);
  useKeys("Everywhere", [
    {
      keys: "z",
      label: "Undo",
      run: () => {
        if (!undoable) return;
        undoable.undo?.();
        drop(undoable.id);
      },
    },
  ]);
  return (
    <div className="cd-toasts" role="status" aria-live="polite">
      {shown.map((toast) => (
        <One key={toast.id} toast={toast} />
      ))}
    </div>
  );
}

function One({ toast }: { toast: Toast }) {
  const [held, setHeld] = useState(false);
  useEffect(() => {
    if (toast.error || held) return;
    const timer = setTimeout(() => drop(toast.id), stayMs);
    return () => clearTimeout(timer);
  }, [toast, held]);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: hovering only keeps the message from leaving
    <div
      className={`cd-toast ${toast.error ? "cd-toast-error" : ""}`}
      onMouseEnter={() => setHeld(true)}
      onMouseLeave={() => setHeld(false)}
      onFocus={() => setHeld(true)}
      onBlur={() => setHeld(false)}
    >
      {toast.error ? <IconAlertTriangle className="cd-icon" /> : <IconCheck className="cd-icon" />}
      <span className="cd-sp">{toast.text}</span>
      {toast.undo && (
        <button
          type="button"
          className="cd-toast-act"
          onClick={() => {
            toast.undo?.();
            drop(toast.id);
          }}
        >
          Undo
        </button>
      )}
      <button type="button" className="cd-toast-close" aria-label="Close this message" onClick={() => drop(toast.id)}>
        <IconX className="cd-icon" />
      </button>
    </div>
  );
}
