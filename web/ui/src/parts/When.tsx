import { useSyncExternalStore } from "react";
import { absolute, age, at, isTime, precise, preciseDay } from "../words/format";

// One clock for the whole page: ages change together, once a second.
let now = Date.now();
const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

function subscribe(listener: () => void) {
  listeners.add(listener);
  timer ??= setInterval(() => {
    now = Date.now();
    for (const l of listeners) l();
  }, 1000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

function fresh() {
  if (!timer) now = Date.now();
  return now;
}

/** The time, once a second. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}

/** A text that depends on the time; renders only when the text changes. */
function useText(make: (now: number) => string): string {
  return useSyncExternalStore(subscribe, () => make(now));
}

/** How long ago, with the absolute time on hover. */
export function Age({ at: time, ago }: { at?: string | null; ago?: boolean }) {
  if (!isTime(time)) return null;
  return <Ago time={new Date(time)} iso={time} ago={ago} />;
}

function Ago({ time, iso, ago }: { time: Date; iso: string; ago?: boolean }) {
  const text = useText((t) => age(time, t));
  const withAgo = ago && text !== "now" && !text.startsWith("in ") && fresh() - time.getTime() < 86_400_000;
  return (
    <time dateTime={iso} title={absolute(time)} className="cd-nw">
      {withAgo ? `${text} ago` : text}
    </time>
  );
}

/** A point in time: "14:32" today, with its date on other days. */
export function At({ at: time }: { at?: string | null }) {
  if (!isTime(time)) return null;
  const d = new Date(time);
  return (
    <time dateTime={time} title={absolute(d)} className="cd-nw">
      {at(d)}
    </time>
  );
}

/** To the millisecond, for proof, evidence and logs. */
export function Exact({ at: time, day }: { at?: string | null; day?: boolean }) {
  if (!isTime(time)) return null;
  const d = new Date(time);
  return (
    <time dateTime={time} title={absolute(d)} className="cd-nw">
      {day ? preciseDay(d) : precise(d)}
    </time>
  );
}
