/** The header walker: every octet belongs to one field, nothing hides a field, and hostile input costs linear time. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fieldBody, headerFields } from "../../src/mail/header.ts";

function walk(text: string): Array<[name: string, body: string]> {
  const block = Buffer.from(text, "latin1");
  return headerFields(block).map((field) => [field.name, fieldBody(block, field)]);
}

describe("lists fields by name and unfolded body", () => {
  test.each<[string, Array<[string, string]>]>([
    ["", []],
    ["Subject: hello\r\n", [["subject", "hello"]]],
    ["Subject:hello\r\n", [["subject", "hello"]]],
    ["Subject:\r\n", [["subject", ""]]],
    ["SUBJECT \t: hello  \r\n", [["subject", "hello"]]], // RFC 5322 §4.5: white space before the colon
    [
      "A: 1\r\nB: 2\r\nA: 3\r\n",
      [
        ["a", "1"],
        ["b", "2"],
        ["a", "3"],
      ],
    ],
    [
      "A: 1\r\n 2\r\n\t3\r\nB: x\r\n",
      [
        ["a", "1 2\t3"],
        ["b", "x"],
      ],
    ],
    ["A:\r\n 1\r\n", [["a", "1"]]],
    ["A: 1\r\n \r\n 2\r\n", [["a", "1  2"]]], // a line of white space folds, it does not end the header
    ["A: b: c\r\n", [["a", "b: c"]]],
    ["A: 1", [["a", "1"]]],
    [
      "A: 1\nB: 2\n",
      [
        ["a", "1"],
        ["b", "2"],
      ],
    ],
    ["A: caf\xe9\r\n", [["a", "caf\xe9"]]],
    ["A: 1\r\n\r\nB: body\r\n", [["a", "1"]]], // the empty line ends it
    ["\r\nB: body\r\n", []],
  ])("%j", (block, fields) => {
    expect(walk(block)).toEqual(fields);
  });
});

describe("gives no name to what is no field", () => {
  test.each<[string, Array<[string, string]>]>([
    ["no colon here\r\n", [["", "no colon here"]]],
    [": no name\r\n", [["", ": no name"]]],
    ["two words: x\r\n", [["", "two words: x"]]],
    ["N\xe4me: x\r\n", [["", "N\xe4me: x"]]],
    ["Na\x00me: x\r\n", [["", "Na\x00me: x"]]],
    [" folded: nothing above\r\n", [["", "folded: nothing above"]]],
    [
      "From sender Tue Nov 24 03:00:00 2026\r\nA: 1\r\n",
      [
        ["", "From sender Tue Nov 24 03:00:00 2026"],
        ["a", "1"],
      ],
    ],
    ["Name\r\n : x\r\n", [["", "Name : x"]]],
    [
      "A: 1\r\njunk\r\n more junk\r\nB: 2\r\n",
      [
        ["a", "1"],
        ["", "junk more junk"],
        ["b", "2"],
      ],
    ],
  ])("%j", (block, fields) => {
    expect(walk(block)).toEqual(fields);
  });
});

describe("reads lines as the next server will, which drops a leading dot (RFC 5321 §4.5.2)", () => {
  test.each<[string, Array<[string, string]>]>([
    [".Received: x\r\n", [["received", "x"]]],
    ["..Received: x\r\n", [[".received", "x"]]],
    ["A: 1\r\n. 2\r\n", [["a", "1 2"]]],
    ["A: 1\r\n.\tB: 2\r\n", [["a", "1\tB: 2"]]],
    [
      "A: 1\r\n..\r\nB: 2\r\n",
      [
        ["a", "1"],
        ["", "."],
        ["b", "2"],
      ],
    ],
  ])("%j", (block, fields) => {
    expect(walk(block)).toEqual(fields);
  });
});

test("is total: fields follow one another without gaps, whatever the octets", () => {
  const octet = fc.oneof(fc.constantFrom(...Buffer.from("\r\n \t:.aA").values()), fc.nat(255));
  fc.assert(
    fc.property(fc.array(octet, { maxLength: 300 }), (octets) => {
      const block = Buffer.from(octets);
      const fields = headerFields(block);
      let at = 0;
      for (const field of fields) {
        expect(field.start).toBe(at);
        expect(field.end).toBeGreaterThan(field.start);
        expect(fieldBody(block, field)).not.toMatch(/\n/);
        at = field.end;
      }
      expect(["", "\n", "\r\n"]).toContain(/^(?:\r?\n)?/.exec(block.toString("latin1", at))?.[0]);
      if (at < block.length) expect(block.toString("latin1", at)).toMatch(/^\r?\n|^\r$/);
    }),
    { numRuns: 1000 },
  );
});

describe("stays linear", () => {
  const mebibyte = 1024 * 1024;
  test.each([
    ["colons", ":".repeat(mebibyte)],
    ["letters without an end of line", "a".repeat(mebibyte)],
    ["spaces", `A:${" ".repeat(mebibyte)}b`],
    ["lines without a colon", "a\r\n".repeat(mebibyte / 3)],
    ["fields", "a:b\r\n".repeat(100_000)],
    ["folds", `A:${"\r\n ".repeat(mebibyte / 3)}`],
    ["line ends", "\n".repeat(mebibyte)],
    ["carriage returns", "\r".repeat(mebibyte)],
    ["dots", ".\r\n".repeat(mebibyte / 3)],
  ])("on a mebibyte of %s", (_, text) => {
    const block = Buffer.from(text);
    const startMs = performance.now();
    for (const field of headerFields(block)) fieldBody(block, field);
    // Quadratic time would take minutes; the limit leaves room for a slow machine.
    expect(performance.now() - startMs).toBeLessThan(5_000);
  });
});
