/** The way to one route: connections, turns, servers that are left alone, and the end. */
import { describe, expect, test } from "vitest";
import type { JobResult, Lane } from "../../src/deliverer/lane.ts";
import type { Answer, ScriptedHop } from "../tools/scripted-hop.ts";
import { held, LaneClock, send, useHops, useLanes } from "./fixtures.ts";
import { claimedMessage, makeCertificates, patientLimits, shortLimits } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const laneTo = useLanes(server);

const sendMany = (lane: Lane, count: number, partner?: string): Array<Promise<JobResult>> =>
  Array.from({ length: count }, (_, at) =>
    send(lane, claimedMessage({ content: `Subject: ${partner ?? "acme"} ${at}\r\n` }), partner),
  );

const kindsOf = (results: readonly JobResult[]) => results.map(({ verdicts }) => verdicts.get(0)?.outcome.kind);
const countOf = (results: readonly JobResult[], kind: string | undefined) =>
  kindsOf(results).filter((found) => found === kind).length;

describe("connections", () => {
  test("are opened up to the limit and used again", async () => {
    const hop = await hopWith();
    const results = await Promise.all(sendMany(laneTo([hop]), 100));
    expect(countOf(results, "delivered")).toBe(100);
    expect(hop.connections()).toBe(patientLimits.connectionsPerRouteMax);
    expect(hop.contents.length).toBe(100);
  });

  test("are kept open for the next message, and ended when none comes", async () => {
    const hop = await hopWith();
    const lane = laneTo([hop], { limits: { ...patientLimits, idleConnectionMs: 300 } });
    for (let count = 0; count < 5; count += 1) await send(lane);
    expect(hop.connections()).toBe(1);
    await hop.until(() => hop.open() === 0);
    expect(hop.lines.at(-1)).toBe("QUIT");
    expect(kindsOf([await send(lane)])).toEqual(["delivered"]);
    expect(hop.connections()).toBe(2);
  });

  test("that have carried enough messages are ended, and none is left open", async () => {
    const hop = await hopWith();
    const limits = { ...patientLimits, messagesPerConnectionMax: 3, connectionsPerRouteMax: 1 };
    const results = await Promise.all(sendMany(laneTo([hop], { limits }), 9));
    expect(countOf(results, "delivered")).toBe(9);
    expect(hop.connections()).toBe(3);
    await hop.until(() => hop.open() === 0);
    expect(hop.lines.filter((line) => line === "QUIT").length).toBe(3);
  });

  test("that the server has closed in the meantime cost nothing but a new one", async () => {
    const clock = new LaneClock();
    const hop = await hopWith();
    const lane = laneTo([hop], { clock });
    for (let count = 0; count < 4; count += 1) {
      expect((await send(lane)).retryAtMs).toBeUndefined();
      hop.drop();
    }
    // Its server is not left alone for it, and each message was sent once.
    expect(kindsOf([await send(lane)])).toEqual(["delivered"]);
    expect(hop.contents.length).toBe(5);
  });
});

test("partners take turns", async () => {
  const first = held();
  const hop = await hopWith((verb, _, connection) =>
    verb === "CONTENT" && connection === 1 && hop.contents.length === 1 ? first.answer : undefined,
  );
  const lane = laneTo([hop], { limits: { ...patientLimits, connectionsPerRouteMax: 1 } });
  const backlog = sendMany(lane, 50, "acme");
  await hop.until(() => hop.contents.length === 1);
  const small = sendMany(lane, 2, "globex");
  expect([lane.waiting, lane.working]).toEqual([51, 1]);
  first.release();
  await Promise.all([...backlog, ...small]);
  const order = hop.contents.map((content) => /^Subject: (\w+)/.exec(content.toString())?.[1]);
  expect(order.slice(0, 5)).toEqual(["acme", "acme", "globex", "acme", "globex"]);
});

test("each partner has its share of the room, and one more always finds some", async () => {
  const hop = await hopWith((verb) => (verb === "CONNECT" ? { silent: true } : undefined));
  const lane = laneTo([hop]);
  void sendMany(lane, 4 + patientLimits.connectionsPerRouteMax, "acme");
  expect([lane.isBusy(10), lane.hasRoomFor("acme", 10), lane.hasRoomFor("acme", 4)]).toEqual([false, true, false]);
  void sendMany(lane, 6, "acme");
  expect(lane.waiting).toBe(10);
  expect(lane.hasRoomFor("acme", 10)).toBe(false);
  expect(lane.hasRoomFor("acme", 11)).toBe(true);
  expect(lane.hasRoomFor("globex", 10)).toBe(true);
  void sendMany(lane, 5, "globex");
  expect(lane.hasRoomFor("globex", 10)).toBe(false);
  expect(lane.hasRoomFor("initech", 0)).toBe(true);
});

