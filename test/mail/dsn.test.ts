/** Delivery reports: complete for a program, plain for a person, and proof against what senders and servers write. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseForwardPath, parseMailbox, type Mailbox } from "../../src/mail/address.ts";
import {
  composeReport,
  isReportable,
  returnedBytesMax,
  wantsReport,
  type Report,
  type ReportAction,
  type ReportedRecipient,
  type ReportRequest,
} from "../../src/mail/dsn.ts";
import type { Envelope, Notify, Recipient } from "../../src/mail/envelope.ts";

function mailbox(text: string): Mailbox {
  const parsed = parseMailbox(text, true);
  if (parsed.kind === "fault") throw new Error(`${text}: ${parsed.fault}`);
  return parsed.value;
}

function recipient(text: string, rest: Partial<Recipient> = {}): Recipient {
  const parsed = parseForwardPath(text, true);
  if (parsed.kind === "fault") throw new Error(`${text}: ${parsed.fault}`);
  return { path: parsed.value, ...rest };
}

const arrivedAt = new Date("2026-11-24T03:00:00Z");
const now = new Date("2026-11-24T04:00:00Z");
const sender = mailbox("bob@acme.example");
const envelope: Envelope = {
  reversePath: { kind: "mailbox", mailbox: sender },
  recipients: [recipient("orders@corp.example")],
  body: "7bit",
  smtpUtf8: false,
};
const failure: ReportedRecipient = {
  recipient: recipient("orders@corp.example"),
  action: "failed",
  status: "5.1.1",
  remote: { name: "mail1.corp.example", reply: "550 5.1.1 No such user here" },
  explanation: "The server refused the address.",
  lastAttemptAt: new Date("2026-11-24T03:30:00Z"),
};
const delay: ReportedRecipient = {
  recipient: recipient("orders@corp.example"),
  action: "delayed",
  status: "4.4.1",
  explanation: "No server could be reached.",
  retryUntil: new Date("2026-11-29T03:00:00Z"),
};
const header = Buffer.from("From: bob@acme.example\r\nSubject: Order 4711\r\nMessage-ID: <4711@acme.example>\r\n");
const body = Buffer.from("We order ten.\r\n..\r\n");
const request: ReportRequest = {
  reportId: "R0001",
  reportingMta: "mx.corp.example",
  now,
  arrivedAt,
  receivedFrom: "mail.acme.example",
  envelope,
  to: sender,
  postmaster: mailbox("postmaster@corp.example"),
  recipients: [failure],
  original: { header, body },
};

interface Part {
  readonly type: string;
  readonly encoding: string | undefined;
  readonly content: string;
}

/** Reads a report back, with a reader of its own: fields, then parts by the boundary that the Content-Type names. */
function read(report: Report): { fields: Map<string, string>; parts: Part[] } {
  const text = report.content.toString();
  const fields = fieldsOf(text.slice(0, text.indexOf("\r\n\r\n")));
  const boundary = /boundary="([^"]+)"/.exec(fields.get("Content-Type") ?? "")?.[1] ?? "";
  const pieces = text.split(`\r\n--${boundary}`);
  expect(pieces.at(-1)).toBe("--\r\n");
  const parts = pieces.slice(1, -1).map((piece) => {
    const end = piece.indexOf("\r\n\r\n", 2);
    const own = fieldsOf(piece.slice(2, end));
    const type = own.get("Content-Type") ?? "";
    return { type, encoding: own.get("Content-Transfer-Encoding"), content: piece.slice(end + 4) };
  });
  return { fields, parts };
}

function fieldsOf(block: string): Map<string, string> {
  const lines = block.replaceAll(/\r\n(?=[ \t])/g, "").split("\r\n");
  return new Map(
    lines
      .filter((line) => line !== "")
      .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
  );
}

