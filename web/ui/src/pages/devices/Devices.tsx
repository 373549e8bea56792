import { useMediaQuery } from "@mantine/hooks";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useMemo, useState } from "react";
import { devicesQuery, facetsQuery, flat, overviewQuery } from "../../api/queries";
import type { DeviceSummary } from "../../api/types";
import { Empty, Failure, FilterToken, Skeleton } from "../../parts/Blocks";
import { Button, Kbd } from "../../parts/Button";
import { type Column, DataList } from "../../parts/DataList";
import { DeviceState } from "../../parts/DeviceState";
import { SeverityMark, StateGlyph, statusGlyph } from "../../parts/Marks";
import { SearchBox } from "../../parts/SearchBox";
import { useLock } from "../../parts/session";
import { Age } from "../../parts/When";
import type { DeviceSearch } from "../../router";
import { useKeys } from "../../shell/keys";
import { Page } from "../../shell/Page";
import { deviceStatusWord, severityWord } from "../../words/words";
import { EnrollDialog } from "./EnrollDialog";
import "./devices.css";

type FacetKey = "status" | "state" | "cohort" | "site" | "model" | "tag";

const facetNames: readonly { key: FacetKey; name: string }[] = [
  { key: "status", name: "State" },
  { key: "state", name: "Life cycle" },
  { key: "cohort", name: "Cohort" },
  { key: "site", name: "Site" },
  { key: "model", name: "Model" },
  { key: "tag", name: "Tag" },
];

/** The API may name a facet in the plural or not at all. */
function facetOf(facets: Record<string, Record<string, number>> | undefined, key: FacetKey): [string, number][] {
  const found = facets?.[key] ?? facets?.[`${key}s`] ?? {};
  return Object.entries(found)
    .filter(([name, n]) => name !== "" && n > 0)
    .sort((a, b) => b[1] - a[1]);
}

