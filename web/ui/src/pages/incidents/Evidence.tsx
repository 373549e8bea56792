import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { auditQuery, flat, seriesQuery } from "../../api/queries";
import type { AuditEvent, AuditLine, DeviceDetail, Explanation, Finding, Incident, Series } from "../../api/types";
import { Empty, Failure, Panel, Segments, Skeleton } from "../../parts/Blocks";
import { BandChart, type Hold } from "../../parts/chart/BandChart";
import { BrushStrip } from "../../parts/chart/BrushStrip";
import { fittingRange, frame, rangeOptions } from "../../parts/chart/ranges";
import { useNow } from "../../parts/When";
import type { ChartSearch, Range } from "../../router";
import {
  absolute,
  at,
  figure,
  hhmm,
  isTime,
  metricName,
  preciseDay,
  quantity,
  range as rangeText,
  scaleFor,
  unitOf,
} from "../../words/format";
import { basisWord, leveledWord, rank } from "../../words/words";

/** The finding that explains an incident best: the one it is named after, else the worst, preferably about a metric. */
export function leading(findings: readonly Finding[], title: string): Finding | undefined {
  // The two may differ in the kind of space before a unit.
  const plain = (text: string) => text.replace(/\s/g, " ");
  const named = findings.find((f) => plain(f.explanation.sentence) === plain(title));
  if (named) return named;
  const live = findings.filter((f) => !f.cleared);
  const pool = live.length ? live : findings;
  const byWorst = [...pool].sort(
    (a, b) => rank(b.severity) - rank(a.severity) || Date.parse(b.window_end) - Date.parse(a.window_end),
  );
  const worst = byWorst[0];
  return byWorst.find((f) => f.explanation.metric && f.severity === worst?.severity) ?? worst;
}

export function holdsOf(device: DeviceDetail | undefined, now: number): Hold[] {
  const q = device?.quarantine;
  if (!q || q.level === "observe" || !isTime(q.applied_at)) return [];
  const end = isTime(q.released_at) ? Date.parse(q.released_at) : now;
  return [
    {
      from: Date.parse(q.applied_at),
      to: end,
      title: `${leveledWord[q.level]} ${hhmm(new Date(q.applied_at))}`,
      detail: q.level === "isolate" ? "No readings are accepted" : "Only repair traffic is accepted",
    },
  ];
}

/** Why an incident is one: its readings with what was expected, or its events. */
export function EvidencePanel({
  incident,
  findings,
  device,
  search,
  onSearch,
  height = 264,
  bare,
}: {
  incident: Incident;
  findings: readonly Finding[];
  device?: DeviceDetail;
  search: ChartSearch;
  onSearch: (next: Partial<ChartSearch>) => void;
  height?: number;
  /** In the side panel: no brush, no ranges. */
  bare?: boolean;
}) {
  const metrics = [...new Set(findings.map((f) => f.explanation.metric).filter((m): m is string => !!m))];
  const lead = search.metric
    ? (findings.find((f) => f.explanation.metric === search.metric) ?? leading(findings, incident.title))
    : leading(findings, incident.title);
  if (!lead) return null;
  if (!lead.explanation.metric) return <EventsPanel incident={incident} finding={lead} bare={bare} />;
  return (
    <MetricPanel
      key={lead.explanation.metric}
      incident={incident}
      lead={lead}
      metrics={metrics}
      findings={findings}
      device={device}
      search={search}
      onSearch={onSearch}
      height={height}
      bare={bare}
    />
  );
}

