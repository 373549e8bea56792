import type { ErrorComponentProps } from "@tanstack/react-router";
import { Empty, Failure } from "../parts/Blocks";
import { ButtonLink } from "../parts/Button";
import { Page } from "./Page";

/** The address names nothing. */
export function Lost() {
  return (
    <main className="cd-body-in">
      <Empty title="There is no such page" actions={<ButtonLink to="/">Overview</ButtonLink>}>
        The address may be old, or mistyped.
      </Empty>
    </main>
  );
}

export function PageError({ error, reset }: ErrorComponentProps) {
  return (
    <Page title="This page can’t be shown" documentTitle="Error">
      <Failure
        what="This page can’t be shown"
        error={error}
        retry={() => {
          reset();
          window.location.reload();
        }}
      />
    </Page>
  );
}
