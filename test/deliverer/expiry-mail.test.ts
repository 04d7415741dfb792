/** The relay's own notices, by a real deliverer over a real spool, to servers that play the next hops. */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import type { X509Certificate } from "node:crypto";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import { ExpiryMail } from "../../src/deliverer/expiry-mail.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { pinKey, type Pin } from "../../src/partner/pin.ts";
import { sightingsFolders } from "../../src/sightings/reader.ts";
import {
  encodePinRecord,
  encodeQuarantineRecord,
  pinRecordName,
  quarantineRecordName,
} from "../../src/sightings/record.ts";
import { SpoolFault } from "../../src/spool/spool.ts";
import type { ScriptedHop } from "../tools/scripted-hop.ts";
import { mint } from "../config/support.ts";
import { spkiPin } from "../partner/pins.ts";
import { dayMs, hourMs, linesOf, minuteMs, partnerRoute, subjectsAt, useHops, useRelays } from "./fixtures.ts";
import { makeCertificates } from "./support.ts";
import type { TestRelay } from "./relay.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const relayTo = useRelays(server);

// The clock of these tests stands at 2026-09-21T14:13:20Z.
const endsSoon = mint({ notAfter: "2026-09-30" });
const acmes = mint({ commonName: "mx.acme.example", notAfter: "2026-09-25" });
const globexes = mint({ commonName: "mx.globex.example", notAfter: "2026-09-23" });

/** The relay's configuration over the test's own spool; with a server certificate that has time, unless told otherwise. */
function configOf(relay: TestRelay, changes: Partial<RelayConfig> = {}, certificate = mint({})): RelayConfig {
  const { config, path } = relay;
  const tls = { ...config.tls, certificate: certificate.pem };
  return { ...config, spool: { ...config.spool, path }, tls, ...changes };
}

function partnersWith(relay: TestRelay, changes: Readonly<Record<string, Partial<Partner>>>): Partner[] {
  return relay.config.partners.map((partner) => ({ ...partner, ...changes[partner.name] }));
}

function mailOf(relay: TestRelay, config: RelayConfig | (() => RelayConfig)): ExpiryMail {
  const { log, clock } = relay;
  const dropBox = relay.spool.dropBox;
  return new ExpiryMail({
    config: typeof config === "function" ? config : () => config,
    dropBox,
    log: log.log,
    now: clock.now,
  });
}

async function writeRecord(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}

async function wasSeen(relay: TestRelay, partner: string, pin: Pin, { raw }: X509Certificate): Promise<void> {
  const seen = { der: raw, firstSeenMs: relay.clock.ms - dayMs, lastSeenMs: relay.clock.ms, count: 3 };
  const certificates = [{ ...seen, addresses: ["127.0.0.11"], refused: undefined }];
  const record = { partner, pin: pinKey(pin), firstSeenMs: seen.firstSeenMs, nextSinceMs: undefined, certificates };
  await writeRecord(join(sightingsFolders(relay.path).pins, pinRecordName(record)), encodePinRecord(record));
}

async function quarantine(relay: TestRelay, { raw }: X509Certificate): Promise<string> {
  const record = {
    der: raw,
    firstSeenMs: relay.clock.ms,
    lastSeenMs: relay.clock.ms,
    count: 1,
    addresses: ["127.0.0.11"],
    partners: ["acme"],
  };
  const file = join(sightingsFolders(relay.path).quarantine, quarantineRecordName(raw));
  await writeRecord(file, encodeQuarantineRecord(record));
  return file;
}

/** Looks, and waits until everything that was written has been delivered. */
async function look(relay: TestRelay, mail: ExpiryMail): Promise<void> {
  await mail.look();
  await relay.spool.settledDown();
}

const noticesAt = (hop: ScriptedHop): string[] => hop.contents.map((content) => content.toString());

