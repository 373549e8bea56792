import { IconAlertTriangle, IconCircleCheck } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { deadLettersQuery, flat, systemQuery } from "../api/queries";
import type { DeadLetter, StageStatus, System } from "../api/types";
import { Empty, Failure, FilterToken, Panel, Skeleton } from "../parts/Blocks";
import { Button } from "../parts/Button";
import { useLock } from "../parts/session";
import { Exact } from "../parts/When";
import { Page } from "../shell/Page";
import { bytes, duration, plural, short } from "../words/format";
import { stageWord } from "../words/words";
import "./system.css";

/** How Cordon itself is doing: its stages, its storage, and what it could not accept. */
export function SystemPage() {
  const query = useQuery(systemQuery);
  const search = useSearch({ from: "/app/system" });
  return (
    <Page
      title="System"
      documentTitle="System"
      beside={query.data && <span className="cd-2 cd-sub cd-mono">{query.data.version}</span>}
    >
      {query.isError ? (
        <Failure what="The state of Cordon can’t be read" error={query.error} retry={() => void query.refetch()} />
      ) : !query.data ? (
        <Skeleton rows={10} height={44} />
      ) : (
        <>
          <Lede data={query.data} />
          <Panel title="The path of a reading" flush>
            <ol className="cd-stages">
              {inOrder(query.data.stages).map((s) => (
                <Stage key={s.stage} s={s} />
              ))}
            </ol>
          </Panel>
          {query.data.advice.length > 0 && (
            <Panel title="Advice">
              <ul className="cd-form">
                {query.data.advice.map((a) => (
                  <li key={a} className="cd-row">
                    <IconAlertTriangle className="cd-icon cd-high" aria-hidden="true" />
                    <span>{a}</span>
                  </li>
                ))}
              </ul>
            </Panel>
          )}
          <div className="cd-systwo">
            <Storage data={query.data} />
            <DeadLetters device={search.device} />
          </div>
        </>
      )}
    </Page>
  );
}

function Lede({ data }: { data: System }) {
  const ill = data.stages.filter((s) => !s.healthy);
  const lag = Math.max(0, ...data.stages.map((s) => s.lag_seconds));
  return (
    <p className="cd-sentence">
      {ill.length === 0 ? (
        <>
          <b className="cd-expected">All {data.stages.length} stages are well.</b>{" "}
          {lag >= 1
            ? `What comes in is handled within ${duration(lag * 1000)}.`
            : "What comes in is handled within a second."}
        </>
      ) : (
        <>
          <b className="cd-high">{ill.map((s) => stageWord[s.stage] ?? s.stage).join(", ")}</b>{" "}
          {plural(ill.length, "needs", "need")} care. Nothing is lost: the stream keeps what is not yet handled.
        </>
      )}
    </p>
  );
}

const path = ["gate", "stream", "ingest", "engine", "detect", "incident", "quarantine", "notify", "web"];

/** As a reading meets them. */
function inOrder(stages: readonly StageStatus[]): StageStatus[] {
  const place = (s: StageStatus) => (path.indexOf(s.stage) + path.length) % path.length;
  return [...stages].sort((a, b) => place(a) - place(b));
}

function Stage({ s }: { s: StageStatus }) {
  return (
    <li className={s.healthy ? "" : "cd-stage-ill"}>
      <span className="cd-row">
        {s.healthy ? (
          <IconCircleCheck className="cd-icon cd-expected" aria-label="well" />
        ) : (
          <IconAlertTriangle className="cd-icon cd-high" aria-label="needs care" />
        )}
        <b className="cd-b">{stageWord[s.stage] ?? s.stage}</b>
      </span>
      <span className="cd-num">
        {s.per_second > 0 ? (
          <>
            <b className="cd-stage-n">{short(s.per_second)}</b> <span className="cd-2">per s</span>
          </>
        ) : (
          <span className="cd-stage-n cd-3">idle</span>
        )}
      </span>
      <span className="cd-2 cd-sub cd-num">
        {s.lag === 0 ? "nothing waits" : `${s.lag.toLocaleString()} wait`}
        {s.lag_seconds >= 1 ? `, ${duration(s.lag_seconds * 1000)} behind` : ""}
      </span>
      <span className={`cd-sub ${s.healthy ? "cd-3" : "cd-high"}`}>{s.detail}</span>
    </li>
  );
}

