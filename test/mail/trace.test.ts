/** Trace fields: those we write are within the grammar whatever the peer said; those we read do not fool us. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseReversePath } from "../../src/mail/address.ts";
import {
  addressLiteral,
  authenticationResultsField,
  dateTime,
  extendedDomain,
  inspectTrace,
  receivedField,
  type ReceivedInput,
} from "../../src/mail/trace.ts";

const now = new Date("2026-11-24T03:00:00Z");
const hostname = "mx.corp.example";
const pinText = `spki sha256/${"A+/".repeat(14)}A=`;
const tls = { version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384", group: "X25519MLKEM768" };
const input: ReceivedInput = {
  heloName: "mx.acme.example",
  address: "203.0.113.5",
  hostname,
  protocol: { ehlo: true, tls, smtpUtf8: false },
  partner: { name: "acme", pinText },
  id: "0001ABCDEF",
  forRecipient: "orders@corp.example",
  now,
};

/** Lines that fold, none too long, none with what does not belong into a header. */
function expectSound(field: string, utf8 = false): void {
  expect(field.endsWith("\r\n")).toBe(true);
  const lines = field.slice(0, -2).split("\r\n");
  expect(lines[0]).toMatch(/^[A-Za-z-]+: \S/);
  for (const line of lines.slice(1)) expect(line).toMatch(/^[ \t]+\S/);
  for (const line of lines) {
    expect(line).not.toMatch(/[\r\n\0]/);
    expect(Buffer.byteLength(line)).toBeLessThanOrEqual(998);
    if (!utf8) expect(line).toMatch(/^[\t -~]*$/);
  }
}

describe("writes Received", () => {
  test("with all that is known", () => {
    expect(receivedField(input)).toBe(
      [
        "Received: from mx.acme.example ([203.0.113.5])",
        "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384, group X25519MLKEM768;",
        "\t client certificate of partner acme",
        `\t pinned by ${pinText})`,
        "\tby mx.corp.example with ESMTPS id 0001ABCDEF",
        "\tfor <orders@corp.example>;",
        "\tTue, 24 Nov 2026 03:00:00 +0000",
        "",
      ].join("\r\n"),
    );
  });

  test("with no more than is known", () => {
    const { partner: _, forRecipient: __, ...rest } = input;
    expect(receivedField({ ...rest, address: "::1", protocol: { ehlo: false, smtpUtf8: false } })).toBe(
      [
        "Received: from mx.acme.example ([IPv6:::1])",
        "\tby mx.corp.example with SMTP id 0001ABCDEF;",
        "\tTue, 24 Nov 2026 03:00:00 +0000",
        "",
      ].join("\r\n"),
    );
  });

  test.each([
    [{ ehlo: false, smtpUtf8: false }, "SMTP"],
    [{ ehlo: false, smtpUtf8: false, tls }, "SMTP"], // no keyword is registered for HELO over TLS
    [{ ehlo: true, smtpUtf8: false }, "ESMTP"],
    [{ ehlo: true, smtpUtf8: false, tls }, "ESMTPS"],
    [{ ehlo: true, smtpUtf8: true }, "UTF8SMTP"],
    [{ ehlo: true, smtpUtf8: true, tls }, "UTF8SMTPS"],
  ])("%o is %s", (protocol, keyword) => {
    expect(receivedField({ ...input, protocol })).toContain(` with ${keyword} id `);
  });

  test.each([
    ["bare postmaster, for which there is no form", "postmaster", false],
    ["UTF-8 without SMTPUTF8", "ü@corp.example", false],
    ["a line end", "a\r\nX: y@corp.example", true],
    ["something endless", `${"a".repeat(1000)}@corp.example`, false],
  ])("leaves the recipient out that is %s", (_, forRecipient, smtpUtf8) => {
    const field = receivedField({ ...input, forRecipient, protocol: { ehlo: true, smtpUtf8 } });
    expect(field).not.toMatch(/\bfor\b/);
  });

  test("names the recipient in UTF-8 where the message is SMTPUTF8", () => {
    const field = receivedField({ ...input, forRecipient: "ü@corp.example", protocol: { ehlo: true, smtpUtf8: true } });
    expect(field).toContain("for <ü@corp.example>;");
  });

  test("stays sound whatever the peer says", () => {
    const hostile = fc.string({ unit: "binary", maxLength: 300 });
    fc.assert(
      fc.property(hostile, hostile, hostile, hostile, fc.boolean(), (helo, address, words, recipient, smtpUtf8) => {
        const field = receivedField({
          ...input,
          heloName: helo,
          address,
          protocol: { ehlo: true, tls: { version: words, cipher: words, group: words }, smtpUtf8 },
          partner: { name: words, pinText: words },
          id: words,
          forRecipient: `${recipient}@corp.example`,
        });
        expectSound(field, smtpUtf8);
        expect(inspectTrace(Buffer.from(field), hostname)).toMatchObject({ hops: 1, loops: 1 });
      }),
    );
  });

  test("refuses a date that is none", () => {
    expect(() => receivedField({ ...input, now: new Date(Number.NaN) })).toThrow(RangeError);
  });
});

