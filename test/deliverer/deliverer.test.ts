/** From the spool to the next hop, end to end: real sockets, a real spool, and a clock that the test sets. */
import { describe, expect, test } from "vitest";
import type { Answer } from "../tools/scripted-hop.ts";
import { dayMs, hourMs, linesOf, minuteMs, partnerRoute, routeVia, useHops, useRelays } from "./fixtures.ts";
import { makeCertificates, nextHop, pinned, recipient, routeTo } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const relayTo = useRelays(server);

describe("a message that is delivered", () => {
  test("leaves nothing behind", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    const content = "Subject: small\r\n\r\n..dot\r\n";
    await relay.commit({ content });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    expect(hop.contents.map(String)).toEqual([content]);
    expect(await relay.files()).toEqual([]);
    expect(relay.log.named("delivered")).toMatchObject([
      { partner: "acme", route: "internal", recipients: [0], remote: { text: "250 2.0.0 taken" } },
    ]);
  });

  test("may be large, and leaves nothing behind either", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    const content = `Subject: large\r\n\r\n${"x".repeat(70)}\r\n`.padEnd(200_000, "0123456789abcde\r\n");
    await relay.commit({ content: `${content}\r\n` });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    expect(hop.contents.map(String)).toEqual([`${content}\r\n`]);
    expect(await relay.files()).toEqual([]);
  });

  test("goes to each of its routes once, and to at most 100 recipients at a time", async () => {
    const [one, two] = [await hopWith(), await hopWith()];
    const relay = await relayTo([
      routeVia(server, one),
      routeVia(server, two, { name: "edi", domains: ["edi.corp.example"] }),
    ]);
    const to = Array.from({ length: 250 }, (_, at) => `r${at}@${at % 5 === 0 ? "edi." : ""}corp.example`);
    await relay.commit({ to });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    expect([one.contents.length, two.contents.length]).toEqual([2, 1]);
    expect([linesOf(one, "RCPT").length, linesOf(two, "RCPT").length]).toEqual([200, 50]);
    expect(await relay.files()).toEqual([]);
  });

  test("reaches the postmaster, whom it named without a domain", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    await relay.commit({ to: ["postmaster"] });
    relay.start();
    await hop.until(() => hop.contents.length === 1);
    expect(linesOf(hop, "RCPT")).toEqual([`RCPT TO:<${relay.config.postmaster.address}>`]);
  });

  test("is reported as relayed to who asked for it, if the next hop sends no reports itself", async () => {
    const withoutDsn = await hopWith((verb) => (verb === "EHLO" ? "250-hop.example\r\n250 STARTTLS" : undefined));
    const partner = await hopWith();
    const relay = await relayTo(withoutDsn, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit({ to: [recipient("orders@corp.example", { notify: ["success"] })] });
    relay.start();
    await partner.until(() => partner.contents.length === 1);
    expect(partner.contents[0]?.toString()).toMatch(/^Action: relayed\r$/m);
    await relay.spool.settledDown();
    expect(await relay.files()).toEqual([]);
  });

  test("is not reported by us where the next hop has taken over the request", async () => {
    const hop = await hopWith();
    const partner = await hopWith();
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit({ to: [recipient("orders@corp.example", { notify: ["success"] })] });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    await relay.spool.settledDown();
    expect(linesOf(hop, "RCPT")).toEqual(["RCPT TO:<orders@corp.example> NOTIFY=SUCCESS"]);
    expect(partner.connections()).toBe(0);
  });
});