/** The groups of fields in the part for programs: first the message's, then one for each recipient. */
function statusGroups(report: Report): Array<Map<string, string>> {
  const status = read(report).parts[1]?.content ?? "";
  return status.replace(/\r\n$/, "").split("\r\n\r\n").map(fieldsOf);
}

/** What holds for every report. */
function expectSound(report: Report): void {
  const octets = report.content.toString("latin1");
  for (const line of octets.split("\r\n")) {
    expect(line.length).toBeLessThanOrEqual(998);
    expect(line).not.toMatch(/[\r\n\0]/);
  }
  expect(octets.endsWith("\r\n")).toBe(true);
  if (report.envelope.body === "7bit") expect(octets).toMatch(/^[\0-\x7f]*$/);
  const { parts } = read(report);
  expect(parts).toHaveLength(3);
  for (const line of (parts[0]?.content ?? "").split("\r\n")) expect(line.length).toBeLessThanOrEqual(78);
  expect(report.envelope).toMatchObject({ reversePath: { kind: "null" }, recipients: [{ notify: "never" }] });
}

test("goes from nobody, to the sender, and asks for no report", () => {
  expect(composeReport(request).envelope).toEqual({
    reversePath: { kind: "null" },
    recipients: [{ path: { kind: "mailbox", mailbox: sender }, notify: "never" }],
    body: "7bit",
    smtpUtf8: false,
  });
});

