import { IconBox } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { overviewQuery } from "../../api/queries";
import type { Overview } from "../../api/types";
import { Empty, Failure, Panel, Skeleton } from "../../parts/Blocks";
import { type GlyphName, SeverityMark, StateGlyph } from "../../parts/Marks";
import { At, useNow } from "../../parts/When";
import { Page } from "../../shell/Page";
import { duration, plural, short, took } from "../../words/format";
import { type Severity, severityWord, worstFirst } from "../../words/words";
import { FleetCells } from "./FleetCells";
import { IncidentBars } from "./IncidentBars";
import { IngestArea } from "./IngestArea";
import "./overview.css";

/** In one glance: is my fleet all right, what is wrong, what did Cordon do, what must I do? */
export function OverviewPage() {
  const query = useQuery(overviewQuery);
  const data = query.data;
  return (
    <Page title="Overview" documentTitle="Overview" actions={<Clock />}>
      {data ? (
        data.fleet.total === 0 ? (
          <FirstSteps />
        ) : (
          <Glance data={data} />
        )
      ) : query.isError ? (
        <Failure what="The overview can’t be read" error={query.error} retry={() => void query.refetch()} />
      ) : (
        <Skeleton rows={12} height={48} />
      )}
    </Page>
  );
}

function Clock() {
  const minute = Math.floor(useNow() / 60_000);
  const text = new Intl.DateTimeFormat(undefined, {
    weekday: "short",
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
    timeZoneName: "short",
  }).format(new Date(minute * 60_000));
  return <span className="cd-2 cd-num cd-clock">{text}</span>;
}

function FirstSteps() {
  return (
    <Empty title="No device is enrolled yet">
      Three steps:{" "}
      <Link to="/devices" search={{ enroll: true }} className="cd-link">
        enrol a device
      </Link>{" "}
      and run the one command it shows; look at the{" "}
      <Link to="/rules" className="cd-link">
        rules
      </Link>{" "}
      that will judge it; see under{" "}
      <Link to="/alerts" className="cd-link">
        alerts
      </Link>{" "}
      who is told.
    </Empty>
  );
}

function Glance({ data }: { data: Overview }) {
  return (
    <>
      <Lede data={data} />
      <div className="cd-four">
        <FleetColumn data={data} />
        <WrongColumn data={data} />
        <DidColumn data={data} />
        <TodoColumn data={data} />
      </div>
      <Panel
        title="Incidents opened per hour"
        aside={
          <span className="cd-row cd-wrap cd-sub">
            {worstFirst.map((s) => (
              <span key={s} className="cd-row cd-sevkey">
                <SeverityMark severity={s} size={14} named={false} />
                {severityWord[s]}
              </span>
            ))}
          </span>
        }
      >
        <IncidentBars rows={data.incidents_per_hour} />
      </Panel>
      <div className="cd-three">
        <FleetCells cells={data.cells} />
        <Panel
          title="Ingest"
          aside={
            <span className="cd-2 cd-num">{`${short(data.ingest.readings_per_second)}/s, lag ${duration(data.ingest.lag_seconds * 1000)}`}</span>
          }
        >
          <IngestArea points={data.ingest.series} />
          <dl className="cd-lines">
            <div>
              <dt>Dead letters, 24 h</dt>
              <dd>
                <Link to="/system" className="cd-hover cd-num">
                  {data.ingest.dead_letters_24h === 0 ? "none" : data.ingest.dead_letters_24h.toLocaleString()}
                </Link>
              </dd>
            </div>
            {data.stages
              .filter((s) => s.lag > 0 || !s.healthy)
              .slice(0, 3)
              .map((s) => (
                <div key={s.stage}>
                  <dt>{s.healthy ? `Waiting for ${s.stage}` : `${s.stage} needs care`}</dt>
                  <dd>
                    <Link to="/system" className={`cd-hover cd-num ${s.healthy ? "" : "cd-high"}`}>
                      {s.lag.toLocaleString()}
                    </Link>
                  </dd>
                </div>
              ))}
          </dl>
        </Panel>
        <Panel title="What changed">
          {data.changes.length === 0 ? (
            <p className="cd-2">Nothing has changed lately.</p>
          ) : (
            <ol className="cd-changes">
              {data.changes.slice(0, 12).map((c) => (
                <li key={`${c.at}-${c.text}`}>
                  <span className="cd-3">
                    <At at={c.at} />
                  </span>
                  <To link={c.link}>{c.text}</To>
                </li>
              ))}
            </ol>
          )}
        </Panel>
      </div>
    </>
  );
}