describe("writes down what a client called itself", () => {
  test.each([
    ["mx.acme.example", "mx.acme.example"],
    ["MX.acme.example.", "MX.acme.example"],
    ["localhost", "localhost"],
    ["bücher.example", "xn--bcher-kva.example"],
    ["[203.0.113.5]", "[203.0.113.5]"],
    ["[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"],
    ["[ipv6:2001:db8::1]", "[IPv6:2001:db8::1]"],
  ])("%j", (heloName, written) => {
    expect(extendedDomain(heloName)).toBe(written);
  });

  test.each([
    [""],
    ["203.0.113.5"],
    ["[2001:db8::1]"],
    ["[IPv6:203.0.113.5]"],
    ["[203.0.113.5"],
    ["[203.0.113.05]"],
    ["[203.0.113.5] (trusted)"],
    ["[fe80::1%eth0]"],
    ["[IPv6:fe80::1%eth0]"],
    ["mx.acme.example ([10.0.0.1])"],
    ["mx.acme.example\r\nX-Forged: yes"],
    ["under_score"],
    ["a".repeat(5000)],
    ["("],
    ['"quoted"'],
  ])("but not %j", (heloName) => {
    expect(extendedDomain(heloName)).toBe("unknown.invalid");
  });
});

test.each([
  ["203.0.113.5", "[203.0.113.5]"],
  ["::ffff:203.0.113.5", "[203.0.113.5]"],
  ["::FFFF:203.0.113.5", "[203.0.113.5]"],
  ["2001:db8::1", "[IPv6:2001:db8::1]"],
  ["fe80::1%eth0", "[IPv6:fe80::1]"],
  ["", undefined],
  ["mx.acme.example", undefined],
  ["203.0.113.5\r\n", undefined],
])("the address literal of %j is %j", (address, literal) => {
  expect(addressLiteral(address)).toBe(literal);
});

describe("writes a date", () => {
  test.each([
    ["2026-11-24T03:00:00Z", "Tue, 24 Nov 2026 03:00:00 +0000"],
    ["2027-01-01T00:00:00+01:00", "Thu, 31 Dec 2026 23:00:00 +0000"],
    ["2028-02-29T12:34:56.789Z", "Tue, 29 Feb 2028 12:34:56 +0000"],
  ])("%s", (instant, text) => {
    expect(dateTime(new Date(instant))).toBe(text);
  });
});