test("has the header of an automatic reply and a report in three parts", () => {
  const { fields, parts } = read(composeReport(request));
  expect([...fields]).toEqual([
    ["From", '"Mail Delivery System (MAILER-DAEMON)" <postmaster@corp.example>'],
    ["To", "<bob@acme.example>"],
    ["Subject", "Undeliverable: your message was not delivered"],
    ["Date", "Tue, 24 Nov 2026 04:00:00 +0000"],
    ["Message-ID", "<R0001@mx.corp.example>"],
    ["In-Reply-To", "<4711@acme.example>"],
    ["References", "<4711@acme.example>"],
    ["Auto-Submitted", "auto-replied"],
    ["MIME-Version", "1.0"],
    ["Content-Type", expect.stringMatching(/^multipart\/report; report-type=delivery-status; boundary="[^"]{1,70}"$/)],
    ["Content-Transfer-Encoding", "7bit"],
  ]);
  expect(parts.map(({ type, encoding }) => [type, encoding])).toEqual([
    ["text/plain; charset=us-ascii", "7bit"],
    ["message/delivery-status", "7bit"],
    ["message/rfc822", "7bit"],
  ]);
});

test("tells a program all that is known", () => {
  const original = recipient("orders@corp.example", { originalRecipient: "rfc822;Order+2Bs+40corp.example" });
  const report = composeReport({
    ...request,
    envelope: { ...envelope, envelopeId: "QQ+2B314159+20x" },
    recipients: [
      { ...failure, recipient: original },
      { ...delay, remote: { name: "10.1.0.10" } },
    ],
  });
  expect(statusGroups(report).map((group) => [...group])).toEqual([
    [
      ["Original-Envelope-Id", "QQ+314159 x"],
      ["Reporting-MTA", "dns; mx.corp.example"],
      ["Received-From-MTA", "dns; mail.acme.example"],
      ["Arrival-Date", "Tue, 24 Nov 2026 03:00:00 +0000"],
    ],
    [
      ["Original-Recipient", "rfc822; Order+s@corp.example"],
      ["Final-Recipient", "rfc822; orders@corp.example"],
      ["Action", "failed"],
      ["Status", "5.1.1"],
      ["Remote-MTA", "dns; mail1.corp.example"],
      ["Diagnostic-Code", "smtp; 550 5.1.1 No such user here"],
      ["Last-Attempt-Date", "Tue, 24 Nov 2026 03:30:00 +0000"],
    ],
    [
      ["Final-Recipient", "rfc822; orders@corp.example"],
      ["Action", "delayed"],
      ["Status", "4.4.1"],
      ["Remote-MTA", "dns; [10.1.0.10]"],
      ["Will-Retry-Until", "Sun, 29 Nov 2026 03:00:00 +0000"],
    ],
  ]);
});

test("tells a person what happened, who said what, and what to do", () => {
  const text = read(composeReport(request)).parts[0]?.content;
  expect(text).toContain("Your message was NOT delivered");
  expect(text).toContain("  Subject:      Order 4711");
  expect(text).toContain("  <orders@corp.example>\r\n    The server refused the address. (status 5.1.1)");
  expect(text).toContain("    The server mail1.corp.example said:\r\n    > 550 5.1.1 No such user here");
  expect(text).toContain("Check the spelling of the address");
  expect(text).toContain("write to postmaster@corp.example");
});

describe("gives advice by the status", () => {
  test.each<[string, ReportAction, RegExp]>([
    ["5.1.10", "failed", /Check the spelling/],
    ["5.2.2", "failed", /mailbox takes no mail/],
    ["5.2.3", "failed", /too large/],
    ["5.3.4", "failed", /too large/],
    ["5.4.7", "failed", /send the message again later/],
    ["5.6.0", "failed", /plain text/],
    ["5.7.1", "failed", /ask the recipient, or the postmaster/],
    ["5.5.0", "failed", /Show this report to those/],
    ["4.4.1", "delayed", /Do not send the message again/],
    ["2.1.5", "delivered", /Nothing/],
  ])("%s %s", (status, action, words) => {
    const text = read(composeReport({ ...request, recipients: [{ ...failure, status, action }] })).parts[0]?.content;
    expect(text?.replaceAll(/\s+/g, " ")).toMatch(words);
  });
});

describe("names the worst that happened in its subject", () => {
  test.each<[ReportAction[], string]>([
    [["delivered"], "Delivered: your message has arrived"],
    [["delivered", "expanded"], "Expanded: your message was passed to the members of a list"],
    [["delivered", "relayed"], "Relayed: your message was passed on"],
    [["delivered", "delayed"], "Delayed: your message has not been delivered yet"],
    [["delivered", "delayed", "failed"], "Undeliverable: your message was not delivered"],
  ])("%j", (actions, subject) => {
    const report = composeReport({ ...request, recipients: actions.map((action) => ({ ...failure, action })) });
    expect(read(report).fields.get("Subject")).toBe(subject);
  });
});

describe("corrects a status that does not fit the action", () => {
  test.each<[ReportAction, string, string]>([
    ["failed", "5.1.1", "5.1.1"],
    ["failed", "4.4.7", "4.4.7"], // given up after temporary failures
    ["failed", "2.0.0", "5.0.0"],
    ["failed", "5.1.1\r\nAction: delivered", "5.0.0"],
    ["failed", "5.01.1", "5.0.0"],
    ["failed", "", "5.0.0"],
    ["delayed", "5.1.1", "4.0.0"],
    ["delivered", "5.1.1", "2.0.0"],
    ["relayed", "9.9.9", "2.0.0"],
  ])("%s %j is %s", (action, status, written) => {
    const report = composeReport({ ...request, recipients: [{ ...failure, action, status }] });
    expect(statusGroups(report)[1]?.get("Status")).toBe(written);
  });
});

describe("returns no more of the message than was asked for and is fit", () => {
  const full = { ...envelope, returnContent: "full" } as const;
  test.each<[string, Partial<ReportRequest>, string]>([
    ["all of it after a failure", {}, "message/rfc822"],
    ["all of it after a failure among others", { recipients: [delay, failure] }, "message/rfc822"],
    ["all of it when asked", { envelope: full }, "message/rfc822"],
    ["all of it up to the limit", { original: { header, body: linesOf(returnedBytesMax) } }, "message/rfc822"],
    ["the header when asked", { envelope: { ...envelope, returnContent: "headers" } }, "text/rfc822-headers"],
    ["the header without a body", { envelope: full, original: { header } }, "text/rfc822-headers"],
    [
      "the header of a large message",
      { original: { header, body: linesOf(returnedBytesMax + 1) } },
      "text/rfc822-headers",
    ],
    ["the header after a delay", { envelope: full, recipients: [delay] }, "text/rfc822-headers"],
    [
      "the header after a success",
      { envelope: full, recipients: [{ ...failure, action: "relayed" }] },
      "text/rfc822-headers",
    ],
    [
      "the header where a line is too long",
      { original: { header, body: Buffer.from("x".repeat(999)) } },
      "text/rfc822-headers",
    ],
    [
      "the header where a line end is bare",
      { original: { header, body: Buffer.from("a\nb\r\n") } },
      "text/rfc822-headers",
    ],
    ["the header where there is NUL", { original: { header, body: Buffer.from("a\0\r\n") } }, "text/rfc822-headers"],
  ])("%s", (_, change, type) => {
    const report = composeReport({ ...request, ...change });
    expect(read(report).parts[2]?.type).toBe(type);
    expectSound(report);
  });

  function linesOf(octets: number): Buffer {
    return Buffer.from(`${"x".repeat(62)}\r\n`.repeat(Math.ceil(octets / 64))).subarray(0, octets);
  }

  test("as it was", () => {
    expect(read(composeReport(request)).parts[2]?.content).toBe(`${header.toString()}\r\n${body.toString()}`);
  });

  test("a header that is too long is cut at the end of a line", () => {
    const long = Buffer.from("X: y\r\n".repeat(20_000));
    const content = read(composeReport({ ...request, original: { header: long } })).parts[2]?.content ?? "";
    expect(content.length).toBeLessThanOrEqual(returnedBytesMax);
    expect(content).toMatch(/^(?:X: y\r\n)+$/);
  });

  test("a line of a header that is too long is folded, without tearing a character", () => {
    const text = `X: ${"ü".repeat(2000)}\r\n`;
    const report = composeReport({ ...request, original: { header: Buffer.from(text) } });
    expectSound(report);
    expect(read(report).parts[2]?.content.replaceAll("\r\n ", "")).toBe(text);
  });

  test("8-bit content goes as it is, and the envelope says so", () => {
    const report = composeReport({ ...request, original: { header, body: Buffer.from("Grüße\r\n") } });
    expect(report.envelope).toMatchObject({ body: "8bitmime", smtpUtf8: false });
    expect(read(report).fields.get("Content-Transfer-Encoding")).toBe("8bit");
    expect(read(report).parts.map((part) => part.encoding)).toEqual(["7bit", "7bit", "8bit"]);
  });
});

describe("uses the forms of RFC 6533 where addresses or header are internationalised", () => {
  const international: ReportRequest = {
    ...request,
    to: mailbox("bób@acme.example"),
    envelope: { ...envelope, smtpUtf8: true },
    recipients: [
      {
        ...failure,
        recipient: recipient("bestellung-ü@corp.example", {
          originalRecipient: "utf-8;bestellung-\\x{FC}@corp.example",
        }),
        remote: { name: "mail1.corp.example", reply: "550 5.1.1 Kein Empfänger\u202e" },
      },
    ],
    original: { header: Buffer.from("Subject: Grüße\r\n"), body },
  };

  test("and keeps the UTF-8 of addresses and replies", () => {
    const report = composeReport(international);
    expectSound(report);
    expect(report.envelope).toMatchObject({ body: "8bitmime", smtpUtf8: true });
    expect(read(report).parts.map((part) => part.type)).toEqual([
      "text/plain; charset=utf-8",
      "message/global-delivery-status",
      "message/global",
    ]);
    const group = statusGroups(report)[1];
    expect(group?.get("Original-Recipient")).toBe("utf-8; bestellung-ü@corp.example");
    expect(group?.get("Final-Recipient")).toBe("utf-8; bestellung-ü@corp.example");
    expect(group?.get("Diagnostic-Code")).toBe("smtp; 550 5.1.1 Kein Empfänger");
  });

  test("headers alone are message/global-headers", () => {
    const report = composeReport({ ...international, original: { header: international.original.header } });
    expect(read(report).parts[2]?.type).toBe("message/global-headers");
  });

  test.each<[string, Partial<ReportRequest>]>([
    ["for a message that is ASCII throughout", { recipients: [failure], original: { header, body } }],
    ["for a header that is no UTF-8", { original: { header: Buffer.from("Subject: \xfc\r\n", "latin1"), body } }],
    ["for 8-bit in a message that was not SMTPUTF8", { envelope, original: international.original }],
  ])("but not %s", (_, change) => {
    const report = composeReport({ ...international, ...change });
    expect(read(report).parts[2]?.type).toBe("message/rfc822");
    expectSound(report);
  });

  test("an ASCII report keeps the 7-bit form of an ORCPT of type utf-8", () => {
    const original = recipient("orders@corp.example", { originalRecipient: "utf-8;bestellung-\\x{FC}@corp.example" });
    const report = composeReport({ ...request, recipients: [{ ...failure, recipient: original }] });
    expect(statusGroups(report)[1]?.get("Original-Recipient")).toBe("utf-8; bestellung-\\x{FC}@corp.example");
    expect(read(report).parts[1]?.type).toBe("message/delivery-status");
  });

  test("a report to an ASCII address needs no SMTPUTF8 on its way", () => {
    expect(composeReport({ ...international, to: sender }).envelope).toMatchObject({
      body: "8bitmime",
      smtpUtf8: false,
    });
  });
});

describe("is not forged by what others write", () => {
  const forgery = "250 ok\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; ceo@corp.example\r\nStatus: 2.0.0";

  test("a reply adds no field and no group", () => {
    const report = composeReport({
      ...request,
      recipients: [{ ...failure, remote: { name: "a.example", reply: forgery } }],
    });
    const groups = statusGroups(report);
    expect(groups).toHaveLength(2);
    expect(groups[1]?.get("Action")).toBe("failed");
    expect(groups[1]?.get("Diagnostic-Code")).toContain("Action: delivered");
  });

  test.each(["\n", "\r", "\v", "\f", "\u0085", "\u2028", "\u2029"])("nor with %j for a line end", (lineEnd) => {
    const reply = forgery.replaceAll("\r\n", lineEnd);
    const report = composeReport({ ...request, recipients: [{ ...failure, remote: { name: "a.example", reply } }] });
    expect(statusGroups(report)).toHaveLength(2);
    expect(read(report).parts[0]?.content).toContain("    > 250 ok\r\n    > Action: delivered\r\n");
    expectSound(report);
  });

  test.each([
    ["550 no (such user", "550 no [such user"],
    ["550 no )such( user", "550 no ]such[ user"],
    ["550 no (such) user", "550 no (such) user"],
    ['550 "no such user', "550 'no such user"],
    ["550 CORP\\user \\", "550 CORP/user /"],
    ["550 no\tsuch\0user\x1b[2J", "550 no such user [2J"],
    ["550 nö such user", "550 n? such user"],
  ])("the reply %j opens nothing that it does not close", (reply, written) => {
    const report = composeReport({ ...request, recipients: [{ ...failure, remote: { name: "a.example", reply } }] });
    expect(statusGroups(report)[1]?.get("Diagnostic-Code")).toBe(`smtp; ${written}`);
  });

  test("an endless reply is cut, with a sign", () => {
    for (const reply of ["x".repeat(1_000_000), "550-x\r\n".repeat(100_000)]) {
      const report = composeReport({ ...request, recipients: [{ ...failure, remote: { name: "a.example", reply } }] });
      expect(report.content.length).toBeLessThan(8_000);
      expect(read(report).parts[0]?.content).toContain("> [...]");
      expectSound(report);
    }
  });

  test.each(["", "a.example\r\nAction: delivered", "a b", "(", "[300.1.1.1]", "x".repeat(5000)])(
    "a remote that calls itself %j has no name",
    (name) => {
      const report = composeReport({ ...request, recipients: [{ ...failure, remote: { name, reply: "550 no" } }] });
      expect(statusGroups(report)[1]?.has("Remote-MTA")).toBe(false);
      expect(read(report).parts[0]?.content).toContain("The server there said:");
    },
  );

  test.each([
    ["envelope id with a line end", { envelopeId: "a+0D+0AAction:+20delivered" }, "Original-Envelope-Id"],
    ["envelope id that is no xtext", { envelopeId: "a+zz" }, "Original-Envelope-Id"],
    ["envelope id with 8 bits", { envelopeId: "a+FC" }, "Original-Envelope-Id"],
    ["empty envelope id", { envelopeId: "" }, "Original-Envelope-Id"],
  ])("an %s is left out", (_, change, name) => {
    const report = composeReport({ ...request, envelope: { ...envelope, ...change } });
    expect(statusGroups(report)[0]?.has(name)).toBe(false);
    expect(statusGroups(report)).toHaveLength(2);
  });

  test.each([
    "rfc822;a+0D+0AAction:+20delivered",
    "rfc822;a+0aAction",
    "rfc822;",
    "rfc822",
    ";a@corp.example",
    "rfc822\r\nAction: delivered;a",
    "rfc822;ü@corp.example",
    `rfc822;${"a".repeat(501)}`,
    "utf-8;a\r\nb",
  ])("an original recipient %j is left out", (originalRecipient) => {
    const item = { ...failure, recipient: recipient("orders@corp.example", { originalRecipient }) };
    const report = composeReport({ ...request, recipients: [item] });
    expect(statusGroups(report)[1]?.has("Original-Recipient")).toBe(false);
    expectSound(report);
  });

  test.each(["\\x{D}", "\\x{0A}", "\\x{110000}", "\\x{D800}", "\\x{202E}"])(
    "nor does an internationalised original recipient bring in %s",
    (character) => {
      const original = { originalRecipient: `utf-8;ü${character}@corp.example` };
      const report = composeReport({
        ...request,
        envelope: { ...envelope, smtpUtf8: true },
        recipients: [{ ...failure, recipient: recipient("ü@corp.example", original) }],
      });
      expectSound(report);
      expect(statusGroups(report)).toHaveLength(2);
      expect(statusGroups(report)[1]?.get("Original-Recipient") ?? "").not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}]/u);
    },
  );

  test.each([
    ["a@b>\r\n X: <c"],
    ["<a@b.example> (comment)"],
    ["<a b@c.example>"],
    ["<(a@b.example>"],
    [`<${"a".repeat(300)}@b.example>`],
    ["a@b.example"],
  ])("a Message-ID %j is not referred to", (messageId) => {
    const original = { header: Buffer.from(`Message-ID: ${messageId}\r\n`) };
    const { fields } = read(composeReport({ ...request, original }));
    expect(fields.has("In-Reply-To")).toBe(false);
    expect(fields.has("References")).toBe(false);
  });

  test("a message that holds the boundary of its own report gets another", () => {
    const first = composeReport(request);
    const boundary = /boundary="([^"]+)"/.exec(first.content.toString())?.[1] ?? "";
    const report = composeReport({ ...request, original: { header, body: Buffer.from(`--${boundary}--\r\n`) } });
    expectSound(report);
    expect(read(report).parts[2]?.content).toContain(boundary);
  });

  test("by anything at all", () => {
    const words = fc.string({ unit: "binary", maxLength: 200 });
    const octets = fc.uint8Array({ maxLength: 1500 }).map((bytes) => Buffer.from(bytes));
    const lineOctets = fc
      .array(fc.constantFrom(...Array.from("ab:\r\n \0-ü")), { maxLength: 1500 })
      .map((all) => Buffer.from(all.join("")));
    const action = fc.constantFrom<ReportAction>("failed", "delayed", "delivered", "relayed", "expanded");
    const item = fc.record({ action, name: words, reply: words, explanation: words, original: words, status: words });
    const items = fc.array(item, { minLength: 1, maxLength: 4 });
    const blocks = fc.oneof(octets, lineOctets);
    fc.assert(
      fc.property(items, blocks, blocks, words, fc.boolean(), (all, someHeader, someBody, envelopeId, smtpUtf8) => {
        const report = composeReport({
          ...request,
          receivedFrom: envelopeId,
          envelope: { ...envelope, envelopeId, smtpUtf8 },
          original: { header: someHeader, body: someBody },
          recipients: all.map(({ name, reply, original, ...rest }) => ({
            ...rest,
            recipient: recipient(smtpUtf8 ? "ü@corp.example" : "orders@corp.example", { originalRecipient: original }),
            remote: { name, reply },
          })),
        });
        expectSound(report);
        expect(statusGroups(report)).toHaveLength(all.length + 1);
        expect(
          statusGroups(report)
            .slice(1)
            .map((group) => group.get("Action")),
        ).toEqual(all.map((one) => one.action));
      }),
      { numRuns: 300 },
    );
  });
});

