import { describe, expect, it } from "vitest";
import { age, duration, figure, isTime, metricName, quantity, range, short, took, unitOf, unixMs } from "./format";

const plain = (text: string) => text.replace(/[\u202f\u00a0]/g, " ");

describe("numbers", () => {
  it("keep three significant digits", () => {
    expect(figure(0)).toBe("0");
    expect(figure(36.123)).toBe("36.1");
    expect(figure(0.012345)).toBe("0.0123");
    expect(figure(1234.5)).toBe("1,235");
  });
  it("are short where room is short", () => {
    expect(plain(short(41_200))).toBe("41.2 k");
    expect(plain(short(3_400_000))).toBe("3.4 M");
    expect(short(283)).toBe("283");
  });
  it("carry their unit in a fitting scale", () => {
    expect(plain(quantity(36_100_000, "By/min"))).toBe("36.1 MB/min");
    expect(plain(quantity(61.2, "Cel"))).toBe("61.2 °C");
    expect(plain(quantity(43, "1"))).toBe("43");
  });
  it("give both ends of a range one unit", () => {
    expect(plain(range(165_096, 592_990, "By/s"))).toBe("165 to 593 kB/s");
    expect(plain(range(3, 3, "%"))).toBe("3 %");
  });
  it("know what a plain rate of bytes is", () => {
    expect(unitOf("net_bytes_out_per_second", "1/s")).toBe("By/s");
    expect(unitOf("net_packets_out_per_second", "1/s")).toBe("packets/s");
    expect(unitOf("requests_per_second", "1/s")).toBe("1/s");
  });
});

describe("times", () => {
  it("say an age shortly", () => {
    const now = Date.UTC(2026, 10, 24, 14, 32);
    const ago = (ms: number) => plain(age(new Date(now - ms), now));
    expect(ago(500)).toBe("now");
    expect(ago(18 * 60_000)).toBe("18 min");
    expect(ago(242 * 60_000)).toBe("4 h 02");
    expect(ago(9 * 3_600_000)).toBe("9 h");
    expect(ago(-3_600_000)).toBe("in 1 h");
  });
  it("say a length in two parts at most", () => {
    expect(plain(duration(194 * 60_000))).toBe("3 h 14 min");
    expect(plain(duration(12_000))).toBe("12 s");
    expect(plain(duration(71 * 86_400_000))).toBe("2 months");
  });
  it("keep the fractions of a millisecond that Go writes", () => {
    const cut = unixMs("2026-11-24T22:43:21.212993Z") - unixMs("2026-11-24T22:43:21.212093Z");
    expect(cut).toBeCloseTo(0.9, 3);
    expect(plain(took(0.93))).toBe("0.9 ms");
    expect(plain(took(434))).toBe("434 ms");
  });
  it("do not take year 1 for a time", () => {
    expect(isTime("0001-01-01T00:00:00Z")).toBe(false);
    expect(isTime(undefined)).toBe(false);
    expect(isTime("2026-11-24T00:00:00Z")).toBe(true);
  });
});

describe("metrics", () => {
  it("have names", () => {
    expect(metricName("cpu_temp_celsius")).toBe("CPU temperature");
    expect(metricName("net_bytes_out_per_second")).toBe("Network bytes out");
  });
});
