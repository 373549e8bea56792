import { useQuery } from "@tanstack/react-query";
import { sessionQuery } from "../api/queries";
import type { Role } from "../api/types";
import { allows, roleWord } from "../words/words";

/** Who is signed in. */
export function useMe(): { name: string; role: Role | undefined } {
  const { data } = useQuery(sessionQuery);
  return { name: data?.operator.name ?? "", role: data?.operator.role };
}

/** Why the present operator may not do what needs a role, or nothing. */
export function useLock(needed: Role): string | undefined {
  const { role } = useMe();
  if (allows(role, needed)) return undefined;
  return `Needs the role ${roleWord[needed]?.toLowerCase()}; ask an administrator`;
}
