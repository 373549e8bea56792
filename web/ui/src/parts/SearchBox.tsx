import { IconSearch } from "@tabler/icons-react";
import { useEffect, useRef, useState } from "react";
import { useKeys } from "../shell/keys";
import { Kbd } from "./Button";
import "./datalist.css";

/** The search of a list; "/" goes there, Esc leaves and then clears it. */
export function SearchBox({
  label,
  value,
  onChange,
  wide,
}: {
  label: string;
  value: string;
  onChange: (value: string) => void;
  wide?: boolean;
}) {
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => setText(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  useKeys("This page", [{ keys: "/", label: "Search here", run: () => input.current?.focus() }]);
  return (
    <search className="cd-search">
      <IconSearch className="cd-icon" aria-hidden="true" />
      <input
        ref={input}
        type="text"
        aria-label={label}
        placeholder={label}
        value={text}
        style={wide ? { width: 280 } : undefined}
        onChange={(e) => {
          const next = e.target.value;
          setText(next);
          clearTimeout(timer.current);
          timer.current = setTimeout(() => onChange(next.trim()), 160);
        }}
        onKeyDown={(e) => {
          if (e.key !== "Escape") return;
          e.stopPropagation();
          if (text) {
            setText("");
            onChange("");
          } else input.current?.blur();
        }}
      />
      <Kbd>/</Kbd>
    </search>
  );
}