describe("what runs out", () => {
  test("is told to the postmaster once a day, as long as it is so", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const mail = mailOf(relay, configOf(relay, {}, endsSoon));
    await look(relay, mail);
    expect(linesOf(hop, "MAIL")).toEqual([expect.stringMatching(/^MAIL FROM:<>/)]);
    expect(linesOf(hop, "RCPT")).toEqual([`RCPT TO:<${relay.config.postmaster.address}> NOTIFY=NEVER`]);
    const [notice = ""] = noticesAt(hop);
    expect(notice).toMatch(/^From: pinrelay <postmaster@corp\.example>\r\nTo: <postmaster@corp\.example>\r\n/m);
    expect(notice).toMatch(/^Subject: mx\.corp\.example: 1 item runs out soon\r\n/m);
    expect(notice).toMatch(
      /^Date: Mon, 21 Sep 2026 14:13:20 \+0000\r\nMessage-ID: <[0-9a-z]{18}@mx\.corp\.example>\r\n/m,
    );
    expect(notice).toMatch(/^Auto-Submitted: auto-generated\r\n/m);
    expect(notice.replaceAll(/\r\n */g, " ")).toContain(
      "server certificate (CN=mx.corp.example) ends on 2026-09-30, in 8 days: renew it",
    );
    expect(Math.max(...notice.split("\r\n").map((line) => line.length))).toBeLessThanOrEqual(78);
    relay.clock.ms += dayMs - 1;
    await look(relay, mail);
    expect(hop.contents.length).toBe(1);
    relay.clock.ms += 1;
    await look(relay, mail);
    expect(hop.contents.length).toBe(2);
    expect(await relay.files()).toEqual([]);
  });

  test("is not told where mail is off, nor is anything else", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    await quarantine(relay, acmes.certificate);
    const { expiry } = relay.config;
    await look(relay, mailOf(relay, configOf(relay, { expiry: { ...expiry, mail: "off" } }, endsSoon)));
    expect(hop.connections()).toBe(0);
  });

  test("is not told where there is nothing to tell", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const mail = mailOf(relay, configOf(relay));
    await look(relay, mail);
    relay.clock.ms += dayMs;
    await look(relay, mail);
    expect(hop.connections()).toBe(0);
  });

  test("is not told again after a restart, until the day is over", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const config = configOf(relay, {}, endsSoon);
    await look(relay, mailOf(relay, config));
    relay.clock.ms += dayMs - 1;
    await look(relay, mailOf(relay, config));
    expect(hop.contents.length).toBe(1);
    relay.clock.ms += 1;
    await look(relay, mailOf(relay, config));
    expect(hop.contents.length).toBe(2);
  });

  test("is told again where nobody knows any more whether it was", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const config = configOf(relay, {}, endsSoon);
    await look(relay, mailOf(relay, config));
    await writeFile(join(relay.path, "notices.json"), `{"contactsMs":{"acme":"yesterday"},"told":[]}`);
    await look(relay, mailOf(relay, config));
    await writeFile(join(relay.path, "notices.json"), "{");
    await look(relay, mailOf(relay, config));
    expect(hop.contents.length).toBe(3);
  });

  test("is told once a day although its time cannot be written down", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const mail = mailOf(relay, configOf(relay, {}, endsSoon));
    await look(relay, mail);
    await rm(join(relay.path, "notices.json"));
    await mkdir(join(relay.path, "notices.json")); // nothing is renamed over a folder
    relay.clock.ms += dayMs;
    await look(relay, mail);
    relay.clock.ms += hourMs;
    await look(relay, mail);
    expect(hop.contents.length).toBe(2);
    expect(relay.log.named("notice failed").length).toBe(1);
  });

  test("is told at the next look where the spool did not take it, and not after a day", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    relay.spool.fail("report", new SpoolFault("full", "no space left on device"));
    const mail = mailOf(relay, configOf(relay, {}, endsSoon));
    await look(relay, mail);
    expect(relay.log.named("notice failed")).toEqual([expect.objectContaining({ error: "no space left on device" })]);
    expect(hop.contents.length).toBe(0);
    await look(relay, mail);
    expect(hop.contents.length).toBe(1);
  });

  test("is told at once after a clock that was far ahead has been set back", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const mail = mailOf(relay, configOf(relay, {}, endsSoon));
    relay.clock.ms += 300 * dayMs;
    await look(relay, mail);
    relay.clock.ms -= 300 * dayMs;
    await look(relay, mail);
    expect(hop.contents.length).toBe(2);
  });

  test("is looked up in the configuration in force", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    let config = configOf(relay);
    const mail = mailOf(relay, () => config);
    await look(relay, mail);
    config = configOf(relay, {}, endsSoon);
    await look(relay, mail);
    expect(hop.contents.length).toBe(1);
  });

  test("is no longer told when the server's certificate has been renewed, without a reload", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const certificateFile = join(relay.path, "server.pem");
    await writeFile(certificateFile, endsSoon.pem);
    const config = configOf(relay, {}, endsSoon);
    const mail = mailOf(relay, { ...config, tls: { ...config.tls, certificateFile } });
    await look(relay, mail);
    await writeFile(certificateFile, mint({}).pem);
    relay.clock.ms += dayMs;
    await look(relay, mail);
    expect(hop.contents.length).toBe(1);
    await writeFile(certificateFile, "torn");
    await look(relay, mail);
    expect(hop.contents.length).toBe(2);
  });

  test("of a name in another script goes out in 7 bits all the same", async () => {
    const hop = await hopWith((verb) => (verb === "EHLO" ? "250-hop.example\r\n250 STARTTLS" : undefined));
    const relay = await relayTo(hop);
    relay.start();
    await look(
      relay,
      mailOf(
        relay,
        configOf(relay, {}, mint({ commonName: "Größe.example", dnsName: "x.example", notAfter: "2026-09-30" })),
      ),
    );
    const [notice = ""] = noticesAt(hop);
    expect(notice).toMatch(/^Content-Transfer-Encoding: base64\r$/m);
    expect(Buffer.from(notice.slice(notice.indexOf("\r\n\r\n")), "base64").toString()).toContain("CN=Größe.example");
  });
});

