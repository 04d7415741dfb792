/** How the receiver speaks TLS, asked by clients that want it otherwise. */
import { TLSSocket, type ConnectionOptions } from "node:tls";
import { describe, expect, it } from "vitest";
import { acmeAddress, globexAddress } from "../tools/relay-folder.ts";
import type { SmtpDialogue } from "../tools/smtp-dialogue.ts";
import { useRelay, withPartner, type Relay } from "./support.ts";

const startRelay = useRelay();

async function handshake(relay: Relay, options: ConnectionOptions): Promise<SmtpDialogue> {
  return relay.connectTls(acmeAddress, relay.certificates.acme, options);
}

describe("a handshake", () => {
  it.each([
    ["TLS 1.1", { maxVersion: "TLSv1.1", minVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" }],
    ["a cipher without forward secrecy", { maxVersion: "TLSv1.2", ciphers: "AES128-GCM-SHA256:AES256-GCM-SHA384" }],
    [
      "a cipher that is no AEAD",
      { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA" },
    ],
    ["a finite field group", { ciphers: "DHE-RSA-AES128-GCM-SHA256", maxVersion: "TLSv1.2" }],
    ["CCM with a short tag", { ciphers: "TLS_AES_128_CCM_8_SHA256", minVersion: "TLSv1.3" }],
    ["a group below 250 bits", { ecdhCurve: "P-224" }],
  ] as ReadonlyArray<readonly [string, ConnectionOptions]>)("with nothing but %s fails", async (_what, options) => {
    const relay = await startRelay();
    await expect(handshake(relay, options)).rejects.toThrow();
    const client = await handshake(relay, {});
    expect(await client.reply()).toMatch(/^220 /);
  });

  it.each([
    ["X25519:X25519MLKEM768", "X25519MLKEM768"],
    ["P-256:*X25519:X25519MLKEM768", "X25519MLKEM768"],
    ["X25519", "x25519"],
    ["P-256", "secp256r1"],
    ["P-384", "secp384r1"],
  ])("of a client that has %s, in this order, uses %s", async (ecdhCurve, group) => {
    const relay = await startRelay();
    const client = await handshake(relay, { ecdhCurve });
    await client.reply();
    await client.say("EHLO mx.acme.example");
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(relay.log().find(({ event }) => event === "identified")).toMatchObject({ group });
  });

  it.each(["TLSv1.2", "TLSv1.3"] as const)("over %s begins anew when the client asks to resume", async (maxVersion) => {
    const relay = await startRelay();
    const first = await handshake(relay, { maxVersion });
    let session: Buffer | undefined;
    first.socket.on("session", (given: Buffer) => (session = given));
    await first.reply();
    await first.say("EHLO mx.acme.example");
    first.close();
    const second = await relay.connectTls(acmeAddress, relay.certificates.acme, {
      maxVersion,
      ...(session === undefined ? {} : { session }),
    });
    await second.reply();
    expect(second.socket).toBeInstanceOf(TLSSocket);
    expect(second.socket instanceof TLSSocket && second.socket.isSessionReused()).toBe(false);
    // With a certificate that it has to show again.
    await second.say("EHLO mx.acme.example");
    expect(await second.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
  });
});

describe("a partner that requires a post-quantum key exchange", () => {
  const change = withPartner("acme", { keyExchange: "post-quantum" });

  it.each([
    ["X25519MLKEM768", /^250 /],
    ["SecP256r1MLKEM768:X25519", /^454 4\.7\.0 Post-quantum key exchange is required/],
    ["X25519", /^454 4\.7\.0 Post-quantum key exchange is required/],
  ])("with %s gets what it asked for", async (ecdhCurve, reply) => {
    const relay = await startRelay({ change });
    const client = await handshake(relay, { ecdhCurve });
    await client.reply();
    await client.say("EHLO mx.acme.example");
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(reply);
  });

  it("is not let in over TLS 1.2, which has none", async () => {
    const relay = await startRelay({ change });
    const client = await handshake(relay, { maxVersion: "TLSv1.2" });
    await client.reply();
    await client.say("EHLO mx.acme.example");
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 /);
  });

  it("changes nothing for others", async () => {
    const relay = await startRelay({ change });
    const client = await relay.connectTls(globexAddress, relay.certificates.globex, { ecdhCurve: "P-256" });
    await client.reply();
    await client.say("EHLO mx.globex.example");
    expect(await client.say("MAIL FROM:<a@globex.example>")).toMatch(/^250 /);
  });
});
