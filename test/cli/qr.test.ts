/** QR codes on the terminal: what is drawn is the code, dark on light, with the margin that cameras need. */
import { describe, expect, it } from "vitest";
import { qrModules, qrText } from "../../src/cli/qr.ts";

const text = "sha256/n6ihd5yEzgqYBDoWNFyUKjXTfEufz7vQEX52WoG7/n4=";

/** Black on white, and back to what was. */
const [black, reset] = ["\u001b[30;107m", "\u001b[0m"];

/** The modules that a terminal shows: two rows for each row of half blocks. */
function shownModules(drawn: string): boolean[][] {
  return drawn
    .trimEnd()
    .split("\n")
    .flatMap((row) => {
      const cells = Array.from(row.slice(black.length, -reset.length));
      expect(row).toBe(`${black}${cells.join("")}${reset}`);
      expect(new Set(cells).difference(new Set("█▀▄ "))).toEqual(new Set());
      return [cells.map((cell) => cell === "█" || cell === "▀"), cells.map((cell) => cell === "█" || cell === "▄")];
    });
}

describe("qrText", () => {
  it("draws every module of the code", () => {
    const modules = qrModules(text);
    const shown = shownModules(qrText(text));
    expect(shown.slice(0, modules.length)).toEqual(modules);
    // An odd number of rows leaves half a row below, which belongs to the margin.
    expect(shown.slice(modules.length).flat()).not.toContain(true);
  });

  it("leaves four light modules on all sides", () => {
    const modules = shownModules(qrText(text));
    const dark = modules.flatMap((row, y) => row.flatMap((isDark, x) => (isDark ? [{ x, y }] : [])));
    expect(Math.min(...dark.map(({ x }) => x))).toBe(4);
    expect(Math.min(...dark.map(({ y }) => y))).toBe(4);
    expect(Math.max(...dark.map(({ x }) => x))).toBe((modules[0]?.length ?? 0) - 5);
  });

  it("has the three patterns by which a camera finds it", () => {
    const modules = qrModules(text);
    const size = modules.length;
    const ring = (x: number, y: number): boolean => {
      const distance = Math.max(Math.abs(x - 3), Math.abs(y - 3));
      return distance <= 1 || distance === 3;
    };
    const at = (left: number, top: number) =>
      Array.from({ length: 49 }, (_, index) => modules[top + Math.floor(index / 7)]?.[left + (index % 7)]);
    const pattern = Array.from({ length: 49 }, (_, index) => ring(index % 7, Math.floor(index / 7)));
    expect(at(4, 4)).toEqual(pattern);
    expect(at(size - 11, 4)).toEqual(pattern);
    expect(at(4, size - 11)).toEqual(pattern);
  });

  it("fits on a terminal of 80 columns and 24 lines", () => {
    const rows = qrText(text).trimEnd().split("\n");
    expect(rows.length).toBeLessThanOrEqual(24);
    expect(shownModules(qrText(text))[0]?.length).toBeLessThanOrEqual(80);
  });

  it("refuses what no code can hold", () => {
    expect(() => qrText("x".repeat(3000))).toThrow();
  });
});
