/** Mailboxes and paths: what is outside the grammar is refused, what is inside has one meaning. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  isPostmaster,
  mailboxKey,
  parseForwardPath,
  parseMailbox,
  parseReversePath,
  pathText,
  type AddressFault,
  type Mailbox,
} from "../../src/mail/address.ts";

function mailbox(text: string): Mailbox {
  const parsed = parseMailbox(text, true);
  if (parsed.kind === "fault") throw new Error(`${text}: ${parsed.fault}`);
  return parsed.value;
}

const longest = `${"l".repeat(64)}@${"d".repeat(60)}.${"d".repeat(60)}.${"d".repeat(60)}.ex`;

describe("reads a mailbox", () => {
  test.each([
    ["orders@corp.example", "orders", "corp.example"],
    ["Orders@Corp.Example", "Orders", "corp.example"],
    ["o'brien+tag=x@corp.example", "o'brien+tag=x", "corp.example"],
    ["first.last@corp.example.", "first.last", "corp.example"],
    ['"first last"@corp.example', "first last", "corp.example"],
    ['"a\\"b\\\\c"@corp.example', 'a"b\\c', "corp.example"],
    ['"a@b"@corp.example', "a@b", "corp.example"],
    ["jörg@bücher.example", "jörg", "xn--bcher-kva.example"],
    [longest, "l".repeat(64), longest.slice(65)],
  ])("%j", (text, localPart, domain) => {
    expect(mailbox(text)).toMatchObject({ localPart, domain });
  });

  test("sends the local part on as it was written, and the domain without its trailing dot", () => {
    expect(mailbox('"a\\b"@Corp.Example.').address).toBe('"a\\b"@Corp.Example');
  });

  test("knows which addresses need SMTPUTF8", () => {
    expect(mailbox("a@xn--bcher-kva.example").internationalized).toBe(false);
    expect(mailbox("a@bücher.example").internationalized).toBe(true);
    expect(mailbox("ä@corp.example").internationalized).toBe(true);
  });
});

describe("refuses what is no mailbox", () => {
  test.each<[string, AddressFault]>([
    ["", "syntax"],
    ["orders", "syntax"],
    ["@corp.example", "syntax"],
    ["orders@", "domain"],
    ["a@b@corp.example", "syntax"],
    [".a@corp.example", "syntax"],
    ["a.@corp.example", "syntax"],
    ["a..b@corp.example", "syntax"],
    ["a b@corp.example", "syntax"],
    ["a(comment)@corp.example", "syntax"],
    ["a,b@corp.example", "syntax"],
    ["<a@corp.example>", "syntax"],
    ["a\\b@corp.example", "syntax"],
    ['"a@corp.example', "syntax"],
    ['"a"b@corp.example', "syntax"],
    ['a"b"@corp.example', "syntax"],
    ['""@corp.example', "syntax"],
    ['"a\\"@corp.example', "syntax"],
    ['"a\\ü"@corp.example', "syntax"], // a quoted-pair is ASCII (RFC 5321 §4.1.2)
    ["a@corp.example\r\nRCPT TO:<b@c.example>", "syntax"],
    ['"a\r\nb"@corp.example', "syntax"],
    ["a\0@corp.example", "syntax"],
    ["a\u0085@corp.example", "syntax"],
    ["a\u200bb@corp.example", "syntax"], // zero width space
    ["a\u202eb@corp.example", "syntax"], // right-to-left override
    ["a\u00a0b@corp.example", "syntax"], // no-break space
    ["a\ufe0fb@corp.example", "syntax"], // variation selector
    ["a\u3164b@corp.example", "syntax"], // Hangul filler
    ["a\u{e0061}b@corp.example", "syntax"], // tag
    ["a\ufffdb@corp.example", "syntax"], // octets that were not UTF-8
    ["a\ud800@corp.example", "syntax"], // half a character
    ["a@corp..example", "domain"],
    ["a@-corp.example", "domain"],
    ["a@203.0.113.5", "domain"],
    ["a@[203.0.113.5]", "addressLiteral"],
    ["a@[IPv6:2001:db8::1]", "addressLiteral"],
    [`${"l".repeat(65)}@corp.example`, "tooLong"],
    [`"${"l".repeat(63)}"@corp.example`, "tooLong"], // quotes count
    [`${"ü".repeat(33)}@corp.example`, "tooLong"], // octets count
    [`${longest}ample`, "tooLong"],
    ["a".repeat(1_000_000), "tooLong"],
  ])("%j: %s", (text, fault) => {
    expect(parseMailbox(text, true)).toEqual({ kind: "fault", fault });
  });

  test.each(["ä@corp.example", "a@bücher.example"])("UTF-8 without SMTPUTF8: %s", (text) => {
    expect(parseMailbox(text, false)).toEqual({ kind: "fault", fault: "notAscii" });
  });
});

describe("reads a reverse-path", () => {
  test("the null reverse-path is empty", () => {
    expect(parseReversePath("", false)).toEqual({ kind: "ok", value: { kind: "null" } });
  });

  test("drops a source route", () => {
    const parsed = parseReversePath("@a.example,@b.example:bob@corp.example", false);
    expect(parsed.kind === "ok" && pathText(parsed.value)).toBe("bob@corp.example");
  });

  test.each(["postmaster", " ", "<>", "@a.example:", "@a.example,:b@c.example"])("refuses %j", (text) => {
    expect(parseReversePath(text, false)).toEqual({ kind: "fault", fault: "syntax" });
  });
});

describe("reads a forward-path", () => {
  test.each(["postmaster", "Postmaster", "POSTMASTER"])("takes bare %s", (text) => {
    expect(parseForwardPath(text, false)).toEqual({ kind: "ok", value: { kind: "postmaster" } });
  });

  test("leaves the sender's own routing characters alone in a reverse-path", () => {
    expect(parseReversePath("bounce%list@acme.example", false).kind).toBe("ok");
  });

  test.each([
    ["user%evil.example@corp.example"],
    ["evil.example!user@corp.example"],
    ['"user@evil.example"@corp.example'],
    ['"user\\@evil.example"@corp.example'],
    ["@corp.example:user%evil.example@corp.example"],
  ])("refuses to route on for %s", (text) => {
    expect(parseForwardPath(text, false)).toEqual({ kind: "fault", fault: "routing" });
  });

  test.each([["", "syntax"] as const, ["postmaster@", "domain"] as const, ["abuse", "syntax"] as const])(
    "refuses %j",
    (text, fault) => {
      expect(parseForwardPath(text, false)).toEqual({ kind: "fault", fault });
    },
  );

  test("a source route cannot smuggle in another recipient", () => {
    const parsed = parseForwardPath("@corp.example:user@evil.example", false);
    expect(parsed.kind === "ok" && parsed.value.kind === "mailbox" && parsed.value.mailbox.domain).toBe("evil.example");
  });
});

describe("compares mailboxes by meaning", () => {
  test.each([
    ["orders@corp.example", "orders@CORP.example."],
    ["orders@corp.example", '"orders"@corp.example'],
    ["orders@corp.example", '"o\\rders"@corp.example'],
    ["a@bücher.example", "a@XN--bcher-kva.example"],
    ["jörg@corp.example", "jo\u0308rg@corp.example"],
  ])("%j is %j", (one, other) => {
    expect(mailboxKey(mailbox(one))).toBe(mailboxKey(mailbox(other)));
  });

  test.each([
    ["orders@corp.example", "Orders@corp.example"], // RFC 5321 §2.4
    ["orders@corp.example", "orders@a.corp.example"],
    ["orders@corp.example", "order.s@corp.example"],
    ['"a@b"@corp.example', "a@b.corp.example"],
  ])("%j is not %j", (one, other) => {
    expect(mailboxKey(mailbox(one))).not.toBe(mailboxKey(mailbox(other)));
  });

  const atom = fc.string({
    unit: fc.constantFrom(...Array.from("abcXYZ019!#$&'*+/=?^_`{|}~-")),
    minLength: 1,
    maxLength: 10,
  });
  const label = fc.string({ unit: fc.constantFrom(...Array.from("abcxyz019")), minLength: 1, maxLength: 10 });

  test("whatever the quoting, the case of the domain and the trailing dot", () => {
    const locals = fc.array(atom, { minLength: 1, maxLength: 3 }).map((atoms) => atoms.join("."));
    const domains = fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => `${labels.join(".")}.example`);
    fc.assert(
      fc.property(locals, domains, fc.infiniteStream(fc.boolean()), (local, domain, coins) => {
        const flip = (): boolean => coins.next().value === true;
        const quoted = `"${local.replaceAll(/./g, (character) => (flip() ? `\\${character}` : character))}"`;
        const spelled = domain.replaceAll(/./g, (character) => (flip() ? character.toUpperCase() : character));
        const variant = `${flip() ? quoted : local}@${spelled}${flip() ? "." : ""}`;
        expect(mailboxKey(mailbox(variant))).toBe(mailboxKey(mailbox(`${local}@${domain}`)));
      }),
    );
  });

  test("whatever is said, it is read or refused, and what is read stays the same when it is read again", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 80 }), label, (local, domain) => {
        for (const text of [local, `${local}@${domain}.example`, `"${local}"@${domain}.example`]) {
          const parsed = parseMailbox(text, true);
          if (parsed.kind === "fault") continue;
          expect(parsed.value.address).not.toMatch(/[\r\n\0]/);
          expect(parseMailbox(parsed.value.address, true)).toEqual(parsed);
        }
      }),
      { numRuns: 500 },
    );
  });
});

test.each([
  ["postmaster@corp.example", true],
  ["PostMaster@corp.example", true],
  ['"postmaster"@corp.example', true],
  ["postmaster.x@corp.example", false],
])("%s is the postmaster: %s", (text, isIt) => {
  expect(isPostmaster(mailbox(text))).toBe(isIt);
});

test("writes paths as commands want them", () => {
  expect(pathText({ kind: "null" })).toBe("");
  expect(pathText({ kind: "postmaster" })).toBe("postmaster");
  expect(pathText({ kind: "mailbox", mailbox: mailbox('"a b"@Corp.example') })).toBe('"a b"@Corp.example');
});
