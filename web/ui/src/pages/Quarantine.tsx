import { useMediaQuery } from "@mantine/hooks";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useMemo, useState } from "react";
import { flat, quarantinesQuery } from "../api/queries";
import type { Quarantine } from "../api/types";
import { Empty, Failure, Panel, Segments, Skeleton } from "../parts/Blocks";
import { ButtonLink } from "../parts/Button";
import { type Column, DataList } from "../parts/DataList";
import { type GlyphName, QuarantineChip, StateGlyph } from "../parts/Marks";
import { cutMs, isActive, ProofBlock } from "../parts/Quarantine";
import { Age, At, Exact } from "../parts/When";
import { useKeys } from "../shell/keys";
import { Page } from "../shell/Page";
import { isTime, plural, took } from "../words/format";
import { actorWord, leveledWord, levelWord, quarantineStateWord } from "../words/words";
import "./incidents/side.css";
import "./quarantine.css";

const keyOf = (q: Quarantine) => `${q.id}/${q.state}/${q.confirmed_at ?? ""}`;

/** Who is held back now, by whom and how fast; the proof of each; and everything that was. */
export function QuarantinePage() {
  const search = useSearch({ from: "/app/quarantine" });
  const navigate = useNavigate({ from: "/quarantine" });
  const tab = search.tab ?? "now";
  const active = useInfiniteQuery(quarantinesQuery("active"));
  const all = useInfiniteQuery({ ...quarantinesQuery("all"), enabled: tab === "history" });
  const query = tab === "now" ? active : all;
  const { rows, total } = useMemo(() => flat(query.data), [query.data]);
  const now = flat(active.data);
  const [focus, setFocus] = useState(0);
  const narrow = useMediaQuery("(max-width: 1023px)");
  const picked =
    rows.find((q) => (tab === "now" ? q.device : q.id) === search.open) ?? (narrow ? undefined : rows[focus]);
  const at = picked ? rows.indexOf(picked) : focus;
  useEffect(() => {
    if (at >= 0) setFocus(at);
  }, [at]);
  const move = (to: number) => {
    const i = Math.max(0, Math.min(rows.length - 1, to));
    setFocus(i);
    const q = rows[i];
    if (q) void navigate({ search: (old) => ({ ...old, open: tab === "now" ? q.device : q.id }), replace: true });
  };
  useKeys("This page", [
    { keys: "j", also: ["ArrowDown"], label: "Next", run: () => move(focus + 1) },
    { keys: "k", also: ["ArrowUp"], label: "Previous", run: () => move(focus - 1) },
    {
      keys: "Enter",
      label: "Open the device",
      run: () => picked && void navigate({ to: "/devices/$id", params: { id: picked.device } }),
    },
  ]);
  const slowest = Math.max(0, ...now.rows.map((q) => cutMs(q) ?? 0));
  const unconfirmed = now.rows.filter((q) => q.state !== "confirmed").length;
  return (
    <Page title="Quarantine" documentTitle={now.total ? `(${now.total}) Quarantine` : "Quarantine"} fill>
      <div className="cd-quar">
        <div className="cd-row cd-wrap">
          <Segments
            name="View"
            value={tab}
            onChange={(v) => {
              setFocus(0);
              void navigate({ search: { tab: v === "history" ? v : undefined } });
            }}
            options={[
              { value: "now", label: "Now", count: active.data ? now.total : undefined },
              { value: "history", label: "History" },
            ]}
          />
          <span className="cd-sp" />
          {now.rows.length > 0 && (
            <span className="cd-2">
              {unconfirmed === 0 ? (
                <>
                  All <b className="cd-cordon">confirmed</b>, the slowest in {took(slowest)}
                </>
              ) : (
                <b className="cd-high">
                  {unconfirmed} {plural(unconfirmed, "is", "are")} not confirmed
                </b>
              )}
            </span>
          )}
        </div>
        <div className={picked ? "cd-quar-split" : "cd-quar-one"}>
          <Panel flush className="cd-quar-list">
            {query.isError ? (
              <Failure what="Quarantines can’t be read" error={query.error} retry={() => void query.refetch()} />
            ) : query.isPending ? (
              <Skeleton rows={10} />
            ) : rows.length === 0 ? (
              <Empty
                good
                title={tab === "now" ? "No device is quarantined" : "No device has been quarantined"}
                actions={<ButtonLink to="/devices">Devices</ButtonLink>}
              >
                A person quarantines a device from its page or an incident; an armed rule does it by itself. Either way
                the proof appears here: which brokers answered, and how long it took.
              </Empty>
            ) : (
              <DataList
                name={tab === "now" ? "Devices in quarantine" : "History of quarantines"}
                rows={rows}
                total={total}
                columns={tab === "now" ? nowColumns : historyColumns}
                rowKey={keyOf}
                focus={focus}
                onFocus={move}
                onPick={(_, i) => move(i)}
                onOpen={(q) => void navigate({ to: "/devices/$id", params: { id: q.device } })}
                picked={picked && keyOf(picked)}
                onEnd={query.hasNextPage && !query.isFetchingNextPage ? () => void query.fetchNextPage() : undefined}
                narrow={narrow ? (q) => <Two q={q} /> : undefined}
              />
            )}
          </Panel>
          {picked && (
            <div className="cd-quar-proof">
              <p className="cd-row">
                <Link to="/devices/$id" params={{ id: picked.device }} className="cd-mono cd-link">
                  {picked.device}
                </Link>
                <span className="cd-2">
                  {isActive(picked)
                    ? `is ${leveledWord[picked.level]?.toLowerCase()}`
                    : `was ${leveledWord[picked.level]?.toLowerCase()}`}
                </span>
              </p>
              <ProofBlock key={picked.id} q={picked} wide />
            </div>
          )}
        </div>
      </div>
    </Page>
  );
}