function MetricPanel({
  incident,
  lead,
  metrics,
  findings,
  device,
  search,
  onSearch,
  height,
  bare,
}: {
  incident: Incident;
  lead: Finding;
  metrics: readonly string[];
  findings: readonly Finding[];
  device?: DeviceDetail;
  search: ChartSearch;
  onSearch: (next: Partial<ChartSearch>) => void;
  height: number;
  bare?: boolean;
}) {
  const metric = lead.explanation.metric ?? "";
  const now = useNow();
  const first = Date.parse(lead.window_start);
  const last = Date.parse(lead.window_end);
  const range = (bare ? undefined : search.range) ?? fittingRange(first, last);
  const whole = frame(Math.max(last, Date.parse(incident.last_at)), range, now);
  const zoomed = !bare && search.from !== undefined && search.to !== undefined && search.to > search.from;
  const view = zoomed ? { from: search.from ?? whole.from, to: search.to ?? whole.to } : whole;
  const ask = { device: incident.device, metric };
  const full = useQuery(seriesQuery({ ...ask, ...whole, points: bare ? 240 : 600 }));
  const part = useQuery({ ...seriesQuery({ ...ask, ...view, points: 800 }), enabled: zoomed });
  const shown = zoomed ? part : full;
  const [table, setTable] = useState(false);

  const about = useMemo(() => findings.filter((f) => f.explanation.metric === metric), [findings, metric]);
  const windows = useMemo(
    () => about.map((f) => ({ from: Date.parse(f.window_start), to: Date.parse(f.window_end) })),
    [about],
  );
  // Redrawing a chart each second because its hatch grows would be wasteful.
  const minute = Math.floor(now / 60_000) * 60_000 + 60_000;
  const holds = useMemo(() => holdsOf(device, minute), [device, minute]);
  const e = lead.explanation;
  const threshold = limitOf(e);
  const unit = unitOf(metric, e.unit || shown.data?.unit);
  const label = threshold === undefined ? undefined : `Threshold ${quantity(threshold, unit)}`;
  const expected = e.expected ? `Expected ${rangeText(e.expected.low, e.expected.high, unit)}` : "";
  const zoom = (from: number, to: number) => onSearch({ from, to });
  const reset = () => onSearch({ from: undefined, to: undefined });

  const chart = shown.isError ? (
    <Failure what="The readings can’t be read" error={shown.error} retry={() => void shown.refetch()} />
  ) : shown.data === undefined ? (
    <div style={{ height }} className="cd-chart-wait" aria-busy="true" />
  ) : shown.data.t.length === 0 ? (
    <Empty title={`No readings of ${metricName(metric)} in this range`}>
      Between {at(new Date(view.from))} and {at(new Date(view.to))} the device sent none, or they are older than what is
      kept.
    </Empty>
  ) : (
    <BandChart
      series={shown.data}
      from={view.from}
      to={view.to}
      threshold={threshold}
      thresholdLabel={label}
      windows={windows}
      holds={holds}
      height={height}
      onZoom={bare ? undefined : zoom}
      onReset={reset}
      label={`${metricName(metric)} of ${incident.device} from ${absolute(new Date(view.from))} to ${absolute(new Date(view.to))}. Seen ${quantity(e.value, unit)}${expected ? `; ${expected.toLowerCase()}` : ""}.`}
    />
  );

  if (bare) {
    return (
      <section data-testid="evidence">
        <header className="cd-row">
          <h2 className="cd-h2 cd-nw">
            {metricName(metric)}
            <Unit series={shown.data} unit={unit} />
          </h2>
          <span className="cd-sp" />
          <span className="cd-cap cd-el">
            {expected && `${expected}, `}seen {quantity(e.value, unit)}
          </span>
        </header>
        {chart}
      </section>
    );
  }
  return (
    <Panel
      className="cd-evidence"
      flush
      title={
        <>
          {metrics.length > 1 ? (
            <select
              className="cd-select cd-select-title"
              aria-label="Metric"
              value={metric}
              onChange={(ev) => onSearch({ metric: ev.target.value, from: undefined, to: undefined })}
            >
              {metrics.map((m) => (
                <option key={m} value={m}>
                  {metricName(m)}
                </option>
              ))}
            </select>
          ) : (
            metricName(metric)
          )}
          <Unit series={shown.data} unit={unit} />
        </>
      }
      aside={
        <>
          <Legend threshold={threshold !== undefined} band={!!shown.data?.expected?.t.length} />
          <Segments<Range>
            name="Range"
            value={range}
            options={rangeOptions}
            onChange={(r) => onSearch({ range: r, from: undefined, to: undefined })}
          />
        </>
      }
    >
      <div className="cd-evidence-chart" data-testid="evidence">
        {chart}
      </div>
      {full.data && full.data.t.length > 1 && (
        <BrushStrip
          series={full.data}
          from={whole.from}
          to={whole.to}
          zoomFrom={view.from}
          zoomTo={view.to}
          onZoom={zoom}
        />
      )}
      <div className="cd-evidence-foot">
        <Why finding={lead} />
        <span className="cd-row cd-wrap">
          <button type="button" className="cd-textbtn" aria-expanded={table} onClick={() => setTable(!table)}>
            {table ? "Hide the table" : "Show as table"}
          </button>
          {zoomed && (
            <button type="button" className="cd-textbtn" onClick={reset}>
              Reset zoom
            </button>
          )}
          {shown.data && (
            <span className="cd-3 cd-sub">
              {shown.data.resolution === "raw"
                ? "Raw readings"
                : `${shown.data.resolution} means, with lowest and highest`}
            </span>
          )}
        </span>
        {table && shown.data && <ValueTable series={shown.data} />}
      </div>
    </Panel>
  );
}

