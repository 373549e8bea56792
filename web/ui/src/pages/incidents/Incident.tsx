import { Textarea } from "@mantine/core";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useRef, useState } from "react";
import { ApiError } from "../../api/client";
import {
  deliveriesQuery,
  deviceQuery,
  flat,
  incidentFindingsQuery,
  incidentQuery,
  incidentsQuery,
} from "../../api/queries";
import type { DeviceDetail, Finding, Incident } from "../../api/types";
import { Empty, Fact, Facts, Failure, Panel, Skeleton, Tabs, Tag } from "../../parts/Blocks";
import { Button, ButtonLink, Kbd } from "../../parts/Button";
import { DeviceState } from "../../parts/DeviceState";
import { QuarantineChip, SeverityLabel, SeverityMark, StateGlyph } from "../../parts/Marks";
import { isActive, QuarantineBlock } from "../../parts/Quarantine";
import { Sentence } from "../../parts/Sentence";
import { useLock, useMe } from "../../parts/session";
import { Age, Exact } from "../../parts/When";
import type { ChartSearch } from "../../router";
import { useKeys } from "../../shell/keys";
import { Page } from "../../shell/Page";
import { figure, quantity, range as rangeText } from "../../words/format";
import { basisWord, incidentStateWord, verdictWord } from "../../words/words";
import { useIncidentActions } from "./actions";
import { AuditAround, EvidencePanel } from "./Evidence";
import { ResolveDialog } from "./ResolveDialog";
import { Timeline } from "./Timeline";
import "./incident.css";

type TabName = "findings" | "audit" | "notifications" | "related";

export function IncidentPage() {
  const { id } = useParams({ from: "/app/incidents/$id" });
  const query = useQuery(incidentQuery(id));
  if (query.data) return <Loaded key={id} incident={query.data} />;
  return (
    <Page
      title={<span className="cd-mono">{id}</span>}
      documentTitle={id}
      crumb={{ label: "Incidents", to: "/incidents" }}
    >
      {query.isError ? (
        query.error instanceof ApiError && query.error.status === 404 ? (
          <Empty title={`There is no incident ${id}`} actions={<ButtonLink to="/incidents">All incidents</ButtonLink>}>
            It may have been removed with its device, or the number is mistyped.
          </Empty>
        ) : (
          <Failure what="This incident can’t be read" error={query.error} retry={() => void query.refetch()} />
        )
      ) : (
        <Skeleton rows={12} />
      )}
    </Page>
  );
}

