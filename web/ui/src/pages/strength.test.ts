import { describe, expect, it } from "vitest";
import { safeNext } from "./next";
import { checks, strength } from "./strength";

describe("a password", () => {
  it("must be long, uncommon and not about the operator", () => {
    expect(checks("tidal-ledger-9-heron", "maya").every((c) => c.ok)).toBe(true);
    expect(checks("short", "maya")[0]?.ok).toBe(false);
    expect(checks("password-password", "maya")[1]?.ok).toBe(false);
    expect(checks("abababababababab", "maya")[1]?.ok).toBe(false);
    expect(checks("maya-likes-cordon", "maya")[2]?.ok).toBe(false);
  });
  it("is weak when it is short or a run, strong when it is long", () => {
    expect(strength("abc").word).toBe("Weak");
    expect(strength("abcdefghijklmnop").score).toBeLessThan(3);
    expect(strength("tidal-ledger-9-heron").score).toBeGreaterThanOrEqual(4);
  });
});

describe("the way back after sign-in", () => {
  it("stays inside the dashboard", () => {
    expect(safeNext("/incidents?view=mine")).toBe("/incidents?view=mine");
    for (const evil of ["https://evil.example", "//evil.example", "/\\evil.example", undefined]) {
      expect(safeNext(evil)).toBe("/");
    }
  });
});
