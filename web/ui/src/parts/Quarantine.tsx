import { Select, Textarea } from "@mantine/core";
import { IconAlertTriangle, IconArrowRight, IconCheck, IconPlugConnected } from "@tabler/icons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { quarantine, release } from "../api/queries";
import type { DeviceDetail, Level, Quarantine } from "../api/types";
import { say, sayError } from "../shell/toasts";
import { duration, isTime, plural, took, unixMs } from "../words/format";
import { actorWord, levelEffect, leveledWord, levelWord, quarantineStateWord } from "../words/words";
import { Fact, Facts, Segments, Tag } from "./Blocks";
import { Button } from "./Button";
import { type GlyphName, StateGlyph } from "./Marks";
import { useLock } from "./session";
import { Age, At, Exact } from "./When";
import "./quarantine.css";

export function isActive(q: Pick<Quarantine, "state"> | undefined): boolean {
  return !!q && q.state !== "released" && q.state !== "expired";
}

/** Time from decision to the end of the last connection, in milliseconds. */
export function cutMs(q: Quarantine): number | undefined {
  if (!isTime(q.confirmed_at)) return undefined;
  return Math.max(0, unixMs(q.confirmed_at) - unixMs(q.requested_at));
}

/** The action before it is taken, the proof afterwards: one block, in place. */
export function QuarantineBlock({
  device,
  incident,
  reason,
}: {
  device: DeviceDetail;
  incident?: string;
  reason?: string;
}) {
  const q = device.quarantine;
  const was = useRef(q?.state);
  const [closing, setClosing] = useState(false);
  useEffect(() => {
    if (q?.state === "confirmed" && was.current && was.current !== "confirmed") setClosing(true);
    was.current = q?.state;
  }, [q?.state]);
  if (q && isActive(q)) return <ProofBlock q={q} closing={closing} />;
  return (
    <>
      <DryRun device={device} incident={incident} reason={reason} />
      {q && <ReleasedNote q={q} />}
    </>
  );
}

const durations = [
  { value: "3600000", label: "for 1 h" },
  { value: "14400000", label: "for 4 h" },
  { value: "86400000", label: "for 24 h" },
  { value: "0", label: "until released" },
];

function DryRun({ device, incident, reason = "" }: { device: DeviceDetail; incident?: string; reason?: string }) {
  const [level, setLevel] = useState<Level>("isolate");
  const [length, setLength] = useState("14400000");
  const [why, setWhy] = useState(reason);
  const [fault, setFault] = useState<string>();
  const lock = useLock("responder");
  const client = useQueryClient();
  const act = useMutation({
    mutationFn: () =>
      quarantine(device.id, {
        level,
        reason: why.trim(),
        incident,
        until: Number(length) > 0 ? new Date(Date.now() + Number(length)).toISOString() : undefined,
      }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["device", device.id] });
      await client.invalidateQueries({ queryKey: ["quarantines"] });
    },
    onError: (error) => sayError(`${device.id} is not quarantined.`, error),
  });
  const live = device.connections.length;
  const words = durations.find((d) => d.value === length)?.label ?? "";
  return (
    <section className="cd-dry" aria-label={`Quarantine ${device.id}, dry run`} data-testid="dry-run">
      <header className="cd-row">
        <h2 className="cd-h2 cd-el">
          Quarantine <span className="cd-mono">{device.id}</span>
        </h2>
        <Tag>dry run</Tag>
        <span className="cd-sp" />
        <span className="cd-cap cd-nw">Nothing is sent yet</span>
      </header>
      <Segments
        name="Level"
        value={level}
        onChange={setLevel}
        options={(["observe", "restrict", "isolate"] as const).map((l) => ({ value: l, label: levelWord[l] }))}
      />
      <ul className="cd-dry-list">
        <Line icon={<IconArrowRight size={14} />}>{levelEffect[level]}</Line>
        <Line icon={<IconPlugConnected size={14} />}>
          {device.connections_unknown
            ? `Its connections are not known: ${device.connections_unknown}`
            : level === "observe"
              ? `${live} live ${plural(live, "connection stays", "connections stay")}.`
              : `${live} live ${plural(live, "connection is", "connections are")} closed at once, at every broker.`}
        </Line>
        <Line icon={<IconCheck size={14} className="cd-expected" />}>
          Hits 1 device. {device.readings_stored.toLocaleString()} stored readings stay.
        </Line>
        {device.quarantine === undefined && device.status !== "reporting" && level !== "observe" && (
          <Line icon={<IconAlertTriangle size={14} className="cd-high" />}>
            It does not report now; the quarantine holds when it comes back.
          </Line>
        )}
      </ul>
      <Textarea
        label="Reason"
        rows={2}
        value={why}
        maxLength={1000}
        onChange={(e) => {
          setWhy(e.currentTarget.value);
          setFault(undefined);
        }}
        error={fault}
        disabled={!!lock}
      />
      <div className="cd-row cd-wrap">
        <Select
          aria-label="How long"
          data={durations}
          value={length}
          onChange={(v) => setLength(v ?? "0")}
          w={132}
          disabled={!!lock}
          comboboxProps={{ withinPortal: true }}
        />
        <span className="cd-sp" />
        <Button
          kind="quarantine"
          locked={lock}
          busy={act.isPending}
          onClick={() => (why.trim() ? act.mutate() : setFault("Say why: the reason stays with the decision."))}
        >
          {levelWord[level]} {words}
        </Button>
      </div>
    </section>
  );
}

