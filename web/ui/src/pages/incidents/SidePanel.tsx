import { IconArrowUpRight, IconX } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { deviceQuery, incidentFindingsQuery, incidentQuery } from "../../api/queries";
import type { Incident } from "../../api/types";
import { Failure, Skeleton, Tag } from "../../parts/Blocks";
import { Button, ButtonLink, Kbd } from "../../parts/Button";
import { SeverityLabel, StateGlyph } from "../../parts/Marks";
import { QuarantineBlock } from "../../parts/Quarantine";
import { Sentence } from "../../parts/Sentence";
import { useLock, useMe } from "../../parts/session";
import { Age, At } from "../../parts/When";
import { incidentStateWord } from "../../words/words";
import { useIncidentActions } from "./actions";
import { AuditAround, EvidencePanel } from "./Evidence";
import { Timeline } from "./Timeline";
import "./incident.css";
import "./side.css";

/** The incident of the focused row, beside the list; j and k change it without closing. */
export function SidePanel({
  id,
  place,
  onClose,
  onNext,
  onResolve,
}: {
  id: string;
  place?: { at: number; of: number };
  onClose: () => void;
  onNext: () => void;
  onResolve: (incident: Incident) => void;
}) {
  const query = useQuery(incidentQuery(id));
  return (
    <aside className="cd-side" aria-label={`Incident ${id}`}>
      {query.data ? (
        <Inside incident={query.data} place={place} onClose={onClose} onNext={onNext} onResolve={onResolve} />
      ) : query.isError ? (
        <>
          <Failure what={`${id} can’t be read`} error={query.error} retry={() => void query.refetch()} />
          <div className="cd-pad">
            <Button onClick={onClose}>Close</Button>
          </div>
        </>
      ) : (
        <Skeleton rows={8} height={48} />
      )}
    </aside>
  );
}

function Inside({
  incident,
  place,
  onClose,
  onNext,
  onResolve,
}: {
  incident: Incident;
  place?: { at: number; of: number };
  onClose: () => void;
  onNext: () => void;
  onResolve: (incident: Incident) => void;
}) {
  const findings = useQuery(incidentFindingsQuery(incident.id));
  const device = useQuery(deviceQuery(incident.device));
  const actions = useIncidentActions();
  const me = useMe();
  const lock = useLock("analyst");
  const list = findings.data?.items ?? [];
  const closed = incident.state === "resolved";
  return (
    <>
      <header className="cd-side-head">
        <SeverityLabel severity={incident.severity} />
        <span className="cd-mono cd-2">{incident.id}</span>
        <span className="cd-chip">
          <StateGlyph state={incident.state} />
          {incidentStateWord[incident.state]}
        </span>
        <span className="cd-sp" />
        {place && (
          <span className="cd-3 cd-sub cd-num cd-nw">
            {place.at} of {place.of}
          </span>
        )}
        <ButtonLink
          kind="ghost"
          to="/incidents/$id"
          params={{ id: incident.id }}
          icon={<IconArrowUpRight className="cd-icon" aria-label="Open the whole incident" />}
        />
        <Button kind="ghost" icon={<IconX className="cd-icon" />} aria-label="Close the panel" onClick={onClose} />
      </header>
      <div className="cd-side-body">
        <Sentence text={incident.title} ids={[incident.device]} className="cd-sentence-panel" />
        <div className="cd-row cd-wrap">
          {incident.techniques?.map((t) => (
            <Tag key={t} mono outline>
              {t}
            </Tag>
          ))}
          <span className="cd-2">
            {[device.data?.site, device.data?.cohort ?? incident.cohort].filter(Boolean).join(", ")}
          </span>
          <span className="cd-sp" />
          <span className="cd-3 cd-sub">
            Opened <At at={incident.opened_at} />, <Age at={incident.opened_at} ago />
          </span>
        </div>
        {findings.isPending ? (
          <div style={{ height: 170 }} aria-busy="true" />
        ) : (
          <EvidencePanel
            incident={incident}
            findings={list}
            device={device.data}
            search={{}}
            onSearch={() => undefined}
            height={140}
            bare
          />
        )}
        <AuditAround incident={incident} bare />
        {device.data && (
          <QuarantineBlock
            key={incident.device}
            device={device.data}
            incident={incident.id}
            reason={`${incident.id}: ${incident.title}`}
          />
        )}
        <section>
          <h2 className="cd-h2">Timeline</h2>
          <Timeline incident={incident} />
        </section>
      </div>
      <footer className="cd-side-foot">
        {incident.state === "open" && (
          <Button kind="primary" keys="a" locked={lock} onClick={() => void actions.acknowledge(incident)}>
            Acknowledge
          </Button>
        )}
        {!closed && (
          <Button
            keys="r"
            locked={lock}
            kind={incident.state === "open" ? "default" : "primary"}
            onClick={() => onResolve(incident)}
          >
            Resolve…
          </Button>
        )}
        {closed && (
          <Button locked={lock} onClick={() => void actions.reopen(incident)}>
            Open again
          </Button>
        )}
        {incident.assignee !== me.name && (
          <Button keys="i" locked={lock} title="Assign to me" onClick={() => void actions.assign(incident, me.name)}>
            Assign
          </Button>
        )}
        <span className="cd-sp" />
        <button type="button" className="cd-row cd-3 cd-nextbtn" onClick={onNext}>
          Next <Kbd>j</Kbd>
        </button>
      </footer>
    </>
  );
}