/** A path that the API gives. */
function To({ link, children, className = "cd-hover" }: { link: string; children: ReactNode; className?: string }) {
  if (!link.startsWith("/")) return <span>{children}</span>;
  return (
    <Link to={link as "/"} className={className}>
      {children}
    </Link>
  );
}

/** The four inks in one sentence. */
function Lede({ data }: { data: Overview }) {
  const { incidents, quarantine, fleet, todo } = data;
  const worst = worstFirst.find((s) => incidents.by_severity[s] > 0);
  const n = worst ? incidents.by_severity[worst] : 0;
  const wrong = worst && (
    <b className={`cd-${worst}`}>
      {n.toLocaleString()} {severityWord[worst].toLowerCase()} {plural(n, "incident", "incidents")}
    </b>
  );
  const held = quarantine.active > 0 && (
    <>
      {" "}
      Cordon has{" "}
      <b className="cd-cordon">
        quarantined {quarantine.active.toLocaleString()} {plural(quarantine.active, "device", "devices")}
      </b>
      {todo.length > 0 ? "; " : "."}
    </>
  );
  const you = todo.length > 0 && (
    <>
      {quarantine.active > 0 ? "" : " "}
      <b className="cd-you">
        {todo.length} {plural(todo.length, "thing", "things")}
      </b>{" "}
      {plural(todo.length, "waits", "wait")} for you.
    </>
  );
  return (
    <p className="cd-sentence" data-testid="lede">
      {wrong ? (
        <>
          {fleet.silent > 0
            ? `${fleet.silent.toLocaleString()} ${plural(fleet.silent, "device is", "devices are")} silent, and there ${plural(n, "is", "are")} `
            : "The fleet is quiet apart from "}
          {wrong}.
        </>
      ) : fleet.silent > 0 ? (
        <>
          No incident is open; {fleet.silent.toLocaleString()} {plural(fleet.silent, "device is", "devices are")}{" "}
          silent.
        </>
      ) : (
        <>
          <b className="cd-expected">The fleet is quiet.</b>
          {todo.length === 0 && quarantine.active === 0 ? " Nothing waits for you." : ""}
        </>
      )}
      {held}
      {you}
    </p>
  );
}

function FleetColumn({ data }: { data: Overview }) {
  const { fleet } = data;
  const live = fleet.reporting + fleet.silent + fleet.never_seen;
  const share = live > 0 ? (fleet.reporting / live) * 100 : 0;
  const text = share === 100 || share === 0 ? share.toFixed(0) : (Math.floor(share * 10) / 10).toFixed(1);
  const items: { name: string; glyph: GlyphName; n: number; to: ReactNode }[] = [];
  const item = (name: string, glyph: GlyphName, n: number, link: (children: ReactNode) => ReactNode) =>
    items.push({
      name,
      glyph,
      n,
      to: link(
        <>
          <StateGlyph state={glyph} />
          <span className="cd-2">{name}</span>
          <span className="cd-sp" />
          <span className="cd-num">{n.toLocaleString()}</span>
        </>,
      ),
    });
  const status = (s: "reporting" | "silent" | "never_seen") => (children: ReactNode) => (
    <Link to="/devices" search={{ status: s }} className="cd-count">
      {children}
    </Link>
  );
  item("Reporting", "reporting", fleet.reporting, status("reporting"));
  item("Learning", "learning", fleet.learning, (c) => (
    <Link to="/devices" search={{}} className="cd-count">
      {c}
    </Link>
  ));
  item("Silent", "silent", fleet.silent, status("silent"));
  item("Quarantined", "confirmed", fleet.quarantined, (c) => (
    <Link to="/quarantine" search={{}} className="cd-count">
      {c}
    </Link>
  ));
  if (fleet.never_seen > 0) item("Never seen", "silent", fleet.never_seen, status("never_seen"));
  return (
    <section className="cd-four-col">
      <h2 className="cd-expected">Is my fleet all right?</h2>
      <p>
        <span className="cd-big">{text} %</span> <span className="cd-2">reporting</span>
      </p>
      <div className="cd-strip" aria-hidden="true">
        <i
          style={{
            flexGrow: Math.max(fleet.reporting, 0.001),
            background: "color-mix(in srgb, var(--cd-expected-fill) 62%, var(--cd-surface))",
          }}
        />
        {fleet.silent + fleet.never_seen > 0 && (
          <i style={{ flexGrow: fleet.silent + fleet.never_seen, minWidth: 5, background: "var(--cd-text-3)" }} />
        )}
        {fleet.quarantined > 0 && (
          <i style={{ flexGrow: fleet.quarantined, minWidth: 5, background: "var(--cd-cordon-fill)" }} />
        )}
      </div>
      <div className="cd-counts">
        {items.map((i) => (
          <div key={i.name}>{i.to}</div>
        ))}
      </div>
    </section>
  );
}

