/** A probe is answered with what was seen of the partner, and never delivered. */
import { describe, expect, test } from "vitest";
import { pinKey } from "../../src/partner/pin.ts";
import { SpoolFault, type SessionFacts } from "../../src/spool/spool.ts";
import type { Script, ScriptedHop } from "../tools/scripted-hop.ts";
import { linesOf, partnerRoute, useHops, useRelays } from "./fixtures.ts";
import type { TestRelay } from "./relay.ts";
import { makeCertificates, recipient } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const relayTo = useRelays(server);

const probe = "probe@mx.corp.example";
const content = "Subject: hello?\r\nMessage-ID: <probe.1@acme.example>\r\n\r\nDo you see me?\r\n";

async function relayWithPartner(
  script?: Script,
): Promise<{ relay: TestRelay; inside: ScriptedHop; acme: ScriptedHop }> {
  const [inside, acme] = [await hopWith(), await hopWith(script)];
  const relay = await relayTo(inside, { deliver: { acme: partnerRoute(server, acme) } });
  return { relay, inside, acme };
}

function sessionOver(relay: TestRelay, more: Partial<NonNullable<SessionFacts["tls"]>> = {}): SessionFacts {
  const pin = relay.config.partners.find(({ name }) => name === "acme")?.pins[0];
  return {
    id: "s1",
    address: "127.0.0.11",
    helo: "mx.acme.example",
    tls: {
      version: "TLSv1.3",
      cipher: "TLS_AES_256_GCM_SHA384",
      group: "X25519MLKEM768",
      certificate: `sha256/${"A".repeat(43)}=`,
      spki: "sha256/HhYzL1+M7zqzgHvVGlcWAsLsjqnmP7YUqDKKrTlhTOg=",
      subject: "CN=mx.acme.example",
      issuer: "CN=test CA",
      validFrom: "2026-11-24T00:00:00.000Z",
      validTo: "2027-11-24T00:00:00.000Z",
      keyUsage: ["1.3.6.1.5.5.7.3.2", "1.2.3.4"],
      pin: pin === undefined ? "" : pinKey(pin),
      ...more,
    },
  };
}

const bodyOf = (hop: ScriptedHop): string => hop.contents[0]?.toString() ?? "";