const common: Column<Quarantine>[] = [
  {
    key: "device",
    head: "Device",
    width: "minmax(150px, 1.5fr)",
    cell: (q) => (
      <Link
        to="/devices/$id"
        params={{ id: q.device }}
        className="cd-mono cd-b cd-hover"
        tabIndex={-1}
        title={q.device}
      >
        {q.device}
      </Link>
    ),
  },
  { key: "level", head: "Level", width: "64px", cell: (q) => levelWord[q.level] },
  {
    key: "state",
    head: "State",
    width: "100px",
    cell: (q) => (
      <span className={`cd-chip ${isActive(q) ? (q.state === "failed" ? "cd-critical" : "cd-cordon") : "cd-2"}`}>
        <StateGlyph state={q.state as GlyphName} />
        {quarantineStateWord[q.state]}
      </span>
    ),
  },
  {
    key: "why",
    head: "Why",
    width: "minmax(80px, 1.3fr)",
    cell: (q) => (
      <span className="cd-2" title={q.reason}>
        {q.rule ? <span className="cd-mono">{q.rule}</span> : `by ${actorWord(q.actor)}`}
      </span>
    ),
  },
  {
    key: "incident",
    head: "Incident",
    width: "70px",
    cell: (q) =>
      q.incident && (
        <Link to="/incidents/$id" params={{ id: q.incident }} className="cd-mono cd-2 cd-hover" tabIndex={-1}>
          {q.incident}
        </Link>
      ),
  },
];

const nowColumns: Column<Quarantine>[] = [
  ...common,
  {
    key: "cut",
    head: "Proof in",
    width: "76px",
    right: true,
    cell: (q) => {
      const ms = cutMs(q);
      if (ms !== undefined) return took(ms);
      const brokers = q.proof.brokers ?? [];
      return <span className="cd-2">{`${brokers.filter((b) => b.answered).length} of ${brokers.length}`}</span>;
    },
  },
  {
    key: "until",
    head: "Until",
    width: "92px",
    right: true,
    cell: (q) => <span className="cd-2">{isTime(q.until) ? <At at={q.until} /> : "until released"}</span>,
  },
];

const historyColumns: Column<Quarantine>[] = [
  { key: "at", head: "Requested", width: "132px", cell: (q) => <Exact at={q.requested_at} day /> },
  ...common,
  {
    key: "end",
    head: "Ended",
    width: "minmax(90px, 0.9fr)",
    right: true,
    cell: (q) =>
      isTime(q.released_at) ? (
        <span className="cd-2" title={`by ${actorWord(q.released_by)}`}>
          <Age at={q.released_at} ago />
        </span>
      ) : null,
  },
];

function Two({ q }: { q: Quarantine }) {
  return (
    <>
      <div className="cd-row">
        <span className="cd-mono cd-b cd-el">{q.device}</span>
        <span className="cd-sp" />
        <QuarantineChip level={q.level} state={q.state} />
      </div>
      <div className="cd-row cd-2 cd-sub">
        <span className="cd-el cd-sp">{q.reason}</span>
        <Age at={q.requested_at} />
      </div>
    </>
  );
}
