import { render, screen } from "@testing-library/react";
import { describe, expect, it } from "vitest";
import { QuarantineChip, quarantineName, SeverityMark, StateGlyph } from "./Marks";

describe("marks", () => {
  it("name their severity and draw as many bars", () => {
    render(<SeverityMark severity="medium" />);
    const mark = screen.getByRole("img", { name: "Medium" });
    const filled = [...mark.querySelectorAll("rect")].filter((r) => r.getAttribute("fill")?.includes("medium"));
    expect(filled).toHaveLength(2);
  });
  it("draw critical as a block with four bars", () => {
    render(<SeverityMark severity="critical" />);
    expect(screen.getByRole("img", { name: "Critical" }).querySelectorAll("rect")).toHaveLength(5);
  });
  it("draw each state differently", () => {
    const states = ["requested", "applied", "confirmed", "released", "expired", "failed"] as const;
    const drawn = states.map((state) => {
      const { container } = render(<StateGlyph state={state} />);
      return container.innerHTML;
    });
    expect(new Set(drawn).size).toBe(states.length);
  });
  it("say the level only once it is confirmed", () => {
    expect(quarantineName("isolate", "applied")).toBe("Applied");
    render(<QuarantineChip level="isolate" state="confirmed" />);
    expect(screen.getByText("Isolated")).toBeTruthy();
  });
});