describe("a partner's contact", () => {
  const pins = {
    acme: spkiPin(acmes.certificate, { label: "our secret name" }),
    globex: spkiPin(globexes.certificate),
  };

  async function withContacts(changes: Partial<Partner> = {}): Promise<{
    hop: ScriptedHop;
    acme: ScriptedHop;
    globex: ScriptedHop;
    relay: TestRelay;
    config: RelayConfig;
  }> {
    const [hop, acme, globex] = [await hopWith(), await hopWith(), await hopWith()];
    const deliver = { acme: partnerRoute(server, acme), globex: partnerRoute(server, globex, "globex") };
    const relay = await relayTo(hop, { deliver });
    relay.start();
    for (const name of ["acme", "globex"] as const) {
      const { certificate } = name === "acme" ? acmes : globexes;
      await wasSeen(relay, name, pins[name], certificate);
    }
    const partners = partnersWith(relay, {
      acme: { pins: [pins.acme], notifyContact: true, contact: "mail-ops@acme.example", ...changes },
      globex: { pins: [pins.globex], contact: "mail-ops@globex.example" },
    });
    return { hop, acme, globex, relay, config: configOf(relay, { partners }, endsSoon) };
  }

  test("is told of its own alone, by its own servers, once a day", async () => {
    const { hop, acme, globex, relay, config } = await withContacts();
    const mail = mailOf(relay, config);
    await look(relay, mail);
    expect(linesOf(acme, "RCPT")).toEqual(["RCPT TO:<mail-ops@acme.example> NOTIFY=NEVER"]);
    expect(linesOf(acme, "MAIL")).toEqual([expect.stringMatching(/^MAIL FROM:<>/)]);
    const [notice = ""] = noticesAt(acme);
    expect(notice).toContain("Subject: Your mail host's certificate for mx.corp.example: ends 2026-09-25\r\n");
    const text = notice.replaceAll(/\r\n */g, " ");
    expect(text).toContain("Your certificate CN=mx.acme.example (SHA-256 of its public key sha256/");
    expect(text).toContain("ends on 2026-09-25, in 3 days.");
    expect(text).toContain("send it (without its private key) to postmaster@corp.example");
    expect(text).toContain("A renewed certificate with the same key need not be sent");
    // Nothing of ours, and nothing of others.
    for (const secret of [
      "globex",
      "yaml",
      "/tmp",
      relay.path,
      "our secret name",
      "server certificate",
      "partner rollover",
      "127.0.0",
    ]) {
      expect(notice).not.toContain(secret);
    }
    expect(globex.connections()).toBe(0);
    expect(subjectsAt(hop)).toEqual(["mx.corp.example: 3 items run out soon (2 critical)"]);
    await look(relay, mailOf(relay, config));
    expect(acme.contents.length).toBe(1);
    relay.clock.ms += dayMs;
    await look(relay, mail);
    expect(acme.contents.length).toBe(2);
  });

  test.each<[string, Partial<Partner>]>([
    ["whose partner's file does not say so", { notifyContact: false }],
    ["that is no address", { contact: "Anna, +49 30 1234" }],
    ["that is in nobody's domain", { contact: "anna@elsewhere.example" }],
    ["whose partner gets no mail", { deliver: undefined }],
    ["whose pin is revoked", { pins: [{ ...pins.acme, state: "revoked" }] }],
  ])("%s is told nothing", async (_, changes) => {
    const { hop, acme, relay, config } = await withContacts(changes);
    await look(relay, mailOf(relay, config));
    expect(hop.contents.length).toBe(1); // the postmaster's
    expect(acme.connections()).toBe(0);
  });

  test("that cannot be reached is reported to the postmaster", async () => {
    const hop = await hopWith();
    const acme = await hopWith((verb) => (verb === "RCPT" ? "550 5.1.1 nobody here" : undefined));
    const relay = await relayTo(hop, { deliver: { acme: partnerRoute(server, acme) } });
    relay.start();
    await wasSeen(relay, "acme", pins.acme, acmes.certificate);
    const contact = "mail-ops@acme.example";
    const partners = partnersWith(relay, { acme: { pins: [pins.acme], notifyContact: true, contact } });
    await look(relay, mailOf(relay, configOf(relay, { partners })));
    expect(subjectsAt(hop)).toEqual([
      "mx.corp.example: 1 item runs out soon (1 critical)",
      "Undeliverable: your message was not delivered",
    ]);
  });
});

