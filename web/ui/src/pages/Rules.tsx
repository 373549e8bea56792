import { Modal, Textarea } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { rulesQuery, setMode } from "../api/queries";
import type { Mode, Rule } from "../api/types";
import { Empty, Fact, Facts, Failure, Panel, Segments, Skeleton, Tag } from "../parts/Blocks";
import { Button } from "../parts/Button";
import { type Column, DataList } from "../parts/DataList";
import { SeverityLabel, SeverityMark, StateGlyph } from "../parts/Marks";
import { SearchBox } from "../parts/SearchBox";
import { useLock } from "../parts/session";
import { Age } from "../parts/When";
import { useKeys } from "../shell/keys";
import { Page } from "../shell/Page";
import { say } from "../shell/toasts";
import { isTime } from "../words/format";
import { actorWord, levelWord, modeEffect, modeWord, rank } from "../words/words";
import "./incidents/side.css";
import "./incidents/incident.css";
import "./rules.css";

const modes: readonly Mode[] = ["off", "shadow", "alert", "armed"];

/** The catalogue of rules, and what each may do. */
export function RulesPage() {
  const search = useSearch({ from: "/app/rules" });
  const navigate = useNavigate({ from: "/rules" });
  const query = useQuery(rulesQuery);
  const narrow = useMediaQuery("(max-width: 1023px)");
  const all = query.data?.items ?? [];
  const rows = useMemo(() => {
    const q = search.q?.toLowerCase() ?? "";
    return (query.data?.items ?? [])
      .filter(
        (r) =>
          (!search.mode || r.mode === search.mode) &&
          (!q || `${r.id} ${r.title} ${r.technique ?? ""} ${r.kind}`.toLowerCase().includes(q)),
      )
      .sort(
        (a, b) =>
          modes.indexOf(b.mode) - modes.indexOf(a.mode) ||
          rank(b.severity) - rank(a.severity) ||
          a.id.localeCompare(b.id),
      );
  }, [query.data, search.mode, search.q]);
  const [focus, setFocus] = useState(0);
  const [changing, setChanging] = useState<Mode>();
  const open = all.find((r) => r.id === search.open);
  const set = (next: Partial<typeof search>) =>
    void navigate({ search: (old) => ({ ...old, ...next }), replace: true });
  const move = (to: number) => {
    const i = Math.max(0, Math.min(rows.length - 1, to));
    setFocus(i);
    if (open) set({ open: rows[i]?.id });
  };
  useKeys("This page", [
    { keys: "j", also: ["ArrowDown"], label: "Next rule", run: () => move(focus + 1) },
    { keys: "k", also: ["ArrowUp"], label: "Previous rule", run: () => move(focus - 1) },
    { keys: "Enter", also: ["Space"], label: "Show the rule", run: () => set({ open: rows[focus]?.id }) },
    { keys: "Escape", label: "Close the panel", run: () => set({ open: undefined }) },
  ]);
  const inMode = (m: Mode) => all.filter((r) => r.mode === m).length;
  return (
    <Page title="Rules" documentTitle="Rules" fill>
      <div className={open && !narrow ? "cd-beside" : "cd-alone"}>
        <div className="cd-listside">
          <div className="cd-filterbar">
            <SearchBox label="Search rules" value={search.q ?? ""} onChange={(q) => set({ q: q || undefined })} />
            <Segments<Mode | "all">
              name="Mode"
              value={search.mode ?? "all"}
              onChange={(m) => set({ mode: m === "all" ? undefined : m })}
              options={[
                { value: "all", label: "All", count: query.data ? all.length : undefined },
                ...[...modes]
                  .reverse()
                  .map((m) => ({ value: m, label: modeWord[m], count: query.data ? inMode(m) : undefined })),
              ]}
            />
            <span className="cd-sp" />
            {query.data && (
              <span className="cd-2">
                {inMode("armed") === 0 ? (
                  "No rule may quarantine by itself"
                ) : (
                  <>
                    <b className="cd-expected">{inMode("armed")} armed</b> may quarantine by themselves
                  </>
                )}
              </span>
            )}
          </div>
          {query.isError ? (
            <Failure what="Rules can’t be read" error={query.error} retry={() => void query.refetch()} />
          ) : query.isPending ? (
            <Skeleton rows={14} />
          ) : rows.length === 0 ? (
            <Empty
              title={all.length ? "No rule matches" : "No rule is loaded"}
              actions={
                all.length > 0 && <Button onClick={() => set({ q: undefined, mode: undefined })}>Show all</Button>
              }
            >
              {all.length
                ? "Change the search or the mode."
                : "Cordon ships a pack of rules and reads more from --rules DIR."}
            </Empty>
          ) : (
            <DataList
              name="Rules"
              rows={rows}
              total={rows.length}
              columns={narrow || open ? columns.filter((c) => c.key !== "kind" && c.key !== "evidence") : columns}
              rowKey={(r) => r.id}
              focus={focus}
              onFocus={setFocus}
              onPick={(r) => set({ open: r.id })}
              picked={search.open}
              narrow={narrow ? (r) => <Two r={r} /> : undefined}
            />
          )}
        </div>
        {open && !narrow && <RulePanel rule={open} onClose={() => set({ open: undefined })} onMode={setChanging} />}
      </div>
      {open && narrow && (
        <Modal opened onClose={() => set({ open: undefined })} title={open.id} fullScreen>
          <RuleBody rule={open} onMode={setChanging} />
        </Modal>
      )}
      {open && changing && <ModeDialog rule={open} mode={changing} onClose={() => setChanging(undefined)} />}
    </Page>
  );
}