function Unit({ series, unit }: { series?: Series; unit?: string }) {
  const top = series ? Math.max(0, ...series.max.map(Math.abs)) : 0;
  const text = scaleFor(unit, top).unit;
  return text ? <span className="cd-3 cd-unit">{text}</span> : null;
}

function Legend({ threshold, band }: { threshold: boolean; band: boolean }) {
  return (
    <div className="cd-legend">
      <span>
        <i className="cd-legend-reading" />
        Reading
      </span>
      {band && (
        <span>
          <i className="cd-legend-band" />
          Expected
        </span>
      )}
      {threshold && (
        <span>
          <i className="cd-legend-threshold" />
          Threshold
        </span>
      )}
      <span>
        <i className="cd-legend-window" />
        Finding window
      </span>
    </div>
  );
}

/** The limit in the metric's own unit; a baseline's limit is a probability and not drawn. */
export function limitOf(e: Explanation): number | undefined {
  return e.score === undefined && e.threshold !== undefined ? e.threshold : undefined;
}

/** What a person needs in order to disagree: score, samples, since when, whose history. */
export function Why({ finding }: { finding: Finding }) {
  const e = finding.explanation;
  const parts: string[] = [];
  const limit = limitOf(e);
  if (e.expected) {
    parts.push(`expected ${rangeText(e.expected.low, e.expected.high, e.unit)}, seen ${quantity(e.value, e.unit)}`);
  }
  if (limit !== undefined) {
    parts.push(e.metric ? `the limit is ${quantity(limit, e.unit)}` : `the limit is ${figure(limit)}`);
    if (e.count) parts.push(`${e.count.toLocaleString()} were counted`);
  }
  // The score's own words say how it was learned.
  if (e.score_text) parts.push(e.score_text);
  else if (e.samples) {
    const since = isTime(e.learned_since) ? ` since ${at(new Date(e.learned_since))}` : "";
    parts.push(
      `learned from ${e.samples.toLocaleString()} readings of ${basisWord[e.basis ?? ""] ?? "its own history"}${since}`,
    );
  }
  return (
    <p>
      <b className="cd-b">Why it was raised:</b>{" "}
      <span className="cd-2">
        {parts.join("; ") || e.sentence} (
        <Link to="/rules" search={{ open: finding.rule_id }} className="cd-link">
          {finding.rule_id}
        </Link>
        )
      </span>
    </p>
  );
}

function ValueTable({ series }: { series: Series }) {
  const scale = scaleFor(unitOf(series.metric, series.unit), Math.max(0, ...series.max.map(Math.abs)));
  const start = Math.max(0, series.t.length - 200);
  return (
    <div className="cd-table-wrap cd-values">
      <table className="cd-table">
        <caption className="cd-hide">The newest {series.t.length - start} values of the chart</caption>
        <thead>
          <tr>
            <th>Observed</th>
            <th className="cd-r">Value {scale.unit}</th>
            <th className="cd-r">Lowest</th>
            <th className="cd-r">Highest</th>
          </tr>
        </thead>
        <tbody>
          {series.t
            .slice(start)
            .map((t, i) => {
              const k = start + i;
              return (
                <tr key={t}>
                  <td className="cd-num">{preciseDay(new Date(t))}</td>
                  <td className="cd-r cd-num">{figure((series.mean[k] ?? 0) * scale.factor)}</td>
                  <td className="cd-r cd-num cd-2">{figure((series.min[k] ?? 0) * scale.factor)}</td>
                  <td className="cd-r cd-num cd-2">{figure((series.max[k] ?? 0) * scale.factor)}</td>
                </tr>
              );
            })
            .reverse()}
        </tbody>
      </table>
    </div>
  );
}