function Loaded({ incident }: { incident: Incident }) {
  const search = useSearch({ from: "/app/incidents/$id" });
  const navigate = useNavigate({ from: "/incidents/$id" });
  const findings = useQuery(incidentFindingsQuery(incident.id));
  const device = useQuery(deviceQuery(incident.device));
  const [resolving, setResolving] = useState(false);
  const actions = useIncidentActions();
  const me = useMe();
  const lock = useLock("analyst");
  const comment = useRef<HTMLTextAreaElement>(null);
  const list = findings.data?.items ?? [];
  const tab = (search.tab as TabName | undefined) ?? "findings";
  const onSearch = (next: Partial<ChartSearch>) =>
    void navigate({ search: (old) => ({ ...old, ...next }), replace: true });
  const place = usePlace(incident.id);
  const closed = incident.state === "resolved";

  useKeys("This incident", [
    { keys: "a", label: "Acknowledge", run: () => void actions.acknowledge(incident) },
    { keys: "i", label: "Assign to me", run: () => void actions.assign(incident, me.name) },
    { keys: "r", label: "Resolve…", run: () => !lock && !closed && setResolving(true) },
    { keys: "c", label: "Comment", run: () => comment.current?.focus() },
    { keys: "0", label: "Reset zoom", run: () => onSearch({ from: undefined, to: undefined }) },
    {
      keys: "j",
      label: "Next incident",
      run: () => place.next && void navigate({ to: "/incidents/$id", params: { id: place.next } }),
    },
    {
      keys: "k",
      label: "Previous incident",
      run: () => place.previous && void navigate({ to: "/incidents/$id", params: { id: place.previous } }),
    },
    { keys: "Escape", label: "Back to the list", run: () => void navigate({ to: "/incidents" }) },
  ]);

  const acts = (
    <>
      {incident.assignee !== me.name && (
        <Button keys="i" locked={lock} onClick={() => void actions.assign(incident, me.name)}>
          Assign to me
        </Button>
      )}
      {incident.state === "open" && (
        <Button kind="primary" keys="a" locked={lock} onClick={() => void actions.acknowledge(incident)}>
          Acknowledge
        </Button>
      )}
      {closed ? (
        <Button locked={lock} onClick={() => void actions.reopen(incident)}>
          Open again
        </Button>
      ) : (
        <Button
          kind={incident.state === "open" ? "default" : "primary"}
          keys="r"
          locked={lock}
          onClick={() => setResolving(true)}
        >
          Resolve…
        </Button>
      )}
    </>
  );

  return (
    <Page
      title={<span className="cd-mono">{incident.id}</span>}
      documentTitle={`${incident.id} ${incident.title}`}
      crumb={{ label: "Incidents", to: "/incidents" }}
      actions={
        <>
          {place.of > 0 && (
            <span className="cd-row cd-3 cd-sub cd-wide">
              {place.at} of {place.of} <Kbd>k</Kbd>
              <Kbd>j</Kbd>
            </span>
          )}
          <span className="cd-row cd-wide">{acts}</span>
        </>
      }
      foot={acts}
    >
      <div className="cd-inc-head">
        <div className="cd-row cd-wrap cd-gap12">
          <SeverityLabel severity={incident.severity} />
          <span className="cd-chip">
            <StateGlyph state={incident.state} />
            {stateText(incident)}
          </span>
          {device.data?.quarantine && isActive(device.data.quarantine) && (
            <QuarantineChip level={device.data.quarantine.level} state={device.data.quarantine.state} />
          )}
          {incident.techniques?.map((t) => (
            <Tag key={t} mono outline>
              {t}
            </Tag>
          ))}
          <span className="cd-sp" />
          <span className="cd-2">
            Opened <Exact at={incident.opened_at} day />, <Age at={incident.opened_at} ago />
          </span>
        </div>
        <Sentence text={incident.title} ids={[incident.device]} />
        {closed && incident.reason && (
          <p className="cd-2">
            {verdictWord[incident.verdict ?? ""]}: “{incident.reason}”
          </p>
        )}
      </div>
      <div className="cd-split">
        <div className="cd-split-main">
          {findings.isError && (
            <Failure what="The findings can’t be read" error={findings.error} retry={() => void findings.refetch()} />
          )}
          {findings.isPending && (
            <Panel title="Readings">
              <div style={{ height: 330 }} aria-busy="true" />
            </Panel>
          )}
          {list.length > 0 && (
            <EvidencePanel
              incident={incident}
              findings={list}
              device={device.data}
              search={search}
              onSearch={onSearch}
            />
          )}
          <Panel flush>
            <Tabs<TabName>
              name="More about this incident"
              value={tab}
              onChange={(t) => onSearch({ tab: t === "findings" ? undefined : t })}
              tabs={[
                { value: "findings", label: "Findings", count: incident.findings },
                { value: "audit", label: "Audit log" },
                { value: "notifications", label: "Notifications" },
                { value: "related", label: "Related" },
              ]}
            />
            {tab === "findings" && (findings.isPending ? <Skeleton rows={3} /> : <FindingTable findings={list} />)}
            {tab === "audit" && <AuditAround incident={incident} />}
            {tab === "notifications" && <Notifications id={incident.id} />}
            {tab === "related" && <Related incident={incident} />}
          </Panel>
        </div>
        <div className="cd-split-rail">
          {device.data && (
            <QuarantineBlock device={device.data} incident={incident.id} reason={`${incident.id}: ${incident.title}`} />
          )}
          <DeviceFacts incident={incident} device={device.data} error={device.error} />
          <Panel title="Timeline">
            <Comment incident={incident} lock={lock} box={comment} />
            <Timeline incident={incident} />
          </Panel>
        </div>
      </div>
      {resolving && <ResolveDialog incident={incident} device={device.data} onClose={() => setResolving(false)} />}
    </Page>
  );
}

