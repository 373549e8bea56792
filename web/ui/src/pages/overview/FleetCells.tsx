import { Link } from "@tanstack/react-router";
import type { Cell } from "../../api/types";
import { Panel } from "../../parts/Blocks";
import { SeverityMark, StateGlyph } from "../../parts/Marks";
import { type Severity, severityWord } from "../../words/words";

const mostSites = 7;
const mostCohorts = 10;

/** Health by cohort and site: filled, everything reports; outlined, something does not; the colour is the worst. */
export function FleetCells({ cells }: { cells: readonly Cell[] }) {
  const sum = (key: "cohort" | "site") => {
    const totals = new Map<string, number>();
    for (const c of cells) totals.set(c[key], (totals.get(c[key]) ?? 0) + c.total);
    return [...totals].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  };
  const sites = sum("site");
  const cohorts = sum("cohort");
  const shownSites = sites.slice(0, mostSites);
  const shownCohorts = cohorts.slice(0, mostCohorts);
  const more = sites.length - shownSites.length + cohorts.length - shownCohorts.length;
  const byKey = new Map(cells.map((c) => [`${c.cohort}\n${c.site}`, c]));
  return (
    <Panel
      title={
        <>
          Fleet by cohort and site <span className="cd-2 cd-plain">Filled: every device reports.</span>
        </>
      }
      aside={
        <span className="cd-row cd-sub">
          <StateGlyph state="silent" size={12} /> Silent <StateGlyph state="confirmed" size={12} /> Quarantined
        </span>
      }
    >
      <div className="cd-table-wrap">
        <table className="cd-cells">
          <thead>
            <tr>
              <td />
              {shownSites.map((s) => (
                <th key={s} scope="col" className="cd-cap">
                  {s || "no site"}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shownCohorts.map((cohort) => (
              <tr key={cohort}>
                <th scope="row">
                  <Link to="/devices" search={{ cohort }} className="cd-hover">
                    {cohort}
                  </Link>
                </th>
                {shownSites.map((site) => (
                  <td key={site}>
                    <One cell={byKey.get(`${cohort}\n${site}`)} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {more > 0 && (
        <Link to="/devices" search={{}} className="cd-link">
          {more} more in Devices
        </Link>
      )}
    </Panel>
  );
}

function One({ cell }: { cell: Cell | undefined }) {
  if (!cell) return null;
  const worst = cell.worst as Severity | undefined;
  const grave = worst === "critical" || worst === "high";
  const look = grave
    ? `cd-cell-${worst}`
    : cell.quarantined > 0
      ? "cd-cell-held"
      : cell.silent > 0 || cell.incidents > 0
        ? "cd-cell-some"
        : "cd-cell-well";
  return (
    <Link to="/devices" search={{ cohort: cell.cohort, site: cell.site || undefined }} className={`cd-cell ${look}`}>
      <span className="cd-num cd-b">{cell.total.toLocaleString()}</span>
      <span className="cd-row cd-sub">
        {worst && (
          <span className={`cd-row cd-${worst}`}>
            <SeverityMark severity={worst} size={12} named={false} />
            <span className="cd-num">
              {cell.incidents}
              <span className="cd-hide"> incidents, the worst {severityWord[worst].toLowerCase()}</span>
            </span>
          </span>
        )}
        {cell.quarantined > 0 && (
          <span className="cd-row cd-cordon">
            <StateGlyph state="confirmed" size={12} />
            <span className="cd-num">
              {cell.quarantined}
              <span className="cd-hide"> quarantined</span>
            </span>
          </span>
        )}
        {cell.silent > 0 && (
          <span className="cd-row cd-2">
            <StateGlyph state="silent" size={12} />
            <span className="cd-num">
              {cell.silent}
              <span className="cd-hide"> silent</span>
            </span>
          </span>
        )}
      </span>
    </Link>
  );
}
