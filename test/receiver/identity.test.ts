/** Who is let in: by certificate and address, and by nothing else. Dialogues over real sockets and real TLS. */
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { TLSSocket } from "node:tls";
import { describe, expect, it } from "vitest";
import { parseAddressRange, type AddressRange } from "../../src/partner/address-range.ts";
import { certificateDigest, spkiDigest, type Pin } from "../../src/partner/pin.ts";
import type { RevocationList } from "../../src/partner/revocation.ts";
import { listOf } from "../partner/lists.ts";
import { anchorPin, certificatePin, spkiPin } from "../partner/pins.ts";
import { acmeAddress, globexAddress, strangerAddress } from "../tools/relay-folder.ts";
import { SmtpDialogue, type ClientCertificate } from "../tools/smtp-dialogue.ts";
import { makeCertificate, subjectOf, withIssuers, type Made } from "./certificates.ts";
import { letter, useRelay, withPartner, type Relay } from "./support.ts";

const startRelay = useRelay();
const dayMs = 86_400_000;
const inDays = (days: number) => () => new Date(Date.now() + days * dayMs);

/** The reply to MAIL of a client that shows this certificate. */
async function mailAs(relay: Relay, certificate: ClientCertificate | undefined, from = acmeAddress): Promise<string> {
  const client = await relay.connect(from);
  await client.begin(certificate);
  return client.say("MAIL FROM:<a@acme.example>");
}

function range(text: string): AddressRange {
  const parsed = parseAddressRange(text);
  if (parsed.kind === "fault") throw new Error(parsed.fault);
  return parsed;
}

const pinOf = (made: Made, notAfter?: Date): Pin => spkiPin(made.certificate, { notAfter });

describe("a partner's address", () => {
  it("gets 454 4.7.0 at MAIL without a certificate, and the session goes on", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.begin();
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(
      /^454 4\.7\.0 No client certificate was presented: configure the one that is registered here, .* \[\w+\]$/,
    );
    expect(await client.say("NOOP")).toMatch(/^250 /);
    expect(relay.log()).toContainEqual(
      expect.objectContaining({
        event: "refused",
        reply: "certificateMissing",
        addressOf: ["acme"],
        cause: "noCertificate",
      }),
    );
  });

  it("gets 454 4.7.0 at MAIL with an unknown certificate, whose pin the log tells for the operator to confirm", async () => {
    const relay = await startRelay();
    const stranger = await makeCertificate();
    expect(await mailAs(relay, stranger)).toMatch(/^454 4\.7\.0 Client certificate is not registered here: /);
    expect(relay.log()).toContainEqual(
      expect.objectContaining({ reply: "certificateUnknown", spki: spkiDigest(stranger.certificate) }),
    );
  });

  it("gets 454 4.7.0 with the certificate of another partner", async () => {
    const relay = await startRelay();
    expect(await mailAs(relay, relay.certificates.globex)).toMatch(/^454 4\.7\.0 .*not for your address/);
    expect(await mailAs(relay, relay.certificates.acme, globexAddress)).toMatch(/^454 4\.7\.0 .*not for your address/);
    expect(relay.log()).toContainEqual(
      expect.objectContaining({ reply: "addressNotOfPartner", cause: "wrongAddress", partner: "globex" }),
    );
  });

  it("gets 454 4.7.0 with a certificate that has expired, to the second", async () => {
    const expires = new Date(Math.floor(Date.now() / 1000) * 1000 + 10 * dayMs);
    const made = await makeCertificate({ to: expires });
    const at = { now: expires };
    const relay = await startRelay({ now: () => at.now, change: withPartner("acme", { pins: [pinOf(made)] }) });
    expect(await mailAs(relay, made)).toMatch(/^250 /);
    at.now = new Date(expires.getTime() + 1000);
    expect(await mailAs(relay, made)).toMatch(/^454 4\.7\.0 Client certificate has expired: renew it \[/);
  });

  it("gets 454 4.7.0 with a certificate that is not valid yet", async () => {
    const relay = await startRelay({ now: inDays(-2) });
    expect(await mailAs(relay, relay.certificates.acme)).toMatch(/^454 4\.7\.0 Client certificate is not valid yet/);
  });

  it("gets 454 4.7.0 when the pin's own end has passed, though the certificate is valid", async () => {
    const made = await makeCertificate();
    const pins = [pinOf(made, new Date(Date.now() - 1000))];
    const relay = await startRelay({ change: withPartner("acme", { pins }) });
    expect(await mailAs(relay, made)).toMatch(/^454 4\.7\.0 /);
    expect(relay.log()).toContainEqual(expect.objectContaining({ reply: "certificateExpired", cause: "expired" }));
  });

  it("is judged anew at every MAIL: a certificate that expires in mid-session ends the welcome", async () => {
    const at = { now: new Date() };
    const relay = await startRelay({ now: () => at.now });
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    at.now = inDays(100)(); // certificates of the folder are valid for 90
    expect(await client.send(letter)).toMatch(/^454 4\.7\.0 Client certificate has expired/);
  });
});