test("long and quoted addresses stand whole in the part for programs", () => {
  const address = `"${"a b".repeat(20)}"@${"long.".repeat(30)}example`;
  const report = composeReport({
    ...request,
    to: mailbox(address),
    recipients: [{ ...failure, recipient: recipient(address) }],
  });
  expectSound(report);
  expect(statusGroups(report)[1]?.get("Final-Recipient")).toBe(`rfc822; ${address}`);
});

test("bare postmaster is reported as it was written", () => {
  const report = composeReport({ ...request, recipients: [{ ...failure, recipient: recipient("postmaster") }] });
  expect(statusGroups(report)[1]?.get("Final-Recipient")).toBe("rfc822; postmaster");
});

test("dates that are none are left out", () => {
  const none = new Date(Number.NaN);
  const recipients = [{ ...delay, lastAttemptAt: none, retryUntil: none }];
  const groups = statusGroups(composeReport({ ...request, arrivedAt: none, recipients }));
  expect(groups[0]?.has("Arrival-Date")).toBe(false);
  expect([...(groups[1]?.keys() ?? [])]).toEqual(["Final-Recipient", "Action", "Status"]);
});

test("refuses to report about nobody", () => {
  expect(() => composeReport({ ...request, recipients: [] })).toThrow(RangeError);
});

describe("a report is wanted (RFC 3461 §4.1)", () => {
  const all: ReportAction[] = ["failed", "delayed", "delivered", "relayed", "expanded"];
  test.each<[string, Notify | undefined, ReportAction[]]>([
    ["by default about failure and delay", undefined, ["failed", "delayed"]],
    ["never", "never", []],
    ["about failure only", ["failure"], ["failed"]],
    ["about delay only", ["delay"], ["delayed"]],
    ["about success only", ["success"], ["delivered", "relayed", "expanded"]],
    ["about everything", ["success", "failure", "delay"], all],
    ["about nothing that was named", [], []],
  ])("%s", (_, notify, wanted) => {
    const path = recipient("orders@corp.example").path;
    const asked: Recipient = notify === undefined ? { path } : { path, notify };
    expect(all.filter((action) => wantsReport(asked, action))).toEqual(wanted);
  });
});

test("a message from nobody is never reported about", () => {
  expect(isReportable(envelope)).toBe(true);
  expect(isReportable({ ...envelope, reversePath: { kind: "null" } })).toBe(false);
});