describe("a dead server", () => {
  const secondMs = 1_000;

  test("is probed, not hammered: connections counted over an hour", async () => {
    const clock = new LaneClock();
    const hop = await hopWith((verb) => (verb === "CONNECT" ? "421 4.3.2 closed" : undefined));
    const lane = laneTo([hop], { clock });
    const startedAtMs = clock.ms;
    const first = await Promise.all(sendMany(lane, 500));
    expect(countOf(first, "temporary")).toBe(500);
    expect(hop.connections()).toBeLessThanOrEqual(patientLimits.connectionsPerRouteMax);
    // Who was not tried hears why, and when it is worth it again.
    expect(first.at(-1)?.retryAtMs).toBe(clock.ms + 5 * secondMs);
    expect(first.at(-1)?.verdicts.get(0)?.outcome).toMatchObject({ text: expect.stringContaining("421 4.3.2 closed") });
    const before = hop.connections();
    while (clock.ms < startedAtMs + 3_600 * secondMs) {
      clock.ms += secondMs;
      await Promise.all(sendMany(lane, 3));
    }
    // 5, 10, 20 … 300, 300, 300: that is 6 pauses in 315 seconds and then one probe in five minutes.
    expect(hop.connections() - before).toBeLessThanOrEqual(18);
    expect(hop.connections() - before).toBeGreaterThanOrEqual(14);
  });

  test("is waited for while it is probed, and when it works again all that waits goes on", async () => {
    const clock = new LaneClock();
    let connect: () => Answer | undefined | Promise<Answer | undefined> = () => "421 4.3.2 closed";
    const hop = await hopWith((verb) => (verb === "CONNECT" ? connect() : undefined));
    const lane = laneTo([hop], { clock });
    await Promise.all(sendMany(lane, 10));
    const before = hop.connections();
    clock.ms += 5 * secondMs;
    const probe = held();
    connect = () => (hop.connections() === before + 1 ? probe.answer : undefined);
    let settled = 0;
    const results = sendMany(lane, 200).map(async (result) => {
      await result;
      settled += 1;
      return result;
    });
    await hop.until(() => hop.connections() === before + 1);
    expect(lane.waiting).toBe(199);
    expect(settled).toBe(0);
    probe.release();
    expect(countOf(await Promise.all(results), "delivered")).toBe(200);
    expect(hop.connections()).toBeLessThanOrEqual(before + patientLimits.connectionsPerRouteMax);
  });

  test("that fails its probe costs one connection, whatever waits", async () => {
    const clock = new LaneClock();
    const hop = await hopWith((verb) => (verb === "CONNECT" ? "421 4.3.2 closed" : undefined));
    const lane = laneTo([hop], { clock });
    await Promise.all(sendMany(lane, 10));
    const before = hop.connections();
    clock.ms += 5 * secondMs;
    const results = await Promise.all(sendMany(lane, 200));
    expect(countOf(results, "temporary")).toBe(200);
    expect(hop.connections()).toBe(before + 1);
    expect(results.at(-1)?.retryAtMs).toBe(clock.ms + 10 * secondMs);
  });

  test("that greets and then fails each transaction is left alone longer and longer, too", async () => {
    const clock = new LaneClock();
    const hop = await hopWith((verb) => (verb === "MAIL" ? { close: true } : undefined));
    const lane = laneTo([hop], { clock });
    const pauses: number[] = [];
    for (let count = 0; count < 4; count += 1) {
      const { retryAtMs = 0 } = await send(lane);
      pauses.push((retryAtMs - clock.ms) / secondMs);
      clock.ms = retryAtMs;
    }
    expect(pauses).toEqual([5, 10, 20, 40]);
  });

  test("leaves all to the second one, and is looked at again after a pause, by one message at a time", async () => {
    const clock = new LaneClock();
    let isDead = true;
    const first = await hopWith((verb) => (verb === "CONNECT" && isDead ? "421 4.3.2 closed" : undefined));
    const second = await hopWith();
    const limits = { ...patientLimits, messagesPerConnectionMax: 1 };
    const lane = laneTo([first, second], { clock, limits });
    expect(countOf(await Promise.all(sendMany(lane, 50)), "delivered")).toBe(50);
    expect(first.connections()).toBeLessThanOrEqual(limits.connectionsPerRouteMax);
    const before = first.connections();
    clock.ms += 5 * secondMs;
    expect(countOf(await Promise.all(sendMany(lane, 50)), "delivered")).toBe(50);
    expect(first.connections()).toBe(before + 1);
    isDead = false;
    clock.ms += 10 * secondMs;
    const results = await Promise.all(sendMany(lane, 50));
    expect(countOf(results, "delivered")).toBe(50);
    // Most go to the first again; those that were under way beside the probe went to the second.
    expect(first.contents.length).toBeGreaterThan(25);
  });

  test("does not keep messages from servers to which connections are open", async () => {
    // A server that takes two connections from us and no more.
    const hop = await hopWith((verb, _, connection) =>
      verb === "CONNECT" && connection > 2 ? "421 4.7.0 too many connections" : undefined,
    );
    const results = await Promise.all(sendMany(laneTo([hop]), 300));
    // Who got the refused connections waits; all others pass over the two.
    expect(countOf(results, "temporary")).toBeLessThanOrEqual(3);
    expect(hop.connections()).toBeLessThanOrEqual(5);
  });

  test("is found out again when somebody nudges, though its lane is busy with a message that hangs", async () => {
    const clock = new LaneClock();
    const hanging = held();
    let isDead = false;
    const hop = await hopWith((verb) => {
      if (verb === "CONTENT" && hop.contents.length === 1) return hanging.answer;
      return verb === "CONNECT" && isDead ? "421 4.3.2 closed" : undefined;
    });
    const lane = laneTo([hop], { clock });
    const first = send(lane);
    await hop.until(() => hop.contents.length === 1);
    isDead = true;
    expect(kindsOf([await send(lane)])).toEqual(["temporary"]);
    isDead = false;
    const second = send(lane); // the server is left alone, and one worker is under way: this one waits
    expect(lane.waiting).toBe(1);
    clock.ms += 5 * secondMs;
    lane.nudge();
    expect(kindsOf([await second])).toEqual(["delivered"]);
    hanging.release();
    expect(kindsOf([await first])).toEqual(["delivered"]);
  });
});