export function DevicesPage() {
  const search = useSearch({ from: "/app/devices" });
  const navigate = useNavigate({ from: "/devices" });
  const { enroll, ...filter } = search;
  const query = useInfiniteQuery(devicesQuery(filter));
  const facets = useQuery(facetsQuery);
  const health = useQuery(overviewQuery).data?.fleet;
  const counted = useMemo(() => {
    if (!health || !facets.data) return facets.data;
    const { reporting, silent, never_seen, historic, retired } = health;
    return { ...facets.data, status: { reporting, silent, never_seen, historic, retired } };
  }, [facets.data, health]);
  const { rows, total } = useMemo(() => flat(query.data), [query.data]);
  const [focus, setFocus] = useState(0);
  const narrow = useMediaQuery("(max-width: 1023px)");
  const lock = useLock("admin");
  const set = useCallback(
    (next: Partial<DeviceSearch>) => {
      setFocus(0);
      void navigate({ search: (old) => ({ ...old, ...next }), replace: true });
    },
    [navigate],
  );
  const open = (d: DeviceSummary | undefined) => d && void navigate({ to: "/devices/$id", params: { id: d.id } });
  const move = (to: number) => setFocus(Math.max(0, Math.min(rows.length - 1, to)));
  useKeys("This page", [
    { keys: "j", also: ["ArrowDown"], label: "Next device", run: () => move(focus + 1) },
    { keys: "k", also: ["ArrowUp"], label: "Previous device", run: () => move(focus - 1) },
    { keys: "Enter", label: "Open the device", run: () => open(rows[focus]) },
    { keys: "n", label: "Enrol a device…", run: () => !lock && set({ enroll: true }) },
    {
      keys: "Escape",
      run: () =>
        set({
          q: undefined,
          status: undefined,
          state: undefined,
          cohort: undefined,
          site: undefined,
          model: undefined,
          tag: undefined,
        }),
    },
  ]);
  const active = facetNames.filter((f) => search[f.key] !== undefined);
  const filtered = active.length > 0 || search.q !== undefined;
  const clear = () =>
    set({
      q: undefined,
      status: undefined,
      state: undefined,
      cohort: undefined,
      site: undefined,
      model: undefined,
      tag: undefined,
    });
  return (
    <Page
      title="Devices"
      documentTitle="Devices"
      fill
      actions={
        <Button keys="n" locked={lock} onClick={() => set({ enroll: true })}>
          Enrol…
        </Button>
      }
    >
      <div className="cd-faceted">
        <aside className="cd-facets" aria-label="Filters">
          {facetNames.map(({ key, name }) => (
            <Facet
              key={key}
              facet={key}
              name={name}
              values={facetOf(counted, key)}
              chosen={search[key]}
              onChoose={(v) => set({ [key]: v })}
            />
          ))}
        </aside>
        <div className="cd-listside">
          <div className="cd-filterbar">
            <SearchBox
              label="Id, owner, site, model or tag"
              value={search.q ?? ""}
              onChange={(q) => set({ q: q || undefined })}
              wide
            />
            {active.map((f) => (
              <FilterToken key={f.key} onRemove={() => set({ [f.key]: undefined })}>
                {f.name} is {deviceStatusWord[search[f.key] ?? ""] ?? search[f.key]}
              </FilterToken>
            ))}
            <span className="cd-sp" />
            <span className="cd-2 cd-num cd-nw">
              {query.data ? `${total.toLocaleString()} ${total === 1 ? "device" : "devices"}, by id` : ""}
            </span>
          </div>
          {query.isError ? (
            <Failure what="Devices can’t be read" error={query.error} retry={() => void query.refetch()} />
          ) : query.isPending ? (
            <Skeleton rows={18} height={narrow ? 60 : 34} />
          ) : rows.length === 0 ? (
            filtered ? (
              <Empty title="No device matches" actions={<Button onClick={clear}>Remove the filters</Button>}>
                No device has all of what the filters ask.
              </Empty>
            ) : (
              <Empty
                title="No device is enrolled yet"
                actions={
                  <Button kind="primary" locked={lock} onClick={() => set({ enroll: true })}>
                    Enrol a device…
                  </Button>
                }
              >
                Enrolling gives a one-time token; the device makes its own key and gets its certificate with it.
              </Empty>
            )
          ) : (
            <DataList
              name="Devices"
              rows={rows}
              total={total}
              columns={columns}
              rowKey={(d) => d.id}
              focus={focus}
              onFocus={setFocus}
              onPick={(d) => open(d)}
              onEnd={query.hasNextPage && !query.isFetchingNextPage ? () => void query.fetchNextPage() : undefined}
              narrow={narrow ? (d) => <Two d={d} /> : undefined}
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
              <Kbd>n</Kbd> enrol
            </span>
            <span>
              <Kbd>?</Kbd> all keys
            </span>
          </div>
        </div>
      </div>
      {enroll && <EnrollDialog onClose={() => set({ enroll: undefined })} />}
    </Page>
  );
}

function Facet({
  facet,
  name,
  values,
  chosen,
  onChoose,
}: {
  facet: FacetKey;
  name: string;
  values: [string, number][];
  chosen: string | undefined;
  onChoose: (value: string | undefined) => void;
}) {
  const [all, setAll] = useState(false);
  if (values.length === 0 || (facet === "state" && values.length < 2)) return null;
  const most = 6;
  const shown = all ? values : values.slice(0, most);
  return (
    <fieldset className="cd-facet">
      <legend className="cd-cap">{name}</legend>
      {shown.map(([value, n]) => (
        <label key={value}>
          <input
            type="checkbox"
            checked={chosen === value}
            onChange={(e) => onChoose(e.target.checked ? value : undefined)}
          />
          {facet === "status" && <StateGlyph state={statusGlyph(value)} />}
          <span className="cd-el cd-sp" title={value}>
            {facet === "status" || facet === "state" ? (deviceStatusWord[value] ?? value) : value}
          </span>
          <span className="cd-num cd-2">{n.toLocaleString()}</span>
        </label>
      ))}
      {values.length > most && (
        <button type="button" className="cd-textbtn" onClick={() => setAll(!all)}>
          {all ? "Fewer" : `${values.length - most} more`}
        </button>
      )}
    </fieldset>
  );
}

function Worst({ d }: { d: DeviceSummary }) {
  const i = d.open_incident;
  if (!i) return null;
  return (
    <Link
      to="/incidents/$id"
      params={{ id: i.id }}
      tabIndex={-1}
      className="cd-row cd-hover"
      title={`${i.id}, ${severityWord[i.severity].toLowerCase()}`}
    >
      <SeverityMark severity={i.severity} />
      <span className="cd-mono cd-2">{i.id}</span>
    </Link>
  );
}

const columns: Column<DeviceSummary>[] = [
  {
    key: "id",
    head: "Device",
    width: "minmax(120px, 1.4fr)",
    cell: (d) => (
      <Link to="/devices/$id" params={{ id: d.id }} className="cd-mono cd-b cd-hover" tabIndex={-1} title={d.id}>
        {d.id}
      </Link>
    ),
  },
  { key: "state", head: "State", width: "112px", cell: (d) => <DeviceState d={d} /> },
  { key: "worst", head: "Worst open", width: "92px", cell: (d) => <Worst d={d} /> },
  { key: "cohort", head: "Cohort", width: "minmax(60px, 1fr)", cell: (d) => <span className="cd-2">{d.cohort}</span> },
  { key: "site", head: "Site", width: "minmax(60px, 1fr)", cell: (d) => <span className="cd-2">{d.site}</span> },
  { key: "model", head: "Model", width: "minmax(60px, 1fr)", cell: (d) => <span className="cd-2">{d.model}</span> },
  { key: "firmware", head: "Firmware", width: "80px", cell: (d) => <span className="cd-2">{d.firmware}</span> },
  {
    key: "seen",
    head: "Last seen",
    width: "76px",
    right: true,
    cell: (d) => <span className="cd-2">{d.last_seen_at ? <Age at={d.last_seen_at} /> : "never"}</span>,
  },
];

function Two({ d }: { d: DeviceSummary }) {
  return (
    <>
      <div className="cd-row">
        <Link to="/devices/$id" params={{ id: d.id }} className="cd-mono cd-b cd-el">
          {d.id}
        </Link>
        {d.open_incident && <SeverityMark severity={d.open_incident.severity} />}
        <span className="cd-sp" />
        <DeviceState d={d} />
      </div>
      <div className="cd-row cd-2 cd-sub">
        <span className="cd-el cd-sp">{[d.cohort, d.site, d.model].filter(Boolean).join(", ")}</span>
        {d.last_seen_at ? <Age at={d.last_seen_at} /> : "never"}
      </div>
    </>
  );
}