describe("writes Authentication-Results", () => {
  function field(from: string, smtpUtf8 = false): string {
    const parsed = parseReversePath(from, true);
    if (parsed.kind === "fault") throw new Error(parsed.fault);
    const partner = { name: "acme", pinText };
    return authenticationResultsField({ authservId: hostname, partner, reversePath: parsed.value, smtpUtf8 });
  }

  test("with the partner, the pin and the reverse-path", () => {
    expect(field("bob@acme.example")).toBe(
      [
        "Authentication-Results: mx.corp.example;",
        "\tx-client-cert=pass (partner acme)",
        `\tpolicy.pin="${pinText}"`,
        "\tsmtp.mailfrom=bob@acme.example",
        "",
      ].join("\r\n"),
    );
  });

  test.each([
    ["", 'smtp.mailfrom=""'],
    ["bob@localhost", 'smtp.mailfrom="bob@localhost"'], // no domain-name of RFC 6376 §3.5
    ['"b \\" b"@acme.example', 'smtp.mailfrom="b \\" b"@acme.example'],
    ['"a\\"b"@localhost', 'smtp.mailfrom="\\"a\\\\\\"b\\"@localhost"'],
  ])("from <%s>", (from, value) => {
    expect(field(from)).toContain(value);
    expectSound(field(from));
  });

  test("without an 8-bit reverse-path, but where the message is SMTPUTF8", () => {
    expect(field("bób@acme.example")).not.toContain("mailfrom");
    expect(field("bób@acme.example", true)).toContain("smtp.mailfrom=bób@acme.example");
  });

  test("which we would recognise as ours if it came back", () => {
    expect(inspectTrace(Buffer.from(field("bob@acme.example")), hostname).forged).toHaveLength(1);
  });

  test("and stays sound whatever the partner and the pin are called", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (words) => {
        const partner = { name: words, pinText: words };
        const reversePath = { kind: "null" } as const;
        expectSound(authenticationResultsField({ authservId: hostname, partner, reversePath, smtpUtf8: false }), true);
      }),
    );
  });
});

describe("counts hops", () => {
  test("by any spelling of Received", () => {
    const block = "Received: a\r\nRECEIVED : b\r\n c\r\n.Received: d\r\nX-Received: e\r\nReceived-SPF: f\r\n";
    expect(inspectTrace(Buffer.from(block), hostname).hops).toBe(3);
  });

  test("in the header only", () => {
    expect(inspectTrace(Buffer.from("A: b\r\n\r\nReceived: c\r\n"), hostname).hops).toBe(0);
  });
});

describe("finds loops", () => {
  test.each([
    ["from a.example by mx.corp.example with ESMTP id x; date"],
    ["from a.example BY MX.Corp.Example. with ESMTP; date"],
    ["by mx.corp.example; date"],
    ["from a.example\r\n\tby\r\n\tmx.corp.example (pinrelay) with ESMTP; date"],
    ["from a.example (by other.example) by(comment)mx.corp.example(comment); date"],
    ["from by by mx.corp.example; date"],
    ['from "by other.example" by mx.corp.example; date'],
    ["(a (nested \\) comment) with by x) from a.example by mx.corp.example; date"],
  ])("in %j", (body) => {
    expect(inspectTrace(Buffer.from(`Received: ${body}\r\n`), hostname)).toMatchObject({ hops: 1, loops: 1 });
  });

  test.each([
    ["from mx.corp.example by other.example; date"],
    ["from a.example (by mx.corp.example) by other.example; date"],
    ["from by mx.corp.example; date"],
    ["from a.example by other.example by mx.corp.example; date"],
    ["from a.example by evil.mx.corp.example; date"],
    ["from a.example by mx.corp.example.evil.example; date"],
    ['from a.example by "mx.corp.example"; date'],
    ["from a.example; by mx.corp.example"],
    ["from a.example (by mx.corp.example"],
    ["from a.example by"],
    [""],
  ])("but not in %j", (body) => {
    expect(inspectTrace(Buffer.from(`Received: ${body}\r\n`), hostname).loops).toBe(0);
  });
});