test("a server that takes no message now is asked no more in this attempt, and its connection stays", async () => {
  const first = await hopWith((verb) => (verb === "MAIL" ? "452 4.3.1 no space" : undefined));
  const second = await hopWith();
  const lane = laneTo([first, second], { limits: { ...patientLimits, connectionsPerRouteMax: 1 } });
  const results = await Promise.all(sendMany(lane, 20));
  expect(countOf(results, "delivered")).toBe(20);
  expect(second.contents.length).toBe(20);
  expect([first.connections(), second.connections()]).toEqual([1, 1]);
  expect(first.lines.filter((line) => line.startsWith("MAIL")).length).toBe(1);
});

describe("stop()", () => {
  test("gives back what waits, lets content on its way come to its end, and breaks off the rest", async () => {
    const end = held();
    const connecting = held();
    const hop = await hopWith((verb, _, connection) => {
      if (verb === "CONTENT") return end.answer;
      return verb === "CONNECT" && connection === 2 ? connecting.answer : undefined;
    });
    const lane = laneTo([hop], { limits: { ...patientLimits, connectionsPerRouteMax: 2 } });
    const [sending, connects, ...waiting] = sendMany(lane, 5);
    await hop.until(() => hop.contents.length === 1 && hop.connections() === 2);
    const back = lane.stop();
    expect(back.length).toBe(3);
    // Not tried: no outcome, so that its schedule does not advance.
    expect((await connects)?.verdicts.size).toBe(0);
    end.release();
    expect(kindsOf([(await sending) as JobResult])).toEqual(["delivered"]);
    await hop.until(() => hop.open() === 0);
    expect(hop.lines.at(-1)).toBe("QUIT");
    for (const job of back) job.done({ verdicts: new Map() });
    await Promise.all(waiting);
    connecting.release();
  });

  test("breaks off a transaction that has not come to its content", async () => {
    const mail = held();
    const hop = await hopWith((verb) => (verb === "MAIL" ? mail.answer : undefined));
    const lane = laneTo([hop]);
    const sending = send(lane);
    await hop.until(() => hop.lines.some((line) => line.startsWith("MAIL")));
    lane.stop();
    expect((await sending).verdicts.size).toBe(0);
    await hop.until(() => hop.open() === 0);
    mail.release();
    expect(hop.contents).toEqual([]);
  });

  test("does not take a lost reply for an untried message", async () => {
    const hop: ScriptedHop = await hopWith((verb) => {
      if (verb === "CONTENT") lane.stop();
      return verb === "CONTENT" ? { close: true } : undefined;
    });
    const lane = laneTo([hop]);
    expect(kindsOf([await send(lane)])).toEqual(["temporary"]);
  });

  test("ends idle connections, and does not wait for a server that does not answer QUIT", async () => {
    const hop = await hopWith((verb) => (verb === "QUIT" ? { silent: true } : undefined));
    const lane = laneTo([hop], { limits: shortLimits });
    await send(lane);
    lane.stop();
    await hop.until(() => hop.lines.at(-1) === "QUIT");
    await hop.until(() => hop.open() === 0);
  });
});
