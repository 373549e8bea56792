import { useQueryClient } from "@tanstack/react-query";
import { acknowledge, assign, comment, incidentQuery, reopen, resolve } from "../../api/queries";
import type { Incident, Verdict } from "../../api/types";
import { useMe } from "../../parts/session";
import { say, sayError } from "../../shell/toasts";
import { verdictWord } from "../../words/words";

/** What a person does with an incident; each answers at once and says what happened. */
export function useIncidentActions() {
  const client = useQueryClient();
  const { name } = useMe();

  /** Shows the change before the API has answered; puts the old value back on a refusal. */
  async function change(
    id: string,
    guess: Partial<Incident>,
    call: () => Promise<Incident>,
    failed: string,
  ): Promise<boolean> {
    const key = incidentQuery(id).queryKey;
    const before = client.getQueryData(key);
    if (before) client.setQueryData(key, { ...before, ...guess });
    try {
      client.setQueryData(key, await call());
      void client.invalidateQueries({ queryKey: ["incidents"] });
      void client.invalidateQueries({ queryKey: ["overview"] });
      return true;
    } catch (error) {
      client.setQueryData(key, before);
      sayError(failed, error);
      return false;
    }
  }

  const actions = {
    acknowledge: async (i: Incident) => {
      if (i.state !== "open") return;
      const done = await change(
        i.id,
        { state: "acknowledged", acknowledged_by: name },
        () => acknowledge(i.id),
        `${i.id} is not acknowledged.`,
      );
      if (done) say(`${i.id} acknowledged`);
    },
    assign: async (i: Incident, assignee: string) => {
      if (i.assignee === assignee) return;
      const before = i.assignee ?? "";
      const done = await change(i.id, { assignee }, () => assign(i.id, assignee), `${i.id} is not assigned.`);
      if (!done) return;
      const text =
        assignee === name
          ? `${i.id} assigned to you`
          : assignee
            ? `${i.id} assigned to ${assignee}`
            : `${i.id} assigned to nobody`;
      say(text, () => void change(i.id, { assignee: before }, () => assign(i.id, before), `${i.id} is not assigned.`));
    },
    comment: async (i: Incident, text: string) =>
      change(i.id, {}, () => comment(i.id, text), "Your comment is not saved."),
    resolve: async (i: Incident, verdict: Verdict, reason: string) => {
      const done = await change(
        i.id,
        { state: "resolved", verdict, reason, resolved_by: name },
        () => resolve(i.id, verdict, reason),
        `${i.id} is not resolved.`,
      );
      if (done) say(`${i.id} resolved: ${verdictWord[verdict]?.toLowerCase()}`, () => void actions.reopen(i));
      return done;
    },
    reopen: async (i: Incident) => {
      const done = await change(
        i.id,
        { state: "open", verdict: undefined },
        () => reopen(i.id),
        `${i.id} is not reopened.`,
      );
      if (done) say(`${i.id} is open again`);
    },
  };
  return actions;
}
