import { useMediaQuery } from "@mantine/hooks";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useEffect, useMemo, useState } from "react";
import { flat, type IncidentFilter, incidentsQuery, overviewQuery, quarantinesQuery } from "../../api/queries";
import type { Incident, Quarantine } from "../../api/types";
import { Avatar, Empty, Failure, FilterToken, Segments, Skeleton } from "../../parts/Blocks";
import { Button, ButtonLink, Kbd } from "../../parts/Button";
import { type Column, DataList } from "../../parts/DataList";
import { QuarantineChip, SeverityMark, StateGlyph } from "../../parts/Marks";
import { SearchBox } from "../../parts/SearchBox";
import { withIds } from "../../parts/Sentence";
import { useLock, useMe } from "../../parts/session";
import { Age } from "../../parts/When";
import type { IncidentSearch } from "../../router";
import { useKeys } from "../../shell/keys";
import { Page } from "../../shell/Page";
import { incidentStateWord, type Severity, severityWord, worstFirst } from "../../words/words";
import { useIncidentActions } from "./actions";
import { ResolveDialog } from "./ResolveDialog";
import { SidePanel } from "./SidePanel";
import "./incident.css";
import "./side.css";

type View = "open" | NonNullable<IncidentSearch["view"]>;

function filterOf(s: IncidentSearch, me: string): IncidentFilter {
  const view = s.view ?? "open";
  const sort = { updated: "-updated_at", opened: "-opened_at" } as const;
  const base: IncidentFilter = {
    severity: s.severity,
    device: s.device,
    q: s.q,
    sort: s.sort ? sort[s.sort] : "-severity",
  };
  switch (view) {
    case "mine":
      return { ...base, state: "unresolved", assignee: me };
    case "unassigned":
      return { ...base, state: "unresolved", assignee: "-" };
    case "acknowledged":
      return { ...base, state: "acknowledged" };
    case "resolved":
      return { ...base, state: "resolved", sort: s.sort ? sort[s.sort] : "-updated_at" };
    case "all":
      return base;
    default:
      return { ...base, state: "unresolved" };
  }
}

