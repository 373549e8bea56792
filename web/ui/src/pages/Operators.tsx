import { Modal, Select, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { addOperator, operatorsQuery } from "../api/queries";
import type { Role } from "../api/types";
import { Avatar, Command, Failure, Panel, Skeleton } from "../parts/Blocks";
import { Button } from "../parts/Button";
import { useLock, useMe } from "../parts/session";
import { Age, At } from "../parts/When";
import { useKeys } from "../shell/keys";
import { Page } from "../shell/Page";
import { isTime } from "../words/format";
import { roleHelp, roleWord } from "../words/words";

/** The people who use Cordon. */
export function OperatorsPage() {
  const query = useQuery(operatorsQuery);
  const lock = useLock("admin");
  const me = useMe();
  const [adding, setAdding] = useState(false);
  useKeys("This page", [{ keys: "n", label: "Add an operator…", run: () => !lock && setAdding(true) }]);
  const rows = query.data?.items ?? [];
  return (
    <Page
      title="Operators"
      documentTitle="Operators"
      actions={
        <Button keys="n" locked={lock} onClick={() => setAdding(true)}>
          Add…
        </Button>
      }
    >
      <Panel title="People" flush>
        {query.isError ? (
          <Failure what="Operators can’t be read" error={query.error} retry={() => void query.refetch()} />
        ) : query.isPending ? (
          <Skeleton rows={4} />
        ) : (
          <div className="cd-table-wrap">
            <table className="cd-table">
              <thead>
                <tr>
                  <th>Name</th>
                  <th>Role</th>
                  <th>May</th>
                  <th>Password</th>
                  <th>Last sign-in</th>
                  <th>Added</th>
                </tr>
              </thead>
              <tbody>
                {rows.map((o) => (
                  <tr key={o.name}>
                    <td>
                      <span className="cd-row">
                        <Avatar name={o.name} />
                        <b className="cd-b">{o.name}</b>
                        {o.name === me.name && <span className="cd-3">you</span>}
                      </span>
                    </td>
                    <td>{roleWord[o.role]}</td>
                    <td className="cd-2">{roleHelp[o.role]}</td>
                    <td className={o.must_change_password ? "cd-high" : "cd-2"}>
                      {o.must_change_password ? "one-time, not used yet" : "own"}
                    </td>
                    <td className="cd-2">{isTime(o.last_sign_in_at) ? <Age at={o.last_sign_in_at} ago /> : "never"}</td>
                    <td className="cd-2">
                      <At at={o.created_at} />
                      {o.created_by && ` by ${o.created_by}`}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Panel>
      {adding && <AddDialog onClose={() => setAdding(false)} />}
    </Page>
  );
}

const roles: readonly Role[] = ["viewer", "analyst", "responder", "admin"];

function AddDialog({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("analyst");
  const client = useQueryClient();
  const act = useMutation({
    mutationFn: () => addOperator(name.trim(), role),
    onSuccess: () => client.invalidateQueries({ queryKey: ["operators"] }),
  });
  return (
    <Modal
      opened
      onClose={onClose}
      title={act.data ? `${act.data.operator.name} is added` : "Add an operator"}
      size={440}
    >
      {act.data ? (
        <div className="cd-form">
          <p className="cd-2">
            Give {act.data.operator.name} this one-time password. It is not shown again and must be changed at the first
            sign-in.
          </p>
          <Command label="the one-time password" text={act.data.password} />
          <div className="cd-form-end">
            <Button kind="primary" onClick={onClose}>
              Done
            </Button>
          </div>
        </div>
      ) : (
        <form
          className="cd-form"
          onSubmit={(e) => {
            e.preventDefault();
            act.mutate();
          }}
        >
          <TextInput
            label="User name"
            description="Small letters, digits, _ and -; begins with a letter"
            value={name}
            onChange={(e) => setName(e.currentTarget.value)}
            pattern="[a-z][a-z0-9_\-]+"
            required
            withAsterisk={false}
            autoComplete="off"
            spellCheck={false}
            data-autofocus
          />
          <Select
            label="Role"
            description={`A ${roleWord[role]?.toLowerCase()} ${roleHelp[role]}; each role includes the ones before it.`}
            value={role}
            onChange={(v) => setRole((v as Role | null) ?? "viewer")}
            data={roles.map((r) => ({ value: r, label: roleWord[r] ?? r }))}
          />
          {act.isError && <Failure what="The operator is not added" error={act.error} />}
          <div className="cd-form-end">
            <Button kind="ghost" onClick={onClose}>
              Cancel
            </Button>
            <Button type="submit" kind="primary" busy={act.isPending}>
              Add
            </Button>
          </div>
        </form>
      )}
    </Modal>
  );
}
