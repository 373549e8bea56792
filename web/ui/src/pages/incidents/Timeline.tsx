import { IconBell, IconMessage, IconUserPlus } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { useState } from "react";
import type { Incident, TimelineEntry } from "../../api/types";
import { SeverityMark, StateGlyph } from "../../parts/Marks";
import { absolute, at } from "../../words/format";
import { actorWord } from "../../words/words";

function glyph(kind: string, incident: Incident): ReactNode {
  switch (kind) {
    case "opened":
    case "severity":
      return <SeverityMark severity={incident.severity} size={14} named={false} />;
    case "finding":
      return <StateGlyph state="open" />;
    case "acknowledged":
      return <StateGlyph state="acknowledged" />;
    case "resolved":
      return <StateGlyph state="resolved" />;
    case "quarantine":
      return <StateGlyph state="confirmed" />;
    case "released":
      return <StateGlyph state="released" />;
    case "comment":
      return <IconMessage size={14} />;
    case "assigned":
      return <IconUserPlus size={14} />;
    case "notified":
      return <IconBell size={14} />;
    default:
      return <StateGlyph state="open" />;
  }
}

const fewest = 14;

/** What happened to an incident, newest first; comments are quoted. */
export function Timeline({ incident }: { incident: Incident }) {
  const [all, setAll] = useState(false);
  const entries = group([...incident.timeline].reverse());
  const shown = all ? entries : entries.slice(0, fewest);
  return (
    <>
      <ol className="cd-timeline">
        {shown.map((e) => (
          <li key={`${e.at}-${e.kind}-${e.text}`}>
            <time dateTime={e.at} title={absolute(new Date(e.at))} className="cd-3">
              {at(new Date(e.at))}
            </time>
            <span className="cd-timeline-glyph" aria-hidden="true">
              {glyph(e.kind, incident)}
            </span>
            {e.kind === "comment" ? (
              <span>
                <b className="cd-b">{e.actor}:</b> “{e.text}”
              </span>
            ) : (
              <span className="cd-2">
                {e.text || e.kind}
                {e.times > 1 && <span className="cd-3"> ×{e.times.toLocaleString()}</span>}
                {e.actor &&
                  e.actor !== "cordon" &&
                  !e.text.includes(e.actor.replace(/^rule:/, "")) &&
                  ` (${actorWord(e.actor)})`}
              </span>
            )}
          </li>
        ))}
      </ol>
      {entries.length > fewest && (
        <button type="button" className="cd-textbtn" onClick={() => setAll(!all)}>
          {all ? "Show less" : `All ${entries.length}`}
        </button>
      )}
    </>
  );
}

/** Equal entries in a row become one with a count. */
function group(entries: TimelineEntry[]): (TimelineEntry & { times: number })[] {
  const out: (TimelineEntry & { times: number })[] = [];
  for (const e of entries) {
    const last = out.at(-1);
    if (last && last.kind === e.kind && last.text === e.text && last.actor === e.actor && e.kind !== "comment")
      last.times++;
    else out.push({ ...e, times: 1 });
  }
  return out;
}
