import { useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, type ReactNode, useEffect, useId, useRef } from "react";
import "./datalist.css";

export interface Column<T> {
  key: string;
  head: ReactNode;
  /** A grid track: "1fr", "96px", "minmax(0, 2fr)". */
  width: string;
  cell: (row: T) => ReactNode;
  right?: boolean;
}

interface Props<T> {
  name: string;
  rows: readonly T[];
  total: number;
  columns: readonly Column<T>[];
  rowKey: (row: T) => string;
  /** Two lines instead of columns, for narrow screens. */
  narrow?: (row: T) => ReactNode;
  rowHeight?: number;
  /** The row that the keyboard is on. */
  focus: number;
  onFocus: (index: number) => void;
  /** A click or Space on a row. */
  onPick: (row: T, index: number) => void;
  /** Enter or a double click. */
  onOpen?: (row: T) => void;
  picked?: string;
  onEnd?: () => void;
  rowClass?: (row: T) => string;
  onKey?: (event: KeyboardEvent, row: T | undefined) => void;
}

/** A list of any length: only the rows in view are in the document. One stop for Tab; arrows move inside. */
export function DataList<T>(props: Props<T>) {
  const { rows, columns, narrow, focus, total } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const id = useId();
  const height = narrow ? 60 : (props.rowHeight ?? 34);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => height,
    overscan: 8,
    getItemKey: (i) => {
      const row = rows[i];
      return row === undefined ? i : props.rowKey(row);
    },
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  const { onEnd } = props;

  useEffect(() => {
    virtual.measure();
  }, [virtual, height]);

  useEffect(() => {
    if (onEnd && rows.length > 0 && rows.length < total && last >= rows.length - 20) onEnd();
  }, [last, rows.length, total, onEnd]);

  useEffect(() => {
    if (focus >= 0 && focus < rows.length) virtual.scrollToIndex(focus, { align: "auto" });
  }, [focus, rows.length, virtual]);

  const template = columns.map((c) => c.width).join(" ");
  const active = rows[focus];
  return (
    <div
      className="cd-list"
      ref={scroller}
      role="grid"
      tabIndex={0}
      aria-label={props.name}
      aria-rowcount={total + 1}
      aria-activedescendant={
        active !== undefined && items.some((i) => i.index === focus) ? `${id}-${focus}` : undefined
      }
      onKeyDown={(e) => {
        if (e.target !== e.currentTarget) return;
        const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12, Home: -rows.length, End: rows.length }[
          e.key
        ];
        if (step !== undefined) {
          e.preventDefault();
          props.onFocus(Math.max(0, Math.min(rows.length - 1, focus + step)));
          return;
        }
        props.onKey?.(e, active);
      }}
    >
      {!narrow && (
        <div className="cd-list-head" role="row" aria-rowindex={1} style={{ gridTemplateColumns: template }}>
          {columns.map((c) => (
            <div key={c.key} role="columnheader" className={c.right ? "cd-r" : ""}>
              {c.head}
            </div>
          ))}
        </div>
      )}
      <div className="cd-list-rows" role="rowgroup" style={{ height: virtual.getTotalSize() }}>
        {items.map((item) => {
          const row = rows[item.index];
          if (row === undefined) return null;
          const key = props.rowKey(row);
          const on = item.index === focus;
          return (
            // biome-ignore lint/a11y/useKeyWithClickEvents: the grid has the keys
            <div
              key={item.key}
              id={`${id}-${item.index}`}
              role="row"
              aria-rowindex={item.index + 2}
              aria-selected={props.picked === key}
              className={`cd-list-row ${narrow ? "cd-list-narrow" : ""} ${on ? "cd-list-on" : ""} ${props.picked === key ? "cd-list-picked" : ""} ${props.rowClass?.(row) ?? ""}`}
              style={{
                transform: `translateY(${item.start}px)`,
                height,
                gridTemplateColumns: narrow ? undefined : template,
              }}
              onClick={(e) => {
                if ((e.target as HTMLElement).closest("a,button,input")) return;
                props.onFocus(item.index);
                props.onPick(row, item.index);
              }}
              onDoubleClick={() => props.onOpen?.(row)}
            >
              {narrow ? (
                <div role="gridcell" className="cd-list-two">
                  {narrow(row)}
                </div>
              ) : (
                columns.map((c) => (
                  <div key={c.key} role="gridcell" className={`cd-el ${c.right ? "cd-r cd-num" : ""}`}>
                    {c.cell(row)}
                  </div>
                ))
              )}
            </div>
          );
        })}
      </div>
    </div>
  );
}
