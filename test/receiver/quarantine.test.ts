/** Certificates that nobody knows, and pins that come and go: what the receiver answers, alerts, and remembers. */
import { X509Certificate } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { PeerIdentity } from "../../src/partner/identity.ts";
import { unmetered } from "../../src/receiver/partner-rates.ts";
import { PolicyInForce } from "../../src/receiver/policy-in-force.ts";
import { Session } from "../../src/receiver/session.ts";
import { printable } from "../../src/cli/output.ts";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import { pinKey, spkiDigest, type Pin } from "../../src/partner/pin.ts";
import { readPinSightings, readQuarantine } from "../../src/sightings/reader.ts";
import { quarantineId, type Quarantined } from "../../src/sightings/sightings.ts";
import { range } from "../partner/partners.ts";
import { spkiPin } from "../partner/pins.ts";
import { acmeAddress, strangerAddress } from "../tools/relay-folder.ts";
import type { ClientCertificate } from "../tools/smtp-dialogue.ts";
import { makeCertificate, subjectOf, type Made } from "./certificates.ts";
import { letter, until, useRelay, withPartner, type Relay } from "./support.ts";

const startRelay = useRelay();
const dayMs = 86_400_000;

/** The reply to MAIL of a client that shows this certificate. */
async function mailAs(relay: Relay, certificate: ClientCertificate, from = acmeAddress): Promise<string> {
  const client = await relay.connect(from);
  await client.begin(certificate);
  const reply = await client.say("MAIL FROM:<a@acme.example>");
  client.close();
  return reply;
}

function idOf(certificate: ClientCertificate): string {
  return quarantineId(new X509Certificate(certificate.cert));
}

async function quarantineOf(relay: Relay): Promise<Quarantined[]> {
  let found: Quarantined[] = [];
  await until("the certificate is written down", async () => {
    found = await readQuarantine(relay.config.spool.path);
    return found.length > 0;
  });
  return found;
}

const onSpoolOf =
  (relay: Relay) =>
  (config: RelayConfig): RelayConfig => ({ ...config, spool: relay.config.spool });