/** The audit events that led to a finding. */
function EventsPanel({ finding, bare }: { incident: Incident; finding: Finding; bare?: boolean }) {
  const e = finding.explanation;
  const events = e.events ?? [];
  const counted = e.count || events.reduce((n, x) => n + Math.max(1, x.repeat ?? 1), 0);
  const list = (
    <ol className={`cd-log ${bare ? "cd-logbox" : ""}`} data-testid="evidence">
      {events.map((x, i) => (
        <EventLine key={i} event={x} marks={[finding.actor ?? ""]} />
      ))}
      {events.length === 0 && <li className="cd-3">The finding kept no events.</li>}
    </ol>
  );
  const head = `${counted.toLocaleString()} events${e.threshold ? `, the limit is ${figure(e.threshold)}` : ""}`;
  if (bare) {
    return (
      <section>
        <header className="cd-row">
          <h2 className="cd-h2">Events that led to it</h2>
          <span className="cd-sp" />
          <span className="cd-cap">{head}</span>
        </header>
        {list}
      </section>
    );
  }
  return (
    <Panel title="Events that led to it" aside={head} className="cd-evidence">
      {list}
      <div className="cd-evidence-why">
        <Why finding={finding} />
      </div>
    </Panel>
  );
}

function EventLine({ event, marks }: { event: AuditEvent | AuditLine; marks: readonly string[] }) {
  const bad = event.outcome === "success" && event.class === "authentication";
  const hit = marks.some((m) => m && event.message.includes(m));
  return (
    <li>
      <time dateTime={event.ts} title={absolute(new Date(event.ts))}>
        {preciseDay(new Date(event.ts)).replace(/\.\d+$/, "")}
      </time>
      <span className={bad && hit ? "cd-critical" : ""}>
        {event.program && !event.message.startsWith(event.program) ? `${event.program}: ` : ""}
        {event.message}
        {(event.repeat ?? 0) > 1 && <span className="cd-3"> ×{event.repeat?.toLocaleString()}</span>}
      </span>
    </li>
  );
}

/** The device's audit log around an incident. */
export function AuditAround({ incident, bare }: { incident: Incident; bare?: boolean }) {
  const margin = 5 * 60_000;
  const from = Math.floor((Date.parse(incident.first_at) - margin) / 60_000) * 60_000;
  const to = Math.ceil((Date.parse(incident.last_at) + margin) / 60_000) * 60_000;
  const query = useInfiniteQuery(auditQuery({ device: incident.device, from, to, limit: bare ? 6 : 100 }));
  const { rows, total } = flat(query.data);
  if (query.isError)
    return <Failure what="The audit log can’t be read" error={query.error} retry={() => void query.refetch()} />;
  if (query.isPending) return <Skeleton rows={3} height={22} />;
  if (rows.length === 0) {
    return bare ? null : (
      <Empty title="No audit events around it">
        {incident.device} sent none between {at(new Date(from))} and {at(new Date(to))}.
      </Empty>
    );
  }
  const list = (
    <ol className={`cd-log ${bare ? "cd-logbox" : ""}`}>
      {(bare ? rows.slice(0, 6) : rows).map((r) => (
        <EventLine key={`${r.stream_seq}-${r.ts}-${r.message}`} event={r} marks={incident.actors ?? []} />
      ))}
    </ol>
  );
  const more = (
    <Link to="/devices/$id" params={{ id: incident.device }} search={{ tab: "audit", from, to }} className="cd-link">
      All {total.toLocaleString()} events
    </Link>
  );
  if (bare) {
    return (
      <section>
        <header className="cd-row">
          <h2 className="cd-h2">Audit log around it</h2>
          <span className="cd-sp" />
          {more}
        </header>
        {list}
      </section>
    );
  }
  return (
    <div className="cd-pad">
      <header className="cd-row">
        <h2 className="cd-h2">
          {at(new Date(from))} to {at(new Date(to))}
        </h2>
        <span className="cd-sp" />
        {more}
      </header>
      {list}
      {query.hasNextPage && (
        <button type="button" className="cd-textbtn" onClick={() => void query.fetchNextPage()}>
          Show older
        </button>
      )}
    </div>
  );
}