function ModeChip({ mode }: { mode: Mode }) {
  return (
    <span className={`cd-chip ${mode === "armed" || mode === "alert" ? "cd-expected" : "cd-2"}`}>
      <StateGlyph state={mode} />
      {modeWord[mode]}
    </span>
  );
}

const columns: Column<Rule>[] = [
  {
    key: "severity",
    head: <span className="cd-hide">Severity</span>,
    width: "16px",
    cell: (r) => <SeverityMark severity={r.severity} />,
  },
  {
    key: "id",
    head: "Rule",
    width: "minmax(130px, 1fr)",
    cell: (r) => (
      <span className="cd-mono cd-b" title={r.id}>
        {r.id}
      </span>
    ),
  },
  {
    key: "title",
    head: "Raised when a device",
    width: "minmax(0, 1.7fr)",
    cell: (r) => (
      <span className="cd-2" title={r.title}>
        {r.title}
      </span>
    ),
  },
  { key: "mode", head: "Mode", width: "84px", cell: (r) => <ModeChip mode={r.mode} /> },
  {
    key: "technique",
    head: "Technique",
    width: "82px",
    cell: (r) => <span className="cd-mono cd-2">{r.technique}</span>,
  },
  { key: "kind", head: "Kind", width: "78px", cell: (r) => <span className="cd-2">{r.kind}</span> },
  { key: "evidence", head: "Evidence", width: "76px", cell: (r) => <span className="cd-2">{r.evidence}</span> },
];

function Two({ r }: { r: Rule }) {
  return (
    <>
      <div className="cd-row">
        <SeverityMark severity={r.severity} />
        <span className="cd-mono cd-b cd-el">{r.id}</span>
        <span className="cd-sp" />
        <ModeChip mode={r.mode} />
      </div>
      <div className="cd-2 cd-sub cd-el">{r.title}</div>
    </>
  );
}

function RulePanel({ rule, onClose, onMode }: { rule: Rule; onClose: () => void; onMode: (mode: Mode) => void }) {
  return (
    <aside className="cd-side" aria-label={`Rule ${rule.id}`}>
      <header className="cd-side-head">
        <h2 className="cd-mono cd-b cd-el">{rule.id}</h2>
        <span className="cd-sp" />
        <Button kind="ghost" size="small" onClick={onClose}>
          Close
        </Button>
      </header>
      <div className="cd-side-body">
        <RuleBody rule={rule} onMode={onMode} />
      </div>
    </aside>
  );
}

