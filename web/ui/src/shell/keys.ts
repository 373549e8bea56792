import { useEffect, useRef, useSyncExternalStore } from "react";

/** A key of the page: shown in the help sheet and run outside inputs. */
export interface Key {
  /** "j", "Enter", "?", "mod+k" or a sequence such as "g o". */
  keys: string;
  /** What it does, in words; without it the sheet does not show it. */
  label?: string;
  run: (event: KeyboardEvent) => void;
  /** Other keys that do the same. */
  also?: string[];
  /** Runs in inputs and dialogs too. */
  everywhere?: boolean;
}

export interface KeyGroup {
  name: string;
  keys: Key[];
}

let groups: readonly KeyGroup[] = [];
const listeners = new Set<() => void>();
let prefix = "";
let prefixTimer: ReturnType<typeof setTimeout> | undefined;

function set(next: readonly KeyGroup[]) {
  groups = next;
  for (const listener of listeners) listener();
}

function typing(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

/** Whether something that keeps the keys to itself is open; closed lists may stay in the document, hidden. */
function floating(): boolean {
  const all = document.querySelectorAll<HTMLElement>(
    '[role="dialog"][aria-modal="true"], [role="menu"], [role="listbox"]',
  );
  return [...all].some((el) => el.checkVisibility());
}

function nameOf(event: KeyboardEvent): string {
  const mod = event.metaKey || event.ctrlKey ? "mod+" : "";
  const key = event.key === " " ? "Space" : event.key;
  return mod + (key.length === 1 ? key.toLowerCase() : key);
}

function onKey(event: KeyboardEvent) {
  if (event.defaultPrevented || event.altKey || event.isComposing) return;
  const name = nameOf(event);
  const inside = typing(event.target);
  const modal = floating();
  const onControl = event.target instanceof HTMLElement && /^(BUTTON|A|SUMMARY)$/.test(event.target.tagName);
  const wanted = prefix ? `${prefix} ${name}` : name;
  prefix = "";
  for (const group of [...groups].reverse()) {
    for (const key of group.keys) {
      if (key.keys !== wanted && !key.also?.includes(wanted)) continue;
      if ((inside || modal) && !key.everywhere) continue;
      // A focused button or link keeps its own Enter and Space.
      if (onControl && (name === "Enter" || name === "Space")) continue;
      event.preventDefault();
      key.run(event);
      return;
    }
  }
  if (inside || modal) return;
  if (groups.some((g) => g.keys.some((k) => k.keys.startsWith(`${name} `)))) {
    prefix = name;
    clearTimeout(prefixTimer);
    prefixTimer = setTimeout(() => {
      prefix = "";
    }, 1000);
  }
}

document.addEventListener("keydown", onKey);

/** Registers a page's keys while the component is shown. */
export function useKeys(name: string, keys: Key[]) {
  const newest = useRef(keys);
  newest.current = keys;
  const shape = keys
    .map((k) => `${k.keys}\t${k.also?.join(",") ?? ""}\t${k.label ?? ""}\t${k.everywhere ?? ""}`)
    .join("\n");
  useEffect(() => {
    const group: KeyGroup = {
      name,
      keys: shape.split("\n").map((line, i) => {
        const [combo = "", also = "", label = "", everywhere = ""] = line.split("\t");
        return {
          keys: combo,
          also: also ? also.split(",") : undefined,
          label: label || undefined,
          everywhere: everywhere === "true",
          run: (event) => newest.current[i]?.run(event),
        };
      }),
    };
    set([...groups, group]);
    return () => set(groups.filter((g) => g !== group));
  }, [name, shape]);
}

export function useKeyGroups(): readonly KeyGroup[] {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => groups,
  );
}