function WrongColumn({ data }: { data: Overview }) {
  const { incidents } = data;
  const most = Math.max(1, ...worstFirst.map((s) => incidents.by_severity[s]));
  return (
    <section className="cd-four-col">
      <h2 className="cd-critical">What is wrong?</h2>
      <p>
        <Link to="/incidents" search={{}} className="cd-big cd-hover">
          {incidents.open.toLocaleString()}
        </Link>{" "}
        <span className="cd-2">
          open{incidents.unassigned > 0 ? `, ${incidents.unassigned.toLocaleString()} with nobody` : ""}
        </span>
      </p>
      <div className="cd-sevrows">
        {worstFirst.map((s: Severity) => {
          const n = incidents.by_severity[s];
          const width = `${(n / most) * 100}%`;
          return (
            <Link
              key={s}
              to="/incidents"
              search={{ severity: s }}
              className={`cd-sevrow ${n > 0 ? `cd-${s}` : "cd-3"}`}
            >
              <SeverityMark severity={s} size={14} named={false} />
              <span className="cd-b">{severityWord[s]}</span>
              <span className="cd-sevbar">
                <i
                  className={s === "informational" ? "cd-outline" : ""}
                  style={{ width: n ? width : 0, background: s === "informational" ? "none" : `var(--cd-${s}-fill)` }}
                />
              </span>
              <span className="cd-num cd-sevn">{n.toLocaleString()}</span>
            </Link>
          );
        })}
      </div>
    </section>
  );
}

function DidColumn({ data }: { data: Overview }) {
  const { quarantine } = data;
  const waiting = quarantine.active - quarantine.confirmed - quarantine.failed;
  const row = (glyph: GlyphName, text: string, value: string, hot = false) => (
    <div className="cd-didrow">
      <StateGlyph state={glyph} />
      <span className="cd-2">{text}</span>
      <span className="cd-sp" />
      <span className={`cd-num ${hot ? "cd-critical cd-b" : ""}`}>{value}</span>
    </div>
  );
  return (
    <section className="cd-four-col">
      <h2 className="cd-cordon">What did Cordon do?</h2>
      <p>
        <Link to="/quarantine" search={{}} className="cd-big cd-hover">
          {quarantine.active.toLocaleString()}
        </Link>{" "}
        <span className="cd-2">quarantined</span>
      </p>
      <div className="cd-col">
        {row("confirmed", "Confirmed", quarantine.confirmed.toLocaleString())}
        {row("applied", "Waiting for brokers", Math.max(0, waiting).toLocaleString())}
        {row("failed", "Failed to confirm", quarantine.failed.toLocaleString(), quarantine.failed > 0)}
        {quarantine.active > 0 && row("requested", "Slowest proof", took(quarantine.slowest_ms))}
      </div>
    </section>
  );
}

function TodoColumn({ data }: { data: Overview }) {
  return (
    <section className="cd-four-col cd-todo">
      <h2 className="cd-you">What must I do?</h2>
      {data.todo.length === 0 ? (
        <p className="cd-2 cd-todo-none">
          <IconBox className="cd-icon" aria-hidden="true" /> Nothing waits for you.
        </p>
      ) : (
        <ol>
          {data.todo.slice(0, 4).map((t) => (
            <li key={`${t.text}-${t.link}`}>
              <SeverityMark severity={t.severity} />
              <span className="cd-col cd-sp">
                <b className="cd-b cd-el" title={t.text}>
                  {t.text}
                </b>
                <span className="cd-2 cd-sub cd-el" title={t.detail}>
                  {t.detail}
                </span>
              </span>
              <To link={t.link} className="cd-btn cd-btn-default cd-btn-small">
                Open<span className="cd-hide">: {t.text}</span>
              </To>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