describe("finds Authentication-Results that could be taken for ours", () => {
  test.each([
    ["as we write them", "Authentication-Results: mx.corp.example; spf=pass"],
    ["without a space", "Authentication-Results:mx.corp.example;spf=pass"],
    ["in upper case", "AUTHENTICATION-RESULTS: MX.CORP.EXAMPLE; spf=pass"],
    ["with a space before the colon", "Authentication-Results \t: mx.corp.example; spf=pass"],
    ["with a tab", "Authentication-Results:\tmx.corp.example\t; spf=pass"],
    ["folded before the id", "Authentication-Results:\r\n mx.corp.example; spf=pass"],
    ["folded behind the id", "Authentication-Results: mx.corp.example\r\n\t; spf=pass"],
    ["with a comment before", "Authentication-Results: (x) mx.corp.example; spf=pass"],
    ["with nested comments before", "Authentication-Results: (a(b\\)c)d)\r\n (e)mx.corp.example; spf=pass"],
    ["with a comment behind", "Authentication-Results: mx.corp.example(x); spf=pass"],
    ["quoted", 'Authentication-Results: "mx.corp.example"; spf=pass'],
    ["quoted with pairs", 'Authentication-Results: "m\\x.corp.example"; spf=pass'],
    ["quoted and folded", 'Authentication-Results: "mx.\r\n corp.example"; spf=pass'],
    ["quoted with words around", 'Authentication-Results: "by mx.corp.example!"; spf=pass'],
    ["with a trailing dot", "Authentication-Results: mx.corp.example.; spf=pass"],
    ["with a version", "Authentication-Results: mx.corp.example 1; spf=pass"],
    ["with a version behind a comment", "Authentication-Results: mx.corp.example (v) 1 (w); spf=pass"],
    ["with nothing behind", "Authentication-Results: mx.corp.example"],
    ["with no result", "Authentication-Results: mx.corp.example; none"],
    ["with a leading dot, which the next server drops", ".Authentication-Results: mx.corp.example; spf=pass"],
    ["with a fold whose dot the next server drops", "Authentication-Results:\r\n. mx.corp.example; spf=pass"],
    ["in full width letters", "Authentication-Results: ｍｘ.corp.example; spf=pass"],
    ["with an ignored character", "Authentication-Results: m\u00adx.corp.example; spf=pass"],
  ])("%s", (_, field) => {
    expect(inspectTrace(Buffer.from(`${field}\r\n`), hostname).forged).toHaveLength(1);
  });

  test.each([
    ["of a version that we do not know (RFC 8601 §5)", "Authentication-Results: other.example 2; spf=pass"],
    ["without an id", "Authentication-Results: spf=pass smtp.mailfrom=a.example"],
    ["with an id in two words", "Authentication-Results: other.example mx.corp.example; spf=pass"],
    ["with an id in two pieces", 'Authentication-Results: mx."corp".example; spf=pass'],
    ["with an id torn by a comment", "Authentication-Results: mx.(x)corp.example; spf=pass"],
    ["with an address for an id", "Authentication-Results: a@mx.corp.example; spf=pass"],
    ["with a path behind the id", "Authentication-Results: mx.corp.example/1; spf=pass"],
    ["with an endless comment", "Authentication-Results: (mx.corp.example; spf=pass"],
    ["with an endless quoted-string", 'Authentication-Results: "mx.corp.example; spf=pass'],
    ["with nothing in them", "Authentication-Results:"],
    ["with a first semicolon too many", "Authentication-Results: ; mx.corp.example; spf=pass"],
    ["with an encoded word", "Authentication-Results: =?utf-8?q?mx.corp.example?=; spf=pass"],
    ["with the colon on the next line", "Authentication-Results\r\n : mx.corp.example; spf=pass"],
    ["with a control character in the name", "Authentication-Results\x0b: mx.corp.example; spf=pass"],
    ["with white space above the first field", " Authentication-Results: mx.corp.example; spf=pass"],
  ])("because they are outside the grammar: %s", (_, field) => {
    expect(inspectTrace(Buffer.from(`${field}\r\n`), hostname).forged).toHaveLength(1);
  });

  test.each([
    ["of another", "Authentication-Results: other.example; spf=pass"],
    ["of another with a version", "Authentication-Results: other.example 1; spf=pass"],
    ["of a host below ours", "Authentication-Results: a.mx.corp.example; spf=pass"],
    ["of a host that ours is below", "Authentication-Results: corp.example; spf=pass"],
    ["of a host that ends like ours", "Authentication-Results: notmx.corp.example; spf=pass"],
    ["of an id that is no domain", "Authentication-Results: mail_gateway_1; spf=pass"],
    ["with our name in a comment", "Authentication-Results: (mx.corp.example) other.example; spf=pass"],
    ["with our name in a result", "Authentication-Results: other.example; spf=pass smtp.helo=mx.corp.example"],
    ["of ARC", "ARC-Authentication-Results: i=1; mx.corp.example; spf=pass"],
    ["in a folded other field", "Subject: hello\r\n Authentication-Results: mx.corp.example; spf=pass"],
    ["in the body", "Subject: x\r\n\r\nAuthentication-Results: mx.corp.example; spf=pass"],
  ])("and leaves those alone that are %s", (_, field) => {
    expect(inspectTrace(Buffer.from(`${field}\r\n`), hostname).forged).toEqual([]);
  });

  test.each([
    ["a folded first line, which would hang on our own result", " ; dkim=pass header.d=bank.example\r\nA: 1\r\n"],
    ["with a tab", "\t; dkim=pass header.d=bank.example\r\n ; spf=pass\r\nA: 1\r\n"],
    ["behind a dot, which the next server drops", ". ; dkim=pass header.d=bank.example\r\nA: 1\r\n"],
  ])("and %s", (_, block) => {
    const { forged } = inspectTrace(Buffer.from(block), hostname);
    expect(forged).toEqual([{ name: "", start: 0, end: block.indexOf("A: 1") }]);
  });

  test("but not a first line that is no field, or folds further down", () => {
    expect(inspectTrace(Buffer.from("junk\r\n ; dkim=pass\r\nA: 1\r\n ; dkim=pass\r\n"), hostname).forged).toEqual([]);
  });

  test("what is left under our fields, the forged ones cut out, does not continue them", () => {
    const line = fc.constantFrom(
      " x",
      "\tx",
      ". x",
      "A: 1",
      "junk",
      "Authentication-Results: mx.corp.example",
      "..x",
      ".",
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
        const block = Buffer.from(lines.map((content) => `${content}\r\n`).join(""));
        let kept = block.toString("latin1");
        for (const { start, end } of inspectTrace(block, hostname).forged.toReversed()) {
          kept = kept.slice(0, start) + kept.slice(end);
        }
        expect(kept).not.toMatch(/^\.?[ \t]/);
        expect(kept).not.toMatch(/Authentication-Results/);
      }),
    );
  });

  test("each with its place, so that it can be cut out", () => {
    const block = Buffer.from("A: 1\r\nAuthentication-Results: mx.corp.example;\r\n spf=pass\r\nB: 2\r\n");
    const [field] = inspectTrace(block, hostname).forged;
    expect(block.toString("latin1", field?.start, field?.end)).toBe(
      "Authentication-Results: mx.corp.example;\r\n spf=pass\r\n",
    );
  });
});