export function stateText(i: Incident): string {
  if (i.state === "acknowledged") return `Acknowledged by ${i.acknowledged_by || "somebody"}`;
  if (i.state === "resolved") return `Resolved by ${i.resolved_by || "somebody"}`;
  return i.assignee ? `Open, with ${i.assignee}` : "Open, nobody has it";
}

/** Where an incident stands among the unresolved ones, worst first. */
function usePlace(id: string) {
  const { data } = useInfiniteQuery(incidentsQuery({ state: "unresolved", sort: "-severity" }));
  const { rows, total } = flat(data);
  const at = rows.findIndex((r) => r.id === id);
  if (at < 0) return { at: 0, of: 0, next: rows[0]?.id, previous: undefined };
  return { at: at + 1, of: total, next: rows[at + 1]?.id, previous: rows[at - 1]?.id };
}

function seen(f: Finding): string {
  const e = f.explanation;
  if (e.metric) return quantity(e.value, e.unit);
  if (e.count) return `${e.count.toLocaleString()} events`;
  return e.value ? figure(e.value) : "";
}

function expectedOf(f: Finding): string {
  const e = f.explanation;
  if (e.expected) return rangeText(e.expected.low, e.expected.high, e.metric ? e.unit : undefined);
  if (e.threshold !== undefined && e.threshold !== null)
    return `limit ${e.metric ? quantity(e.threshold, e.unit) : figure(e.threshold)}`;
  return "";
}

function learned(f: Finding): string {
  const e = f.explanation;
  if (!e.samples) return e.basis === "rule" || e.threshold !== undefined ? "the rule" : "";
  return `${basisWord[e.basis ?? "own"] ?? e.basis}, ${e.samples.toLocaleString()} readings`;
}

