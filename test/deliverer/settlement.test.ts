/** Who is settled, who waits until when, who is told what: tables. */
import { describe, expect, test } from "vitest";
import type { DeliveryOutcome } from "../../src/deliverer/outcome.ts";
import { attemptRecords, settlementOf, type AttemptedRecipient } from "../../src/deliverer/settlement.ts";
import type { Notify } from "../../src/mail/envelope.ts";
import type { ClaimedMessage } from "../../src/spool/spool.ts";
import { claimedMessage, nextHop, plaintext, recipient } from "./support.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const receivedAtMs = 1_790_000_000_000;
const retry = { scheduleMs: [minuteMs, 5 * minuteMs, 4 * hourMs], expireMs: 5 * dayMs, warnAfterMs: 4 * hourMs };
const hop = nextHop({ address: "10.1.0.10", port: 25 }, plaintext);

const passedOn: DeliveryOutcome = { kind: "delivered", reply: "250 ok", dsnPassedOn: true };
const relayed: DeliveryOutcome = { kind: "delivered", reply: "250 ok", dsnPassedOn: false };
const refused: DeliveryOutcome = { kind: "failed", status: "5.1.1", text: "550 5.1.1 who?", remote: true };
const uncarried: DeliveryOutcome = { kind: "failed", status: "5.6.3", text: "No 8-bit content", remote: false };
const later: DeliveryOutcome = { kind: "temporary", status: "4.2.1", text: "450 4.2.1 later", remote: true };
const unreachable: DeliveryOutcome = {
  kind: "temporary",
  status: "4.4.1",
  text: "connect ECONNREFUSED 10.1.0.10:25",
  remote: false,
};

interface Case {
  readonly outcome: DeliveryOutcome;
  readonly notify?: Notify | undefined;
  readonly ageMs?: number;
  readonly attempts?: number;
  readonly from?: string;
  readonly delayReported?: boolean;
  readonly retryAtMs?: number | undefined;
  readonly random?: number;
  readonly partner?: string | null;
}

/** One recipient, one outcome. */
function settled({ outcome, ...given }: Case) {
  const { notify, ageMs = 0, attempts = 0, from, delayReported = false, retryAtMs, random = 0.5 } = given;
  const message: ClaimedMessage = claimedMessage({
    to: [recipient("orders@corp.example", notify === undefined ? {} : { notify })],
    ...(from === undefined ? {} : { from }),
    meta: { receivedAtMs, ...(given.partner === undefined ? {} : { partner: given.partner }) },
    message: { delayReported, pending: [{ index: 0, attempts, nextAttemptAtMs: 0 }] },
  });
  const attempted: AttemptedRecipient[] = [{ index: 0, route: "internal", hop, outcome, retryAtMs }];
  const now = new Date(receivedAtMs + ageMs);
  const settlement = settlementOf(message, attempted, [], retry, now, () => random);
  return {
    ...settlement,
    /** Compact: what became of it, and what is told. */
    said: [
      settlement.failed.length > 0 ? "failed" : settlement.deferred.length > 0 ? "deferred" : "done",
      ...settlement.reports.map(({ action, status }) => `${action} ${status}`),
    ].join(", "),
  };
}

const all: Notify = ["success", "failure", "delay"];