function Line({ icon, children }: { icon: ReactNode; children: ReactNode }) {
  return (
    <li>
      <span aria-hidden="true">{icon}</span>
      <span>{children}</span>
    </li>
  );
}

function proofTitle(q: Quarantine): string {
  const level = leveledWord[q.level] ?? q.level;
  switch (q.state) {
    case "confirmed":
      return q.level === "observe" ? "Observed, and recorded" : `${level} and confirmed`;
    case "failed":
      return `${level}, not confirmed`;
    default:
      return `${level}: ${(quarantineStateWord[q.state] ?? q.state).toLowerCase()}`;
  }
}

/** What was done to a device, step by step, with what every broker answered. */
export function ProofBlock({ q, closing, wide }: { q: Quarantine; closing?: boolean; wide?: boolean }) {
  const ms = cutMs(q);
  const answered = (q.proof.brokers ?? []).filter((b) => b.answered);
  const brokers = q.proof.brokers ?? [];
  const kicked = q.proof.kicked ?? [];
  return (
    <section
      className={`cd-proof cd-proof-${q.state} ${closing ? "cd-just-confirmed" : ""}`}
      aria-label={`Quarantine of ${q.device}`}
      data-testid="proof"
      data-state={q.state}
    >
      <header className="cd-row">
        <StateGlyph state={q.state as GlyphName} size={22} />
        <div className="cd-col cd-sp">
          <h2 className="cd-proof-title">{proofTitle(q)}</h2>
          <span className="cd-2 cd-sub">
            {ms !== undefined
              ? `${took(ms)} from decision to proof`
              : q.state === "failed"
                ? q.failure || "A broker did not confirm. The device stays denied."
                : `${answered.length} of ${Math.max(brokers.length, answered.length)} brokers answered`}
          </span>
        </div>
        <ReleaseButton q={q} />
      </header>
      <ol className="cd-steps">
        <Step glyph="requested" at={<Exact at={q.requested_at} day />}>
          Requested by {actorWord(q.actor)}
        </Step>
        {isTime(q.applied_at) && (
          <Step glyph="applied" at={<Exact at={q.applied_at} />}>
            {kicked.length > 0
              ? `Applied, ${kicked.length} ${plural(kicked.length, "connection", "connections")} closed`
              : "Applied at the gate"}
          </Step>
        )}
        {isTime(q.confirmed_at) && (
          <Step glyph="confirmed" at={<Exact at={q.confirmed_at} />}>
            {q.level === "isolate"
              ? "Confirmed: no live connection"
              : q.level === "restrict"
                ? "Confirmed: restricted everywhere"
                : "Confirmed: recorded"}
          </Step>
        )}
        {q.state === "failed" && (
          <Step glyph="failed" at="">
            {q.failure || "Not confirmed"}
          </Step>
        )}
        <Step
          glyph={q.state === "confirmed" ? "confirmed" : (q.state as GlyphName)}
          at={<span className="cd-num">{q.proof.refused.toLocaleString()}</span>}
        >
          Reconnects refused since
        </Step>
      </ol>
      {(wide || q.state !== "confirmed") && brokers.length > 0 && (
        <ul className="cd-brokers">
          {brokers.map((b) => (
            <li key={b.server_id}>
              {b.answered ? (
                <IconCheck size={14} className="cd-cordon" aria-label="answered" />
              ) : (
                <IconAlertTriangle size={14} className="cd-high" aria-label="no answer" />
              )}
              <span>Broker {b.server_name || b.server_id.slice(0, 8)}</span>
              <span className="cd-2 cd-sp">
                {b.answered
                  ? b.connections === 0
                    ? "no live connection"
                    : `${b.connections} still connected`
                  : "no answer yet"}
              </span>
              <span className="cd-3">
                <Exact at={b.at} />
              </span>
            </li>
          ))}
        </ul>
      )}
      {wide && (
        <Facts>
          <Fact name="Why">{q.reason}</Fact>
          {q.incident && (
            <Fact name="Incident">
              <Link to="/incidents/$id" params={{ id: q.incident }} className="cd-link cd-mono">
                {q.incident}
              </Link>
            </Fact>
          )}
          {kicked.map((k) => (
            <Fact key={`${k.server_id}-${k.cid}`} name="Closed">
              <span className="cd-mono">{k.address}</span> by {k.protocol}, connection {k.cid}
            </Fact>
          ))}
        </Facts>
      )}
      {!wide && q.reason && (
        <p className="cd-2 cd-sub cd-reason" title={q.reason}>
          {q.reason}
        </p>
      )}
      <footer className="cd-proof-foot">
        {isActive(q) ? (
          <Until q={q} />
        ) : (
          <span className="cd-2">
            Released by {actorWord(q.released_by)} <Age at={q.released_at} ago />
          </span>
        )}
        <span className="cd-sp" />
      </footer>
    </section>
  );
}

