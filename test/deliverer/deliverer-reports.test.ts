/** What fails is reported: to whom, once, and with what the sender asked for. */
import { describe, expect, test } from "vitest";
import type { Script } from "../tools/scripted-hop.ts";
import { linesOf, partnerRoute, routeVia, useHops, useRelays } from "./fixtures.ts";
import { makeCertificates, recipient } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const relayTo = useRelays(server);

describe("a message that failed", () => {
  const refusing: Script = (verb, line) =>
    verb === "RCPT" && !line.includes("postmaster") ? `550 5.1.1 unknown: ${/<.*?>/.exec(line)?.[0]}` : undefined;

  test("is reported once for all its recipients, by the partner's own servers", async () => {
    const [one, two, partner] = [await hopWith(refusing), await hopWith(refusing), await hopWith()];
    const relay = await relayTo(
      [routeVia(server, one), routeVia(server, two, { name: "edi", domains: ["edi.corp.example"] })],
      {
        deliver: { acme: partnerRoute(server, partner) },
      },
    );
    await relay.commit({
      content: "Subject: order 7\r\nMessage-ID: <7@acme.example>\r\n\r\nthe body of it\r\n",
      to: [
        recipient("a@corp.example", { originalRecipient: "rfc822;alpha+2Bx@corp.example" }),
        recipient("b@edi.corp.example"),
        recipient("c@corp.example", { notify: "never" }),
      ],
      envelope: { envelopeId: "QQ314159", returnContent: "headers" },
    });
    relay.start();
    await partner.until(() => partner.contents.length === 1);
    await relay.spool.settledDown();
    expect(partner.contents.length).toBe(1);
    expect(linesOf(partner, "MAIL")[0]).toMatch(/^MAIL FROM:<> /);
    expect(linesOf(partner, "RCPT")).toEqual(["RCPT TO:<anna@acme.example> NOTIFY=NEVER"]);
    const report = partner.contents[0]?.toString() ?? "";
    expect(report).toMatch(/^Original-Envelope-Id: QQ314159\r$/m);
    expect(report).toMatch(
      /^Original-Recipient: rfc822; alpha\+x@corp\.example\r\nFinal-Recipient: rfc822; a@corp\.example\r$/m,
    );
    expect(report.match(/^Final-Recipient: .*$/gm)?.length).toBe(2);
    expect(report).not.toContain("Remote-MTA"); // what our servers inside are called is nobody's business outside
    expect(report).toMatch(/^Diagnostic-Code: smtp; 550 5\.1\.1 unknown: <a@corp\.example>\r$/m);
    expect(report).toContain("Message-ID: <7@acme.example>");
    expect(report).not.toContain("the body of it");
    expect(report).not.toContain("127.0.0.1");
    expect(await relay.files()).toEqual([]);
  });

  test("comes back whole if it is small and RET does not say otherwise", async () => {
    const [hop, partner] = [await hopWith(refusing), await hopWith()];
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit({ content: "Subject: x\r\n\r\n..the body of it\r\n" });
    relay.start();
    await partner.until(() => partner.contents.length === 1);
    expect(partner.contents[0]?.toString()).toContain("\r\n..the body of it\r\n");
  });

  test("of a partner without servers is reported to the postmaster", async () => {
    const hop = await hopWith(refusing);
    const relay = await relayTo(hop);
    await relay.commit();
    relay.start();
    await hop.until(() => hop.contents.length === 1);
    expect(linesOf(hop, "RCPT").at(-1)).toBe(`RCPT TO:<${relay.config.postmaster.address}> NOTIFY=NEVER`);
    expect(hop.contents[0]?.toString()).toContain("Final-Recipient: rfc822; orders@corp.example");
    await relay.spool.settledDown();
    expect(await relay.files()).toEqual([]);
  });

  test("whose report fails too is told to the postmaster once, and then to the log", async () => {
    const hop = await hopWith((verb) => (verb === "RCPT" ? "550 5.1.1 nobody here" : undefined));
    const partner = await hopWith((verb) => (verb === "RCPT" ? "550 5.7.1 no reports please" : undefined));
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit();
    relay.start();
    await relay.log.until(() => relay.log.named("report undeliverable").length === 1);
    await relay.spool.settledDown();
    // The message, its report to the partner, and the report about that report to the postmaster: no more.
    expect(relay.spool.claimed.length).toBe(3);
    expect(linesOf(partner, "RCPT")).toEqual(["RCPT TO:<anna@acme.example> NOTIFY=NEVER"]);
    expect(linesOf(hop, "RCPT")).toEqual([
      "RCPT TO:<orders@corp.example>",
      `RCPT TO:<${relay.config.postmaster.address}> NOTIFY=NEVER`,
    ]);
    expect(relay.log.named("report").length).toBe(2);
    expect(await relay.files()).toEqual([]);
  });

  test("came from nowhere itself: only the postmaster is told, whatever NOTIFY says", async () => {
    const [hop, partner] = [await hopWith(refusing), await hopWith()];
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit({ from: "", to: [recipient("orders@corp.example", { notify: "never" })] });
    relay.start();
    await hop.until(() => hop.contents.length === 1);
    expect(linesOf(hop, "RCPT").at(-1)).toContain("postmaster");
    await relay.spool.settledDown();
    expect(partner.connections()).toBe(0);
  });

  test("because the next hop cannot carry it is reported with the reason", async () => {
    const hop = await hopWith((verb) => (verb === "EHLO" ? "250-hop.example\r\n250 STARTTLS" : undefined));
    const partner = await hopWith();
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    await relay.commit({ content: "Subject: x\r\n\r\nH\u00e4llo\r\n" });
    await relay.commit({ to: ["j\u00f6rg@corp.example"], envelope: { smtpUtf8: true } });
    relay.start();
    await partner.until(() => partner.contents.length === 2);
    const statuses = partner.contents.map((content) => /^Status: (.*)\r$/m.exec(content.toString())?.[1]);
    expect(new Set(statuses)).toEqual(new Set(["5.6.3", "5.6.7"]));
  });

  test("because the operator wants it back is reported without an attempt", async () => {
    const [hop, partner] = [await hopWith(), await hopWith()];
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, partner) } });
    const id = await relay.commit();
    relay.spool.onClaim = (message) => {
      if (message.meta.id === id) Object.defineProperty(message, "request", { value: "bounce" });
    };
    relay.start();
    await partner.until(() => partner.contents.length === 1);
    expect(partner.contents[0]?.toString()).toMatch(/^Action: failed\r$/m);
    await relay.spool.settledDown();
    expect(hop.connections()).toBe(0);
    expect(await relay.files()).toEqual([]);
  });
});
