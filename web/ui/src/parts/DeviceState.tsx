import type { DeviceSummary } from "../api/types";
import { deviceStatusWord } from "../words/words";
import { QuarantineChip, StateGlyph, statusGlyph } from "./Marks";

/** What a device does now: its quarantine, if it has one, else its status. */
export function DeviceState({ d }: { d: Pick<DeviceSummary, "status" | "quarantine"> }) {
  if (d.quarantine) return <QuarantineChip level={d.quarantine.level} state={d.quarantine.state} />;
  return (
    <span className="cd-chip cd-2">
      <StateGlyph state={statusGlyph(d.status)} />
      {deviceStatusWord[d.status] ?? d.status}
    </span>
  );
}
