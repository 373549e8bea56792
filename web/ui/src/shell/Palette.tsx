import { Modal } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconSearch } from "@tabler/icons-react";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";
import { devicesQuery, flat, incidentsQuery } from "../api/queries";
import { Kbd } from "../parts/Button";
import { SeverityMark, StateGlyph, statusGlyph } from "../parts/Marks";
import { deviceStatusWord } from "../words/words";
import { closeOverlay } from "./overlays";
import { entries } from "./Shell";

interface Hit {
  id: string;
  group: string;
  icon?: ReactNode;
  label: ReactNode;
  detail?: string;
  go: () => void;
}

/** Search for devices and incidents, or go to a page. */
export default function Palette() {
  const navigate = useNavigate();
  const [text, setText] = useState("");
  const [query] = useDebouncedValue(text.trim(), 120);
  const [marked, setMarked] = useState(0);
  const wanted = query.length > 0;
  const devices = useInfiniteQuery({ ...devicesQuery({ q: query }, 6), enabled: wanted });
  const incidents = useInfiniteQuery({ ...incidentsQuery({ q: query }, 6), enabled: wanted });

  const hits: Hit[] = [];
  if (wanted) {
    for (const d of flat(devices.data).rows) {
      hits.push({
        id: `d-${d.id}`,
        group: "Devices",
        icon: <StateGlyph state={statusGlyph(d.status)} />,
        label: <span className="cd-mono cd-b">{d.id}</span>,
        detail: [d.site, deviceStatusWord[d.status]?.toLowerCase()].filter(Boolean).join(", "),
        go: () => void navigate({ to: "/devices/$id", params: { id: d.id } }),
      });
    }
    for (const i of flat(incidents.data).rows) {
      hits.push({
        id: `i-${i.id}`,
        group: "Incidents",
        icon: <SeverityMark severity={i.severity} />,
        label: <span className="cd-mono cd-b">{i.id}</span>,
        detail: i.title,
        go: () => void navigate({ to: "/incidents/$id", params: { id: i.id } }),
      });
    }
  }
  for (const e of entries.flatMap((g) => g.entries)) {
    if (e.label.toLowerCase().includes(text.trim().toLowerCase())) {
      hits.push({
        id: e.to,
        group: "Go to",
        icon: <e.icon className="cd-icon" />,
        label: e.label,
        go: () => void navigate({ to: e.to }),
      });
    }
  }
  const at = Math.min(marked, hits.length - 1);
  const run = (hit: Hit | undefined) => {
    if (!hit) return;
    closeOverlay();
    hit.go();
  };
  return (
    <Modal
      opened
      onClose={closeOverlay}
      withCloseButton={false}
      padding={0}
      size={560}
      yOffset="12vh"
      centered={false}
      attributes={{ content: { "aria-label": "Search or act" } }}
    >
      <div className="cd-palette-head">
        <IconSearch className="cd-icon" />
        <input
          data-autofocus
          role="combobox"
          aria-expanded="true"
          aria-controls="palette-hits"
          aria-activedescendant={hits[at] ? `hit-${at}` : undefined}
          aria-label="Search devices, incidents and pages"
          placeholder="Device, incident or page"
          value={text}
          onChange={(e) => {
            setText(e.target.value);
            setMarked(0);
          }}
          onKeyDown={(e) => {
            if (e.key === "ArrowDown") setMarked(Math.min(hits.length - 1, at + 1));
            else if (e.key === "ArrowUp") setMarked(Math.max(0, at - 1));
            else if (e.key === "Enter") run(hits[at]);
            else return;
            e.preventDefault();
          }}
        />
        <Kbd>esc</Kbd>
      </div>
      <div className="cd-palette" id="palette-hits" role="listbox" aria-label="Results">
        {hits.map((hit, i) => (
          <div key={hit.id} role="presentation">
            {hits[i - 1]?.group !== hit.group && (
              <div className="cd-palette-group" role="presentation">
                {hit.group}
              </div>
            )}
            {/* biome-ignore lint/a11y/useKeyWithClickEvents: the input above has the keys */}
            <div
              id={`hit-${i}`}
              role="option"
              tabIndex={-1}
              aria-selected={i === at}
              className="cd-palette-hit"
              onMouseMove={() => setMarked(i)}
              onClick={() => run(hit)}
            >
              {hit.icon}
              {hit.label}
              <span className="cd-2 cd-el cd-sp">{hit.detail}</span>
              {i === at && <Kbd>↵</Kbd>}
            </div>
          </div>
        ))}
        {hits.length === 0 && (
          <div className="cd-palette-group" role="option" aria-selected="false" aria-disabled="true" tabIndex={-1}>
            {devices.isFetching ? "Searching" : `Nothing has “${query}” in its name`}
          </div>
        )}
      </div>
    </Modal>
  );
}
