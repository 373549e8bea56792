import { useSyncExternalStore } from "react";

type Overlay = "none" | "help" | "palette" | "nav";

let shown: Overlay = "none";
const listeners = new Set<() => void>();

function show(next: Overlay) {
  shown = next;
  for (const listener of listeners) listener();
}

export const openHelp = () => show("help");
export const openPalette = () => show("palette");
export const openNav = () => show("nav");
export const closeOverlay = () => show("none");

/** Which overlay of the shell is open. */
export function useOverlay(): Overlay {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => shown,
  );
}
