/** A deliverer that is given another configuration while it works: nothing is lost, nothing is sent twice. */
import { describe, expect, test } from "vitest";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import type { Route } from "../../src/partner/partner.ts";
import { held, hourMs, partnerRoute, routeVia, subjectsAt, useHops, useRelays } from "./fixtures.ts";
import { makeCertificates, nextHop, pinned } from "./support.ts";
import type { TestRelay } from "./relay.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const relayTo = useRelays(server);

const withRoutes = (config: RelayConfig, ...routes: readonly Route[]): RelayConfig => ({ ...config, routes });

function commitMany(relay: TestRelay, count: number, from = 0): Promise<string[]> {
  return Promise.all(
    Array.from({ length: count }, (_, at) => relay.commit({ content: `Subject: ${from + at}\r\n\r\nx\r\n` })),
  );
}

const numbers = (count: number): string[] => Array.from({ length: count }, (_, at) => String(at)).toSorted();

describe("a route whose server has another address", () => {
  test("gets new mail there; content that was on its way ends where it was, once", async () => {
    const end = held();
    const [old, now] = [await hopWith((verb) => (verb === "CONTENT" ? end.answer : undefined)), await hopWith()];
    const relay = await relayTo(old);
    await relay.commit({ content: "Subject: first\r\n\r\nx\r\n" });
    relay.start();
    await old.until(() => old.lines.includes("CONTENT"));
    relay.deliverer.reload(withRoutes(relay.config, routeVia(server, now)));
    await relay.commit({ content: "Subject: second\r\n\r\nx\r\n" });
    await now.until(() => now.contents.length === 1);
    end.release();
    await relay.spool.until(() => relay.spool.putBacks.length === 2);
    expect([subjectsAt(old), subjectsAt(now)]).toEqual([["first"], ["second"]]);
    await relay.spool.settledDown();
    expect(await relay.files()).toEqual([]);
  });

  test("gets what waited for the old one, which never answered", async () => {
    const old = await hopWith((verb) => (verb === "CONNECT" ? { silent: true } : undefined));
    const now = await hopWith();
    const relay = await relayTo(old);
    await commitMany(relay, 30);
    relay.start();
    await old.until(() => old.connections() === 5);
    await relay.spool.until(() => relay.spool.claimed.length === 30);
    relay.deliverer.reload(withRoutes(relay.config, routeVia(server, now)));
    await now.until(() => now.contents.length === 30);
    expect(subjectsAt(now).toSorted()).toEqual(numbers(30));
    await relay.spool.settledDown();
    expect(await relay.files()).toEqual([]);
    expect(relay.log.named("deferred")).toEqual([]);
  });

  test("under load, reload after reload, loses nothing and doubles nothing", async () => {
    const [one, two] = [await hopWith(), await hopWith()];
    const relay = await relayTo(one);
    relay.start();
    for (let at = 0; at < 20; at++) {
      await commitMany(relay, 10, at * 10);
      const hop = at % 2 === 0 ? two : one;
      relay.deliverer.reload({ ...withRoutes(relay.config, routeVia(server, hop)), version: String(at) });
    }
    await relay.spool.until(() => one.contents.length + two.contents.length >= 200 && relay.spool.inHand === 0);
    await relay.spool.settledDown();
    expect([...subjectsAt(one), ...subjectsAt(two)].toSorted()).toEqual(numbers(200));
    expect(await relay.files()).toEqual([]);
  });
});