function Until({ q }: { q: Quarantine }) {
  if (!isTime(q.until)) return <span className="cd-2">Until somebody releases it</span>;
  return (
    <span className="cd-2">
      Until <At at={q.until} />, in {duration(Date.parse(q.until) - Date.now())}
    </span>
  );
}

function Step({ glyph, at, children }: { glyph: GlyphName; at: ReactNode; children: ReactNode }) {
  return (
    <li>
      <StateGlyph state={glyph} />
      <span>{children}</span>
      <span className="cd-2 cd-num">{at}</span>
    </li>
  );
}

function ReleasedNote({ q }: { q: Quarantine }) {
  return (
    <p className="cd-2 cd-sub cd-row">
      <StateGlyph state={q.state as GlyphName} />
      <span>
        {q.state === "expired" ? "Its last quarantine expired " : `Released by ${actorWord(q.released_by)} `}
        <Age at={q.released_at ?? q.until} ago />
      </span>
    </p>
  );
}

/** Asks why in place and says what follows, above the button. */
export function ReleaseButton({ q }: { q: Quarantine }) {
  const [open, setOpen] = useState(false);
  const [why, setWhy] = useState("");
  const [fault, setFault] = useState<string>();
  const lock = useLock("responder");
  const client = useQueryClient();
  const act = useMutation({
    mutationFn: () => release(q.device, why.trim()),
    onSuccess: async () => {
      setOpen(false);
      say(`${q.device} is released`);
      await client.invalidateQueries({ queryKey: ["device", q.device] });
      await client.invalidateQueries({ queryKey: ["quarantines"] });
      await client.invalidateQueries({ queryKey: ["incident"] });
    },
    onError: (error) => sayError(`${q.device} is not released.`, error),
  });
  if (!isActive(q)) return null;
  if (!open) {
    return (
      <Button locked={lock} onClick={() => setOpen(true)}>
        Release…
      </Button>
    );
  }
  return (
    <form
      className="cd-release"
      onSubmit={(e) => {
        e.preventDefault();
        if (why.trim()) act.mutate();
        else setFault("Say why: the reason stays with the decision.");
      }}
    >
      <p className="cd-2 cd-sub">
        The gate lets <span className="cd-mono">{q.device}</span> connect again, usually within seconds; its rules judge
        it at once.
      </p>
      <Textarea
        label="Reason"
        rows={2}
        autoFocus
        value={why}
        error={fault}
        onChange={(e) => {
          setWhy(e.currentTarget.value);
          setFault(undefined);
        }}
        onKeyDown={(e) => {
          if (e.key === "Enter" && (e.metaKey || e.ctrlKey)) e.currentTarget.form?.requestSubmit();
          if (e.key === "Escape") setOpen(false);
        }}
      />
      <div className="cd-form-end">
        <Button kind="ghost" onClick={() => setOpen(false)}>
          Cancel
        </Button>
        <Button type="submit" busy={act.isPending}>
          Release now
        </Button>
      </div>
    </form>
  );
}
