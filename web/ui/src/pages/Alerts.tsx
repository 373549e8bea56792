import { IconAlertTriangle, IconCircleCheck, IconClock } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { deliveriesQuery } from "../api/queries";
import type { Delivery, Receiver } from "../api/types";
import { Empty, Failure, Panel, Skeleton } from "../parts/Blocks";
import { Exact } from "../parts/When";
import { Page } from "../shell/Page";
import { plural, took } from "../words/format";
import { severityWord } from "../words/words";

/** Who is told, what was sent, and whether it arrived. */
export function AlertsPage() {
  const query = useQuery(deliveriesQuery);
  const data = query.data;
  return (
    <Page title="Alerts" documentTitle="Alerts">
      {query.isError ? (
        <Failure what="Deliveries can’t be read" error={query.error} retry={() => void query.refetch()} />
      ) : !data ? (
        <Skeleton rows={10} />
      ) : (
        <>
          <Lede deliveries={data.items} receivers={data.receivers} />
          <Panel title="Receivers" flush>
            {data.receivers.length === 0 ? (
              <Empty title="Nobody is told about incidents">
                Name a webhook or a chat channel in the settings file under receivers, or start with{" "}
                <code className="cd-mono">--webhook URL</code>.
              </Empty>
            ) : (
              <Receivers receivers={data.receivers} deliveries={data.items} />
            )}
          </Panel>
          <Panel title="Deliveries" aside={<span className="cd-2 cd-num">{data.total.toLocaleString()}</span>} flush>
            {data.items.length === 0 ? (
              <Empty title="Nothing has been sent yet">
                When an incident opens, escalates or is resolved, each delivery appears here with its answer.
              </Empty>
            ) : (
              <Deliveries rows={data.items} />
            )}
          </Panel>
        </>
      )}
    </Page>
  );
}

function Lede({ deliveries, receivers }: { deliveries: readonly Delivery[]; receivers: readonly Receiver[] }) {
  const failing = receivers.filter((r) => !r.healthy);
  const pending = receivers.reduce((n, r) => n + r.pending, 0);
  return (
    <p className="cd-sentence">
      {receivers.length === 0 ? (
        <b className="cd-high">No receiver is set up: incidents are only seen here.</b>
      ) : failing.length > 0 ? (
        <>
          <b className="cd-critical">{failing.map((r) => r.name).join(", ")}</b> {plural(failing.length, "does", "do")}{" "}
          not take deliveries
          {pending > 0 ? `; ${pending} ${plural(pending, "waits", "wait")} and nothing is lost.` : "."}
        </>
      ) : pending > 0 ? (
        <>
          {pending} {plural(pending, "delivery waits", "deliveries wait")} for an answer; nothing is lost.
        </>
      ) : deliveries.length === 0 ? (
        "Every receiver is ready; nothing had to be sent yet."
      ) : (
        "Every incident has reached its receivers."
      )}
    </p>
  );
}

function Receivers({ receivers, deliveries }: { receivers: readonly Receiver[]; deliveries: readonly Delivery[] }) {
  return (
    <div className="cd-table-wrap">
      <table className="cd-table">
        <thead>
          <tr>
            <th>Name</th>
            <th>Kind</th>
            <th>Address</th>
            <th>State</th>
            <th>Hears of</th>
            <th className="cd-r">Delivered</th>
            <th className="cd-r">Answers in</th>
          </tr>
        </thead>
        <tbody>
          {receivers.map((r) => {
            const own = deliveries.filter((d) => d.receiver === r.name);
            const done = own.filter((d) => d.state === "delivered");
            const times = done.map((d) => d.latency_ms).sort((a, b) => a - b);
            const middle = times[Math.floor(times.length / 2)];
            return (
              <tr key={r.name}>
                <td className="cd-b">{r.name}</td>
                <td className="cd-2">{r.kind === "slack" ? "Slack" : "Webhook, signed"}</td>
                <td className="cd-mono cd-2">{r.host}</td>
                <td>
                  <Health r={r} />
                </td>
                <td className="cd-2">
                  {r.severity === "informational" ? "all" : `${severityWord[r.severity].toLowerCase()} and worse`}
                </td>
                <td className="cd-r cd-num">{r.delivered.toLocaleString()}</td>
                <td className="cd-r cd-num">{middle === undefined ? "" : took(middle)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Health({ r }: { r: Receiver }) {
  if (r.healthy && r.pending === 0) {
    return (
      <span className="cd-chip cd-expected">
        <IconCircleCheck size={14} aria-hidden="true" /> Healthy
      </span>
    );
  }
  return (
    <span className={`cd-chip ${r.healthy ? "cd-high" : "cd-critical"}`} title={r.last_error}>
      <IconAlertTriangle size={14} aria-hidden="true" />
      {r.pending > 0 ? `${r.pending.toLocaleString()} waiting` : "Failing"}
      {r.last_error && <span className="cd-el">, {r.last_error}</span>}
    </span>
  );
}

function Answer({ d }: { d: Delivery }) {
  if (d.state === "delivered") {
    return (
      <span className="cd-chip cd-expected">
        <IconCircleCheck size={14} aria-hidden="true" /> {d.status || "sent"}
      </span>
    );
  }
  const failed = d.state === "failed";
  return (
    <span className={`cd-chip ${failed ? "cd-critical" : "cd-high"}`} title={d.error}>
      {failed ? <IconAlertTriangle size={14} aria-hidden="true" /> : <IconClock size={14} aria-hidden="true" />}
      {d.status || ""} {d.error || (failed ? "failed" : "waiting")}
    </span>
  );
}

function Deliveries({ rows }: { rows: readonly Delivery[] }) {
  return (
    <div className="cd-table-wrap">
      <table className="cd-table">
        <thead>
          <tr>
            <th>Sent</th>
            <th>What</th>
            <th>To</th>
            <th>Answer</th>
            <th className="cd-r">Took</th>
            <th className="cd-r">Tries</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((d) => (
            <tr key={d.id}>
              <td className="cd-mono cd-2">
                <Exact at={d.created_at} day />
              </td>
              <td>
                <Link to="/incidents/$id" params={{ id: d.incident }} className="cd-mono cd-link">
                  {d.incident}
                </Link>{" "}
                {d.change}
              </td>
              <td className="cd-2">{d.receiver}</td>
              <td>
                <Answer d={d} />
              </td>
              <td className="cd-r cd-num">{d.latency_ms ? took(d.latency_ms) : ""}</td>
              <td className="cd-r cd-num">{d.attempts}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
