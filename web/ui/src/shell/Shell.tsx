import { Menu } from "@mantine/core";
import {
  IconActivityHeartbeat,
  IconAlertTriangle,
  IconBell,
  IconChevronDown,
  IconCircleDashed,
  IconDevices2,
  IconDots,
  IconLayoutDashboard,
  IconListSearch,
  IconSearch,
  IconUsers,
} from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useNavigate, useRouterState } from "@tanstack/react-router";
import { type ComponentType, lazy, type ReactNode, Suspense, useEffect } from "react";
import { onRefusal } from "../api/client";
import { live, useLive, useStatus } from "../api/live";
import { overviewQuery, queryClient, sessionQuery, signOut } from "../api/queries";
import { Avatar } from "../parts/Blocks";
import { Button, Kbd } from "../parts/Button";
import { Logo } from "../parts/Marks";
import { Sparkline } from "../parts/Sparkline";
import { useNow } from "../parts/When";
import { duration, hhmm, short } from "../words/format";
import { roleWord, stageWord } from "../words/words";
import { useKeys } from "./keys";
import { closeOverlay, openHelp, openNav, openPalette, useOverlay } from "./overlays";
import { SchemeItems } from "./SchemeItems";
import { Toasts } from "./toasts";
import "./shell.css";

const Help = lazy(() => import("./Help"));
const Palette = lazy(() => import("./Palette"));

interface Entry {
  to: "/" | "/incidents" | "/devices" | "/rules" | "/quarantine" | "/alerts" | "/operators" | "/system";
  label: string;
  key: string;
  icon: ComponentType<{ className?: string }>;
}

/** Only pages that exist. */
export const entries: { name: string; entries: Entry[] }[] = [
  {
    name: "Watch",
    entries: [
      { to: "/", label: "Overview", key: "o", icon: IconLayoutDashboard },
      { to: "/incidents", label: "Incidents", key: "i", icon: IconAlertTriangle },
      { to: "/devices", label: "Devices", key: "d", icon: IconDevices2 },
    ],
  },
  {
    name: "Respond",
    entries: [
      { to: "/rules", label: "Rules", key: "r", icon: IconListSearch },
      { to: "/quarantine", label: "Quarantine", key: "q", icon: IconCircleDashed },
      { to: "/alerts", label: "Alerts", key: "a", icon: IconBell },
    ],
  },
  {
    name: "Manage",
    entries: [
      { to: "/operators", label: "Operators", key: "u", icon: IconUsers },
      { to: "/system", label: "System", key: "y", icon: IconActivityHeartbeat },
    ],
  },
];

function useCounts(): Record<string, number | undefined> {
  const { data } = useQuery(overviewQuery);
  const pulse = useStatus();
  return {
    "/incidents": pulse?.incidents.open ?? data?.incidents.open,
    "/devices": pulse?.fleet.total ?? data?.fleet.total,
    "/quarantine": (pulse?.quarantined ?? data?.quarantine.active) || undefined,
  };
}

/** What is around every page: navigation, connection, keys, messages. */
export function Shell() {
  const navigate = useNavigate();
  const overlay = useOverlay();
  const path = useRouterState({ select: (s) => s.location.pathname });

  useEffect(() => {
    live.start();
    return () => live.stop();
  }, []);

  useEffect(
    () =>
      onRefusal((error) => {
        if (error.status === 401) {
          queryClient.setQueryData(sessionQuery.queryKey, null);
          void navigate({ to: "/sign-in", search: { next: location.pathname + location.search } });
        } else if (error.code === "password_change_required") {
          void navigate({ to: "/password" });
        }
      }),
    [navigate],
  );

  useEffect(() => closeOverlay(), [path]);

  useKeys("Everywhere", [
    { keys: "mod+k", label: "Search or act", run: openPalette, everywhere: true },
    { keys: "?", label: "Keys of this page", run: openHelp },
    ...entries.flatMap((g) =>
      g.entries.map((e) => ({ keys: `g ${e.key}`, label: `Go to ${e.label}`, run: () => void navigate({ to: e.to }) })),
    ),
  ]);

  return (
    <div className="cd-app">
      <a href="#content" className="cd-skip">
        Skip to content
      </a>
      <Nav />
      <div className="cd-main">
        <NotLive />
        <Outlet />
      </div>
      <BottomBar />
      <Toasts />
      <Suspense>
        {overlay === "help" && <Help />}
        {overlay === "palette" && <Palette />}
      </Suspense>
    </div>
  );
}

