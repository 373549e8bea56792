import { PasswordInput, TextInput } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useNavigate, useRouter, useSearch } from "@tanstack/react-router";
import { type FormEvent, useEffect, useState } from "react";
import { ApiError } from "../api/client";
import { queryClient, sessionQuery, signIn } from "../api/queries";
import { Button } from "../parts/Button";
import { useNow } from "../parts/When";
import { duration } from "../words/format";
import { Door } from "./Door";
import { safeNext } from "./next";

export function SignIn() {
  const { next } = useSearch({ from: "/sign-in" });
  const navigate = useNavigate();
  const router = useRouter();
  const [busy, setBusy] = useState(false);
  const [shown, setShown] = useState(false);
  const [fault, setFault] = useState<string>();
  const [waitUntil, setWaitUntil] = useState(0);
  const now = useNow();
  const waiting = waitUntil - now;

  useEffect(() => {
    document.title = "Sign in · Cordon";
  }, []);

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    setFault(undefined);
    try {
      const session = await signIn(String(form.get("name")), String(form.get("password")));
      queryClient.clear();
      queryClient.setQueryData(sessionQuery.queryKey, session);
      if (session.must_change_password) await navigate({ to: "/password", search: { next } });
      else router.history.push(safeNext(next));
    } catch (error) {
      setBusy(false);
      if (error instanceof ApiError && error.status === 401) {
        setFault("This user name and password do not go together.");
      } else {
        setFault(error instanceof Error ? error.message : String(error));
      }
      if (error instanceof ApiError && error.retryAfterSeconds > 0)
        setWaitUntil(Date.now() + error.retryAfterSeconds * 1000);
    }
  }

  return (
    <Door>
      <form onSubmit={submit}>
        <div>
          <h1>Sign in</h1>
          <p>to Cordon at {window.location.host}</p>
        </div>
        {fault && (
          <div className="cd-door-error" role="alert">
            <IconAlertTriangle className="cd-icon" />
            <span>
              {fault}
              {waiting > 0 && !fault.includes("try again") && ` Try again in ${duration(waiting)}.`}
            </span>
          </div>
        )}
        <TextInput
          label="User name"
          name="name"
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          required
          withAsterisk={false}
          data-autofocus
          autoFocus
        />
        <PasswordInput
          label="Password"
          name="password"
          autoComplete="current-password"
          required
          withAsterisk={false}
          visible={shown}
          rightSectionWidth={56}
          rightSection={
            <button type="button" className="cd-door-show" aria-pressed={shown} onClick={() => setShown(!shown)}>
              {shown ? "Hide" : "Show"}
            </button>
          }
        />
        <Button type="submit" kind="primary" size="large" busy={busy}>
          Sign in
        </Button>
        <p className="cd-2 cd-sub">
          Can’t sign in? An administrator can give you a new one-time password, or run{" "}
          <code className="cd-mono">cordon user</code> on the host.
        </p>
      </form>
    </Door>
  );
}
