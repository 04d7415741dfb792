/** No partner and no route delays another: by order and by counts, not by time. */
import { describe, expect, test } from "vitest";
import type { Answer, Script } from "../tools/scripted-hop.ts";
import { held, minuteMs, routeVia, subjectsAt, useHops, useRelays } from "./fixtures.ts";
import type { TestRelay } from "./relay.ts";
import { makeCertificates } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const relayTo = useRelays(server);

describe("no partner and no route delays another", () => {
  const many = (relay: TestRelay, count: number, shape: Parameters<TestRelay["commit"]>[0]) =>
    Promise.all(Array.from({ length: count }, () => relay.commit(shape)));

  test("a backlog of 5,000 of one partner lets another's message pass", async () => {
    const first = held();
    const hop = await hopWith((verb) => (verb === "CONTENT" && hop.contents.length === 1 ? first.answer : undefined));
    const relay = await relayTo(hop, { limits: { connectionsPerRouteMax: 1 } });
    await many(relay, 5_000, { content: "Subject: acme\r\n", partner: "acme" });
    const id = await relay.commit({ content: "Subject: globex\r\n", partner: "globex" });
    relay.start();
    // All is claimed: what has no room goes to the index, and the one from globex has room.
    await relay.spool.until(() => relay.spool.claimed.some(({ meta }) => meta.id === id));
    expect(relay.spool.putBacks.map((putBack) => putBack.id)).not.toContain(id);
    first.release();
    await hop.until(() => hop.contents.length >= 4);
    expect(subjectsAt(hop).slice(0, 4)).toContain("globex");
    expect(relay.spool.inHandMax).toBeLessThan(1_000);
  });

  test("a retry gets in, too, however much of another partner's is due on the same route", async () => {
    let isBusy = true;
    let hold: Promise<Answer | undefined> | undefined;
    const hop = await hopWith((verb, line) => {
      if (verb === "MAIL" && line.includes("globex")) return isBusy ? "451 4.7.1 later" : undefined;
      return verb === "CONTENT" ? hold : undefined;
    });
    const limits = { connectionsPerRouteMax: 1, waitingPerRouteMax: 100 };
    const relay = await relayTo(hop, { limits });
    const id = await relay.commit({ content: "Subject: globex\r\n", partner: "globex", from: "g@globex.example" });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    isBusy = false;
    const gate = held();
    hold = gate.answer;
    await many(relay, 1_000, { content: "Subject: acme\r\n", partner: "acme" });
    await relay.spool.until(() => relay.spool.claimed.length > 900);
    relay.clock.ms += 2 * minuteMs;
    const claims = () => relay.spool.claimed.filter(({ meta }) => meta.id === id).length;
    await relay.spool.until(() => claims() === 2);
    const before = hop.contents.length;
    hold = undefined;
    gate.release();
    await hop.until(() => subjectsAt(hop).includes("globex"));
    expect(subjectsAt(hop).indexOf("globex") - before).toBeLessThan(3);
  });

  test("new mail gets through, however much old mail is due", async () => {
    let isBusy = true;
    const hop = await hopWith((verb, line) =>
      verb === "RCPT" && isBusy && line.includes("old") ? "450 4.2.1 busy" : undefined,
    );
    const relay = await relayTo(hop, { retry: { scheduleMs: [1] } });
    await many(relay, 500, { to: ["old@corp.example"] });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length >= 500);
    // From now on all of it is due at every look.
    const timer = setInterval(() => (relay.clock.ms += 10), 1);
    await relay.commit({ content: "Subject: new\r\n", to: ["new@corp.example"] });
    await hop.until(() => subjectsAt(hop).includes("new"));
    clearInterval(timer);
    isBusy = false;
  });

  test("routes that hang, more of them than there are hands, keep nothing from one that works", async () => {
    const silent: Script = (verb) => (verb === "CONNECT" ? { silent: true } : undefined);
    const names = Array.from({ length: 12 }, (_, at) => `r${at}`);
    const hanging = await Promise.all(names.map(() => hopWith(silent)));
    const works = await hopWith();
    const routes = hanging.map((hop, at) => routeVia(server, hop, { name: `r${at}`, domains: [`r${at}.example`] }));
    const relay = await relayTo([...routes, routeVia(server, works)]);
    for (const name of names) await many(relay, 300, { to: [`x@${name}.example`], content: "Subject: hangs\r\n" });
    relay.start();
    await relay.spool.until(() => relay.spool.claimed.length >= 12 * 300);
    for (let count = 0; count < 3; count += 1) {
      await relay.commit({ content: `Subject: works ${count}\r\n` });
      await works.until(() => works.contents.length === count + 1);
    }
    expect(hanging.map((hop) => hop.connections()).every((count) => count <= 5)).toBe(true);
    // A thousand wait, five of each route are under way, and some are on their way from or to the spool.
    expect(relay.spool.inHandMax).toBeLessThan(3_000);
  });

  test("what has no room is not claimed and put back over and over", async () => {
    const hop = await hopWith((verb) => (verb === "CONNECT" ? { silent: true } : undefined));
    const relay = await relayTo(hop, { limits: { waitingPerRouteMax: 100, connectionsPerRouteMax: 1 } });
    // Little of two partners, and then more of a third than its share of the room.
    for (const partner of ["globex", "initech", "globex", "initech"]) await relay.commit({ partner });
    relay.clock.ms += 1; // what came first is claimed first
    await many(relay, 300, { partner: "acme" });
    relay.start();
    await relay.spool.until(() => relay.spool.claimed.length >= 304);
    const [claims, scans] = [relay.spool.claimed.length, relay.spool.scans];
    await relay.spool.until(() => relay.spool.scans >= scans + 40);
    // At each scan a few, so that a partner who has little waiting gets in.
    expect((relay.spool.claimed.length - claims) / 40).toBeLessThanOrEqual(20);
  });

  test("one recipient's hanging server does not keep another recipient's mark", async () => {
    const hanging = await hopWith((verb) => (verb === "CONNECT" ? { silent: true } : undefined));
    const works = await hopWith();
    const relay = await relayTo([
      routeVia(server, hanging),
      routeVia(server, works, { name: "edi", domains: ["edi.corp.example"] }),
    ]);
    await relay.commit({ to: ["a@corp.example", "b@edi.corp.example"] });
    relay.start();
    await works.until(() => works.contents.length === 1);
    await works.until(() => hanging.connections() === 1);
    // Stopped in the middle: who has it does not get it again.
    await relay.reopen();
    relay.start();
    await relay.spool.until(() => relay.spool.claimed.length === 1);
    expect(relay.spool.claimed[0]?.pending.map(({ index }) => index)).toEqual([0]);
    expect(works.contents.length).toBe(1);
  });
});