export function IncidentsPage() {
  const search = useSearch({ from: "/app/incidents" });
  const navigate = useNavigate({ from: "/incidents" });
  const me = useMe();
  const lock = useLock("analyst");
  const actions = useIncidentActions();
  const narrow = useMediaQuery("(max-width: 1023px)");
  const medium = useMediaQuery("(max-width: 1439px)");
  const filter = useMemo(() => filterOf(search, me.name), [search, me.name]);
  const query = useInfiniteQuery(incidentsQuery(filter));
  const overview = useQuery(overviewQuery);
  const held = useInfiniteQuery(quarantinesQuery("active"));
  const { rows, total } = useMemo(() => flat(query.data), [query.data]);
  const byDevice = useMemo(() => new Map(flat(held.data).rows.map((q) => [q.device, q])), [held.data]);
  const [focus, setFocus] = useState(0);
  const [resolving, setResolving] = useState<Incident>();

  const set = useCallback(
    (next: Partial<IncidentSearch>, replace = true) =>
      void navigate({ search: (old) => ({ ...old, ...next }), replace }),
    [navigate],
  );
  const open = search.open;
  const panel = open !== undefined && !narrow;
  const openRow = rows.findIndex((r) => r.id === open);

  // The panel's row and the keyboard's row are one.
  useEffect(() => {
    if (openRow >= 0) setFocus(openRow);
  }, [openRow]);

  const show = useCallback(
    (row: Incident | undefined) => {
      if (!row) return;
      if (narrow) void navigate({ to: "/incidents/$id", params: { id: row.id } });
      else set({ open: row.id });
    },
    [narrow, navigate, set],
  );
  const move = useCallback(
    (to: number) => {
      const at = Math.max(0, Math.min(rows.length - 1, to));
      setFocus(at);
      const row = rows[at];
      if (panel && row) set({ open: row.id });
    },
    [rows, panel, set],
  );
  const here = rows[focus];

  useKeys("This page", [
    { keys: "j", also: ["ArrowDown"], label: "Next incident", run: () => move(focus + 1) },
    { keys: "k", also: ["ArrowUp"], label: "Previous incident", run: () => move(focus - 1) },
    {
      keys: "Enter",
      label: "Open the incident",
      run: () => here && void navigate({ to: "/incidents/$id", params: { id: here.id } }),
    },
    { keys: "Space", label: "Side panel", run: () => (panel ? set({ open: undefined }) : show(here)) },
    { keys: "a", label: "Acknowledge", run: () => here && !lock && void actions.acknowledge(here) },
    { keys: "i", label: "Assign to me", run: () => here && !lock && void actions.assign(here, me.name) },
    { keys: "r", label: "Resolve…", run: () => here && !lock && here.state !== "resolved" && setResolving(here) },
    {
      keys: "Escape",
      label: "Close the panel",
      run: () => set(panel ? { open: undefined } : { q: undefined, severity: undefined, device: undefined }),
    },
  ]);

  const columns = useMemo(() => columnsFor(byDevice, !!medium, panel), [byDevice, medium, panel]);
  const view: View = search.view ?? "open";
  const filtered = !!(search.severity || search.device || search.q);
  const openCount = overview.data?.incidents.open;

  return (
    <Page title="Incidents" documentTitle={openCount ? `(${openCount}) Incidents` : "Incidents"} fill>
      <div className={panel ? "cd-beside" : "cd-alone"}>
        <div className="cd-listside">
          <div className="cd-filterbar">
            <Segments<View>
              name="View"
              value={view}
              onChange={(v) => set({ view: v === "open" ? undefined : v, open: undefined }, false)}
              options={[
                { value: "open", label: "Open", count: openCount },
                { value: "mine", label: "Mine" },
                { value: "unassigned", label: "Unassigned", count: overview.data?.incidents.unassigned },
                { value: "acknowledged", label: "Acknowledged", count: overview.data?.incidents.acknowledged },
                { value: "resolved", label: "Resolved" },
                { value: "all", label: "All" },
              ]}
            />
          </div>
          <div className="cd-filterbar cd-filterbar-2">
            <SearchBox
              label="Search incidents"
              value={search.q ?? ""}
              onChange={(q) => set({ q: q || undefined, open: undefined })}
            />
            <select
              className="cd-select"
              aria-label="Severity"
              value={search.severity ?? ""}
              onChange={(e) =>
                set({ severity: (e.target.value || undefined) as IncidentSearch["severity"], open: undefined })
              }
            >
              <option value="">Any severity</option>
              {worstFirst.map((s) => (
                <option key={s} value={s}>
                  {severityWord[s]}
                </option>
              ))}
            </select>
            {search.severity && (
              <FilterToken onRemove={() => set({ severity: undefined })}>
                Severity is {severityWord[search.severity as Severity].toLowerCase()}
              </FilterToken>
            )}
            {search.device && (
              <FilterToken onRemove={() => set({ device: undefined })}>Device is {search.device}</FilterToken>
            )}
            <span className="cd-sp" />
            <select
              className="cd-select cd-select-quiet"
              aria-label="Order"
              value={search.sort ?? ""}
              onChange={(e) => set({ sort: (e.target.value || undefined) as IncidentSearch["sort"] })}
            >
              <option value="">{view === "resolved" ? "Last changed first" : "By severity"}</option>
              {view !== "resolved" && <option value="updated">Last changed first</option>}
              <option value="opened">Newest first</option>
            </select>
          </div>
          {query.isError ? (
            <Failure what="Incidents can’t be read" error={query.error} retry={() => void query.refetch()} />
          ) : query.isPending ? (
            <Skeleton rows={16} height={narrow ? 60 : 34} />
          ) : rows.length === 0 ? (
            <Nothing
              view={view}
              filtered={filtered}
              clear={() => set({ severity: undefined, device: undefined, q: undefined })}
              reporting={overview.data?.fleet.reporting}
            />
          ) : (
            <DataList
              name="Incidents"
              rows={rows}
              total={total}
              columns={columns}
              rowKey={(r) => r.id}
              focus={focus}
              onFocus={move}
              onPick={show}
              onOpen={(r) => void navigate({ to: "/incidents/$id", params: { id: r.id } })}
              picked={panel ? open : undefined}
              onEnd={query.hasNextPage && !query.isFetchingNextPage ? () => void query.fetchNextPage() : undefined}
              rowClass={(r) => (r.state === "resolved" && view !== "resolved" ? "cd-list-dim" : "")}
              narrow={narrow ? (r) => <Two row={r} held={byDevice.get(r.device)} /> : undefined}
            />
          )}
          <div className="cd-hints">
            <span>
              <Kbd>j</Kbd> <Kbd>k</Kbd> move
            </span>
            <span>
              <Kbd>↵</Kbd> open
            </span>
            <span>
              <Kbd>a</Kbd> acknowledge
            </span>
            <span>
              <Kbd>r</Kbd> resolve
            </span>
            <span>
              <Kbd>?</Kbd> all keys
            </span>
            <span className="cd-sp" />
            <span className="cd-num">
              {total.toLocaleString()} {total === 1 ? "incident" : "incidents"}
            </span>
          </div>
        </div>
        {panel && open && (
          <SidePanel
            id={open}
            place={openRow >= 0 ? { at: openRow + 1, of: total } : undefined}
            onClose={() => set({ open: undefined })}
            onNext={() => move(focus + 1)}
            onResolve={setResolving}
          />
        )}
      </div>
      {resolving && <ResolveDialog incident={resolving} onClose={() => setResolving(undefined)} />}
    </Page>
  );
}

