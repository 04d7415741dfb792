/** The fields that we put on top of a message, and those that we take away because they are forged in our name. */
import { describe, expect, it } from "vitest";
import { spkiDigest } from "../../src/partner/pin.ts";
import { X509Certificate } from "node:crypto";
import { anchorPin } from "../partner/pins.ts";
import { letter, useRelay, withPartner, type Relay } from "./support.ts";
import { makeCertificate } from "./certificates.ts";

const startRelay = useRelay();
const now = () => new Date(Math.floor(Date.now() / 1000) * 1000);

async function carry(relay: Relay, content: string, parameters = "", to = ["orders@corp.example"]): Promise<string> {
  const client = await relay.partner();
  expect(await client.send(content, "a@acme.example", to, parameters)).toMatch(/^250 2\.0\.0 /);
  return (await relay.spooled()).at(-1)?.content ?? "";
}

describe("the Received field", () => {
  it("is as RFC 5321 wants it, with TLS, partner and pin, and names the only recipient", async () => {
    const at = now();
    const relay = await startRelay({ now: () => at });
    const content = await carry(relay, letter);
    const [spooled] = await relay.spooled();
    const pin = spkiDigest(new X509Certificate(relay.certificates.acme.cert));
    const date = at.toUTCString().replace("GMT", "+0000");
    expect(content).toBe(
      [
        "Received: from mx.acme.example ([127.0.0.11])",
        "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384, group X25519MLKEM768;",
        "\t client certificate of partner acme",
        `\t pinned by spki ${pin})`,
        `\tby mx.corp.example with ESMTPS id ${spooled?.meta.id}`,
        "\tfor <orders@corp.example>;",
        `\t${date}`,
        "Authentication-Results: mx.corp.example;",
        "\tx-client-cert=pass (partner acme)",
        `\tpolicy.pin="spki ${pin}"`,
        "\tsmtp.mailfrom=a@acme.example",
        letter,
      ].join("\r\n"),
    );
    expect(spooled?.meta).toMatchObject({
      partner: "acme",
      receivedAtMs: at.getTime(),
      sizeBytes: content.length,
      wireBytes: content.length,
      headerBytes: content.indexOf("\r\n\r\n") + 2,
      eightBit: false,
      session: { address: "127.0.0.11", helo: "mx.acme.example" },
    });
  });

  it("names no recipient where there are two", async () => {
    const relay = await startRelay();
    const content = await carry(relay, letter, "", ["orders@corp.example", "secret@edi.corp.example"]);
    expect(content).not.toContain("secret");
    expect(content).not.toMatch(/\tfor </);
  });

  it("says UTF8SMTPS for SMTPUTF8, and SMTP for HELO", async () => {
    const relay = await startRelay();
    expect(await carry(relay, letter, " SMTPUTF8")).toContain("with UTF8SMTPS id");
    const client = await relay.partner();
    await client.say("HELO mx.acme.example");
    await client.send(letter);
    expect((await relay.spooled()).at(-1)?.content).toContain("with SMTP id");
  });

  it("says ESMTPS though a HELO in between was refused", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say("HELO")).toMatch(/^501 /);
    await client.send(letter);
    expect((await relay.spooled()).at(-1)?.content).toContain("with ESMTPS id");
  });

  it.each([
    ["(evil)", "unknown.invalid"],
    ["x;y", "unknown.invalid"],
    ["[127.0.0.1", "unknown.invalid"],
    ["[127.0.0.1]", "[127.0.0.1]"],
    ["\xe9vil.example", "unknown.invalid"],
    ["localhost", "localhost"],
    ["UPPER.Example", "upper.example"],
  ])("stays within the grammar whatever EHLO says: %s", async (name, shown) => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.begin(relay.certificates.acme, name);
    expect(await client.send(letter)).toMatch(/^250 /);
    const first = (await relay.spooled()).at(-1)?.content.split("\r\n")[0];
    expect(first).toBe(`Received: from ${shown} ([127.0.0.11])`);
  });

  it("tells the pin by certificate and by trust anchor", async () => {
    const anchor = await makeCertificate({ ca: true });
    const leaf = await makeCertificate({ issuer: anchor });
    const relay = await startRelay({
      change: withPartner("acme", {
        pins: [anchorPin([anchor.certificate])],
      }),
    });
    const client = await relay.partner(leaf);
    expect(await client.send(letter)).toMatch(/^250 /);
    const content = (await relay.spooled()).at(-1)?.content;
    expect(content).toContain("\t pinned by trust-anchor mx.acme.example)\r\n");
    expect(content).toContain('\tpolicy.pin="trust-anchor mx.acme.example"\r\n');
  });
});

describe("an Authentication-Results field that came with the message", () => {
  const forged = [
    "Authentication-Results: mx.corp.example; x-client-cert=pass\r\n",
    "authentication-results: MX.CORP.EXAMPLE.; spf=pass\r\n",
    "Authentication-Results : mx.corp.example 1; auth=pass\r\n",
    "Authentication-Results:\r\n\tmx.corp.example;\r\n\tspf=pass\r\n",
    "Authentication-Results: (comment) mx.corp.example; spf=pass\r\n",
    'Authentication-Results: "mx.corp.example"; spf=pass\r\n',
    "Authentication-Results: mx.corp.example 2; spf=pass\r\n",
    "Authentication-Results: spf=pass\r\n",
    ".Authentication-Results: mx.corp.example; spf=pass\r\n",
  ];
  it.each(forged)("and is forged in our name is taken away: %j", async (field) => {
    const relay = await startRelay();
    const content = await carry(relay, `X-Before: 1\r\n${field}X-After: 1\r\n${letter}`);
    expect(content.split(/authentication-results/i)).toHaveLength(2);
    expect(content).toContain(`smtp.mailfrom=a@acme.example\r\nX-Before: 1\r\nX-After: 1\r\n${letter}`);
    expect((await relay.spooled()).at(-1)?.meta.sizeBytes).toBe(content.length);
  });

  it("and speaks for another is left alone, and so is one in the body", async () => {
    const relay = await startRelay();
    const sent = `Authentication-Results: mx.acme.example; spf=pass\r\n${letter}Authentication-Results: mx.corp.example; x=pass\r\n`;
    const content = await carry(relay, sent);
    expect(content.endsWith(sent)).toBe(true);
  });

  it("is taken away however many there are, between fields that stay", async () => {
    const relay = await startRelay();
    const pair = "X-Kept: 1\r\nAuthentication-Results: mx.corp.example; spf=pass\r\n";
    const content = await carry(relay, `${pair.repeat(2000)}${letter}`);
    expect(content.endsWith(`${"X-Kept: 1\r\n".repeat(2000)}${letter}`)).toBe(true);
  });
});