describe("a probe", () => {
  test("is answered over the partner's route, with all that was seen", async () => {
    const { relay, inside, acme } = await relayWithPartner();
    const id = await relay.commit({ content, to: [probe], session: sessionOver(relay) });
    relay.start();
    await acme.until(() => acme.contents.length === 1);
    await relay.spool.settledDown();
    expect(linesOf(acme, "MAIL")[0]).toMatch(/^MAIL FROM:<> /);
    expect(linesOf(acme, "RCPT")).toEqual(["RCPT TO:<anna@acme.example> NOTIFY=NEVER"]);
    const answer = bodyOf(acme);
    expect(answer).toContain("\r\nAuto-Submitted: auto-replied\r\n");
    expect(answer).toContain("\r\nIn-Reply-To: <probe.1@acme.example>\r\n");
    for (const [name, value] of [
      ["Address", "127\\.0\\.0\\.11"],
      ["HELO", "mx\\.acme\\.example"],
      ["TLS version", "TLSv1\\.3"],
      ["Cipher", "TLS_AES_256_GCM_SHA384"],
      ["Key exchange", "X25519MLKEM768"],
      ["Subject", "CN=mx\\.acme\\.example"],
      ["Issuer", "CN=test CA"],
      ["Valid to", "2027-11-24T00:00:00\\.000Z"],
      ["Key usage", "clientAuth, 1\\.2\\.3\\.4"],
      ["Pin", "of this key, active"],
      ["Sender", "<anna@acme\\.example>"],
      ["Allowed by", "@acme\\.example"],
      ["Recipients", "orders@corp\\.example"],
    ]) {
      expect(answer).toMatch(new RegExp(`^  ${name}: +${value}\\r$`, "m"));
    }
    expect(inside.connections()).toBe(0);
    expect(relay.log.named("probe answered")).toMatchObject([{ id, partner: "acme" }]);
    expect(await relay.files()).toEqual([]);
  });

  test("is known by its local part in any case", async () => {
    const { relay, inside, acme } = await relayWithPartner();
    await relay.commit({ content, to: ["PROBE@MX.corp.example"] });
    relay.start();
    await acme.until(() => acme.contents.length === 1);
    await relay.spool.settledDown();
    expect(inside.connections()).toBe(0);
  });

  test("of a partner without servers is answered to our postmaster, who is told why", async () => {
    const inside = await hopWith();
    const relay = await relayTo(inside);
    await relay.commit({ content, to: [probe], session: sessionOver(relay) });
    relay.start();
    await inside.until(() => inside.contents.length === 1);
    expect(linesOf(inside, "RCPT")).toEqual([`RCPT TO:<${relay.config.postmaster.address}> NOTIFY=NEVER`]);
    expect(bodyOf(inside).replaceAll(/\s+/g, " ")).toContain("so the answer comes to you");
    await relay.spool.settledDown();
    expect(await relay.files()).toEqual([]);
  });

  test("among other recipients is answered, and the others have their mail", async () => {
    const { relay, inside, acme } = await relayWithPartner();
    await relay.commit({ content, to: ["orders@corp.example", probe, "a@corp.example"] });
    relay.start();
    await inside.until(() => inside.contents.length === 1);
    await acme.until(() => acme.contents.length === 1);
    await relay.spool.settledDown();
    expect(linesOf(inside, "RCPT")).toEqual(["RCPT TO:<orders@corp.example>", "RCPT TO:<a@corp.example>"]);
    expect(await relay.files()).toEqual([]);
  });

  test.each([
    ["has no reverse-path", "", content],
    ["was sent by a program", "anna@acme.example", `Auto-Submitted: auto-generated\r\n${content}`],
    ["is itself an automatic reply", "anna@acme.example", `auto-submitted:\r\n auto-replied; x=y\r\n${content}`],
    ["hides that behind a dot", "anna@acme.example", `.Auto-Submitted: auto-replied\r\n${content}`],
  ])("that %s gets no answer, is settled and logged", async (_, from, text) => {
    const { relay, inside, acme } = await relayWithPartner();
    await relay.commit({ content: text, from, to: [probe] });
    relay.start();
    await relay.log.until(() => relay.log.named("probe not answered").length === 1);
    await relay.spool.settledDown();
    expect([inside.connections(), acme.connections()]).toEqual([0, 0]);
    expect(await relay.files()).toEqual([]);
  });

  test("that says it was not sent by a program is answered", async () => {
    const { relay, acme } = await relayWithPartner();
    await relay.commit({ content: `Auto-Submitted: no\r\n${content}`, to: [probe] });
    relay.start();
    await acme.until(() => acme.contents.length === 1);
  });

  test("is not settled before its answer is on stable storage", async () => {
    const { relay, acme } = await relayWithPartner();
    relay.spool.fail("report", new SpoolFault("full", "no space"), new SpoolFault("io", "no disk"));
    await relay.commit({ content, to: [probe] });
    relay.start();
    await acme.until(() => acme.contents.length === 1);
    await relay.spool.settledDown();
    expect(relay.log.named("spool fault").length).toBe(2);
    expect(acme.contents.length).toBe(1);
    expect(await relay.files()).toEqual([]);
  });

  test("of a message that was taken before these facts were kept is answered without them", async () => {
    const { relay, acme } = await relayWithPartner();
    await relay.commit({ content, to: [probe] });
    relay.start();
    await acme.until(() => acme.contents.length === 1);
    expect(bodyOf(acme)).toMatch(/^ {2}Address: +127\.0\.0\.11\r$/m);
    expect(bodyOf(acme)).not.toContain("Your certificate");
  });

  test("whose certificate is full of surprises forges no line of the answer", async () => {
    const { relay, acme } = await relayWithPartner();
    const subject = "CN=x\r\nBcc: <all@corp.example>\u202e\u0000";
    await relay.commit({
      content: `Message-ID: <a b>\r\nSubject: x\r\n\r\n`,
      to: [probe],
      session: { ...sessionOver(relay, { subject, issuer: "CN=".concat("y".repeat(400)) }), helo: "x y\r\n.\r\nQUIT" },
    });
    relay.start();
    await acme.until(() => acme.contents.length === 1);
    expect(bodyOf(acme)).not.toMatch(/^Bcc/m);
    expect(bodyOf(acme)).not.toContain("In-Reply-To");
    expect(
      bodyOf(acme)
        .split("\r\n")
        .every((line) => /^[ -~]{0,78}$/.test(line)),
    ).toBe(true);
  });

  test("that the operator wants back is sent back", async () => {
    const { relay, acme } = await relayWithPartner();
    const id = await relay.commit({ content, to: [probe] });
    relay.spool.onClaim = (message) => {
      if (message.meta.id === id) Object.defineProperty(message, "request", { value: "bounce" });
    };
    relay.start();
    await acme.until(() => acme.contents.length === 1);
    expect(bodyOf(acme)).toMatch(/^Action: failed\r$/m);
  });

  test("written by nobody but a partner is no probe: our own mail to that name takes its route", async () => {
    const { relay, inside } = await relayWithPartner();
    await relay.commit({ content, to: [recipient(probe)], partner: null, from: "" });
    relay.start();
    await relay.log.until(() => relay.log.named("deferred").length === 1);
    expect(inside.connections()).toBe(0); // and none leads there
  });
});