function columnsFor(held: Map<string, Quarantine>, medium: boolean, panel: boolean): Column<Incident>[] {
  const glyphOnly = medium || panel;
  const heavy = (i: Incident) => (i.severity === "high" || i.severity === "critical" ? "cd-b" : "");
  const columns: (Column<Incident> | false)[] = [
    {
      key: "severity",
      head: <span className="cd-hide">Severity</span>,
      width: "16px",
      cell: (i) => <SeverityMark severity={i.severity} />,
    },
    {
      key: "state",
      head: <span className="cd-hide">State</span>,
      width: "14px",
      cell: (i) => <StateGlyph state={i.state} label={incidentStateWord[i.state]} />,
    },
    {
      key: "id",
      head: "Incident",
      width: "64px",
      cell: (i) => (
        <Link to="/incidents/$id" params={{ id: i.id }} className="cd-mono cd-2 cd-hover" tabIndex={-1}>
          {i.id}
        </Link>
      ),
    },
    {
      key: "what",
      head: "What happened",
      width: "minmax(0, 1fr)",
      cell: (i) => (
        <span className={heavy(i)} title={i.title}>
          {panel ? withIds(i.title, [i.device]) : withoutDevice(i)}
        </span>
      ),
    },
    !panel && {
      key: "device",
      head: "Device",
      width: "minmax(90px, 150px)",
      cell: (i) => (
        <Link to="/devices/$id" params={{ id: i.device }} className="cd-mono cd-hover" tabIndex={-1} title={i.device}>
          {i.device}
        </Link>
      ),
    },
    {
      key: "quarantine",
      head: glyphOnly ? <span className="cd-hide">Quarantine</span> : "Quarantine",
      width: glyphOnly ? "16px" : "96px",
      cell: (i) => {
        const q = held.get(i.device);
        if (!q) return null;
        return glyphOnly ? (
          <StateGlyph state={q.state} label={`Quarantine ${q.state}, ${q.level}`} />
        ) : (
          <QuarantineChip level={q.level} state={q.state} />
        );
      },
    },
    !panel && {
      key: "findings",
      head: "Findings",
      width: "58px",
      right: true,
      cell: (i) => <span className="cd-2">{i.findings.toLocaleString()}</span>,
    },
    {
      key: "age",
      head: "Age",
      width: "62px",
      right: true,
      cell: (i) => (
        <span className="cd-2">
          <Age at={i.opened_at} />
        </span>
      ),
    },
    {
      key: "assignee",
      head: <span className="cd-hide">Assignee</span>,
      width: "20px",
      cell: (i) => <Avatar name={i.assignee} />,
    },
  ];
  return columns.filter((c): c is Column<Incident> => c !== false);
}

/** The device has a column of its own: "cam-1 sent 36 MB" → "Sent 36 MB". */
function withoutDevice(i: Incident): string {
  if (!i.title.startsWith(`${i.device} `)) return i.title;
  const rest = i.title.slice(i.device.length + 1);
  return rest.charAt(0).toUpperCase() + rest.slice(1);
}

function Two({ row, held }: { row: Incident; held?: Quarantine }) {
  return (
    <>
      <div className="cd-row">
        <SeverityMark severity={row.severity} />
        <StateGlyph state={row.state} label={incidentStateWord[row.state]} />
        <span className={`cd-el cd-sp ${row.severity === "high" || row.severity === "critical" ? "cd-b" : ""}`}>
          {row.title}
        </span>
      </div>
      <div className="cd-row cd-2 cd-sub">
        <Link to="/incidents/$id" params={{ id: row.id }} className="cd-mono">
          {row.id}
        </Link>
        <span className="cd-mono cd-el">{row.device}</span>
        {held && <StateGlyph state={held.state} label={`Quarantine ${held.state}`} />}
        <span className="cd-sp" />
        <Age at={row.opened_at} />
        <Avatar name={row.assignee} />
      </div>
    </>
  );
}

function Nothing({
  view,
  filtered,
  clear,
  reporting,
}: {
  view: View;
  filtered: boolean;
  clear: () => void;
  reporting?: number;
}) {
  if (filtered) {
    return (
      <Empty title="No incident matches" actions={<Button onClick={clear}>Remove the filters</Button>}>
        Other incidents in this view do not match the search and the filters.
      </Empty>
    );
  }
  switch (view) {
    case "open":
      return (
        <Empty
          good
          title="No open incidents"
          actions={
            <ButtonLink to="/incidents" search={{ view: "resolved" }}>
              Show resolved
            </ButtonLink>
          }
        >
          {reporting === undefined ? "" : `${reporting.toLocaleString()} devices report inside what is expected. `}
          An incident opens by itself when a rule in mode alert or armed finds something.
        </Empty>
      );
    case "mine":
      return <Empty title="Nothing is assigned to you">Take one with i; it then appears here.</Empty>;
    case "unassigned":
      return (
        <Empty good title="Every open incident has somebody">
          New ones appear here until they are assigned.
        </Empty>
      );
    case "acknowledged":
      return (
        <Empty title="Nothing is being worked on">
          Acknowledge an incident with a, and others see that you are on it.
        </Empty>
      );
    default:
      return (
        <Empty title="No incident has been here yet">Resolved incidents stay with their verdict and reason.</Empty>
      );
  }
}
