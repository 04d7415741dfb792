import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ContentScanner } from "../../src/receiver/content-scanner.ts";

/** Scans `wire`, cut at the given places, and puts the result together. */
function scan(wire: Buffer, cuts: readonly number[]) {
  const scanner = new ContentScanner();
  const places = [...new Set(cuts)].filter((place) => place > 0 && place < wire.length).toSorted((a, b) => a - b);
  const content: Buffer[] = [];
  let from = 0;
  for (const to of [...places, wire.length]) {
    const result = scanner.scan(wire.subarray(from, to));
    content.push(...result.content);
    from = to;
    if (result.rest !== undefined) {
      const rest = Buffer.concat([result.rest, wire.subarray(to)]);
      return {
        ended: true,
        content: Buffer.concat(content).toString("latin1"),
        rest: rest.toString("latin1"),
        scanner,
      };
    }
  }
  return { ended: false, content: Buffer.concat(content).toString("latin1"), rest: "", scanner };
}

/** The slow, obvious reading of RFC 5321 §4.1.1.4, to compare with. */
function model(wire: string) {
  const end = wire.startsWith(".\r\n") ? 0 : wire.indexOf("\r\n.\r\n") + 2;
  const ended = wire.startsWith(".\r\n") || wire.includes("\r\n.\r\n");
  const content = ended ? wire.slice(0, end) : undefined;
  const lines = (content ?? "").replaceAll(/(^|\r\n)\./g, "$1");
  const malformed = content !== undefined && /\r(?!\n)|(?<!\r)\n|\0/.test(content);
  return { ended, content, rest: ended ? wire.slice(end + 3) : "", sizeBytes: lines.length, malformed };
}

const everyCut = (wire: string) => Array.from({ length: wire.length }, (_, place) => [place]);

describe("the end of data", () => {
  const rows: Array<[name: string, wire: string, content: string, rest: string]> = [
    ["an empty message", ".\r\nRSET\r\n", "", "RSET\r\n"],
    ["one line", "a\r\n.\r\n", "a\r\n", ""],
    ["a doubled dot stays", "..\r\n.\r\n", "..\r\n", ""],
    ["a doubled dot before the end", "..\r\n..\r\n.\r\nQUIT\r\n", "..\r\n..\r\n", "QUIT\r\n"],
    ["a line that only begins with a dot", ".a\r\n.\r\n", ".a\r\n", ""],
    ["pipelined commands behind it", "a\r\n.\r\nMAIL FROM:<>\r\n", "a\r\n", "MAIL FROM:<>\r\n"],
    ["an 8-bit line", "\xe4\r\n.\r\n", "\xe4\r\n", ""],
  ];
  it.each(rows)("is found behind %s, wherever the octets are split", (_name, wire, content, rest) => {
    for (const cuts of [[], ...everyCut(wire), Array.from({ length: wire.length }, (_, place) => place)]) {
      const result = scan(Buffer.from(wire, "latin1"), cuts);
      expect(result).toMatchObject({ ended: true, content, rest });
      expect(result.scanner.malformed).toBe(false);
    }
  });

  const smuggled: Array<[name: string, wire: string]> = [
    ["LF . LF", "a\n.\nMAIL FROM:<x@y>\r\n"],
    ["LF . CRLF", "a\n.\r\nMAIL FROM:<x@y>\r\n"],
    ["CRLF . LF", "a\r\n.\nMAIL FROM:<x@y>\r\n"],
    ["CR . CR", "a\r.\rMAIL FROM:<x@y>\r\n"],
    ["CRLF . CR", "a\r\n.\rMAIL FROM:<x@y>\r\n"],
    ["CR LF . CR CR LF", "a\r\n.\r\r\nMAIL FROM:<x@y>\r\n"],
    ["LF CR . CRLF", "a\n\r.\r\nb\r\n"],
    ["NUL", "a\0b\r\n"],
  ];
  it.each(smuggled)("is not %s, and the message is noted as malformed", (_name, wire) => {
    for (const cuts of [[], ...everyCut(wire), Array.from({ length: wire.length }, (_, place) => place)]) {
      expect(scan(Buffer.from(wire, "latin1"), cuts).ended).toBe(false);
      const whole = scan(Buffer.from(`${wire}\r\n.\r\nQUIT\r\n`, "latin1"), cuts);
      expect(whole).toMatchObject({ ended: true, content: `${wire}\r\n`, rest: "QUIT\r\n" });
      expect(whole.scanner.malformed).toBe(true);
    }
  });

  it("is where the standard says, for any octets in any split", () => {
    const octets = fc.string({
      unit: fc.constantFrom("\r", "\n", ".", "a", "\0", "\r\n", "\r\n.", "\r\n.\r\n"),
      maxLength: 40,
    });
    fc.assert(
      fc.property(octets, fc.array(fc.nat(80), { maxLength: 12 }), (wire, cuts) => {
        const expected = model(wire);
        const result = scan(Buffer.from(wire, "latin1"), cuts);
        expect(result.ended).toBe(expected.ended);
        if (!expected.ended) return;
        expect(result.content).toBe(expected.content);
        expect(result.rest).toBe(expected.rest);
        expect(result.scanner.sizeBytes).toBe(expected.sizeBytes);
        expect(result.scanner.malformed).toBe(expected.malformed);
      }),
      { numRuns: 5000 },
    );
  });

  it.each(["\n", "\r", "..\r\n", "\r\n.\r", "\r\n", "x"])(
    "looks at no octet more than three times, in a flood of %j too",
    (unit) => {
      // Counted, not timed: what is looked at again and again, or searched for in vain, is a way to make us work.
      const piece = Buffer.from(unit.repeat(Math.ceil(65_536 / unit.length)));
      let looks = 0;
      const counting = new Proxy(piece, {
        get(target, key) {
          if (typeof key === "string" && /^\d+$/.test(key)) looks += 1;
          if (key === "indexOf" || key === "includes") throw new Error("a search, which may look at all of it");
          const value: unknown = Reflect.get(target, key, target);
          return typeof value === "function" ? (value.bind(target) as unknown) : value;
        },
      });
      new ContentScanner().scan(counting);
      expect(looks).toBeLessThanOrEqual(3 * piece.length);
    },
  );
});
