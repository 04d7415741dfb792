import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromMailboxes } from "../../src/mail/from-field.ts";

function addresses(body: string): string[] | undefined {
  return fromMailboxes(Buffer.from(body, "utf8").toString("latin1"))?.map(({ address }) => address);
}

describe("the mailboxes of a From field", () => {
  it.each([
    ["a@acme.example", ["a@acme.example"]],
    ["<a@acme.example>", ["a@acme.example"]],
    ["Anna Buyer <a@acme.example>", ["a@acme.example"]],
    ['"Buyer, Anna" <a@acme.example>', ["a@acme.example"]],
    ['"Anna \\"the\\" <x@y.example>" <a@acme.example>', ["a@acme.example"]],
    ["a@acme.example (Anna)", ["a@acme.example"]],
    ["(Anna (from sales)) a@acme.example", ["a@acme.example"]],
    ["Anna <a@acme.example>, Bert <b@acme.example> (away)", ["a@acme.example", "b@acme.example"]],
    ['"a b"@acme.example', ['"a b"@acme.example']],
    ['Anna <"a>b"@acme.example>', ['"a>b"@acme.example']],
    ["=?utf-8?q?Anna?= <a@acme.example>", ["a@acme.example"]],
    ["Jürgen <jürgen@bücher.example>", ["jürgen@bücher.example"]],
    ["M. Buyer <a@acme.example>", ["a@acme.example"]],
  ])("of %s are told", (body, mailboxes) => {
    expect(addresses(body)).toEqual(mailboxes);
  });

  it.each([
    "",
    "Anna",
    "Anna <>",
    "<a@acme.example",
    "Anna a@acme.example>",
    "<a@acme.example> <b@corp.example>",
    "<a@acme.example> b@corp.example",
    "ceo@corp.example <a@acme.example>",
    "<a@acme.example>,",
    "a@acme.example b@corp.example",
    "team: a@acme.example;",
    "<@relay.example:a@acme.example>",
    '"Anna <a@acme.example>',
    "(Anna <a@acme.example>",
    "a@acme.example (Anna",
    `${"(".repeat(20)}${")".repeat(20)}a@acme.example`,
    "a@[192.0.2.1]",
    "a(x)@acme.example(y) b",
    "a@acme.example\u0000",
    "Anna <a@acme.example\\>",
  ])("of %j cannot be told", (body) => {
    expect(addresses(body)).toBeUndefined();
  });

  it("are told of whatever stands in the field, without failing, and in linear time", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...'a@.<>,"\\() :;é\u0000'.split("")), maxLength: 200 }),
        (body) => {
          addresses(body);
        },
      ),
      { numRuns: 2000 },
    );
    for (const piece of ["(", '"', "<", ",", "\\", 'a"', "()", "<a@b.example>,"]) addresses(piece.repeat(100_000));
  });
});