export function FindingTable({ findings }: { findings: readonly Finding[] }) {
  if (findings.length === 0) {
    return (
      <Empty title="No findings are kept">
        They expire from history after some time; the incident keeps its timeline.
      </Empty>
    );
  }
  return (
    <div className="cd-table-wrap">
      <table className="cd-table">
        <thead>
          <tr>
            <th>Detected</th>
            <th>Rule</th>
            <th className="cd-r">Seen</th>
            <th className="cd-r">Expected</th>
            <th>Actor</th>
            <th>Learned from</th>
          </tr>
        </thead>
        <tbody>
          {findings.map((f) => (
            <tr key={f.id} title={f.explanation.sentence}>
              <td>
                <Exact at={f.detected_at} day />
              </td>
              <td>
                <span className="cd-row">
                  <SeverityMark severity={f.severity} size={14} />
                  <Link to="/rules" search={{ open: f.rule_id }} className="cd-mono cd-hover">
                    {f.rule_id}
                  </Link>
                  {f.cleared && <span className="cd-expected cd-sub">cleared</span>}
                </span>
              </td>
              <td className={`cd-r cd-num cd-b ${f.cleared ? "" : `cd-${f.severity}`}`}>{seen(f)}</td>
              <td className="cd-r cd-num">{expectedOf(f)}</td>
              <td className="cd-mono cd-2">{f.actor}</td>
              <td className="cd-2">{learned(f)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Notifications({ id }: { id: string }) {
  const query = useQuery(deliveriesQuery);
  const rows = query.data?.items.filter((d) => d.incident === id) ?? [];
  if (query.isPending) return <Skeleton rows={3} />;
  if (rows.length === 0) {
    return (
      <Empty title="Nobody has been told" actions={<ButtonLink to="/alerts">Alerts</ButtonLink>}>
        {query.data?.receivers.length ? "No receiver is set for this severity and change." : "No receiver is set up."}
      </Empty>
    );
  }
  return (
    <div className="cd-table-wrap">
      <table className="cd-table">
        <thead>
          <tr>
            <th>Sent</th>
            <th>What</th>
            <th>To</th>
            <th>Answer</th>
            <th className="cd-r">Tries</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((d) => (
            <tr key={d.id}>
              <td>
                <Exact at={d.created_at} day />
              </td>
              <td>{d.change}</td>
              <td>{d.receiver}</td>
              <td className={d.state === "failed" ? "cd-critical" : d.state === "pending" ? "cd-high" : "cd-expected"}>
                {d.state === "delivered" ? `delivered, ${d.status}` : d.error || d.state}
              </td>
              <td className="cd-r cd-num">{d.attempts}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Related({ incident }: { incident: Incident }) {
  const query = useInfiniteQuery(incidentsQuery({ device: incident.device, sort: "-opened_at" }, 50));
  const rows = flat(query.data).rows.filter((r) => r.id !== incident.id);
  if (query.isPending) return <Skeleton rows={3} />;
  if (rows.length === 0)
    return <Empty title="This is the device’s only incident">Incidents of {incident.device} appear here.</Empty>;
  return (
    <div className="cd-table-wrap">
      <table className="cd-table">
        <tbody>
          {rows.map((r) => (
            <tr key={r.id}>
              <td>
                <span className="cd-row">
                  <SeverityMark severity={r.severity} />
                  <StateGlyph state={r.state} label={incidentStateWord[r.state]} />
                  <Link to="/incidents/$id" params={{ id: r.id }} className="cd-mono cd-link">
                    {r.id}
                  </Link>
                </span>
              </td>
              <td className="cd-wraptext">{r.title}</td>
              <td className="cd-r">
                <Age at={r.opened_at} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function DeviceFacts({ incident, device, error }: { incident: Incident; device?: DeviceDetail; error: Error | null }) {
  return (
    <Panel
      title="Device"
      aside={
        device && (
          <DeviceState
            d={{ status: device.status, quarantine: isActive(device.quarantine) ? device.quarantine : undefined }}
          />
        )
      }
    >
      <Facts>
        <Fact name="Id">
          <Link to="/devices/$id" params={{ id: incident.device }} className="cd-mono cd-link">
            {incident.device}
          </Link>
        </Fact>
        {device && (
          <>
            <Fact name="What">
              {[device.model, device.firmware && `firmware ${device.firmware}`].filter(Boolean).join(", ") ||
                "model not given"}
            </Fact>
            <Fact name="Where">
              {device.site || "site not given"}{" "}
              <Link to="/devices" search={{ cohort: device.cohort }} className="cd-link">
                {device.cohort}
              </Link>
            </Fact>
            <Fact name="Last seen">
              <Age at={device.last_seen_at} ago />
            </Fact>
            <Fact name="Connected">
              {device.connections_unknown
                ? "not known"
                : device.connections.length
                  ? device.connections.map((c) => `${c.protocol} from ${c.address}`).join(", ")
                  : "no"}
            </Fact>
          </>
        )}
        {(incident.actors?.length ?? 0) > 0 && (
          <Fact name="Actors">
            <span className="cd-mono">{incident.actors?.slice(0, 6).join(", ")}</span>
            {(incident.actors?.length ?? 0) > 6 && (
              <span className="cd-2"> and {(incident.actors?.length ?? 0) - 6} more</span>
            )}
          </Fact>
        )}
      </Facts>
      {error && <Failure what="The device can’t be read" error={error} />}
    </Panel>
  );
}

function Comment({
  incident,
  lock,
  box,
}: {
  incident: Incident;
  lock?: string;
  box: React.RefObject<HTMLTextAreaElement | null>;
}) {
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const actions = useIncidentActions();
  async function submit() {
    const value = text.trim();
    if (!value || busy) return;
    setBusy(true);
    if (await actions.comment(incident, value)) setText("");
    setBusy(false);
  }
  if (lock) return null;
  return (
    <form
      className="cd-comment"
      onSubmit={(e) => {
        e.preventDefault();
        void submit();
      }}
    >
      <Textarea
        ref={box}
        aria-label="Add a comment"
        placeholder="Add a comment"
        rows={text ? 3 : 1}
        maxLength={4000}
        value={text}
        onChange={(e) => setText(e.currentTarget.value)}
        onKeyDown={(e) => {
          if (e.key === "Enter" && (e.metaKey || e.ctrlKey)) void submit();
          if (e.key === "Escape") e.currentTarget.blur();
        }}
      />
      {text.trim() && (
        <div className="cd-form-end">
          <Button type="submit" size="small" busy={busy} keys="Ctrl ↵">
            Comment
          </Button>
        </div>
      )}
    </form>
  );
}