function RuleBody({ rule, onMode }: { rule: Rule; onMode: (mode: Mode) => void }) {
  const lock = useLock("responder");
  return (
    <div className="cd-form">
      <p className="cd-sentence-panel">{rule.title}</p>
      {rule.description && <p className="cd-2">{rule.description}</p>}
      <div className="cd-row cd-wrap">
        <SeverityLabel severity={rule.severity} />
        {rule.technique && (
          <Tag mono outline>
            {rule.technique}
          </Tag>
        )}
        <Tag>{rule.kind}</Tag>
        <Tag
          title={
            rule.evidence === "own"
              ? "About the device’s own behaviour"
              : "About what others did to it: can never be armed"
          }
        >
          {rule.evidence === "own" ? "own evidence" : "outside evidence"}
        </Tag>
      </div>
      <Panel title="Mode" aside={<ModeChip mode={rule.mode} />}>
        <div className="cd-form">
          <p className="cd-2">{modeEffect[rule.mode]}</p>
          <div className="cd-row cd-wrap">
            {modes
              .filter((m) => m !== rule.mode)
              .map((m) => (
                <Button
                  key={m}
                  size="small"
                  kind={m === "armed" ? "quarantine" : "default"}
                  locked={
                    lock ??
                    (m === "armed" && rule.evidence === "outside"
                      ? "Outside evidence can’t be armed: anybody could switch devices off"
                      : undefined)
                  }
                  onClick={() => onMode(m)}
                >
                  {m === "armed" ? "Arm…" : m === "off" ? "Turn off…" : `${modeWord[m]}…`}
                </Button>
              ))}
          </div>
        </div>
      </Panel>
      <Facts>
        <Fact name="Asks for">
          {rule.level ? `${levelWord[rule.level]?.toLowerCase()}, when armed` : "no quarantine"}
        </Fact>
        <Fact name="Runbook">{rule.runbook}</Fact>
        {rule.false_positives.length > 0 && (
          <Fact name="Also raised by">
            <ul>
              {rule.false_positives.map((f) => (
                <li key={f}>{f}</li>
              ))}
            </ul>
          </Fact>
        )}
        <Fact name="Version">
          <span className="cd-mono">{rule.version}</span>
        </Fact>
        {isTime(rule.changed_at) && (
          <Fact name="Changed">
            <Age at={rule.changed_at} ago /> by {actorWord(rule.changed_by)}
            {rule.reason && `: “${rule.reason}”`}
          </Fact>
        )}
      </Facts>
      <section>
        <h2 className="cd-h2">YAML</h2>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling box must be reachable by keyboard */}
        <section className="cd-yaml" tabIndex={0} aria-label={`YAML of ${rule.id}`}>
          <pre>
            <Yaml source={rule.source} />
          </pre>
        </section>
      </section>
    </div>
  );
}

/** Keys and comments apart from values: enough to read a rule. */
function Yaml({ source }: { source: string }) {
  return source.split("\n").map((line, i) => {
    const m = /^(\s*(?:- )?)([A-Za-z_][\w-]*)(:)(.*)$/.exec(line);
    const comment = /^\s*#/.test(line);
    return (
      <span key={i}>
        {comment ? (
          <span className="cd-3">{line}</span>
        ) : m ? (
          <>
            {m[1]}
            <span className="cd-you">{m[2]}</span>
            {m[3]}
            {m[4]}
          </>
        ) : (
          line
        )}
        {"\n"}
      </span>
    );
  });
}

/** Says what follows from a mode, above the button, and asks for a reason. */
function ModeDialog({ rule, mode, onClose }: { rule: Rule; mode: Mode; onClose: () => void }) {
  const [reason, setReason] = useState("");
  const [fault, setFault] = useState<string>();
  const client = useQueryClient();
  const act = useMutation({
    mutationFn: () => setMode(rule.id, mode, reason.trim()),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["rules"] });
      say(`${rule.id} is now ${modeWord[mode]?.toLowerCase()}`);
      onClose();
    },
  });
  const arm = mode === "armed";
  return (
    <Modal
      opened
      onClose={onClose}
      title={`${arm ? "Arm" : `Set to ${modeWord[mode]?.toLowerCase()}:`} ${rule.id}`}
      size={480}
    >
      <form
        className="cd-form"
        onSubmit={(e) => {
          e.preventDefault();
          if (reason.trim()) act.mutate();
          else setFault("Say why: the reason stays in the rule’s history.");
        }}
      >
        <div className={arm ? "cd-dry" : "cd-follows"}>
          <p>
            <ModeChip mode={rule.mode} /> <span className="cd-3">to</span> <ModeChip mode={mode} />
          </p>
          <p>{modeEffect[mode]}</p>
          {arm && (
            <p className="cd-2">
              Level: {rule.level ? levelWord[rule.level]?.toLowerCase() : "none is set in the rule"}. It applies to
              findings from now on; caps per rule and fleet stop it, and protected devices are left alone.
            </p>
          )}
        </div>
        <Textarea
          label="Reason"
          rows={2}
          data-autofocus
          value={reason}
          error={fault}
          onChange={(e) => {
            setReason(e.currentTarget.value);
            setFault(undefined);
          }}
          onKeyDown={(e) => {
            if (e.key === "Enter" && (e.metaKey || e.ctrlKey)) e.currentTarget.form?.requestSubmit();
          }}
        />
        {act.isError && <Failure what="The mode is unchanged" error={act.error} />}
        <div className="cd-form-end">
          <Button kind="ghost" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" kind={arm ? "quarantine" : "primary"} busy={act.isPending}>
            {arm ? "Arm the rule" : mode === "off" ? "Turn the rule off" : `Set to ${modeWord[mode]?.toLowerCase()}`}
          </Button>
        </div>
      </form>
    </Modal>
  );
}
