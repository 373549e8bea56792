import { IconHelpCircle } from "@tabler/icons-react";
import { Link, type LinkProps } from "@tanstack/react-router";
import { type ReactNode, useEffect } from "react";
import { useLive } from "../api/live";
import { Button } from "../parts/Button";
import { openHelp } from "./overlays";

/** The top bar and the body of a page. One sentence, one scroller. */
export function Page({
  title,
  documentTitle,
  crumb,
  beside,
  actions,
  children,
  fill,
  foot,
}: {
  title: ReactNode;
  documentTitle: string;
  /** The list this page belongs to. */
  crumb?: { label: string; to: LinkProps["to"] };
  beside?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
  /** The children scroll themselves (lists). */
  fill?: boolean;
  /** A sticky bar at the bottom on phones. */
  foot?: ReactNode;
}) {
  useEffect(() => {
    document.title = `${documentTitle} · Cordon`;
  }, [documentTitle]);
  return (
    <main className="cd-page">
      <header className="cd-top">
        {crumb && (
          <>
            <Link to={crumb.to} className="cd-2 cd-hover cd-crumb">
              {crumb.label}
            </Link>
            <span className="cd-3 cd-crumb" aria-hidden="true">
              /
            </span>
          </>
        )}
        <h1>{title}</h1>
        <LiveMark />
        {beside}
        <span className="cd-sp" />
        <div className="cd-top-acts">{actions}</div>
        <Button
          kind="quiet"
          icon={<IconHelpCircle className="cd-icon" />}
          aria-label="Keys of this page"
          onClick={openHelp}
        />
      </header>
      <div className={fill ? "cd-body cd-body-fill" : "cd-body"} id="content" tabIndex={fill ? -1 : 0}>
        {fill ? children : <div className="cd-body-in">{children}</div>}
      </div>
      {foot && <div className="cd-foot">{foot}</div>}
    </main>
  );
}

function LiveMark() {
  const { state } = useLive();
  const word = { live: "Live", connecting: "Connecting", lost: "Not live" }[state];
  return (
    <span className={`cd-live cd-live-${state}`} role="status">
      <i aria-hidden="true" />
      {word}
    </span>
  );
}