function Storage({ data }: { data: System }) {
  const sorted = [...data.storage].sort((a, b) => b.bytes - a.bytes);
  const total = sorted.reduce((n, t) => n + t.bytes, 0);
  const most = sorted[0]?.bytes || 1;
  return (
    <Panel title="Storage" aside={<span className="cd-2">{bytes(total)} in ClickHouse</span>} flush>
      {sorted.length === 0 ? (
        <Empty title="Nothing is stored yet">Tables appear with their first rows.</Empty>
      ) : (
        <div className="cd-table-wrap">
          <table className="cd-table">
            <thead>
              <tr>
                <th>Table</th>
                <th className="cd-r">Rows</th>
                <th className="cd-r">Size</th>
                <th>
                  <span className="cd-hide">Share</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {sorted.map((t) => (
                <tr key={t.table}>
                  <td className="cd-mono">{t.table}</td>
                  <td className="cd-r cd-num">{t.rows.toLocaleString()}</td>
                  <td className="cd-r cd-num">{bytes(t.bytes)}</td>
                  <td className="cd-share">
                    <i style={{ width: `${(t.bytes / most) * 100}%` }} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

/** Base64 of the raw bytes → what can be read of them. */
function readable(raw: string): string {
  try {
    const text = new TextDecoder().decode(Uint8Array.from(atob(raw), (c) => c.charCodeAt(0)));
    return text.slice(0, 400);
  } catch {
    return raw.slice(0, 400);
  }
}

function DeadLetters({ device }: { device?: string }) {
  const lock = useLock("analyst");
  const navigate = useNavigate({ from: "/system" });
  const query = useInfiniteQuery({ ...deadLettersQuery(device), enabled: !lock });
  const { rows, total } = flat<DeadLetter>(query.data);
  return (
    <Panel
      title="Dead letters"
      aside={
        <>
          {device && <FilterToken onRemove={() => void navigate({ search: {} })}>Device is {device}</FilterToken>}
          <span className="cd-2 cd-num">{query.data ? total.toLocaleString() : ""}</span>
        </>
      }
      flush
    >
      {lock ? (
        <Empty title="You may not read dead letters">{lock}.</Empty>
      ) : query.isError ? (
        <Failure what="Dead letters can’t be read" error={query.error} retry={() => void query.refetch()} />
      ) : query.isPending ? (
        <Skeleton rows={4} />
      ) : rows.length === 0 ? (
        <Empty good title="Every message was accepted">
          A message that can’t be decoded or is out of limits stays here with its reason and its bytes; it never blocks
          the stream.
        </Empty>
      ) : (
        <ul className="cd-dead">
          {rows.map((d) => (
            <li key={`${d.stream_seq}-${d.subject}`}>
              <details>
                <summary>
                  <span className="cd-mono cd-2">
                    <Exact at={d.received_at} day />
                  </span>
                  <b className="cd-b cd-high">{d.reason}</b>
                  <Link to="/devices/$id" params={{ id: d.device }} className="cd-mono cd-hover">
                    {d.device}
                  </Link>
                  <span className="cd-2 cd-el cd-sp">{d.detail}</span>
                </summary>
                <p className="cd-2">{d.detail}</p>
                <pre className="cd-raw">{readable(d.raw)}</pre>
              </details>
            </li>
          ))}
        </ul>
      )}
      {query.hasNextPage && (
        <div className="cd-pad">
          <Button busy={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
            Show older
          </Button>
        </div>
      )}
    </Panel>
  );
}
