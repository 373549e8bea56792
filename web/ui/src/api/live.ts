import { useSyncExternalStore } from "react";
import { queryClient } from "./queries";
import type { StatusEvent } from "./types";

/** Whether the screen follows the fleet. */
export interface LiveState {
  state: "connecting" | "live" | "lost";
  /** When it stopped being live, in Unix milliseconds. */
  since?: number;
  /** When the next try is made, in Unix milliseconds. */
  retryAt?: number;
}

/** What each event makes stale. */
const stale: Record<string, readonly (readonly string[])[]> = {
  incident: [["incidents"], ["incident"], ["overview"], ["deliveries"]],
  finding: [["incident"], ["findings"]],
  quarantine: [["quarantines"], ["device"], ["devices"], ["overview"], ["incident"]],
  device: [["device"], ["devices"]],
  rule: [["rules"], ["device"], ["overview"]],
  reload: [[]],
};

/** At most four refreshes a second, however many events come. */
const coalesceMs = 250;
/** Lists that change all the time under load are refreshed less often than what a person looks at. */
const slow: Record<string, number> = { devices: 2_000, overview: 2_000, deliveries: 2_000 };
const longestRetryMs = 30_000;

class Live {
  private source: EventSource | undefined;
  private listeners = new Set<() => void>();
  private current: LiveState = { state: "connecting" };
  private pending = new Set<string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;
  private last = new Map<string, number>();
  private pulse: StatusEvent | undefined;

  start() {
    if (this.source || this.retry) return;
    // The browser knows sooner than the stream that the network is gone.
    window.addEventListener("offline", this.gone);
    window.addEventListener("online", this.back);
    this.open();
  }

  stop() {
    window.removeEventListener("offline", this.gone);
    window.removeEventListener("online", this.back);
    clearTimeout(this.retry);
    clearTimeout(this.timer);
    this.retry = undefined;
    this.timer = undefined;
    this.source?.close();
    this.source = undefined;
    this.pending.clear();
    this.set({ state: "connecting" });
  }

  /** Tries at once instead of waiting. */
  now() {
    clearTimeout(this.retry);
    this.retry = undefined;
    this.source?.close();
    this.open();
  }

  private gone = () => {
    if (this.source) this.lost(this.source);
  };
  private back = () => this.now();

  subscribe = (listener: () => void) => {
    this.listeners.add(listener);
    return () => {
      this.listeners.delete(listener);
    };
  };

  snapshot = () => this.current;
  status = () => this.pulse;

  private set(next: LiveState) {
    this.current = next;
    for (const listener of this.listeners) listener();
  }

  private open() {
    const source = new EventSource("/api/v1/events");
    this.source = source;
    source.onopen = () => {
      const wasLost = this.current.state === "lost";
      this.failures = 0;
      this.set({ state: "live" });
      // What was missed meanwhile is read again.
      if (wasLost) void queryClient.invalidateQueries();
    };
    source.onerror = () => this.lost(source);
    for (const name of Object.keys(stale)) {
      source.addEventListener(name, () => this.note(name));
    }
    source.addEventListener("status", (event) => {
      try {
        this.pulse = JSON.parse((event as MessageEvent<string>).data) as StatusEvent;
        for (const listener of this.listeners) listener();
      } catch {
        // A pulse that can't be read is as good as none.
      }
    });
  }

  private lost(source: EventSource) {
    if (source !== this.source) return;
    source.close();
    this.source = undefined;
    const wait = Math.min(longestRetryMs, 1000 * 2 ** this.failures);
    this.failures++;
    const since = this.current.state === "lost" ? this.current.since : Date.now();
    this.set({ state: "lost", since, retryAt: Date.now() + wait });
    this.retry = setTimeout(() => {
      this.retry = undefined;
      this.open();
    }, wait);
  }

  private note(name: string) {
    for (const key of stale[name] ?? []) this.pending.add(key[0] ?? "");
    this.timer ??= setTimeout(() => this.flush(), coalesceMs);
  }

  private flush() {
    this.timer = undefined;
    const now = Date.now();
    const later = new Set<string>();
    for (const key of this.pending) {
      if (now - (this.last.get(key) ?? 0) < (slow[key] ?? 0)) {
        later.add(key);
        continue;
      }
      this.last.set(key, now);
      void queryClient.invalidateQueries(key ? { queryKey: [key] } : undefined, { cancelRefetch: false });
    }
    this.pending = later;
    if (later.size) this.timer = setTimeout(() => this.flush(), coalesceMs);
  }
}

export const live = new Live();

export function useLive(): LiveState {
  return useSyncExternalStore(live.subscribe, live.snapshot);
}

/** The newest pulse of the fleet, or nothing before the first. */
export function useStatus(): StatusEvent | undefined {
  return useSyncExternalStore(live.subscribe, live.status);
}