describe("stays linear", () => {
  const mebibyte = 1024 * 1024;
  test.each([
    ["open comments", "(".repeat(mebibyte)],
    ["comments", "()".repeat(mebibyte / 2)],
    ["quotes", '"'.repeat(mebibyte + 1)],
    ["quoted pairs", `"${"\\a".repeat(mebibyte / 2)}`],
    ["words", "a ".repeat(mebibyte / 2)],
    ["spaces", " ".repeat(mebibyte)],
    ["folds", "\r\n ".repeat(mebibyte / 3)],
    ["colons", ":".repeat(mebibyte)],
  ])("on a mebibyte of %s", (_, text) => {
    const block = Buffer.from(`Received: ${text}\r\nAuthentication-Results: ${text}\r\n`);
    const startMs = performance.now();
    inspectTrace(block, hostname);
    expect(performance.now() - startMs).toBeLessThan(5_000);
  });

  test("on any octets, without failing", () => {
    const octet = fc.oneof(fc.constantFrom(...Buffer.from('\r\n \t:.;()"\\a').values()), fc.nat(255));
    fc.assert(
      fc.property(fc.array(octet, { maxLength: 200 }), (octets) => {
        const names = [Buffer.from("Received:"), Buffer.from("Authentication-Results:")];
        for (const name of names) inspectTrace(Buffer.concat([name, Buffer.from(octets)]), hostname);
      }),
    );
  });
});
