import { PasswordInput } from "@mantine/core";
import { IconAlertTriangle, IconCheck, IconPointFilled } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useRouter, useSearch } from "@tanstack/react-router";
import { type FormEvent, useEffect, useState } from "react";
import { ApiError } from "../api/client";
import { changePassword, queryClient, sessionQuery } from "../api/queries";
import { Button } from "../parts/Button";
import { Door } from "./Door";
import { safeNext } from "./next";
import { checks, strength } from "./strength";

/** Choosing one's own password: forced after a one-time password, or by wish. */
export function Password() {
  const { next } = useSearch({ from: "/password" });
  const router = useRouter();
  const { data: session } = useQuery(sessionQuery);
  const [current, setCurrent] = useState("");
  const [value, setValue] = useState("");
  const [again, setAgain] = useState("");
  const [shown, setShown] = useState(false);
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState<string>();
  const forced = !!session?.must_change_password;
  const list = checks(value, session?.operator.name ?? "");
  const level = strength(value);
  const differs = again !== "" && again !== value;
  const ready = list.every((c) => c.ok) && again === value && current !== "";

  useEffect(() => {
    document.title = "Choose your own password · Cordon";
  }, []);

  async function submit(event: FormEvent) {
    event.preventDefault();
    if (!ready) {
      setFault(differs ? "The two passwords differ." : "Meet the three conditions and repeat the password.");
      return;
    }
    setBusy(true);
    setFault(undefined);
    try {
      const changed = await changePassword(current, value);
      queryClient.setQueryData(sessionQuery.queryKey, changed);
      await queryClient.invalidateQueries();
      router.history.push(safeNext(next));
    } catch (error) {
      setBusy(false);
      setFault(
        error instanceof ApiError && error.status === 401
          ? "The present password is not right."
          : error instanceof Error
            ? error.message
            : String(error),
      );
    }
  }

  const show = (
    <button type="button" className="cd-door-show" aria-pressed={shown} onClick={() => setShown(!shown)}>
      {shown ? "Hide" : "Show"}
    </button>
  );
  return (
    <Door>
      <form onSubmit={submit}>
        <div>
          <h1>Choose your own password</h1>
          <p>
            {forced
              ? "The one-time password got you in once. It stops working when you save this."
              : "Saving this ends your other sessions."}
          </p>
        </div>
        {fault && (
          <div className="cd-door-error" role="alert">
            <IconAlertTriangle className="cd-icon" />
            <span>{fault}</span>
          </div>
        )}
        <PasswordInput
          label={forced ? "One-time password" : "Present password"}
          name="current"
          autoComplete="current-password"
          value={current}
          onChange={(e) => setCurrent(e.currentTarget.value)}
          visible={shown}
          rightSectionWidth={56}
          rightSection={show}
          autoFocus
        />
        <div className="cd-col cd-gap12">
          <PasswordInput
            label="New password"
            name="new"
            autoComplete="new-password"
            value={value}
            onChange={(e) => setValue(e.currentTarget.value)}
            visible={shown}
            rightSectionWidth={56}
            rightSection={show}
          />
          <div className="cd-strength" aria-hidden="true">
            {[1, 2, 3, 4, 5].map((n) => (
              <i key={n} className={value && n <= level.score ? (level.score < 3 ? "cd-weak" : "cd-on") : ""} />
            ))}
          </div>
          <p className="cd-2 cd-sub" role="status">
            {value ? (
              <>
                <b className={level.score < 3 ? "cd-high" : "cd-expected"}>{level.word}.</b> {level.advice}
              </>
            ) : (
              "Four or five words that do not belong together are easy to keep and hard to guess."
            )}
          </p>
          <ul className="cd-checks">
            {list.map((c) => (
              <li key={c.text}>
                {c.ok ? (
                  <IconCheck size={14} className="cd-expected" aria-label="met" />
                ) : (
                  <IconPointFilled size={14} className="cd-3" aria-label="not yet met" />
                )}
                {c.text}
              </li>
            ))}
          </ul>
        </div>
        <PasswordInput
          label="Repeat it"
          name="again"
          autoComplete="new-password"
          value={again}
          onChange={(e) => setAgain(e.currentTarget.value)}
          visible={shown}
          visibilityToggleButtonProps={{ style: { display: "none" } }}
          error={differs ? "The two passwords differ." : undefined}
        />
        <Button type="submit" kind="primary" size="large" busy={busy}>
          Save and continue
        </Button>
      </form>
    </Door>
  );
}
