/** Restarts in the middle, and a spool that fails. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { SpoolFault } from "../../src/spool/spool.ts";
import { held, partnerRoute, subjectsAt, useHops, useRelays } from "./fixtures.ts";
import { makeCertificates } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const relayTo = useRelays(server);

describe("a restart in the middle", () => {
  test("loses nothing, and repeats nothing that is settled", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    const subjects = Array.from({ length: 400 }, (_, at) => `message ${at}`);
    await Promise.all(subjects.map((subject) => relay.commit({ content: `Subject: ${subject}\r\n` })));
    for (const count of [50, 150, 250]) {
      relay.start();
      await hop.until(() => hop.contents.length >= count);
      await relay.reopen();
      expect(relay.log.named("message stuck")).toEqual([]);
    }
    relay.start();
    await hop.until(() => hop.contents.length >= subjects.length);
    await relay.spool.settledDown();
    expect(subjectsAt(hop).toSorted()).toEqual(subjects.toSorted());
    expect(await relay.files()).toEqual([]);
  });

  test("does not count as an attempt for what was only waiting", async () => {
    const hop = await hopWith((verb) => (verb === "CONNECT" ? { silent: true } : undefined));
    const relay = await relayTo(hop);
    await Promise.all(Array.from({ length: 20 }, () => relay.commit()));
    relay.start();
    await relay.spool.until(() => relay.spool.claimed.length === 20);
    await relay.reopen();
    relay.start();
    await relay.spool.until(() => relay.spool.claimed.length === 20);
    const attempts = relay.spool.claimed.flatMap(({ pending }) => pending.map((pending_) => pending_.attempts));
    expect(new Set(attempts)).toEqual(new Set([0]));
  });

  test("waits for the reply to a message that is sent to its end", async () => {
    const end = held();
    const hop = await hopWith((verb) => (verb === "CONTENT" ? end.answer : undefined));
    const relay = await relayTo(hop);
    await relay.commit();
    relay.start();
    await hop.until(() => hop.contents.length === 1);
    const stopped = relay.deliverer.stop();
    end.release();
    await stopped;
    expect(relay.spool.putBacks.length).toBe(1);
    expect(await relay.files()).toEqual([]);
    expect(relay.deliverer.inHand).toBe(0);
  });
});

describe("faults", () => {
  const full = new SpoolFault("full", "ENOSPC: no space left on device");

  test("damaged content is set aside, and the others go on", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    const large = `Subject: large\r\n\r\n${"0123456789abcde\r\n".repeat(10_000)}`;
    await relay.commit({ content: large });
    const incoming = join(relay.path, "incoming");
    const [file = ""] = (await readdir(incoming)).filter((name) => name.includes("content"));
    const content = await readFile(join(incoming, file));
    content[100_000] = 0x21;
    await writeFile(join(incoming, file), content);
    await relay.commit({ content: "Subject: small\r\n" });
    relay.start();
    await relay.spool.until(() => relay.spool.setAsides.length === 1 && relay.spool.putBacks.length === 1);
    await relay.spool.settledDown();
    expect(subjectsAt(hop)).toEqual(["small"]);
    const kept = await readdir(join(relay.path, "corrupt"));
    expect(kept.some((name) => name.includes("content"))).toBe(true);
  });

  test("a report that cannot be written is tried until it can, and the failure is not settled before", async () => {
    const hop = await hopWith((verb, line) =>
      verb === "RCPT" && line.includes("orders") ? "550 5.1.1 no" : undefined,
    );
    const partner = await hopWith();
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit();
    relay.spool.fail("report", full, full, full);
    relay.start();
    await partner.until(() => partner.contents.length === 1);
    expect(relay.log.named("spool fault").length).toBe(3);
    await relay.spool.settledDown();
    expect([hop.lines, partner.lines].map((lines) => lines.filter((line) => line.startsWith("MAIL")).length)).toEqual([
      1, 1,
    ]);
    expect(await relay.files()).toEqual([]);
  });

  test("a report that cannot be written does not keep the deliverer from stopping", async () => {
    const hop = await hopWith((verb) => (verb === "RCPT" ? "550 5.1.1 no" : undefined));
    const relay = await relayTo(hop, { limits: { faultPauseMs: 3_600_000 } });
    await relay.commit();
    relay.spool.fail("report", full, full, full);
    relay.start();
    await relay.log.until(() => relay.log.named("spool fault").length === 1);
    await relay.reopen();
    // Nothing was settled: the failure is found again, and reported.
    relay.start();
    await relay.log.until(() => relay.log.named("report").length === 1);
  });

  test("that nobody expected does not leave the message in hand for ever: it is tried again later", async () => {
    const hop = await hopWith((verb) => (verb === "RCPT" ? "550 5.1.1 no" : undefined));
    const relay = await relayTo(hop);
    await relay.commit();
    relay.spool.fail("report", new Error("a bug"));
    relay.start();
    await relay.log.until(() => relay.log.named("message stuck").length === 1);
    await relay.spool.settledDown();
    relay.clock.ms += Math.max(...relay.config.retry.scheduleMs);
    await relay.log.until(() => relay.log.named("report").length === 1);
  });

  test("of a content that cannot be reported on sets the message aside, and is not tried for ever", async () => {
    const hop = await hopWith((verb) => (verb === "RCPT" ? "550 5.1.1 no" : undefined));
    const relay = await relayTo(hop);
    await relay.commit();
    relay.spool.fail("report", new SpoolFault("damaged", "the content does not match its checksum"));
    relay.start();
    await relay.spool.until(() => relay.spool.setAsides.length === 1);
    expect(relay.log.named("spool fault")).toEqual([]);
  });

  test("of one claim does not keep the other from being made", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.spool.fail("claimDue", ...Array.from({ length: 50 }, () => new SpoolFault("io", "EIO")));
    await relay.commit();
    relay.start();
    await hop.until(() => hop.contents.length === 1);
    expect(relay.fatal).toEqual([]);
  });

  test("of the spool's own records end the process", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    const fault = new SpoolFault("damaged", "the index is malformed");
    relay.spool.fail("claimDue", fault);
    relay.start();
    await relay.spool.until(() => relay.fatal.length === 1);
    expect(relay.fatal).toEqual([fault]);
  });

  test("a mark that cannot be written leaves the message to be tried again, and stop() comes to its end", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.spool.fail("settle", new Error("no such message"));
    const id = await relay.commit({ content: "Subject: one\r\n" });
    relay.start();
    await relay.log.until(() => relay.log.named("message stuck").some((event) => event["id"] === id));
    await relay.commit({ content: "Subject: two\r\n" });
    await hop.until(() => hop.contents.length === 2);
    await relay.reopen();
    relay.clock.ms += Math.max(...relay.config.retry.scheduleMs);
    relay.start();
    // It may have been delivered twice: better than not at all.
    await hop.until(() => hop.contents.length === 3);
    expect(subjectsAt(hop)).toEqual(["one", "two", "one"]);
  });

  test("nothing that a server says leaves the log's line or its field", async () => {
    const forged = '550 5.7.1 x","level":"fatal","event":"forged"}\u000a{"event":"forged"}';
    const hop = await hopWith((verb) => (verb === "MAIL" ? forged.replace("\n", "\r\n550 ") : undefined));
    const relay = await relayTo(hop);
    await relay.commit();
    relay.start();
    await relay.log.until(() => relay.log.named("deferred").length + relay.log.named("failed").length > 0);
    expect(relay.log.named("forged")).toEqual([]);
  });
});