describe("an unknown certificate from a partner's address", () => {
  it("gets a reference in the reply, under which the operator finds it", async () => {
    const relay = await startRelay();
    const id = idOf(relay.certificates.outsider);
    expect(await mailAs(relay, relay.certificates.outsider)).toMatch(
      new RegExp(`^454 4\\.7\\.0 Client certificate is not registered here: .* reference ${id} \\[\\w+\\]$`),
    );
    const [entry] = await quarantineOf(relay);
    expect(entry).toMatchObject({ id, partners: ["acme"], addresses: [acmeAddress], count: 1 });
    expect(entry?.certificate.subject).toBe("CN=mx.outsider.example");
    expect(entry?.lastSeenMs).toBe(entry?.firstSeenMs);
  });

  it("raises one alert, and each refusal is logged with the reference", async () => {
    const relay = await startRelay();
    const { outsider } = relay.certificates;
    await mailAs(relay, outsider);
    await mailAs(relay, outsider);
    const reference = idOf(outsider);
    expect(relay.log().filter(({ event }) => event === "quarantined")).toEqual([
      expect.objectContaining({ level: "warn", reference, address: acmeAddress, addressOf: ["acme"] }),
    ]);
    expect(relay.log().filter((line) => line["event"] === "refused" && line["reference"] === reference)).toHaveLength(
      2,
    );
  });

  it("is counted once a session, however often it tries", async () => {
    const relay = await startRelay();
    const client = await relay.partner(relay.certificates.outsider);
    for (let times = 0; times < 5; times += 1) {
      expect(await client.say("MAIL FROM:<a@acme.example>")).toContain(
        `reference ${idOf(relay.certificates.outsider)}`,
      );
      expect(await client.say("RSET")).toMatch(/^250 /);
    }
    await mailAs(relay, relay.certificates.outsider);
    await relay.receiver.stop();
    expect(await quarantineOf(relay)).toEqual([expect.objectContaining({ count: 2 })]);
  });

  it("is still known after a restart, with its first time and its count", async () => {
    const before = await startRelay();
    const { outsider } = before.certificates;
    await mailAs(before, outsider);
    await before.receiver.stop();
    const [was] = await quarantineOf(before);
    const relay = await startRelay({ change: onSpoolOf(before) });
    expect(await mailAs(relay, outsider)).toContain(`reference ${idOf(outsider)} `);
    await relay.receiver.stop();
    const [is] = await quarantineOf(relay);
    expect(is).toMatchObject({ firstSeenMs: was?.firstSeenMs, count: 2 });
    expect(is?.lastSeenMs).toBeGreaterThan(was?.lastSeenMs ?? Number.POSITIVE_INFINITY);
    expect(relay.log().filter(({ event }) => event === "quarantined")).toEqual([]);
  });

  it("is not kept where only a partner that lists any address lets it in: 550 without a reference", async () => {
    const relay = await startRelay({ change: withPartner("globex", { hosts: [range("any")] }) });
    expect(await mailAs(relay, relay.certificates.outsider, strangerAddress)).toMatch(
      /^550 5\.7\.1 Client certificate is not registered here \[\w+\]$/,
    );
    await relay.receiver.stop();
    expect(await readQuarantine(relay.config.spool.path)).toEqual([]);
    expect(relay.logText()).not.toContain("quarantined");
  });

  it("passes on the same connection once it is confirmed, leaves the quarantine, and is refused there when revoked", async () => {
    const relay = await startRelay();
    const { outsider } = relay.certificates;
    const client = await relay.partner(outsider);
    expect(await client.send(letter)).toContain("reference ");
    await quarantineOf(relay);
    const pins = relay.config.partners.find(({ name }) => name === "acme")?.pins ?? [];
    const confirmed = spkiPin(new X509Certificate(outsider.cert), { state: "next" });
    await relay.receiver.reload(withPartner("acme", { pins: [...pins, confirmed] })(relay.config));
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    await relay.receiver.reload(
      withPartner("acme", { pins: [...pins, { ...confirmed, state: "revoked" }] })(relay.config),
    );
    expect(await client.send(letter)).toMatch(/^454 4\.7\.0 Client certificate was revoked/);
    await relay.receiver.stop();
    const { path } = relay.config.spool;
    expect(await readQuarantine(path)).toEqual([]);
    expect(await readPinSightings(path)).toEqual([
      expect.objectContaining({
        pin: pinKey(confirmed),
        count: 1,
        refused: expect.objectContaining({ count: 1 }) as unknown,
      }),
    ]);
    expect(await relay.spooled()).toHaveLength(1);
  });

  it("cannot drive the operator's terminal, nor end a line of the log, by its subject", async () => {
    const relay = await startRelay();
    const subject = '\u001b[2J\r\n250 OK\u0007</pre><script>"; rm -rf / \u202e../../etc/passwd\u009b31m';
    const made = await makeCertificate({ subject: subjectOf(subject) });
    const reply = await mailAs(relay, made);
    expect(reply).toMatch(/^454 4\.7\.0 [ -~]* reference [0-9a-f]{12} \[\w+\]$/);
    const [entry] = await quarantineOf(relay);
    expect(entry?.certificate.subject).toContain("script");
    // oxlint-disable-next-line no-control-regex -- it is about control characters
    expect(printable(entry?.certificate.subject ?? "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
    // oxlint-disable-next-line no-control-regex -- it is about control characters
    expect(relay.logText().replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
    expect(relay.log().length).toBeGreaterThan(1); // each line is JSON
  });

  it("touches no mail when it cannot be written down: no room, or a file where the folder should be", async () => {
    const full = () => Promise.reject(Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" }));
    const stuck = await startRelay({ sightings: { write: full } });
    const before = await startRelay();
    await before.receiver.stop();
    await writeFile(join(before.config.spool.path, "sightings"), "", { flag: "wx" });
    const blocked = await startRelay({ change: onSpoolOf(before) });
    for (const relay of [stuck, blocked]) {
      expect(await mailAs(relay, relay.certificates.outsider)).toContain("reference ");
      const client = await relay.partner();
      expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    }
    for (const relay of [stuck, blocked]) {
      await until("the fault is logged", () => relay.log().some(({ event }) => event === "fault"));
      await relay.receiver.stop();
    }
  });
});

describe("a policy that changes in mid-session", async () => {
  const [one, other] = [await makeCertificate(), await makeCertificate()];
  const onePin = spkiPin(one.certificate);
  const mail = (session: Session) => {
    const step = session.perform(Buffer.from("MAIL FROM:<a@acme.example>"));
    session.perform(Buffer.from("RSET"));
    return step.kind === "answer" ? step.answer : undefined;
  };

  /** Sessions of acme with the certificate, after EHLO, and what they have noted. */
  async function sessions(pins: readonly Pin[]) {
    const relay = await startRelay();
    const noted: string[] = [];
    const policyWith = (changed: readonly Pin[]) =>
      new PolicyInForce(withPartner("acme", { pins: changed })(relay.config));
    const context = {
      policy: policyWith(pins),
      now: () => new Date(),
      usage: { totalBytes: () => 0, partnerBytes: () => 0 },
      rates: unmetered,
      sightings: {
        firstSeen: () => undefined,
        noteIdentified: ({ pin }: PeerIdentity) => void noted.push(`identified ${pin.state}`),
        noteRefused: ({ pin }: PeerIdentity) => void noted.push(`refused ${pin.state}`),
        noteUnknown: () => `unknown ${noted.push("unknown")}`,
      },
    };
    const open = (made: Made): Session => {
      const session = new Session("id", acmeAddress, context, () => true);
      session.secure({ chain: [made.certificate], version: "TLSv1.3", cipher: "x", group: undefined });
      session.perform(Buffer.from("EHLO mx.acme.example"));
      return session;
    };
    return { open, noted, reload: (changed: readonly Pin[]) => (context.policy = policyWith(changed)) };
  }

  it("refuses a revoked pin at the next MAIL, and lets the others go on", async () => {
    const { open, noted, reload } = await sessions([onePin, spkiPin(other.certificate)]);
    const [revoked, goesOn] = [open(one), open(other)];
    expect([mail(revoked)?.reply, mail(goesOn)?.reply]).toEqual(["senderAccepted", "senderAccepted"]);
    reload([{ ...onePin, state: "revoked" }, spkiPin(other.certificate)]);
    expect(mail(revoked)).toMatchObject({ reply: "certificateRevoked", reason: { by: "operator" }, urgency: "alert" });
    expect([mail(goesOn)?.reply, mail(revoked)?.reply]).toEqual(["senderAccepted", "certificateRevoked"]);
    expect(noted.filter((note) => note.startsWith("refused"))).toEqual(["refused revoked"]);
  });

  it("lets in a certificate that is confirmed, and gives no reference any more", async () => {
    const { open, noted, reload } = await sessions([onePin]);
    const session = open(other);
    expect(mail(session)).toMatchObject({ reply: "certificateUnknown", reference: "unknown 1" });
    expect(mail(session)).toMatchObject({ reply: "certificateUnknown", reference: "unknown 1" });
    reload([onePin, spkiPin(other.certificate, { state: "pending" })]);
    expect(mail(session)).toMatchObject({ reply: "certificatePending" });
    expect(mail(session)).not.toHaveProperty("reference");
    reload([onePin, spkiPin(other.certificate, { state: "next" })]);
    expect(mail(session)?.reply).toBe("senderAccepted");
    expect(noted).toEqual(["unknown", "identified next"]);
  });

  it("has a pin noted anew that becomes the next one, and once only however many messages come", async () => {
    const { open, noted, reload } = await sessions([onePin]);
    const session = open(one);
    for (let times = 0; times < 10; times += 1) mail(session);
    reload([{ ...onePin, state: "next" }, spkiPin(other.certificate)]);
    for (let times = 0; times < 10; times += 1) mail(session);
    expect(noted).toEqual(["identified active", "identified next"]);
  });
});

describe("a pin", () => {
  it("is noted with the certificate that it let in, whatever becomes of the message", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say("MAIL FROM:<a@elsewhere.example>")).toMatch(/^550 /);
    await until("it is written", async () => (await readPinSightings(relay.config.spool.path)).length === 1);
    const [sighting] = await readPinSightings(relay.config.spool.path);
    const certificate = new X509Certificate(relay.certificates.acme.cert);
    expect(sighting).toMatchObject({
      partner: "acme",
      pin: `spki ${spkiDigest(certificate)}`,
      addresses: [acmeAddress],
      count: 1,
    });
  });

  it("retires when the next one has been in use for long enough, and the next one goes on, also after a restart", async () => {
    const [old, next] = [
      await makeCertificate({ to: new Date(Date.now() + 90 * dayMs) }),
      await makeCertificate({ to: new Date(Date.now() + 90 * dayMs) }),
    ];
    const pins: Pin[] = [spkiPin(old.certificate), spkiPin(next.certificate, { state: "next" })];
    const change = withPartner("acme", { pins, rollover: { retireAfterMs: 14 * dayMs } });
    const begin = Date.now();
    const at = { now: new Date(begin) };
    const now = () => at.now;
    const before = await startRelay({ now, change });
    at.now = new Date(begin + 30 * dayMs); // as long as nobody has the next one, the old one counts
    const longLived = await before.partner(old);
    expect(await longLived.send(letter)).toMatch(/^250 /);
    expect(await mailAs(before, next)).toMatch(/^250 /);
    at.now = new Date(begin + 44 * dayMs - 1000);
    expect(await longLived.send(letter)).toMatch(/^250 /);
    at.now = new Date(begin + 44 * dayMs);
    expect(await longLived.send(letter)).toMatch(/^454 4\.7\.0 Client certificate was replaced by your next one/);
    expect(await mailAs(before, old)).toMatch(/^454 4\.7\.0 Client certificate was replaced by your next one/);
    expect(await mailAs(before, next)).toMatch(/^250 /);
    expect(before.log()).toContainEqual(
      expect.objectContaining({ level: "warn", event: "refused", cause: "retired", partner: "acme" }),
    );
    await before.receiver.stop();
    const relay = await startRelay({ now, change: (config) => onSpoolOf(before)(change(config)) });
    expect(await mailAs(relay, old)).toMatch(/^454 4\.7\.0 Client certificate was replaced by your next one/);
    expect(await mailAs(relay, next)).toMatch(/^250 /);
    await relay.receiver.stop();
    const seen = await readPinSightings(relay.config.spool.path);
    expect(seen.find(({ pin }) => pin === pinKey(spkiPin(old.certificate)))?.refused?.count).toBe(3);
  });

  it.each([
    ["pending", /^454 4\.7\.0 Client certificate is not confirmed yet/, "pending"],
    ["revoked", /^454 4\.7\.0 Client certificate was revoked/, "revoked"],
  ] as const)("that is %s lets nobody in, and is an alert in the log", async (state, reply, cause) => {
    const made = await makeCertificate();
    const pins = [spkiPin(made.certificate, { state })];
    const relay = await startRelay({ change: withPartner("acme", { pins }) });
    expect(await mailAs(relay, made)).toMatch(reply);
    expect(relay.log()).toContainEqual(expect.objectContaining({ level: "warn", event: "refused", cause }));
    await relay.receiver.stop();
    expect(await readQuarantine(relay.config.spool.path)).toEqual([]);
    expect(await readPinSightings(relay.config.spool.path)).toEqual([]);
  });

  it("that expired, or comes from the wrong address, is an alert; no certificate at all is none", async () => {
    const made = await makeCertificate({ to: new Date(Date.now() - 1000) });
    const relay = await startRelay({ change: withPartner("acme", { pins: [spkiPin(made.certificate)] }) });
    await mailAs(relay, made);
    await mailAs(relay, relay.certificates.globex);
    const client = await relay.connect();
    await client.begin();
    await client.say("MAIL FROM:<a@acme.example>");
    const levels = relay
      .log()
      .filter(({ event }) => event === "refused")
      .map(({ cause, level }) => [cause, level]);
    expect(levels).toEqual([
      ["expired", "warn"],
      ["wrongAddress", "warn"],
      ["noCertificate", "info"],
    ]);
  });
});