describe("a message that is deferred", () => {
  test("is tried again on the schedule, and not before", async () => {
    let answer: Answer | undefined = "451 4.3.0 not now";
    const hop = await hopWith((verb) => (verb === "RCPT" ? answer : undefined));
    const relay = await relayTo(hop, { retry: { scheduleMs: [minuteMs, 5 * minuteMs, hourMs] } });
    await relay.commit();
    relay.start();
    const attempts = () => linesOf(hop, "MAIL").length;
    const waits: number[] = [];
    for (const count of [1, 2, 3, 4]) {
      await relay.spool.until(() => relay.spool.putBacks.length === count);
      const [deferral] = relay.spool.putBacks.at(-1)?.deferred ?? [];
      expect(deferral).toMatchObject({ index: 0, route: "internal", attempts: count });
      waits.push((deferral?.nextAttemptAtMs ?? 0) - relay.clock.ms);
      relay.clock.ms += (waits.at(-1) ?? 0) - 1;
      await relay.spool.settledDown();
      expect(attempts()).toBe(count);
      relay.clock.ms += 1;
    }
    expect(waits).toEqual([minuteMs, 5 * minuteMs, hourMs * 0.95, hourMs * 0.95]);
    expect(relay.spool.putBacks[0]?.attempts).toMatchObject([{ recipients: [0], text: "451 4.3.0 not now" }]);
    relay.clock.ms += hourMs;
    await relay.spool.until(() => relay.spool.putBacks.length === 5);
    answer = undefined;
    relay.clock.ms += 2 * hourMs;
    await relay.spool.until(() => relay.spool.putBacks.length === 6);
    expect(hop.contents.length).toBe(1);
    expect(await relay.files()).toEqual([]);
  });

  test("repeats nothing that is settled", async () => {
    let isBusy = true;
    const hop = await hopWith((verb, line) =>
      verb === "RCPT" && line.includes("<b") && isBusy ? "450 4.2.1 busy" : undefined,
    );
    const relay = await relayTo(hop);
    await relay.commit({ to: ["a@corp.example", "b@corp.example"] });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    await relay.reopen();
    isBusy = false;
    relay.clock.ms += 2 * minuteMs;
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    expect(linesOf(hop, "RCPT").map((line) => line[9])).toEqual(["a", "b", "b"]);
    expect(await relay.files()).toEqual([]);
  });

  test("is reported as late once, and in the end as failed", async () => {
    const hop = await hopWith((verb, line) =>
      verb === "RCPT" && line.includes("orders") ? "450 4.2.1 busy" : undefined,
    );
    const partner = await hopWith();
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit();
    relay.start();
    for (let count = 0; count < 60 && partner.contents.length < 2; count += 1) {
      await relay.spool.settledDown();
      relay.clock.ms += 4 * hourMs;
    }
    await partner.until(() => partner.contents.length === 2);
    const [late, failed] = partner.contents.map(String);
    expect(late).toMatch(/^Action: delayed\r\nStatus: 4\.2\.1\r$/m);
    expect(failed).toMatch(/^Action: failed\r\nStatus: 4\.4\.7\r$/m);
    expect(failed).toMatch(/^Diagnostic-Code: smtp; 450 4\.2\.1 busy\r$/m);
    await relay.spool.settledDown();
    expect(partner.contents.length).toBe(2);
    expect(await relay.files()).toEqual([]);
  });

  test("waits for a server that may have taken it, rather than be sent to another", async () => {
    const first = await hopWith((verb) => (verb === "CONTENT" ? { close: true } : undefined));
    const second = await hopWith();
    const servers = [first, second].map((hop) => nextHop(hop, pinned(server.pin)));
    const relay = await relayTo([routeTo(...servers)]);
    await relay.commit();
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    expect(relay.spool.putBacks[0]?.deferred).toMatchObject([{ index: 0, attempts: 1 }]);
    expect(second.connections()).toBe(0);
  });
});

describe("routes", () => {
  test("a domain to which none leads waits for one, and is given up in the end", async () => {
    const [hop, partner] = [await hopWith(), await hopWith()];
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit({ to: ["orders@elsewhere.example"] });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    expect(relay.spool.putBacks[0]).toMatchObject({
      deferred: [{ route: null, attempts: 1 }],
      attempts: [{ server: null, text: "No route leads to this domain" }],
    });
    relay.clock.ms += 5 * dayMs;
    await partner.until(() => partner.contents.length === 1);
    expect(hop.connections()).toBe(0);
  });

  test("one that is removed and comes back loses nothing", async () => {
    let isBusy = true;
    const hop = await hopWith((verb) => (verb === "RCPT" && isBusy ? "450 4.2.1 busy" : undefined));
    const relay = await relayTo(hop);
    const whole = relay.config;
    await relay.commit();
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    await relay.reopen({ ...whole, routes: [] });
    relay.clock.ms += hourMs;
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    expect(relay.spool.putBacks[0]?.deferred).toMatchObject([{ route: null, attempts: 2 }]);
    await relay.reopen(whole);
    isBusy = false;
    relay.clock.ms += hourMs;
    relay.start();
    await hop.until(() => hop.contents.length === 1);
  });

  test("a report whose partner is gone is told to the postmaster", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    await relay.commit({
      from: "",
      to: [recipient("anna@gone.example", { notify: "never" })],
      partner: null,
      toPartner: "gone",
    });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    relay.clock.ms += 5 * dayMs;
    await hop.until(() => hop.contents.length === 1);
    expect(linesOf(hop, "RCPT")[0]).toContain("postmaster");
  });

  test("nothing is sent from one partner to another", async () => {
    const [hop, globex] = [await hopWith(), await hopWith()];
    const relay = await relayTo(hop, { deliver: { globex: partnerRoute(server, globex, "globex") } });
    await relay.commit({ to: ["bob@globex.example"], partner: "acme" });
    relay.start();
    await relay.spool.until(() => relay.spool.putBacks.length === 1);
    expect(relay.spool.putBacks[0]?.deferred).toMatchObject([{ route: null }]);
    expect(globex.connections()).toBe(0);
  });
});