describe("what is told, by NOTIFY", () => {
  test.each<[Notify | undefined, DeliveryOutcome, number, string]>([
    // not given: failure, and delay at our choice (RFC 3461 §4.1)
    [undefined, passedOn, 0, "done"],
    [undefined, relayed, 0, "done"],
    [undefined, refused, 0, "failed, failed 5.1.1"],
    [undefined, uncarried, 0, "failed, failed 5.6.3"],
    [undefined, later, 0, "deferred"],
    [undefined, later, 4 * hourMs, "deferred, delayed 4.2.1"],
    [undefined, later, 5 * dayMs, "failed, failed 4.4.7"],
    // never
    ["never", passedOn, 0, "done"],
    ["never", relayed, 0, "done"],
    ["never", refused, 0, "failed"],
    ["never", later, 4 * hourMs, "deferred"],
    ["never", later, 5 * dayMs, "failed"],
    // one by one
    [["success"], passedOn, 0, "done"],
    [["success"], relayed, 0, "done, relayed 2.0.0"],
    [["success"], refused, 0, "failed"],
    [["success"], later, 4 * hourMs, "deferred"],
    [["failure"], relayed, 0, "done"],
    [["failure"], refused, 0, "failed, failed 5.1.1"],
    [["failure"], later, 4 * hourMs, "deferred"],
    [["failure"], later, 5 * dayMs, "failed, failed 4.4.7"],
    [["delay"], relayed, 0, "done"],
    [["delay"], refused, 0, "failed"],
    [["delay"], later, 4 * hourMs, "deferred, delayed 4.2.1"],
    [["delay"], later, 5 * dayMs, "failed"],
    [all, relayed, 0, "done, relayed 2.0.0"],
    [all, passedOn, 0, "done"],
    [all, refused, 0, "failed, failed 5.1.1"],
    [all, later, 4 * hourMs, "deferred, delayed 4.2.1"],
  ])("NOTIFY=%j, %o, after %i ms: %s", (notify, outcome, ageMs, said) => {
    expect(settled({ outcome, notify, ageMs }).said).toBe(said);
  });
});

describe("of a message from nowhere only failures are told, and always", () => {
  test.each<[Notify | undefined, DeliveryOutcome, number, string]>([
    [undefined, refused, 0, "failed, failed 5.1.1"],
    ["never", refused, 0, "failed, failed 5.1.1"], // as our own reports ask
    ["never", later, 5 * dayMs, "failed, failed 4.4.7"],
    [["success"], refused, 0, "failed, failed 5.1.1"],
    [all, relayed, 0, "done"],
    [all, later, 4 * hourMs, "deferred"],
    [undefined, later, 4 * hourMs, "deferred"],
  ])("NOTIFY=%j, %o, after %i ms: %s", (notify, outcome, ageMs, said) => {
    const settlement = settled({ outcome, notify, ageMs, from: "" });
    expect(settlement.said).toBe(said);
    expect(settlement.delayReported).toBe(false);
  });
});

describe("warnings", () => {
  test.each<[number, boolean, boolean]>([
    [4 * hourMs - 1, false, false],
    [4 * hourMs, false, true],
    [30 * hourMs, false, true],
    [30 * hourMs, true, false],
  ])("after %i ms, warned before: %s, warned now: %s", (ageMs, delayReported, isWarned) => {
    const settlement = settled({ outcome: later, ageMs, delayReported });
    expect(settlement.reports.length).toBe(isWarned ? 1 : 0);
    expect(settlement.delayReported).toBe(delayReported || isWarned);
  });

  test("say until when it is tried, and who said what", () => {
    const [warning] = settled({ outcome: later, ageMs: 5 * hourMs }).reports;
    expect(warning).toMatchObject({
      action: "delayed",
      retryUntil: new Date(receivedAtMs + 5 * dayMs),
      lastAttemptAt: new Date(receivedAtMs + 5 * hourMs),
      remote: { name: "mail1.corp.example", reply: "450 4.2.1 later" },
    });
  });
});

describe("expiry", () => {
  test.each([
    [5 * dayMs - 1, "deferred, delayed 4.4.1"],
    [5 * dayMs, "failed, failed 4.4.7"],
    [500 * dayMs, "failed, failed 4.4.7"],
    [-dayMs, "deferred"], // the clock was set back
  ])("after %i ms: %s", (ageMs, said) => {
    expect(settled({ outcome: unreachable, ageMs }).said).toBe(said);
  });

  test("ends nothing that was delivered", () => {
    expect(settled({ outcome: passedOn, ageMs: 500 * dayMs }).said).toBe("done");
  });

  test("says what the server said last", () => {
    const [report] = settled({ outcome: later, ageMs: 6 * dayMs }).reports;
    expect(report).toMatchObject({
      remote: { reply: "450 4.2.1 later" },
      explanation: expect.stringContaining("time"),
    });
  });
});

