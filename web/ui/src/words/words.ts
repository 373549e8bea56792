// One word per idea, the same as in the API; every label of an enumeration is here.

export type Severity = "informational" | "low" | "medium" | "high" | "critical";

/** Mildest first, in OCSF's order. */
export const severities: readonly Severity[] = ["informational", "low", "medium", "high", "critical"];
/** Worst first, as lists and legends show them. */
export const worstFirst: readonly Severity[] = [...severities].reverse();

export const severityWord: Record<Severity, string> = {
  informational: "Informational",
  low: "Low",
  medium: "Medium",
  high: "High",
  critical: "Critical",
};

export function rank(severity: string): number {
  return severities.indexOf(severity as Severity) + 1;
}

export const incidentStateWord: Record<string, string> = {
  open: "Open",
  acknowledged: "Acknowledged",
  resolved: "Resolved",
};

export const quarantineStateWord: Record<string, string> = {
  requested: "Requested",
  applied: "Applied",
  confirmed: "Confirmed",
  released: "Released",
  expired: "Expired",
  failed: "Failed",
};

export const levelWord: Record<string, string> = { observe: "Observe", restrict: "Restrict", isolate: "Isolate" };
export const leveledWord: Record<string, string> = {
  observe: "Observed",
  restrict: "Restricted",
  isolate: "Isolated",
};

/** What follows from a quarantine at each level: shown above the button. */
export const levelEffect: Record<string, string> = {
  observe: "Marks the device; its connection and its readings go on.",
  restrict: "Closes its connection; afterwards it may only speak and hear fleet.quarantine, for repair and forensics.",
  isolate: "Closes its connection and refuses every new one. No reading or audit event of it is accepted.",
};

export const deviceStatusWord: Record<string, string> = {
  reporting: "Reporting",
  silent: "Silent",
  never_seen: "Never seen",
  retired: "Retired",
  revoked: "Revoked",
  learning: "Learning",
  historic: "Historic",
  enrolled: "Enrolled",
  active: "Active",
};

export const modeWord: Record<string, string> = { off: "Off", shadow: "Shadow", alert: "Alert", armed: "Armed" };
export const modeEffect: Record<string, string> = {
  off: "The rule judges nothing. No findings, no incidents.",
  shadow: "Findings are recorded; no incident opens and nobody is told.",
  alert: "Findings open incidents and receivers are told. Devices stay connected.",
  armed: "As alert, and a finding quarantines its device at once, within the guards' caps.",
};

export const verdictWord: Record<string, string> = {
  true_positive: "True positive",
  benign: "Benign",
  false_positive: "False positive",
  unknown: "Unknown",
};
export const verdictHelp: Record<string, string> = {
  true_positive: "It happened and it was bad.",
  benign: "It happened and it was meant to.",
  false_positive: "It did not happen, or the expectation was wrong.",
  unknown: "Nobody could tell.",
};

export const roleWord: Record<string, string> = {
  viewer: "Viewer",
  analyst: "Analyst",
  responder: "Responder",
  admin: "Administrator",
};
export const roleHelp: Record<string, string> = {
  viewer: "reads everything",
  analyst: "works on incidents",
  responder: "quarantines, releases, changes rules",
  admin: "enrols devices, manages operators",
};
const roles = ["viewer", "analyst", "responder", "admin"];
export function allows(role: string | undefined, needed: string): boolean {
  return roles.indexOf(role ?? "") >= roles.indexOf(needed);
}

export const basisWord: Record<string, string> = { own: "own history", cohort: "its cohort", rule: "the rule" };

export const stageWord: Record<string, string> = {
  gate: "Gate",
  stream: "Stream",
  ingest: "Ingest",
  detect: "Detect",
  incident: "Incident",
  notify: "Notify",
  quarantine: "Quarantine",
  engine: "ClickHouse",
  web: "Web",
};

/** rule:cpu-temperature-high → "rule cpu-temperature-high". */
export function actorWord(actor: string | undefined): string {
  if (!actor) return "Cordon";
  if (actor === "cordon") return "Cordon";
  return actor.startsWith("rule:") ? `rule ${actor.slice(5)}` : actor;
}

export function initials(name: string): string {
  const parts = name.split(/[\s._-]+/).filter(Boolean);
  const letters = parts.length > 1 ? `${parts[0]?.[0] ?? ""}${parts[1]?.[0] ?? ""}` : name.slice(0, 2);
  return letters.toUpperCase();
}
