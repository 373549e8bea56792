import { Modal, Textarea } from "@mantine/core";
import { IconCircleCheck, IconDeviceDesktopAnalytics } from "@tabler/icons-react";
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { type ReactNode, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import {
  auditQuery,
  deadLettersQuery,
  deviceQuery,
  flat,
  incidentsQuery,
  quarantinesQuery,
  renewToken,
  retire,
  revoke,
} from "../../api/queries";
import type { BaselineState, DeviceDetail } from "../../api/types";
import { Command, Empty, Fact, Facts, Failure, Panel, Segments, Skeleton, Tabs, Tag } from "../../parts/Blocks";
import { Button, ButtonLink } from "../../parts/Button";
import { rangeOptions } from "../../parts/chart/ranges";
import { DeviceState } from "../../parts/DeviceState";
import { type GlyphName, SeverityMark, StateGlyph } from "../../parts/Marks";
import { isActive, QuarantineBlock } from "../../parts/Quarantine";
import { SearchBox } from "../../parts/SearchBox";
import { useLock } from "../../parts/session";
import { Age, At, Exact } from "../../parts/When";
import type { Range } from "../../router";
import { useKeys } from "../../shell/keys";
import { Page } from "../../shell/Page";
import { say, sayError } from "../../shell/toasts";
import { at, duration, isTime, metricName } from "../../words/format";
import {
  actorWord,
  deviceStatusWord,
  incidentStateWord,
  leveledWord,
  modeWord,
  quarantineStateWord,
  severityWord,
} from "../../words/words";
import { Metrics } from "./Metrics";
import "./devices.css";
import "../incidents/incident.css";
import "../incidents/side.css";

type TabName = "metrics" | "audit" | "incidents" | "quarantine" | "rules" | "life";

export function DevicePage() {
  const { id } = useParams({ from: "/app/devices/$id" });
  const query = useQuery(deviceQuery(id));
  if (query.data) return <Loaded key={id} device={query.data} />;
  return (
    <Page title={<span className="cd-mono">{id}</span>} documentTitle={id} crumb={{ label: "Devices", to: "/devices" }}>
      {query.isError ? (
        query.error instanceof ApiError && query.error.status === 404 ? (
          <Empty title={`There is no device ${id}`} actions={<ButtonLink to="/devices">All devices</ButtonLink>}>
            It is not in the registry; the id may be mistyped.
          </Empty>
        ) : (
          <Failure what="This device can’t be read" error={query.error} retry={() => void query.refetch()} />
        )
      ) : (
        <Skeleton rows={12} />
      )}
    </Page>
  );
}

function Loaded({ device }: { device: DeviceDetail }) {
  const search = useSearch({ from: "/app/devices/$id" });
  const navigate = useNavigate({ from: "/devices/$id" });
  const tab = (search.tab as TabName | undefined) ?? "metrics";
  const range: Range = search.range ?? "24h";
  const rail = useRef<HTMLDivElement>(null);
  const incidents = useInfiniteQuery(incidentsQuery({ device: device.id, sort: "-opened_at" }, 50));
  const set = (next: Partial<typeof search>) =>
    void navigate({ search: (old) => ({ ...old, ...next }), replace: true });
  const toQuarantine = () => {
    rail.current?.scrollIntoView({ block: "center" });
    rail.current?.querySelector<HTMLElement>("textarea, button")?.focus();
  };
  useKeys("This device", [
    { keys: "q", label: "Quarantine, dry run", run: toQuarantine },
    { keys: "Escape", label: "Back to the list", run: () => void navigate({ to: "/devices" }) },
  ]);
  const worst = flat(incidents.data).rows.find((i) => i.id === device.open_incident?.id);
  return (
    <Page
      title={<span className="cd-mono">{device.id}</span>}
      documentTitle={device.id}
      crumb={{ label: "Devices", to: "/devices" }}
      actions={
        tab === "metrics" && (
          <span className="cd-wide">
            <Segments<Range> name="Range" value={range} options={rangeOptions} onChange={(r) => set({ range: r })} />
          </span>
        )
      }
    >
      <div className="cd-split">
        <div className="cd-split-main">
          <div className="cd-dev-head">
            <span className="cd-dev-icon" aria-hidden="true">
              <IconDeviceDesktopAnalytics size={18} stroke={1.6} />
            </span>
            <div className="cd-col cd-sp">
              <span className="cd-dev-name">{device.id}</span>
              <span className="cd-2">{about(device)}</span>
            </div>
            <DeviceState
              d={{
                status: device.status,
                quarantine: isActive(device.quarantine) ? device.quarantine : undefined,
              }}
            />
            <span className="cd-2">
              {isTime(device.last_seen_at) ? (
                <>
                  last seen <Age at={device.last_seen_at} ago />
                </>
              ) : (
                "never seen"
              )}
            </span>
            {device.historic && <Tag title="Its data may be of any age">historic</Tag>}
            {device.tags.map((t) => (
              <Tag key={t} outline>
                {t}
              </Tag>
            ))}
          </div>
          {device.open_incident && (
            <div className={`cd-banner cd-banner-${device.open_incident.severity}`}>
              <SeverityMark severity={device.open_incident.severity} />
              <span className="cd-mono cd-2">{device.open_incident.id}</span>
              <b className="cd-b cd-el cd-sp">
                {worst?.title ?? `${severityWord[device.open_incident.severity]} incident`}
              </b>
              <ButtonLink kind="primary" to="/incidents/$id" params={{ id: device.open_incident.id }}>
                Open
              </ButtonLink>
            </div>
          )}
          <Panel flush>
            <Tabs<TabName>
              name="About this device"
              value={tab}
              onChange={(t) =>
                set({ tab: t === "metrics" ? undefined : t, q: undefined, from: undefined, to: undefined })
              }
              tabs={[
                { value: "metrics", label: "Metrics" },
                { value: "audit", label: "Audit log", count: device.audit_events_stored },
                {
                  value: "incidents",
                  label: "Incidents",
                  count: incidents.data ? flat(incidents.data).total : undefined,
                },
                { value: "quarantine", label: "Quarantine history" },
                { value: "rules", label: "Rules", count: device.rules.length },
                { value: "life", label: "Life cycle" },
              ]}
            />
            {tab === "metrics" && (
              <Metrics device={device} range={range} metric={search.metric} onMetric={(metric) => set({ metric })} />
            )}
            {tab === "audit" && (
              <Audit device={device} q={search.q ?? ""} from={search.from} to={search.to} onSearch={set} />
            )}
            {tab === "incidents" && <Incidents device={device} />}
            {tab === "quarantine" && <History id={device.id} />}
            {tab === "rules" && <Rules device={device} />}
            {tab === "life" && <Life device={device} />}
          </Panel>
        </div>
        <div className="cd-split-rail">
          <div ref={rail}>
            <QuarantineBlock device={device} />
          </div>
          <Identity device={device} />
          <ConnectionNow device={device} />
          <Baselines device={device} />
        </div>
      </div>
    </Page>
  );
}

function about(d: DeviceDetail): string {
  const parts = [
    d.model,
    d.firmware && `firmware ${d.firmware}`,
    d.site && `at ${d.site}`,
    `cohort ${d.cohort}`,
    d.owner && `of ${d.owner}`,
  ];
  return parts.filter(Boolean).join(", ");
}

function Identity({ device }: { device: DeviceDetail }) {
  const left = device.certificate_not_after ? Date.parse(device.certificate_not_after) - Date.now() : 0;
  return (
    <Panel title="Identity">
      <Facts>
        <Fact name="Certificate">
          {isTime(device.certificate_not_after) ? (
            left > 0 ? (
              <span className="cd-row">
                <IconCircleCheck size={14} className="cd-expected" aria-hidden="true" /> Valid, {duration(left)} left
              </span>
            ) : (
              <span className="cd-critical">
                Expired <Age at={device.certificate_not_after} ago />
              </span>
            )
          ) : (
            "none yet: its token is not used"
          )}
        </Fact>
        <Fact name="Subject">
          <span className="cd-mono">urn:cordon:device:{device.id}</span>
        </Fact>
        {device.certificate_serial && (
          <Fact name="Serial">
            <span className="cd-mono">{device.certificate_serial}</span>
          </Fact>
        )}
        <Fact name="State">{deviceStatusWord[device.state] ?? device.state}</Fact>
        <Fact name="Enrolled">
          <At at={device.enrolled_at} /> by {actorWord(device.enrolled_by)}
        </Fact>
        {device.time_zone && <Fact name="Time zone">{device.time_zone}</Fact>}
        <Fact name="Stored">
          {device.readings_stored.toLocaleString()} readings, {device.audit_events_stored.toLocaleString()} audit events
        </Fact>
        {device.dead_letters > 0 && (
          <Fact name="Refused">
            <Link to="/system" search={{ device: device.id }} className="cd-link">
              {device.dead_letters.toLocaleString()} dead letters
            </Link>
          </Fact>
        )}
      </Facts>
    </Panel>
  );
}

function ConnectionNow({ device }: { device: DeviceDetail }) {
  let body: ReactNode;
  if (device.connections_unknown) body = <p className="cd-high">Not known: {device.connections_unknown}</p>;
  else if (device.connections.length === 0) {
    body = (
      <p className="cd-2">
        Not connected.{" "}
        {isTime(device.last_seen_at) ? (
          <>
            Its last message came <Age at={device.last_seen_at} ago />.
          </>
        ) : (
          "It has never sent anything."
        )}
      </p>
    );
  } else {
    body = device.connections.map((c) => (
      <Facts key={`${c.server_id}-${c.cid}`}>
        <Fact name="Since">
          <At at={c.started_at} />, <Age at={c.started_at} ago />
        </Fact>
        <Fact name="From">
          <span className="cd-mono">{c.address}</span>
        </Fact>
        <Fact name="By">
          {c.protocol.toUpperCase()}, broker{" "}
          {device.brokers.find((b) => b.server_id === c.server_id)?.server_name || c.server_id.slice(0, 8)}
        </Fact>
      </Facts>
    ));
  }
  return <Panel title="Connection now">{body}</Panel>;
}

function Baselines({ device }: { device: DeviceDetail }) {
  if (device.baselines_unknown) {
    return (
      <Panel title="Baselines">
        <p className="cd-high">Not known: {device.baselines_unknown}</p>
      </Panel>
    );
  }
  const list = device.baselines;
  const ready = list.filter((b) => b.state === "ready");
  const learning = list.filter((b) => b.state !== "ready");
  return (
    <Panel title="Baselines" aside={list.length > 0 && <span className="cd-2">{list.length} metrics</span>}>
      {list.length === 0 ? (
        <p className="cd-2">No baseline rule judges this device yet. One begins to learn with its first reading.</p>
      ) : (
        <>
          <div className="cd-learnbar" aria-hidden="true">
            {ready.length > 0 && <i style={{ flexGrow: ready.length, background: "var(--cd-expected-fill)" }} />}
            {learning.length > 0 && (
              <i style={{ flexGrow: learning.length, border: "1px solid var(--cd-expected-fill)" }} />
            )}
          </div>
          <p>
            <b className="cd-b">{ready.length}</b> <span className="cd-2">ready</span>,{" "}
            <b className="cd-b">{learning.length}</b> <span className="cd-2">learning</span>
          </p>
          <ul className="cd-learn cd-sub">
            {learning.slice(0, 4).map((b) => (
              <Learning key={b.metric} b={b} />
            ))}
            {ready.slice(0, learning.length ? 2 : 4).map((b) => (
              <Learning key={b.metric} b={b} />
            ))}
          </ul>
        </>
      )}
    </Panel>
  );
}

function Learning({ b }: { b: BaselineState }) {
  return (
    <li>
      <StateGlyph state={b.state === "ready" ? "reporting" : "learning"} label={b.state} />
      <span className="cd-2">
        <b className="cd-b">{metricName(b.metric)}</b>:{" "}
        {b.detail ||
          (b.state === "ready"
            ? `ready, from ${b.samples.toLocaleString()} readings`
            : `learning, ${b.samples.toLocaleString()} of ${b.needed.toLocaleString()} readings`)}
      </span>
    </li>
  );
}

function Audit({
  device,
  q,
  from,
  to,
  onSearch,
}: {
  device: DeviceDetail;
  q: string;
  from?: number;
  to?: number;
  onSearch: (next: { q?: string; from?: number; to?: number }) => void;
}) {
  const begin = from ?? (device.historic ? 0 : undefined);
  // Without a time in the address everything that is kept is searched.
  const [since] = useState(() => Date.now() - 366 * 86_400_000);
  const query = useInfiniteQuery(auditQuery({ device: device.id, q, from: begin ?? since, to, limit: 100 }));
  const { rows, total } = flat(query.data);
  return (
    <div className="cd-pad">
      <div className="cd-row cd-wrap">
        <SearchBox label="User, address, text" value={q} onChange={(text) => onSearch({ q: text || undefined })} wide />
        {from !== undefined && (
          <button type="button" className="cd-token" onClick={() => onSearch({ from: undefined, to: undefined })}>
            {at(new Date(from))} to {to === undefined ? "now" : at(new Date(to))}
            <span aria-hidden="true">×</span>
            <span className="cd-hide">, remove this filter</span>
          </button>
        )}
        <span className="cd-sp" />
        <span className="cd-2 cd-num">
          {query.data && (total > 0 ? `${rows.length.toLocaleString()} of ${total.toLocaleString()} shown` : "")}
        </span>
      </div>
      {query.isError ? (
        <Failure what="The audit log can’t be read" error={query.error} retry={() => void query.refetch()} />
      ) : query.isPending ? (
        <Skeleton rows={8} height={28} />
      ) : rows.length === 0 ? (
        <Empty title={q || from !== undefined ? "No audit event matches" : "No audit events yet"}>
          {q || from !== undefined
            ? "Change the text or remove the time."
            : "The device sends them on fleet.audit; they appear here as they come."}
        </Empty>
      ) : (
        <div className="cd-table-wrap">
          <table className="cd-table cd-auditlog">
            <thead>
              <tr>
                <th>Observed</th>
                <th>Program</th>
                <th>Actor</th>
                <th>Message</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((r) => (
                <tr key={`${r.stream_seq}-${r.ts}-${r.message}`}>
                  <td className="cd-mono cd-2">
                    <Exact at={r.ts} day />
                  </td>
                  <td className="cd-mono">{r.program || r.class}</td>
                  <td className={`cd-mono ${r.outcome === "failure" ? "cd-high" : "cd-2"}`}>{r.actor}</td>
                  <td className="cd-mono cd-wraptext">
                    {r.message}
                    {r.repeat > 1 && <span className="cd-3"> ×{r.repeat.toLocaleString()}</span>}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {query.hasNextPage && (
        <div>
          <Button busy={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
            Show older
          </Button>
        </div>
      )}
    </div>
  );
}

function Incidents({ device }: { device: DeviceDetail }) {
  const query = useInfiniteQuery(incidentsQuery({ device: device.id, sort: "-opened_at" }, 50));
  const { rows } = flat(query.data);
  if (query.isPending) return <Skeleton rows={4} />;
  if (rows.length === 0)
    return (
      <Empty good title="No incident yet">
        What rules find about {device.id} appears here.
      </Empty>
    );
  return (
    <div className="cd-table-wrap">
      <table className="cd-table">
        <tbody>
          {rows.map((i) => (
            <tr key={i.id}>
              <td>
                <span className="cd-row">
                  <SeverityMark severity={i.severity} />
                  <StateGlyph state={i.state} label={incidentStateWord[i.state]} />
                  <Link to="/incidents/$id" params={{ id: i.id }} className="cd-mono cd-link">
                    {i.id}
                  </Link>
                </span>
              </td>
              <td className="cd-wraptext">{i.title}</td>
              <td className="cd-r cd-2">
                <Age at={i.opened_at} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function History({ id }: { id: string }) {
  const query = useInfiniteQuery(quarantinesQuery("all", id));
  const { rows } = flat(query.data);
  if (query.isError)
    return <Failure what="The history can’t be read" error={query.error} retry={() => void query.refetch()} />;
  if (query.isPending) return <Skeleton rows={4} />;
  if (rows.length === 0)
    return (
      <Empty good title="Never quarantined">
        Decisions about {id} and their proof stay here.
      </Empty>
    );
  return (
    <div className="cd-table-wrap">
      <table className="cd-table">
        <thead>
          <tr>
            <th>Requested</th>
            <th>Level</th>
            <th>State</th>
            <th>By</th>
            <th>Why</th>
            <th>Ended</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((q) => (
            <tr key={`${q.id}-${q.state}-${q.confirmed_at ?? q.requested_at}`}>
              <td>
                <Exact at={q.requested_at} day />
              </td>
              <td>{leveledWord[q.level]}</td>
              <td>
                <span className="cd-row">
                  <StateGlyph state={q.state as GlyphName} />
                  {quarantineStateWord[q.state]}
                </span>
              </td>
              <td className="cd-2">{actorWord(q.actor)}</td>
              <td className="cd-wraptext">{q.reason}</td>
              <td className="cd-2">
                {isTime(q.released_at) ? (
                  <>
                    <Age at={q.released_at} ago /> by {actorWord(q.released_by)}
                  </>
                ) : (
                  ""
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Rules({ device }: { device: DeviceDetail }) {
  if (device.rules.length === 0)
    return <Empty title="No rule applies">Every rule is off, or its scope leaves this device out.</Empty>;
  return (
    <div className="cd-table-wrap">
      <table className="cd-table">
        <tbody>
          {device.rules.map((r) => (
            <tr key={r.id}>
              <td>
                <span className="cd-row">
                  <SeverityMark severity={r.severity} />
                  <Link to="/rules" search={{ open: r.id }} className="cd-mono cd-b cd-hover">
                    {r.id}
                  </Link>
                </span>
              </td>
              <td className="cd-wraptext cd-2">{r.title}</td>
              <td className="cd-2">{r.kind}</td>
              <td>
                <span className="cd-chip">
                  <StateGlyph state={r.mode} />
                  {modeWord[r.mode]}
                </span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** What ends or renews a device's membership; each asks for a reason and says what follows. */
function Life({ device }: { device: DeviceDetail }) {
  const lock = useLock("admin");
  const [asking, setAsking] = useState<"revoke" | "retire">();
  const [command, setCommand] = useState("");
  const letters = useInfiniteQuery(deadLettersQuery(device.id));
  const client = useQueryClient();
  const renew = useMutation({
    mutationFn: () => renewToken(device.id),
    onSuccess: (e) => setCommand(e.command),
    onError: (error) => sayError("No new token was made.", error),
  });
  const over = device.state === "retired";
  return (
    <div className="cd-pad cd-form">
      <Facts>
        <Fact name="Enrolled">
          <Exact at={device.enrolled_at} day /> by {actorWord(device.enrolled_by)}
        </Fact>
        {isTime(device.certificate_not_before) && (
          <Fact name="Certificate">
            from <Exact at={device.certificate_not_before} day /> to <Exact at={device.certificate_not_after} day />
          </Fact>
        )}
        {isTime(device.token_expires_at) && (
          <Fact name="Token">
            unused, ends <Age at={device.token_expires_at} />
          </Fact>
        )}
        <Fact name="Dead letters">{letters.data ? flat(letters.data).total.toLocaleString() : ""}</Fact>
      </Facts>
      {command && <Command label="the command" text={command} />}
      <div className="cd-row cd-wrap">
        <Button locked={lock} busy={renew.isPending} onClick={() => renew.mutate()}>
          New enrolment token
        </Button>
        <Button
          locked={lock ?? (device.state === "revoked" || over ? "Already done" : undefined)}
          onClick={() => setAsking("revoke")}
        >
          Revoke…
        </Button>
        <Button locked={lock ?? (over ? "Already done" : undefined)} onClick={() => setAsking("retire")}>
          Retire…
        </Button>
      </div>
      {asking && (
        <EndDialog
          id={device.id}
          what={asking}
          onClose={(done) => {
            setAsking(undefined);
            if (done) {
              void client.invalidateQueries({ queryKey: ["device", device.id] });
              void client.invalidateQueries({ queryKey: ["devices"] });
            }
          }}
        />
      )}
    </div>
  );
}

const endWords = {
  revoke: {
    title: "Revoke",
    follows:
      "Its certificate is refused from now on and its connection is closed. It can be enrolled again with a new token.",
    done: "is revoked",
  },
  retire: {
    title: "Retire",
    follows: "It leaves the fleet: its certificate is refused and its silence raises nothing. Its history stays.",
    done: "is retired",
  },
} as const;

function EndDialog({ id, what, onClose }: { id: string; what: "revoke" | "retire"; onClose: (done: boolean) => void }) {
  const [reason, setReason] = useState("");
  const [typed, setTyped] = useState("");
  const words = endWords[what];
  const act = useMutation({
    mutationFn: () => (what === "revoke" ? revoke(id, reason.trim()) : retire(id, reason.trim())),
    onSuccess: () => {
      say(`${id} ${words.done}`);
      onClose(true);
    },
  });
  const ready = reason.trim() !== "" && (what === "retire" || typed === id);
  return (
    <Modal opened onClose={() => onClose(false)} title={`${words.title} ${id}`} size={460}>
      <form
        className="cd-form"
        onSubmit={(e) => {
          e.preventDefault();
          if (ready) act.mutate();
        }}
      >
        <p>{words.follows}</p>
        <Textarea
          label="Reason"
          rows={2}
          data-autofocus
          value={reason}
          onChange={(e) => setReason(e.currentTarget.value)}
        />
        {what === "revoke" && (
          <Textarea
            label={`Type ${id} to confirm`}
            rows={1}
            value={typed}
            onChange={(e) => setTyped(e.currentTarget.value)}
            spellCheck={false}
          />
        )}
        {act.isError && <Failure what={`${id} is unchanged`} error={act.error} />}
        <div className="cd-form-end">
          <Button kind="ghost" onClick={() => onClose(false)}>
            Cancel
          </Button>
          <Button
            type="submit"
            kind={what === "revoke" ? "danger" : "default"}
            busy={act.isPending}
            locked={ready ? undefined : "Fill in the fields above"}
          >
            {words.title}
          </Button>
        </div>
      </form>
    </Modal>
  );
}
