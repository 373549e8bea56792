import { Checkbox, Modal, TagsInput, TextInput } from "@mantine/core";
import { IconCheck } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { ApiError } from "../../api/client";
import { deviceQuery, enroll } from "../../api/queries";
import type { Enrolled } from "../../api/types";
import { Command, Failure } from "../../parts/Blocks";
import { Button } from "../../parts/Button";
import { StateGlyph } from "../../parts/Marks";
import { useNow } from "../../parts/When";
import { duration } from "../../words/format";

/** Enrols one device: a form, then the one command to run, which turns green when the device has connected. */
export function EnrollDialog({ onClose }: { onClose: () => void }) {
  const [done, setDone] = useState<Enrolled>();
  return (
    <Modal opened onClose={onClose} title={done ? `Enrol ${done.device.id}` : "Enrol a device"} size={560}>
      {done ? <Run enrolled={done} onClose={onClose} /> : <Form onDone={setDone} onClose={onClose} />}
    </Modal>
  );
}

function Form({ onDone, onClose }: { onDone: (e: Enrolled) => void; onClose: () => void }) {
  const client = useQueryClient();
  const [id, setId] = useState("");
  const [tags, setTags] = useState<string[]>([]);
  const [historic, setHistoric] = useState(false);
  const act = useMutation({
    mutationFn: (form: FormData) => {
      const text = (name: string) => String(form.get(name) ?? "").trim() || undefined;
      return enroll({
        id: id.trim(),
        cohort: text("cohort"),
        site: text("site"),
        model: text("model"),
        firmware: text("firmware"),
        owner: text("owner"),
        time_zone: text("time_zone"),
        tags: tags.length ? tags : undefined,
        historic: historic || undefined,
      });
    },
    onSuccess: (enrolled) => {
      onDone(enrolled);
      void client.invalidateQueries({ queryKey: ["devices"] });
    },
  });
  const fault = (field: string) =>
    act.error instanceof ApiError ? act.error.fields.find((f) => f.location?.endsWith(field))?.message : undefined;
  function submit(e: FormEvent<HTMLFormElement>) {
    e.preventDefault();
    act.mutate(new FormData(e.currentTarget));
  }
  return (
    <form className="cd-form" onSubmit={submit}>
      <TextInput
        label="Device id"
        description="1 to 64 of A-Z a-z 0-9 _ -. It goes into the certificate and cannot change."
        value={id}
        onChange={(e) => setId(e.currentTarget.value)}
        error={
          fault("id") ?? (id && !/^[A-Za-z0-9_-]{1,64}$/.test(id) ? "Only A-Z a-z 0-9 _ and -, at most 64." : undefined)
        }
        required
        withAsterisk={false}
        spellCheck={false}
        autoComplete="off"
        data-autofocus
        styles={{ input: { fontFamily: "var(--cd-mono)" } }}
      />
      <div className="cd-grid2">
        <TextInput
          label="Cohort"
          name="cohort"
          description="Its peers: what it is compared with"
          error={fault("cohort")}
        />
        <TextInput label="Site" name="site" description="Where it stands" error={fault("site")} />
        <TextInput label="Model" name="model" error={fault("model")} />
        <TextInput label="Firmware" name="firmware" error={fault("firmware")} />
        <TextInput label="Owner" name="owner" error={fault("owner")} />
        <TextInput label="Time zone" name="time_zone" placeholder="UTC" error={fault("time_zone")} />
      </div>
      <TagsInput
        label="Tags"
        value={tags}
        onChange={setTags}
        placeholder={tags.length ? "" : "Enter after each"}
        maxTags={32}
      />
      <Checkbox
        label="Historic: accept data of any age (replays)"
        checked={historic}
        onChange={(e) => setHistoric(e.currentTarget.checked)}
      />
      {act.isError && <Failure what="The device is not enrolled" error={act.error} />}
      <div className="cd-form-end">
        <Button kind="ghost" onClick={onClose}>
          Cancel
        </Button>
        <Button type="submit" kind="primary" busy={act.isPending}>
          Enrol
        </Button>
      </div>
    </form>
  );
}

function Run({ enrolled, onClose }: { enrolled: Enrolled; onClose: () => void }) {
  const { device, command, token, token_expires_at } = enrolled;
  const now = useNow();
  const watch = useQuery({ ...deviceQuery(device.id), refetchInterval: 2_000 });
  const seen = watch.data;
  const connected = !!seen && (seen.connections.length > 0 || !!seen.last_seen_at);
  const certified = seen?.state === "active";
  return (
    <div className="cd-form">
      <p className="cd-2">
        Run this on the device. It makes its own key there, gets its certificate, and starts to report.
      </p>
      <Command label="the command" text={command} />
      <details>
        <summary className="cd-2 cd-sub">Only the token, for another client</summary>
        <Command label="the token" text={token} />
      </details>
      <p className="cd-2 cd-sub">
        The token works once and ends in {duration(Date.parse(token_expires_at) - now)}. It is not shown again.
      </p>
      <div className={`cd-arrival ${connected ? "cd-arrival-on" : ""}`} role="status">
        {connected ? (
          <>
            <IconCheck className="cd-icon" />
            <span>
              <span className="cd-mono">{device.id}</span> has connected.{" "}
              <Link to="/devices/$id" params={{ id: device.id }} className="cd-link">
                Look at it
              </Link>
            </span>
          </>
        ) : (
          <>
            <StateGlyph state={certified ? "learning" : "requested"} />
            <span>
              {certified
                ? "It has its certificate; waiting for its first connection."
                : "Waiting for the device to use its token."}
            </span>
          </>
        )}
      </div>
      <div className="cd-form-end">
        <Button kind="primary" onClick={onClose}>
          Done
        </Button>
      </div>
    </div>
  );
}
