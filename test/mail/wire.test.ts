/** The wire form of a message: dot-stuffing loses nothing and adds nothing. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toWire, unstuff } from "../../src/mail/wire.ts";

describe("brings text into wire form", () => {
  test.each([
    ["", ""],
    ["a", "a\r\n"],
    ["a\n", "a\r\n"],
    ["a\r\n", "a\r\n"],
    ["a\nb\r\nc", "a\r\nb\r\nc\r\n"],
    ["\n", "\r\n"],
    [".", "..\r\n"],
    [".\r\n", "..\r\n"],
    ["..\n.\n", "...\r\n..\r\n"],
    ["a.b\n", "a.b\r\n"],
    ["a\n.\nQUIT\n", "a\r\n..\r\nQUIT\r\n"], // no end of data in it
    ["ü\n", "ü\r\n"],
  ])("%j", (text, wire) => {
    expect(toWire(text).toString()).toBe(wire);
    expect(toWire(Buffer.from(text)).toString()).toBe(wire);
  });
});

describe("undoes dot-stuffing", () => {
  test.each([
    ["", ""],
    ["..\r\n", ".\r\n"],
    [".a\r\n", "a\r\n"], // RFC 5321 §4.5.2: one dot goes, whatever follows
    ["a\r\n..b\r\n", "a\r\n.b\r\n"],
    ["a\r\n...b\r\n..\r\n", "a\r\n..b\r\n.\r\n"],
    ["a.\r\nb..c\r\n", "a.\r\nb..c\r\n"],
  ])("%j", (wire, text) => {
    expect(unstuff(Buffer.from(wire)).toString()).toBe(text);
  });
});

const line = fc.string({ unit: fc.constantFrom(".", "a", " ", "\t", "ü"), maxLength: 6 });
const text = fc.array(line, { maxLength: 20 }).map((lines) => lines.map((content) => `${content}\r\n`).join(""));

test("what is brought into wire form comes out of it as it was", () => {
  fc.assert(
    fc.property(text, (content) => {
      expect(unstuff(toWire(content)).toString()).toBe(content);
    }),
  );
});

test("no line of the wire form is the end of data", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
      const wire = toWire(Buffer.from(octets)).toString("latin1");
      expect(wire).not.toMatch(/(?:^|\n)\.(?:\r?\n|$)/);
      if (wire !== "") expect(wire.endsWith("\r\n")).toBe(true);
      expect(wire).not.toMatch(/(?<!\r)\n/);
    }),
  );
});