describe("the next attempt", () => {
  const nextIn = (given: Omit<Case, "outcome">) =>
    (settled({ outcome: later, ...given }).deferred[0]?.nextAttemptAtMs ?? 0) - receivedAtMs - (given.ageMs ?? 0);

  test.each([
    [0, minuteMs],
    [1, 5 * minuteMs],
    [2, 4 * hourMs * 0.95],
    [50, 4 * hourMs * 0.95],
  ])("after %i attempts before this one comes in %i ms", (attempts, waitMs) => {
    expect(nextIn({ attempts })).toBe(waitMs);
    expect(settled({ outcome: later, attempts }).deferred).toMatchObject([
      { index: 0, route: "internal", attempts: attempts + 1 },
    ]);
  });

  test("is not before a server that is being left alone may be tried", () => {
    expect(nextIn({ retryAtMs: receivedAtMs + 3 * minuteMs })).toBe(3 * minuteMs);
    expect(nextIn({ retryAtMs: receivedAtMs + 1_000 })).toBe(minuteMs);
  });

  test("is never further away than the longest delay of the schedule", () => {
    expect(nextIn({ retryAtMs: receivedAtMs + dayMs })).toBe(4 * hourMs);
  });

  test("is made at the expiry rather than behind it", () => {
    expect(nextIn({ attempts: 2, ageMs: 5 * dayMs - hourMs })).toBe(hourMs);
  });
});

describe("what the sender reads", () => {
  test.each<[DeliveryOutcome, RegExp]>([
    [refused, /^The next server refused it\.$/],
    [uncarried, /^No 8-bit content$/],
    [unreachable, /^The next server could not be reached\.$/],
    [{ ...unreachable, status: "4.7.5", text: "the server's key is sha256/x, pinned is sha256/y" }, /^No secure/],
    [{ ...unreachable, status: "4.4.2", text: "read ECONNRESET" }, /broke/],
    [{ ...unreachable, status: "4.4.4", text: "No route leads to this domain" }, /no way/],
    [{ ...unreachable, status: "4.3.0", text: "ENOENT: /var/spool/pinrelay/queue/x" }, /could not be passed on/],
  ])("of %o", (outcome, explanation) => {
    const [report] = settled({ outcome, ageMs: 4 * hourMs }).reports;
    expect(report?.explanation).toMatch(explanation);
    // No address, path or key of ours.
    expect(JSON.stringify(report)).not.toMatch(/10\.1\.0|\/var|sha256|ECONN/);
  });
});

describe("many recipients", () => {
  const to = [
    recipient("a@corp.example"),
    recipient("b@corp.example", { notify: "never" }),
    recipient("c@corp.example"),
    recipient("d@corp.example", { notify: ["success"] }),
    recipient("e@corp.example"),
    recipient("f@corp.example"),
  ];
  const message = claimedMessage({ to, meta: { receivedAtMs } });
  const attempted = [refused, refused, passedOn, relayed, later].map((outcome, index): AttemptedRecipient => ({
    index,
    route: "internal",
    hop,
    outcome,
  }));
  const untried = [{ index: 5, route: "internal", attempts: 0, nextAttemptAtMs: receivedAtMs }];

  test("are told of in one report, and each is settled once", () => {
    const now = new Date(receivedAtMs + 4 * hourMs);
    const settlement = settlementOf(message, attempted, untried, retry, now, () => 0.5);
    expect(settlement.failed).toEqual([0, 1]);
    expect(settlement.deferred.map(({ index, attempts }) => [index, attempts])).toEqual([
      [5, 0],
      [4, 1],
    ]);
    expect(settlement.reports.map(({ action, recipient: { path } }) => [action, path])).toEqual([
      ["failed", to[0]?.path],
      ["relayed", to[3]?.path],
      ["delayed", to[4]?.path],
    ]);
  });

  test("who were told the same stand in one record", () => {
    const now = new Date(receivedAtMs);
    expect(attemptRecords(attempted, now)).toEqual([
      { atMs: receivedAtMs, recipients: [0, 1], server: "mail1.corp.example 10.1.0.10:25", text: "550 5.1.1 who?" },
      { atMs: receivedAtMs, recipients: [2], server: "mail1.corp.example 10.1.0.10:25", text: "250 ok" },
      { atMs: receivedAtMs, recipients: [3], server: "mail1.corp.example 10.1.0.10:25", text: "250 ok" },
      { atMs: receivedAtMs, recipients: [4], server: "mail1.corp.example 10.1.0.10:25", text: "450 4.2.1 later" },
    ]);
  });
});