describe("a route that is not touched", () => {
  test("keeps its connections, and what waits for it stays", async () => {
    const [hop, other, third] = [await hopWith(), await hopWith(), await hopWith()];
    const edi = (to: typeof hop): Route => routeVia(server, to, { name: "edi", domains: ["edi.corp.example"] });
    const relay = await relayTo([routeVia(server, hop), edi(other)]);
    await relay.commit({ content: "Subject: 0\r\n\r\nx\r\n" });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    // The same route, read anew from the files.
    relay.deliverer.reload(withRoutes(relay.config, structuredClone(routeVia(server, hop)), edi(third)));
    await relay.commit({ content: "Subject: 1\r\n\r\nx\r\n" });
    await hop.until(() => hop.contents.length === 2);
    expect(hop.connections()).toBe(1);
  });

  test("leaves a dead server alone as before: its pause goes on although other servers of the route are others", async () => {
    const dead = await hopWith((verb) => (verb === "CONNECT" ? "421 4.3.2 not now" : undefined));
    const [old, now] = [await hopWith(), await hopWith()];
    const routeOf = (...hops: ReadonlyArray<typeof dead>): Route => ({
      ...routeVia(server, dead),
      servers: hops.map((hop) => nextHop(hop, pinned(server.pin))),
    });
    const relay = await relayTo([routeOf(dead, old)]);
    await relay.commit({ content: "Subject: 0\r\n\r\nx\r\n" });
    relay.start();
    await old.until(() => old.contents.length === 1);
    expect(dead.connections()).toBe(1);
    relay.deliverer.reload(withRoutes(relay.config, routeOf(dead, now)));
    await relay.commit({ content: "Subject: 1\r\n\r\nx\r\n" });
    await now.until(() => now.contents.length === 1);
    expect(dead.connections()).toBe(1);
  });
});

describe("a route that is removed", () => {
  test("defers what waited for it, which goes out when the route is back", async () => {
    const silent = await hopWith((verb) => (verb === "CONNECT" ? { silent: true } : undefined));
    const hop = await hopWith();
    const relay = await relayTo(silent);
    await relay.commit({ content: "Subject: 0\r\n\r\nx\r\n" });
    relay.start();
    await silent.until(() => silent.connections() === 1);
    relay.deliverer.reload(
      withRoutes(relay.config, routeVia(server, hop, { name: "edi", domains: ["edi.corp.example"] })),
    );
    await relay.spool.until(() => relay.log.named("deferred").length === 1);
    expect(relay.log.named("deferred")).toMatchObject([
      { route: null, remote: { text: expect.stringContaining("No route leads") } },
    ]);
    relay.deliverer.reload(withRoutes(relay.config, routeVia(server, hop)));
    relay.clock.ms += hourMs;
    await hop.until(() => hop.contents.length === 1);
    expect(subjectsAt(hop)).toEqual(["0"]);
    await relay.spool.settledDown();
    expect(await relay.files()).toEqual([]);
  });

  test("of a partner, is one like any other", async () => {
    const [inside, old, now] = [await hopWith(), await hopWith(), await hopWith()];
    const relay = await relayTo(inside, { deliver: { acme: partnerRoute(server, old) } });
    relay.start();
    const withDeliver = (deliver: Route | undefined): RelayConfig => ({
      ...relay.config,
      partners: relay.config.partners.map((partner) => ({ ...partner, deliver })),
    });
    relay.deliverer.reload(withDeliver(undefined));
    await relay.commit({
      partner: null,
      toPartner: "acme",
      to: ["anna@acme.example"],
      content: "Subject: 0\r\n\r\nx\r\n",
    });
    await relay.spool.until(() => relay.log.named("deferred").length === 1);
    relay.deliverer.reload(withDeliver(partnerRoute(server, now)));
    relay.clock.ms += hourMs;
    await now.until(() => now.contents.length === 1);
    expect(old.connections()).toBe(0);
  });
});

test("another schedule counts from the next attempt on", async () => {
  const hop = await hopWith((verb) => (verb === "RCPT" ? "450 4.2.0 later" : undefined));
  const relay = await relayTo(hop, { retry: { scheduleMs: [hourMs] } });
  relay.deliverer.reload({ ...relay.config, retry: { ...relay.config.retry, scheduleMs: [1_000] } });
  await relay.commit();
  relay.start();
  await relay.spool.until(() => relay.spool.putBacks.length === 1);
  const next = relay.spool.putBacks[0]?.deferred[0]?.nextAttemptAtMs ?? 0;
  expect(next - relay.clock.ms).toBeLessThan(10_000);
});

test("a deliverer that stops takes no other configuration", async () => {
  const hop = await hopWith();
  const relay = await relayTo(hop);
  relay.start();
  await relay.deliverer.stop();
  relay.deliverer.reload(withRoutes(relay.config));
  await relay.commit();
  expect(hop.connections()).toBe(0);
});
