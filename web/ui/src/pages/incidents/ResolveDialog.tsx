import { Checkbox, Modal, Textarea } from "@mantine/core";
import { useState } from "react";
import { release } from "../../api/queries";
import type { DeviceDetail, Incident, Verdict } from "../../api/types";
import { Button, Kbd } from "../../parts/Button";
import { isActive } from "../../parts/Quarantine";
import { useLock } from "../../parts/session";
import { sayError } from "../../shell/toasts";
import { verdictHelp, verdictWord } from "../../words/words";
import { useIncidentActions } from "./actions";

const verdicts: readonly Verdict[] = ["true_positive", "benign", "false_positive", "unknown"];

/** Verdict 1 to 4 and a reason; offers the release of a device that is still held. */
export function ResolveDialog({
  incident,
  device,
  onClose,
}: {
  incident: Incident;
  device?: DeviceDetail;
  onClose: (resolved: boolean) => void;
}) {
  const [verdict, setVerdict] = useState<Verdict>();
  const [reason, setReason] = useState("");
  const [alsoRelease, setAlsoRelease] = useState(false);
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState<string>();
  const lock = useLock("responder");
  const actions = useIncidentActions();

  async function submit() {
    if (!verdict) return setFault("Choose a verdict.");
    if (!reason.trim()) return setFault("Say why: verdicts teach the rules.");
    setBusy(true);
    const done = await actions.resolve(incident, verdict, reason.trim());
    if (done && alsoRelease) {
      await release(incident.device, `${incident.id} resolved: ${reason.trim()}`).catch((error: unknown) =>
        sayError(`${incident.device} is not released.`, error),
      );
    }
    setBusy(false);
    if (done) onClose(true);
    return undefined;
  }

  return (
    <Modal opened onClose={() => onClose(false)} title={`Resolve ${incident.id}`} size={480}>
      <form
        className="cd-form"
        onSubmit={(e) => {
          e.preventDefault();
          void submit();
        }}
        onKeyDown={(e) => {
          if (e.key === "Enter" && (e.metaKey || e.ctrlKey)) {
            e.preventDefault();
            void submit();
            return;
          }
          const typing = (e.target as HTMLElement).tagName === "TEXTAREA";
          const chosen = verdicts[Number(e.key) - 1];
          if (!typing && chosen) {
            e.preventDefault();
            setVerdict(chosen);
            setFault(undefined);
          }
        }}
      >
        <fieldset className="cd-verdicts">
          <legend className="cd-hide">Verdict</legend>
          {verdicts.map((v, i) => (
            <label key={v} className={verdict === v ? "cd-on" : ""}>
              <input
                type="radio"
                name="verdict"
                value={v}
                checked={verdict === v}
                data-autofocus={i === 0 || undefined}
                onChange={() => {
                  setVerdict(v);
                  setFault(undefined);
                }}
              />
              <span className="cd-col cd-sp">
                <b className="cd-b">{verdictWord[v]}</b>
                <span className="cd-2 cd-sub">{verdictHelp[v]}</span>
              </span>
              <Kbd>{i + 1}</Kbd>
            </label>
          ))}
        </fieldset>
        <Textarea
          label="Reason"
          rows={3}
          maxLength={1000}
          value={reason}
          onChange={(e) => {
            setReason(e.currentTarget.value);
            setFault(undefined);
          }}
        />
        {device && isActive(device.quarantine) && (
          <Checkbox
            checked={alsoRelease}
            disabled={!!lock}
            onChange={(e) => setAlsoRelease(e.currentTarget.checked)}
            label={`Also release ${incident.device} from quarantine`}
            description={lock}
          />
        )}
        {fault && (
          <p className="cd-critical" role="alert">
            {fault}
          </p>
        )}
        <div className="cd-form-end">
          <Button kind="ghost" onClick={() => onClose(false)}>
            Cancel
          </Button>
          <Button type="submit" kind="primary" busy={busy} keys="Ctrl ↵">
            Resolve
          </Button>
        </div>
      </form>
    </Modal>
  );
}