describe("what happens", () => {
  test("is told once each, and at most once an hour all together", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const config = configOf(relay);
    const mail = mailOf(relay, config);
    await quarantine(relay, acmes.certificate);
    await look(relay, mail);
    expect(subjectsAt(hop)).toEqual(["mx.corp.example: 1 unknown certificate"]);
    const text = noticesAt(hop)[0]?.replaceAll(/\r\n */g, " ");
    expect(text).toContain("CN=mx.acme.example");
    expect(text).toContain("pinrelay partner list --quarantine");
    relay.clock.ms += minuteMs;
    await quarantine(relay, globexes.certificate);
    await look(relay, mail);
    await quarantine(relay, endsSoon.certificate);
    relay.clock.ms += hourMs - minuteMs - 1;
    await look(relay, mail);
    expect(hop.contents.length).toBe(1);
    relay.clock.ms += 1;
    const restarted = mailOf(relay, config);
    await look(relay, restarted);
    expect(subjectsAt(hop).slice(1)).toEqual(["mx.corp.example: 2 unknown certificates"]);
    expect(noticesAt(hop)[1]).not.toContain("CN=mx.acme.example");
    relay.clock.ms += dayMs;
    await look(relay, restarted);
    expect(hop.contents.length).toBe(2);
  });

  test("is told again when it comes back", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const mail = mailOf(relay, configOf(relay));
    const file = await quarantine(relay, acmes.certificate);
    await look(relay, mail);
    await rm(file);
    await look(relay, mail);
    relay.clock.ms += hourMs;
    await quarantine(relay, acmes.certificate);
    await look(relay, mail);
    expect(hop.contents.length).toBe(2);
  });

  test("in a rollover is told too: the next pin that never came", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const old = spkiPin(acmes.certificate, { notAfter: new Date(relay.clock.ms + 5 * dayMs) });
    const next = spkiPin(mint({}).certificate, { state: "next", label: "2027" });
    const partners = partnersWith(relay, { acme: { pins: [old, next] } });
    const mail = mailOf(relay, configOf(relay, { partners }));
    await look(relay, mail);
    relay.clock.ms += hourMs;
    await look(relay, mail);
    expect(subjectsAt(hop)).toEqual([
      "mx.corp.example: 1 item runs out soon (1 critical)",
      "mx.corp.example: 1 change of key to look at",
    ]);
    for (const notice of noticesAt(hop))
      expect(notice.replaceAll(/\r\n */g, " ")).toContain("the next pin '2027' has never been used");
  });

  test("is told to nobody by what a certificate says: no field and no line is forged", async () => {
    const hop = await hopWith();
    const relay = await relayTo(hop);
    relay.start();
    const { certificate } = mint({ commonName: "x\r\nBcc: eve@evil.example\r\n.\r\n\u202eY", dnsName: "x.example" });
    await quarantine(relay, certificate);
    await look(relay, mailOf(relay, configOf(relay)));
    const [notice = ""] = noticesAt(hop);
    expect(notice).not.toMatch(/^(?:Bcc:|\.)/m);
    expect(notice).not.toContain("\u202e");
  });
});

test("it looks by itself, again and again until it is stopped", async () => {
  const hop = await hopWith();
  const relay = await relayTo(hop);
  relay.start();
  const config = configOf(relay, {}, endsSoon);
  const { log, clock, spool } = relay;
  const options = { config: () => config, dropBox: spool.dropBox, log: log.log, now: clock.now };
  const mail = new ExpiryMail({ ...options, firstLookMs: 1, lookIntervalMs: 1 });
  mail.start();
  await hop.until(() => hop.contents.length === 1);
  clock.ms += dayMs;
  await hop.until(() => hop.contents.length === 2);
  await mail.stop();
  clock.ms += dayMs;
  await relay.spool.settledDown();
  expect(hop.contents.length).toBe(2);
});

test("what cannot be read is logged, and mail goes on", async () => {
  const hop = await hopWith();
  const relay = await relayTo(hop);
  relay.start();
  await writeFile(join(relay.path, "notices.json"), "{}");
  const unreadable = join(relay.path, "sightings");
  await mkdir(unreadable);
  await writeFile(join(unreadable, "pins"), "a file in place of a folder");
  const mail = mailOf(relay, configOf(relay, {}, endsSoon));
  await look(relay, mail);
  expect(noticesAt(hop)[0]?.replaceAll(/\r\n */g, " ")).toContain("could not be read");
  expect(JSON.parse(await readFile(join(relay.path, "notices.json"), "utf8"))).toMatchObject({
    postmasterMs: relay.clock.ms,
  });
});