describe("an address that is let in only because a partner lists any", () => {
  const anywhere = withPartner("globex", { hosts: [range("any")] });

  it("gets 550 5.7.1 at MAIL without a certificate", async () => {
    const relay = await startRelay({ change: anywhere });
    expect(await mailAs(relay, undefined, strangerAddress)).toMatch(
      /^550 5\.7\.1 A registered client certificate is required \[/,
    );
  });

  it("gets 550 5.7.1 at MAIL with an unknown certificate", async () => {
    const relay = await startRelay({ change: anywhere });
    expect(await mailAs(relay, relay.certificates.outsider, strangerAddress)).toMatch(
      /^550 5\.7\.1 Client certificate is not registered here \[/,
    );
  });

  it("gets 454 4.7.0 with the certificate of a partner who lists other addresses", async () => {
    const relay = await startRelay({ change: anywhere });
    expect(await mailAs(relay, relay.certificates.acme, strangerAddress)).toMatch(/^454 4\.7\.0 /);
  });

  it("is let in with the certificate of the partner who lists any", async () => {
    const relay = await startRelay({ change: anywhere });
    const client = await relay.partner(relay.certificates.globex, strangerAddress);
    expect(await client.say("MAIL FROM:<a@globex.example>")).toMatch(/^250 2\.1\.0 /);
  });
});

describe("partners who share an address", () => {
  it("are told apart by their certificates", async () => {
    const relay = await startRelay({ change: withPartner("globex", { hosts: [range(acmeAddress)] }) });
    const acme = await relay.partner(relay.certificates.acme);
    const globex = await relay.partner(relay.certificates.globex);
    expect(await acme.say("MAIL FROM:<a@globex.example>")).toMatch(/^550 5\.7\.1 Sender/);
    expect(await acme.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(await globex.say("MAIL FROM:<a@acme.example>")).toMatch(/^550 5\.7\.1 Sender/);
    expect(await globex.say("MAIL FROM:<a@globex.example>")).toMatch(/^250 /);
  });
});

describe("a pin", () => {
  it("of the whole certificate does not let in another certificate with the same key", async () => {
    const made = await makeCertificate();
    const pins = [certificatePin(made.certificate)];
    const relay = await startRelay({ change: withPartner("acme", { pins }) });
    expect(await mailAs(relay, made)).toMatch(/^250 /);
    expect(await mailAs(relay, relay.certificates.acme)).toMatch(/^454 4\.7\.0 Client certificate is not registered/);
  });

  it("of a key is not satisfied by the digest of a certificate, nor the other way round", async () => {
    const made = await makeCertificate();
    const swapped = [spkiPin(certificateDigest(made.certificate)), certificatePin(spkiDigest(made.certificate))];
    const relay = await startRelay({ change: withPartner("acme", { pins: swapped }) });
    expect(await mailAs(relay, made)).toMatch(/^454 4\.7\.0 Client certificate is not registered/);
  });

  it("is not satisfied by a pinned certificate that is only sent along behind another leaf", async () => {
    const relay = await startRelay();
    const mine = await makeCertificate();
    const chain = { cert: mine.cert + relay.certificates.acme.cert, key: mine.key };
    expect(await mailAs(relay, chain)).toMatch(/^454 4\.7\.0 Client certificate is not registered/);
  });
});

describe("a pin by trust anchor and name", async () => {
  const root = await makeCertificate({ subject: subjectOf("ACME Root"), ca: true });
  const intermediate = await makeCertificate({ subject: subjectOf("ACME Issuing"), ca: true, issuer: root });
  const leaf = await makeCertificate({ issuer: intermediate });
  const pins = [anchorPin([root.certificate])];
  const anchored = withPartner("acme", { pins });

  it("lets in a leaf under an intermediate that the peer sends along", async () => {
    const relay = await startRelay({ change: anchored });
    expect(await mailAs(relay, withIssuers(leaf, intermediate))).toMatch(/^250 /);
    expect(await mailAs(relay, withIssuers(leaf, intermediate, root))).toMatch(/^250 /);
  });

  it("lets nobody in who is on the CA's revocation list, or whose CA's list is out of date", async () => {
    const other = await makeCertificate({ issuer: intermediate });
    const withLists = (...lists: RevocationList[]): ReturnType<typeof withPartner> =>
      withPartner("acme", { pins: [anchorPin([root.certificate], { revocationLists: lists })] });
    const relay = await startRelay({ change: withLists(listOf(intermediate, [leaf])) });
    expect(await mailAs(relay, withIssuers(leaf, intermediate))).toMatch(
      /^454 4\.7\.0 Client certificate was revoked: /,
    );
    expect(await mailAs(relay, withIssuers(other, intermediate))).toMatch(/^250 /);
    expect(relay.log()).toContainEqual(expect.objectContaining({ cause: "revoked", partner: "acme", by: "list" }));
    const stale = await startRelay({ change: withLists(listOf(intermediate, [], 1)) });
    expect(await mailAs(stale, withIssuers(leaf, intermediate))).toMatch(/^454 4\.7\.0 Revocation list of your CA/);
  });

  it("lets in a certificate for servers only where the partner's file says so", async () => {
    const forServers = await makeCertificate({ issuer: intermediate, usages: "server" });
    const relay = await startRelay({ change: anchored });
    expect(await mailAs(relay, withIssuers(forServers, intermediate))).toMatch(/^454 4\.7\.0 .*lacks .* clientAuth/);
    const lenient = await startRelay({ change: withPartner("acme", { pins, extendedKeyUsage: "any" }) });
    expect(await mailAs(lenient, withIssuers(forServers, intermediate))).toMatch(/^250 /);
  });

  it("lets nobody in whose intermediate is missing", async () => {
    const relay = await startRelay({ change: anchored });
    expect(await mailAs(relay, leaf)).toMatch(/^454 4\.7\.0 Client certificate is not registered/);
  });

  it("lets nobody in under another name of the same authority", async () => {
    const other = await makeCertificate({ issuer: intermediate, dnsNames: ["mx.evil.example"] });
    const relay = await startRelay({ change: anchored });
    expect(await mailAs(relay, withIssuers(other, intermediate))).toMatch(/^454 4\.7\.0 .*not registered/);
  });

  it("lets nobody in under an authority that only has the anchor's name", async () => {
    const impostor = await makeCertificate({ subject: subjectOf("ACME Root"), ca: true });
    const below = await makeCertificate({ issuer: impostor });
    const relay = await startRelay({ change: anchored });
    expect(await mailAs(relay, withIssuers(below, impostor))).toMatch(/^454 4\.7\.0 .*not registered/);
  });

  it("lets nobody in who signs with a leaf", async () => {
    const below = await makeCertificate({ issuer: leaf });
    const relay = await startRelay({ change: anchored });
    expect(await mailAs(relay, withIssuers(below, leaf, intermediate))).toMatch(/^454 4\.7\.0 .*not registered/);
  });

  it("counts no longer when the intermediate has expired", async () => {
    const brief = await makeCertificate({
      subject: subjectOf("ACME Brief"),
      ca: true,
      issuer: root,
      to: new Date(Date.now() + dayMs),
    });
    const below = await makeCertificate({ issuer: brief });
    const relay = await startRelay({ change: anchored, now: inDays(2) });
    expect(await mailAs(relay, withIssuers(below, brief))).toMatch(/^454 4\.7\.0 .*expired/);
  });
});

describe("a certificate that is odd", () => {
  it("is told about and refused like any other if it has no subject at all", async () => {
    const relay = await startRelay();
    const made = await makeCertificate({ subject: subjectOf() });
    expect(await mailAs(relay, made)).toMatch(/^454 4\.7\.0 Client certificate is not registered/);
  });

  it("lets in a pinned one that has no subject at all", async () => {
    const made = await makeCertificate({ subject: subjectOf() });
    const relay = await startRelay({ change: withPartner("acme", { pins: [pinOf(made)] }) });
    expect(await mailAs(relay, made)).toMatch(/^250 /);
  });
});

describe("a resumed TLS session", () => {
  it.each(["TLSv1.2", "TLSv1.3"] as const)(
    "of an accepted certificate admits nobody without it: %s",
    async (version) => {
      const relay = await startRelay();
      const options = { minVersion: version, maxVersion: version };
      const first = await relay.connect();
      await first.reply();
      await first.say("EHLO mx.acme.example");
      await first.say("STARTTLS");
      const sessions: Buffer[] = [];
      await first.secure(relay.certificates.acme, options);
      const socket = first.socket as TLSSocket; // after `secure`
      socket.on("session", (session) => sessions.push(session));
      await first.say("EHLO mx.acme.example");
      expect(await first.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
      const session = sessions.at(-1) ?? socket.getSession();
      await first.say("QUIT");

      for (const from of [acmeAddress, globexAddress]) {
        const second = await relay.connect(from);
        await second.reply();
        await second.say("EHLO mx.acme.example");
        await second.say("STARTTLS");
        await second.secure(undefined, { ...options, session });
        expect((second.socket as TLSSocket).isSessionReused()).toBe(false);
        await second.say("EHLO mx.acme.example");
        expect(await second.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0 No client certificate/);
      }
      const implicit = await relay.connectTls(acmeAddress, undefined, { ...options, session });
      expect((implicit.socket as TLSSocket).isSessionReused()).toBe(false);
      await implicit.reply();
      await implicit.say("EHLO mx.acme.example");
      expect(await implicit.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0 No client certificate/);
    },
  );

  it("has no part in the decision: nothing in src reads what the TLS library thinks of a peer", () => {
    const source = resolve(import.meta.dirname, "../../src");
    const files = readdirSync(source, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
    const reading = files.filter((name) =>
      /\bauthorized\b|authorizationError|verifyError/.test(
        readFileSync(join(source, name), "utf8").replaceAll(/\/\*[^]*?\*\/|\/\/.*/g, ""),
      ),
    );
    expect(reading).toEqual([]);
  });
});

describe("implicit TLS", () => {
  it("identifies as STARTTLS does", async () => {
    const relay = await startRelay();
    const client = await relay.connectTls(acmeAddress, relay.certificates.acme);
    expect(await client.reply()).toBe("220 mx.corp.example ESMTP pinrelay");
    await client.say("EHLO mx.acme.example");
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 Queued as [0-9a-z]{18}$/);
    expect(await relay.spooled()).toHaveLength(1);
  });

  it("gives 454 4.7.0 at MAIL without a certificate", async () => {
    const relay = await startRelay();
    const client = await relay.connectTls(acmeAddress);
    await client.reply();
    await client.say("EHLO mx.acme.example");
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0 /);
  });
});

describe("TLS versions", () => {
  it.each(["TLSv1", "TLSv1.1"] as const)("has no handshake with %s", async (version) => {
    const relay = await startRelay();
    const old = { minVersion: version, maxVersion: version, ciphers: "DEFAULT:@SECLEVEL=0" } as const;
    await expect(relay.connectTls(acmeAddress, relay.certificates.acme, old)).rejects.toThrow(/protocol version/);
    const client = await relay.connect();
    await client.reply();
    await client.say("EHLO mx.acme.example");
    await client.say("STARTTLS");
    await expect(client.secure(relay.certificates.acme, old)).rejects.toThrow(/protocol version/);
  });

  it("has no handshake with TLS 1.2 where the operator wants 1.3", async () => {
    const relay = await startRelay({
      change: (config) => ({ ...config, tls: { ...config.tls, minimumVersion: "TLSv1.3" } }),
    });
    await expect(relay.connectTls(acmeAddress, relay.certificates.acme, { maxVersion: "TLSv1.2" })).rejects.toThrow(
      /protocol version/,
    );
  });
});

describe("a dual-stack listener", () => {
  const listen = [
    { address: "::", port: 0, implicitTls: false },
    { address: "::", port: 0, implicitTls: true },
  ];
  it("knows an IPv4 partner by the IPv4-mapped address that the system reports", async (context) => {
    const relay = await startRelay({ change: (config) => ({ ...config, listen }) }).catch((error: unknown) => {
      if (error instanceof Error && "code" in error && error.code === "EAFNOSUPPORT") return context.skip();
      throw error;
    });
    const at = { address: "127.0.0.1", port: relay.plain.port };
    const client = await SmtpDialogue.open(at, acmeAddress);
    await client.begin(relay.certificates.acme);
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    client.close();
    const [spooled] = await relay.spooled();
    expect(spooled?.meta.session?.address).toBe(acmeAddress);
    expect(spooled?.content).toContain(`Received: from mx.acme.example ([${acmeAddress}])\r\n`);

    const stranger = await SmtpDialogue.open(at, strangerAddress);
    expect(await stranger.reply()).toMatch(/^554 5\.7\.1 /);
    stranger.close();
    const other = await SmtpDialogue.open(at, globexAddress);
    await other.begin(relay.certificates.acme);
    expect(await other.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0 /);
    other.close();
  });

  it("knows an IPv6 partner by its network", async (context) => {
    const hosts = [range("::/127")];
    const change = withPartner("acme", { hosts });
    const relay = await startRelay({ change: (config) => change({ ...config, listen }) }).catch(() => context.skip());
    const client = await SmtpDialogue.open({ address: "::1", port: relay.plain.port }, "::1");
    await client.begin(relay.certificates.acme);
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    client.close();
    expect((await relay.spooled())[0]?.content).toContain("Received: from mx.acme.example ([IPv6:::1])\r\n");
  });
});
