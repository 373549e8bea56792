import { Fragment, type ReactNode } from "react";

/** Device ids, addresses and paths in a sentence are set in mono. */
export function Sentence({
  text,
  ids = [],
  className = "cd-sentence cd-sentence-full",
}: {
  text: string;
  ids?: readonly string[];
  className?: string;
}) {
  return <p className={className}>{withIds(text, ids)}</p>;
}

export function withIds(text: string, ids: readonly string[]): ReactNode {
  const known = ids.filter(Boolean).map((id) => id.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (known.length === 0) return text;
  const parts = text.split(new RegExp(`(${known.join("|")})`, "g"));
  return parts.map((part, i) =>
    i % 2 === 1 ? (
      <span key={i} className="cd-mono">
        {part}
      </span>
    ) : (
      <Fragment key={i}>{part}</Fragment>
    ),
  );
}
