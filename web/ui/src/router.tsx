import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Outlet,
  redirect,
} from "@tanstack/react-router";
import type { DeviceFilter } from "./api/queries";
import { queryClient, sessionQuery } from "./api/queries";
import type { Incident } from "./api/types";
import { Lost, PageError } from "./shell/Lost";
import { Shell } from "./shell/Shell";

type Search = Record<string, unknown>;

/** A parameter of the address as text, or nothing. */
function text(search: Search, key: string): string | undefined {
  const value = search[key];
  if (typeof value === "string" && value !== "") return value;
  return typeof value === "number" ? String(value) : undefined;
}

function oneOf<T extends string>(search: Search, key: string, allowed: readonly T[]): T | undefined {
  const value = text(search, key);
  return allowed.find((a) => a === value);
}

function number(search: Search, key: string): number | undefined {
  const value = Number(search[key]);
  return search[key] !== undefined && Number.isFinite(value) ? value : undefined;
}

const ranges = ["1h", "3h", "24h", "7d", "30d", "1y"] as const;
export type Range = (typeof ranges)[number];

const root = createRootRoute({ component: Outlet, notFoundComponent: Lost });

const signIn = createRoute({
  getParentRoute: () => root,
  path: "/sign-in",
  validateSearch: (s: Search): { next?: string } => ({ next: text(s, "next") }),
  component: lazyRouteComponent(() => import("./pages/SignIn"), "SignIn"),
});

const password = createRoute({
  getParentRoute: () => root,
  path: "/password",
  validateSearch: (s: Search): { next?: string } => ({ next: text(s, "next") }),
  beforeLoad: async () => {
    const session = await queryClient.ensureQueryData(sessionQuery);
    if (!session) throw redirect({ to: "/sign-in", search: {} });
  },
  component: lazyRouteComponent(() => import("./pages/Password"), "Password"),
});

const app = createRoute({
  getParentRoute: () => root,
  id: "app",
  beforeLoad: async ({ location }) => {
    const session = await queryClient.ensureQueryData(sessionQuery);
    const next = location.href === "/" ? undefined : location.href;
    if (!session) throw redirect({ to: "/sign-in", search: { next } });
    if (session.must_change_password) throw redirect({ to: "/password", search: { next } });
  },
  component: Shell,
  errorComponent: PageError,
});

const overview = createRoute({
  getParentRoute: () => app,
  path: "/",
  component: lazyRouteComponent(() => import("./pages/overview/Overview"), "OverviewPage"),
});

export interface IncidentSearch {
  view?: "mine" | "unassigned" | "acknowledged" | "resolved" | "all";
  severity?: Incident["severity"];
  device?: string;
  q?: string;
  sort?: "updated" | "opened";
  open?: string;
}

const incidents = createRoute({
  getParentRoute: () => app,
  path: "/incidents",
  validateSearch: (s: Search): IncidentSearch => ({
    view: oneOf(s, "view", ["mine", "unassigned", "acknowledged", "resolved", "all"]),
    severity: oneOf(s, "severity", ["informational", "low", "medium", "high", "critical"]),
    device: text(s, "device"),
    q: text(s, "q"),
    sort: oneOf(s, "sort", ["updated", "opened"]),
    open: text(s, "open"),
  }),
  component: lazyRouteComponent(() => import("./pages/incidents/Incidents"), "IncidentsPage"),
});

export interface ChartSearch {
  tab?: string;
  range?: Range;
  metric?: string;
  /** The zoomed part, in Unix milliseconds. */
  from?: number;
  to?: number;
}

function chartSearch(s: Search): ChartSearch {
  return {
    tab: text(s, "tab"),
    range: oneOf(s, "range", ranges),
    metric: text(s, "metric"),
    from: number(s, "from"),
    to: number(s, "to"),
  };
}

const incident = createRoute({
  getParentRoute: () => app,
  path: "/incidents/$id",
  validateSearch: chartSearch,
  component: lazyRouteComponent(() => import("./pages/incidents/Incident"), "IncidentPage"),
});

export interface DeviceSearch {
  status?: NonNullable<DeviceFilter["status"]>;
  state?: NonNullable<DeviceFilter["state"]>;
  cohort?: string;
  site?: string;
  model?: string;
  tag?: string;
  q?: string;
  enroll?: boolean;
}

const devices = createRoute({
  getParentRoute: () => app,
  path: "/devices",
  validateSearch: (s: Search): DeviceSearch => ({
    status: oneOf(s, "status", ["reporting", "silent", "never_seen", "retired", "historic"]),
    state: oneOf(s, "state", ["enrolled", "active", "revoked", "retired"]),
    cohort: text(s, "cohort"),
    site: text(s, "site"),
    model: text(s, "model"),
    tag: text(s, "tag"),
    q: text(s, "q"),
    enroll: s.enroll === true || undefined,
  }),
  component: lazyRouteComponent(() => import("./pages/devices/Devices"), "DevicesPage"),
});

const device = createRoute({
  getParentRoute: () => app,
  path: "/devices/$id",
  validateSearch: (s: Search): ChartSearch & { q?: string } => ({ ...chartSearch(s), q: text(s, "q") }),
  component: lazyRouteComponent(() => import("./pages/devices/Device"), "DevicePage"),
});

const quarantine = createRoute({
  getParentRoute: () => app,
  path: "/quarantine",
  validateSearch: (s: Search): { tab?: "history"; open?: string } => ({
    tab: oneOf(s, "tab", ["history"]),
    open: text(s, "open"),
  }),
  component: lazyRouteComponent(() => import("./pages/Quarantine"), "QuarantinePage"),
});

const rules = createRoute({
  getParentRoute: () => app,
  path: "/rules",
  validateSearch: (s: Search): { mode?: "off" | "shadow" | "alert" | "armed"; q?: string; open?: string } => ({
    mode: oneOf(s, "mode", ["off", "shadow", "alert", "armed"]),
    q: text(s, "q"),
    open: text(s, "open"),
  }),
  component: lazyRouteComponent(() => import("./pages/Rules"), "RulesPage"),
});

const alerts = createRoute({
  getParentRoute: () => app,
  path: "/alerts",
  component: lazyRouteComponent(() => import("./pages/Alerts"), "AlertsPage"),
});

const operators = createRoute({
  getParentRoute: () => app,
  path: "/operators",
  component: lazyRouteComponent(() => import("./pages/Operators"), "OperatorsPage"),
});

const system = createRoute({
  getParentRoute: () => app,
  path: "/system",
  validateSearch: (s: Search): { device?: string } => ({ device: text(s, "device") }),
  component: lazyRouteComponent(() => import("./pages/System"), "SystemPage"),
});

export const router = createRouter({
  routeTree: root.addChildren([
    signIn,
    password,
    app.addChildren([overview, incidents, incident, devices, device, quarantine, rules, alerts, operators, system]),
  ]),
  defaultPreload: "intent",
  defaultPreloadStaleTime: 0,
  defaultErrorComponent: PageError,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
