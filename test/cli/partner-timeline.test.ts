/** Pins on one line of time: what is drawn, and that it stays within 80 columns. */
import { describe, expect, it } from "vitest";
import { drawTimeline, type TimelineBar } from "../../src/cli/partner-timeline.ts";

const now = new Date("2027-01-01T12:00:00Z");
const day = (text: string): Date => new Date(`${text}T12:00:00Z`);
const bar = (different: Partial<TimelineBar>): TimelineBar => ({
  title: "'2026'",
  state: "active",
  from: undefined,
  to: undefined,
  firstSeen: undefined,
  lastSeen: undefined,
  retires: undefined,
  ...different,
});

describe("drawTimeline", () => {
  it("draws each pin from its beginning to its end, with what was seen, and where now is", () => {
    const old = bar({
      from: day("2026-01-01"),
      to: day("2027-02-15"),
      lastSeen: day("2026-12-28"),
      retires: day("2027-01-12"),
    });
    const next = bar({
      title: "'2027'",
      state: "next",
      from: day("2026-12-01"),
      to: day("2028-01-01"),
      firstSeen: day("2026-12-22"),
    });
    expect(drawTimeline([old, next], now)).toBe(
      [
        "                                 2026-01-01                           2028-01-01",
        "  '2026'                active   ╞══════════════════════LR┄╡",
        "  '2027'                next                          ╞F═══════════════════════╡",
        "                                                        ▲ now, 2027-01-01",
        "  F first seen, L last seen, R retires; ═ counts, ┄ does not; ◄ ► goes on",
        "",
      ].join("\n"),
    );
  });

  it.each<{ what: string; different: Partial<TimelineBar>; drawn: RegExp }>([
    { what: "a pin without dates", different: {}, drawn: /active {3}◄═{45}►$/m },
    { what: "a pin that is not confirmed", different: { state: "pending" }, drawn: /pending {2}◄┄{45}►$/m },
    { what: "a revoked pin", different: { state: "revoked" }, drawn: /revoked {2}◄┄{45}►$/m },
    { what: "an end in a hundred years", different: { to: day("2126-01-01") }, drawn: /═►$/m },
    { what: "a beginning long ago", different: { from: day("1999-01-01") }, drawn: /active {3}◄═/m },
    {
      what: "a certificate of long ago",
      different: { from: day("1999-01-01"), to: day("2001-01-01") },
      drawn: /active/,
    },
    { what: "one that is to come", different: { from: day("2031-01-01") }, drawn: /active/ },
    { what: "a name that is too long", different: { title: "x".repeat(200) }, drawn: /^ {2}x{20}… active/m },
    { what: "a name that would steer the terminal", different: { title: "\u001b[2J" }, drawn: /^ {2}\\u\{1b\}\[2J/m },
    { what: "a wide name", different: { title: "鍵".repeat(20) }, drawn: /^ {2}鍵{10}… active/m },
  ])("stays within 80 columns with $what", ({ different, drawn }) => {
    const text = drawTimeline([bar(different)], now);
    expect(text).toMatch(drawn);
    expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  it("writes now on the left where there is no room on the right", () => {
    const past = bar({ from: day("2026-01-01"), to: day("2026-06-01") });
    expect(drawTimeline([past], now)).toMatch(/now, 2027-01-01 ▲$/m);
  });
});