function Nav() {
  const counts = useCounts();
  const overlay = useOverlay();
  return (
    <nav className={`cd-nav ${overlay === "nav" ? "cd-nav-open" : ""}`} aria-label="Main">
      <Link to="/" className="cd-brand">
        <Logo size={22} />
        <span className="cd-nav-word">Cordon</span>
      </Link>
      <button type="button" className="cd-find" onClick={openPalette} aria-label="Search or act">
        <IconSearch className="cd-icon" />
        <span className="cd-nav-word cd-sp">Search or act</span>
        <span className="cd-nav-word">
          <Kbd>{/Mac|iPhone|iPad/.test(navigator.userAgent) ? "⌘K" : "Ctrl K"}</Kbd>
        </span>
      </button>
      {entries.map((group) => (
        <div key={group.name} className="cd-nav-group">
          <h2 className="cd-nav-head">{group.name}</h2>
          <ul>
            {group.entries.map(({ to, label, icon: Icon }) => (
              <li key={to}>
                <Link
                  to={to}
                  className="cd-nav-link"
                  activeOptions={{ exact: to === "/", includeSearch: false }}
                  activeProps={{ className: "cd-nav-link cd-nav-on", "aria-current": "page" }}
                  title={label}
                >
                  <Icon className="cd-icon" />
                  <span className="cd-nav-word">{label}</span>
                  {counts[to] !== undefined && (
                    <span className={`cd-nav-count cd-nav-word ${to === "/quarantine" ? "cd-cordon" : ""}`}>
                      {counts[to]?.toLocaleString()}
                    </span>
                  )}
                </Link>
              </li>
            ))}
          </ul>
        </div>
      ))}
      <span className="cd-sp" />
      <Pulse />
      <Me />
    </nav>
  );
}

/** Whether the screen can be trusted: rate, lag and stages. */
function Pulse() {
  const { data } = useQuery(overviewQuery);
  const pulse = useStatus();
  if (!data) return <div className="cd-pulse" aria-hidden="true" />;
  const rate = pulse?.readings_per_second ?? data.ingest.readings_per_second;
  const lag = pulse?.lag_seconds ?? data.ingest.lag_seconds;
  const ill = data.stages.filter((s) => !s.healthy);
  return (
    <Link to="/system" className="cd-pulse" title="Open System">
      <span className="cd-row">
        <b className="cd-num">{short(rate)}</b>
        <span className="cd-2">readings/s</span>
        <span className="cd-sp" />
        <Sparkline values={data.ingest.series.map((p) => p.readings)} width={48} height={14} />
      </span>
      <span className="cd-row">
        <span className="cd-2">Lag {duration(lag * 1000)}</span>
        <span className="cd-sp" />
        <span className={ill.length ? "cd-high cd-b" : "cd-2"}>
          {ill.length === 0
            ? `All ${data.stages.length} stages up`
            : `${stageWord[ill[0]?.stage ?? ""] ?? ill[0]?.stage} needs care`}
        </span>
      </span>
    </Link>
  );
}

function Me() {
  const { data: session } = useQuery(sessionQuery);
  const navigate = useNavigate();
  if (!session) return null;
  return (
    <Menu position="top-start" width={196} shadow="md" radius={8} transitionProps={{ duration: 140 }}>
      <Menu.Target>
        <button type="button" className="cd-me" aria-label={`${session.operator.name}: theme, password, sign out`}>
          <Avatar name={session.operator.name} />
          <span className="cd-nav-word cd-el">{session.operator.name}</span>
          <span className="cd-sp" />
          <IconChevronDown className="cd-icon cd-nav-word" />
        </button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>{roleWord[session.operator.role]}</Menu.Label>
        <SchemeItems />
        <Menu.Divider />
        <Menu.Item onClick={() => void navigate({ to: "/password" })}>Change password…</Menu.Item>
        <Menu.Item
          onClick={async () => {
            await signOut().catch(() => undefined);
            queryClient.clear();
            void navigate({ to: "/sign-in" });
          }}
        >
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

/** Since when the screen is not live and when the next try is made. The data stays. */
function NotLive() {
  const state = useLive();
  if (state.state !== "lost") return null;
  return <NotLiveBar since={state.since ?? 0} retryAt={state.retryAt ?? 0} />;
}

function NotLiveBar({ since, retryAt }: { since: number; retryAt: number }) {
  const now = useNow();
  const left = Math.max(0, Math.ceil((retryAt - now) / 1000));
  return (
    <div className="cd-notlive" role="status">
      <IconAlertTriangle className="cd-icon" />
      <span>
        Not live since {hhmm(new Date(since))}.{" "}
        <span className="cd-2 cd-num" aria-live="off">
          {left > 0 ? `Trying in ${left} s` : "Trying now"}
        </span>
      </span>
      <span className="cd-sp" />
      <Button size="small" onClick={() => live.now()}>
        Now
      </Button>
    </div>
  );
}

function BottomBar() {
  const counts = useCounts();
  const overlay = useOverlay();
  const item = (to: Entry["to"], label: string, icon: ReactNode) => (
    <Link
      to={to}
      activeOptions={{ exact: to === "/", includeSearch: false }}
      activeProps={{ className: "cd-on", "aria-current": "page" }}
    >
      {icon}
      <span>
        {label}
        {counts[to] !== undefined && to !== "/devices" ? ` ${counts[to]}` : ""}
      </span>
    </Link>
  );
  return (
    <nav className="cd-bottom" aria-label="Main, short">
      {item("/", "Overview", <IconLayoutDashboard className="cd-icon" />)}
      {item("/incidents", "Incidents", <IconAlertTriangle className="cd-icon" />)}
      {item("/quarantine", "Quarantine", <IconCircleDashed className="cd-icon" />)}
      <button
        type="button"
        aria-expanded={overlay === "nav"}
        onClick={() => (overlay === "nav" ? closeOverlay() : openNav())}
      >
        <IconDots className="cd-icon" />
        <span>More</span>
      </button>
    </nav>
  );
}
