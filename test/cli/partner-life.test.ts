/** The life of a partner's identity as it is typed: enrol, confirm, roll over, approve from quarantine, revoke. */
import { X509Certificate } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { readActions } from "../../src/audit/operator-journal.ts";
import { issue } from "../../src/certs/ca.ts";
import { loadConfig } from "../../src/config/load.ts";
import { fingerprintForms } from "../../src/partner/fingerprint.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { certificateDigest, pinKey, spkiDigest } from "../../src/partner/pin.ts";
import { quarantineId } from "../../src/sightings/sightings.ts";
import { required } from "../certs/support.ts";
import { startScriptedHop } from "../tools/scripted-hop.ts";
import {
  bench,
  confirmWith,
  enrolCert,
  enrolCsr,
  now,
  partner,
  rules,
  seePin,
  seeUnknown,
  selfSigned,
  snapshot,
  type Bench,
  type Ran,
} from "./support.ts";

const dayMs = 86_400_000;
const inDays = (days: number): Date => new Date(now.getTime() + days * dayMs);
const key = spkiDigest(selfSigned);
const host = "203.0.113.5";

async function loaded({ config }: Bench, name = "acme"): Promise<Partner> {
  const result = await loadConfig(config, now);
  if (result.kind === "invalid") throw new Error(JSON.stringify(result.problems));
  return required(result.config.partners.find((candidate) => candidate.name === name));
}

async function states(at: Bench): Promise<string[]> {
  return (await loaded(at)).pins.map(({ state }) => state);
}

async function journal(at: Bench) {
  return readActions(join(at.config, "../../var/audit"));
}

/** A certificate of the partner's own, in a file. */
async function certificateFile(
  at: Bench,
  name: string,
  usages: "client" | "server" = "client",
): Promise<{ file: string; certificate: X509Certificate }> {
  const names = { dnsNames: ["mx.acme.example"], ipAddresses: [] };
  const made = await issue({ directory: at.certs, commonName: name, ...names, usages, days: 90, now });
  const file = join(at.certs, `${name}.pem`);
  await writeFile(file, made.certificatePem);
  return { file, certificate: new X509Certificate(made.certificatePem) };
}

const on = (at: Bench, ...args: string[]): Promise<Ran> => partner([...args, "--config", at.config]);
const reloadNote = "The relay is not running: it will use this when it starts.\n";

/** A partner whose one pin counts. */
async function confirmedBench(): Promise<Bench> {
  const at = await bench();
  await enrolCert(at, "acme");
  expect((await confirmWith(at, "acme", key)).exitCode).toBe(0);
  return at;
}

describe("partner confirm", () => {
  const { hexGroups, words } = fingerprintForms(key);
  it.each([
    { what: "base64", typed: [key] },
    { what: "hexadecimal groups in several arguments", typed: hexGroups.split(" ") },
    { what: "24 words in several arguments", typed: words.split(" ") },
    { what: "24 words in one", typed: [words.toUpperCase()] },
  ])("makes a pending pin count, by $what", async ({ typed }) => {
    const at = await bench();
    await enrolCert(at, "acme");
    expect(await states(at)).toEqual(["pending"]);
    const ran = await confirmWith(at, "acme", ...typed);
    expect(ran).toEqual({
      exitCode: 0,
      out: `The fingerprint fits: the pin of acme counts.\n${reloadNote}`,
      err: "",
    });
    expect(await states(at)).toEqual(["active"]);
    expect(await readFile(join(at.partners, "acme.yaml"), "utf8")).not.toMatch(/^ *- .*state/m);
  });

  it("reads the standard input for a scanner", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const ran = await partner(["confirm", "acme", "-", "--config", at.config], now, {
      read: () => Promise.resolve(`${key}\n`),
    });
    expect(ran.exitCode).toBe(0);
    expect(await states(at)).toEqual(["active"]);
  });

  it("leaves the running relay as it is where it is told to", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const { out } = await confirmWith(at, "acme", key, "--no-reload");
    expect(out).toContain("pinrelay reload does that");
  });

  it("does no harm a second time", async () => {
    const at = await confirmedBench();
    const before = await snapshot(at.config.replace("relay.yaml", ""));
    expect(await confirmWith(at, "acme", key)).toMatchObject({
      exitCode: 0,
      out: "'enrolled 2027-01-01' of acme is confirmed already: nothing to do.\n",
    });
    expect(await snapshot(at.config.replace("relay.yaml", ""))).toEqual(before);
    expect((await journal(at)).filter(({ action }) => action === "confirm")).toHaveLength(1);
  });

  it("keeps the file's comments and order", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const file = join(at.partners, "acme.yaml");
    const mine = (await readFile(file, "utf8")).replace("mode: enforce", "# they call on Tuesdays\nmode: enforce");
    await writeFile(file, mine);
    await confirmWith(at, "acme", key);
    expect(await readFile(file, "utf8")).toBe(mine.replace(/, ["']?state["']?: ["']?pending["']?/, ""));
  });

  it("takes the certificate's fingerprint where the certificate is pinned, and not the key's", async () => {
    const at = await bench();
    const { out } = await enrolCert(at, "acme", "--pin-certificate");
    expect(out).toContain("Fingerprint of the certificate, SHA-256: to be compared");
    expect((await confirmWith(at, "acme", key)).exitCode).toBe(1);
    expect((await confirmWith(at, "acme", certificateDigest(selfSigned))).exitCode).toBe(0);
    expect(await states(at)).toEqual(["active"]);
  });

  it("takes the fingerprint of the CA's certificate for a trust anchor", async () => {
    const at = await bench();
    const anchor = join(at.certs, "ca.pem");
    const source = ["--trust-anchor", anchor, "--name", "mx.acme.example"];
    const ran = await on(at, "enrol", "acme", ...source, ...rules);
    expect(ran.exitCode).toBe(0);
    expect(ran.out).toContain("Fingerprint of the CA's certificate");
    expect(await readFile(join(at.partners, "acme.yaml"), "utf8")).toContain("../../certs/ca.pem");
    const digest = certificateDigest(new X509Certificate(await readFile(anchor)));
    expect((await confirmWith(at, "acme", digest)).exitCode).toBe(0);
    expect((await loaded(at)).pins).toMatchObject([{ kind: "trustAnchor", name: "mx.acme.example", state: "active" }]);
  });

  it("tells that another fingerprint differs, and never the one that is expected", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const before = await snapshot(at.partners);
    const ran = await confirmWith(at, "acme", certificateDigest(selfSigned));
    expect(ran.exitCode).toBe(1);
    expect(ran.err).toMatch(
      /^pinrelay: this fingerprint differs from what is waiting for acme .*'enrolled 2027-01-01'/,
    );
    // What people know by heart prints the certificate's fingerprint, not the key's.
    expect(ran.err).toContain(
      "Is it the fingerprint of the whole certificate? That of its key is printed by openssl x509",
    );
    expect(ran.err.split("\n")).toHaveLength(2);
    expect(ran.err + ran.out).not.toContain(key.slice(7, 15));
    expect(await snapshot(at.partners)).toEqual(before);
  });

  it("writes down who did it, when and how", async () => {
    const at = await confirmedBench();
    expect(await journal(at)).toMatchObject([
      { action: "enrol", partner: "acme", pin: `spki ${key}`, how: "from the certificate self-signed.pem" },
      { action: "confirm", partner: "acme", pin: `spki ${key}`, how: "fingerprint, typed", at: now },
    ]);
    expect((await journal(at))[0]?.who).not.toBe("");
  });
});

describe("a certificate in quarantine", () => {
  it("is shown with the command that approves it, and approved by its fingerprint alone", async () => {
    const at = await confirmedBench();
    const next = (await certificateFile(at, "next")).certificate;
    await seeUnknown(at, next, host, await loaded(at));
    const listed = await on(at, "list", "--quarantine");
    expect(listed.out).toContain(`${quarantineId(next)}  from ${host}, a host of acme\n`);
    expect(listed.out).toContain("subject  CN=next");
    expect(listed.out).toContain(spkiDigest(next));
    expect(listed.out).toContain("pinrelay partner confirm acme FINGERPRINT");
    const json: unknown = JSON.parse((await on(at, "list", "--quarantine", "--json")).out);
    expect(json).toMatchObject([{ id: quarantineId(next), addresses: [host], partners: ["acme"], count: 1 }]);

    expect((await confirmWith(at, "acme", quarantineId(next))).exitCode).toBe(2); // the id is no fingerprint
    const ran = await confirmWith(at, "acme", fingerprintForms(spkiDigest(next)).words);
    expect(ran).toMatchObject({ exitCode: 0, out: expect.stringContaining("the next pin of acme counts") });
    expect((await loaded(at)).pins).toMatchObject([
      { state: "active", digest: key },
      { state: "next", digest: spkiDigest(next), label: "seen 2027-01-01" },
    ]);
    expect((await on(at, "list", "--quarantine")).out).toContain("Nothing is in quarantine");
    expect((await journal(at)).at(-1)).toMatchObject({ how: expect.stringContaining(quarantineId(next)) });
  });

  it("is approved by the fingerprint of the whole certificate, too, and its key is pinned: a renewal with it passes", async () => {
    const at = await confirmedBench();
    const next = (await certificateFile(at, "next")).certificate;
    await seeUnknown(at, next, host, await loaded(at));
    expect((await confirmWith(at, "acme", certificateDigest(next))).exitCode).toBe(0);
    expect((await loaded(at)).pins[1]).toMatchObject({ kind: "spki", digest: spkiDigest(next), notAfter: undefined });
  });

  it("is not approved for a partner from whose hosts it was not seen", async () => {
    const at = await confirmedBench();
    const next = (await certificateFile(at, "next")).certificate;
    await seeUnknown(at, next, "198.51.100.9", undefined);
    const ran = await confirmWith(at, "acme", spkiDigest(next));
    expect(ran).toMatchObject({ exitCode: 1, err: expect.stringContaining("no certificate with this fingerprint") });
  });

  it("opens the partner's file to certificates that are not for clients, and says so", async () => {
    const at = await confirmedBench();
    const next = (await certificateFile(at, "next", "server")).certificate;
    await seeUnknown(at, next, host, await loaded(at));
    const ran = await confirmWith(at, "acme", spkiDigest(next));
    expect(ran).toMatchObject({ exitCode: 0, err: expect.stringContaining("extended-key-usage: any") });
    expect((await loaded(at)).extendedKeyUsage).toBe("any");
  });

  it("enrols a new partner, at the address where it was seen", async () => {
    const at = await confirmedBench();
    const seen = (await certificateFile(at, "stranger")).certificate;
    await seeUnknown(at, seen, "198.51.100.9", undefined);
    expect((await on(at, "list", "--quarantine")).out).toContain(`--from-quarantine ${quarantineId(seen)}`);
    const rest = ["--from", "@globex.example", "--to", "@corp.example"];
    const ran = await on(at, "enrol", "globex", "--from-quarantine", quarantineId(seen), ...rest);
    expect(ran.exitCode).toBe(0);
    const globex = await loaded(at, "globex");
    expect(globex.hosts.map(({ text }) => text)).toEqual(["198.51.100.9"]);
    expect(globex.pins).toMatchObject([{ digest: spkiDigest(seen), state: "pending" }]);
  });

  it("cannot steer the terminal, with a name or without one", async () => {
    const at = await confirmedBench();
    for (const file of ["terminal.pem", "no-subject.pem"]) {
      const made = new X509Certificate(await readFile(join(import.meta.dirname, "fixtures", file)));
      await seeUnknown(at, made, host, await loaded(at));
    }
    const { out, exitCode } = await on(at, "list", "--quarantine");
    expect(exitCode).toBe(0);
    expect(out).toContain("subject  (no name)");
    // eslint-disable-next-line no-control-regex -- it is about control characters
    expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f]/);
  });
});

describe("partner rollover", () => {
  it("goes from the old pin to the next, which is confirmed, used, and becomes the active one", async () => {
    const at = await confirmedBench();
    const { file, certificate } = await certificateFile(at, "next");
    await seePin(at, await loaded(at), key, selfSigned, host, inDays(-100));
    const begun = await on(at, "rollover", "acme", "--cert", file, "--not-before", "2027-01-01", "--label", "2027");
    expect(begun).toMatchObject({ exitCode: 0, err: "" });
    expect(begun.out).toContain("Added the next pin of acme, not confirmed yet: ");
    expect(begun.out).toContain("The old pin 'enrolled 2027-01-01' ends with its certificate, on 2126-");
    expect(begun.out).toContain("pinrelay partner confirm acme FINGERPRINT");
    expect((await loaded(at)).pins).toMatchObject([
      { state: "active", notAfter: new Date(`${selfSigned.validToDate.toISOString().slice(0, 10)}T23:59:59.999Z`) },
      { state: "pending", label: "2027", notBefore: new Date("2027-01-01T00:00:00Z") },
    ]);
    expect((await on(at, "rollover", "acme", "--finish")).err).toContain("is not confirmed yet");
    expect((await on(at, "rollover", "acme", "--cert", file)).err).toContain("is under way: '2027' waits for");

    await confirmWith(at, "acme", spkiDigest(certificate));
    expect(await states(at)).toEqual(["active", "next"]);
    expect((await on(at, "rollover", "acme", "--finish")).err).toContain("has not been used yet");
    expect((await on(at, "rollover", "acme", "--pin", "A".repeat(43))).exitCode).toBe(2);

    await seePin(at, await loaded(at), spkiDigest(certificate), certificate, host, inDays(-3));
    expect((await on(at, "rollover", "acme", "--finish")).err).toContain("it retires on 2027-01-12");
    expect((await on(at, "rollover", "acme", "--cancel")).err).toContain("has been in use since 2026-12-29");
    expect((await on(at, "rollover", "acme", "--cert", file)).err).toContain("retires on 2027-01-12");

    const later = ["rollover", "acme", "--finish", "--config", at.config];
    const finished = await partner(later, inDays(12));
    expect(finished).toMatchObject({
      exitCode: 0,
      out: `The rollover of acme is finished: 'enrolled 2027-01-01' removed, '2027' active.\n${reloadNote}`,
    });
    expect((await loaded(at)).pins).toMatchObject([{ state: "active", label: "2027" }]);
    expect(await partner(later, inDays(12))).toMatchObject({
      exitCode: 1,
      err: "pinrelay: there is no rollover of acme to finish\n",
    });
    expect((await journal(at)).map(({ action }) => action)).toEqual([
      "enrol",
      "confirm",
      "rollover",
      "confirm",
      "finish",
    ]);
  });

  it("finishes the one before where the old pin has retired", async () => {
    const at = await confirmedBench();
    const second = await certificateFile(at, "second");
    await on(at, "rollover", "acme", "--cert", second.file);
    await confirmWith(at, "acme", spkiDigest(second.certificate));
    await seePin(at, await loaded(at), spkiDigest(second.certificate), second.certificate, host, inDays(-15));
    const third = await certificateFile(at, "third");
    expect((await on(at, "rollover", "acme", "--cert", third.file, "--label", "third")).exitCode).toBe(0);
    expect((await loaded(at)).pins).toMatchObject([
      { state: "active", digest: spkiDigest(second.certificate) },
      { state: "pending", digest: spkiDigest(third.certificate) },
    ]);
  });

  it("is called off as long as the next pin was not used", async () => {
    const at = await confirmedBench();
    const before = (await loaded(at)).pins.map(pinKey);
    const { file, certificate } = await certificateFile(at, "next");
    for (const confirmed of [false, true]) {
      await on(at, "rollover", "acme", "--cert", file);
      if (confirmed) await confirmWith(at, "acme", spkiDigest(certificate));
      expect(await on(at, "rollover", "acme", "--cancel")).toMatchObject({ exitCode: 0 });
      expect((await loaded(at)).pins.map(pinKey)).toEqual(before);
    }
    expect(await on(at, "rollover", "acme", "--cancel")).toMatchObject({
      exitCode: 1,
      err: "pinrelay: there is no rollover of acme to cancel\n",
    });
  });

  it("leaves the old pin without an end where it is told to, or where none is known", async () => {
    const at = await confirmedBench();
    const { file } = await certificateFile(at, "next");
    await on(at, "rollover", "acme", "--cert", file);
    expect((await loaded(at)).pins[0]?.notAfter).toBeUndefined();
    await on(at, "rollover", "acme", "--cancel");
    await seePin(at, await loaded(at), key, selfSigned, host, inDays(-100));
    await on(at, "rollover", "acme", "--cert", file, "--keep-dates");
    expect((await loaded(at)).pins[0]?.notAfter).toBeUndefined();
  });

  it("warns of a time in which nobody could send", async () => {
    const at = await confirmedBench();
    const { file } = await certificateFile(at, "next");
    await seePin(at, await loaded(at), key, selfSigned, host, now);
    const ends = selfSigned.validToDate.toISOString().slice(0, 10);
    const later = new Date(selfSigned.validToDate.getTime() + 10 * dayMs).toISOString().slice(0, 10);
    const ran = await on(at, "rollover", "acme", "--cert", file, "--not-before", later);
    expect(ran.exitCode).toBe(0);
    expect(ran.err).toContain(`warning: no pin of acme counts between ${ends} and ${later}`);
    expect(ran.err).toMatch(/warning: the new certificate ends on \d{4}-\d\d-\d\d, before its pin begins/);
  });

  it("signs a request beside the certificate that is in use", async () => {
    const at = await bench();
    await enrolCsr(at, "acme", "p256.csr.pem");
    await confirmWith(at, "acme", spkiDigest(new X509Certificate(await readFile(join(at.certs, "partners/acme.pem")))));
    const first = await readFile(join(at.certs, "partners/acme.pem"));
    const csr = join(import.meta.dirname, "../certs/fixtures/p384.csr.pem");
    const ran = await on(at, "rollover", "acme", "--csr", csr);
    expect(ran).toMatchObject({ exitCode: 0, out: expect.stringContaining("acme.2027-01-01.pem and ") });
    expect(await readFile(join(at.certs, "partners/acme.pem"))).toEqual(first);
    expect((await on(at, "list")).out).toContain("2028-02-02");
  });

  it("is refused before the first pin is confirmed", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const { file } = await certificateFile(at, "next");
    expect((await on(at, "rollover", "acme", "--cert", file)).err).toContain("has a pin that is not confirmed yet");
  });
});

describe("partner revoke", () => {
  it("keeps the pin as revoked, writes down why, and nobody enrols or confirms it again", async () => {
    const at = await confirmedBench();
    const ran = await on(at, "revoke", "acme", "--yes", "--reason", "the host was stolen");
    expect(ran.exitCode).toBe(0);
    expect(ran.out).toContain("Revoked 'enrolled 2027-01-01' of acme.\nNo pin of acme counts any more");
    expect(await states(at)).toEqual(["revoked"]);
    expect((await journal(at)).at(-1)).toMatchObject({
      action: "revoke",
      details: { reason: "the host was stolen", was: "active" },
    });
    expect((await confirmWith(at, "acme", key)).err).toContain("was revoked and stays so");
    expect((await enrolCert(at, "beta")).err).toContain("was revoked as 'enrolled 2027-01-01' of the partner 'acme'");
    expect(await on(at, "revoke", "acme", "--yes")).toMatchObject({
      exitCode: 0,
      out: expect.stringContaining("already"),
    });
    const { file, certificate } = await certificateFile(at, "next");
    expect((await on(at, "rollover", "acme", "--cert", file)).exitCode).toBe(0);
    await confirmWith(at, "acme", spkiDigest(certificate));
    expect(await states(at)).toEqual(["revoked", "active"]);
  });

  it("asks for the partner's name on a terminal, and revokes nothing without it", async () => {
    const at = await confirmedBench();
    const revoke = ["revoke", "acme", "--config", at.config];
    const answering = (answer: string | undefined) => partner(revoke, now, { ask: () => Promise.resolve(answer) });
    expect(await answering(undefined)).toMatchObject({ exitCode: 2, err: expect.stringContaining("add --yes") });
    expect(await answering("yes")).toMatchObject({ exitCode: 1, err: expect.stringContaining("nothing is revoked") });
    expect(await states(at)).toEqual(["active"]);
    expect(await answering("acme\n")).toMatchObject({ exitCode: 0 });
    expect(await states(at)).toEqual(["revoked"]);
  });

  it("takes the pin by fingerprint or label, and all of them", async () => {
    const at = await confirmedBench();
    const { file, certificate } = await certificateFile(at, "next");
    await on(at, "rollover", "acme", "--cert", file, "--label", "2027");
    expect(await on(at, "revoke", "acme", "--yes")).toMatchObject({
      exitCode: 2,
      err: expect.stringContaining("say which"),
    });
    expect((await on(at, "revoke", "acme", "--label", "x", "--yes")).err).toContain("no pin with the label 'x'");
    expect((await on(at, "revoke", "acme", certificateDigest(certificate), "--yes")).exitCode).toBe(1);
    expect((await on(at, "revoke", "acme", spkiDigest(certificate), "--yes")).exitCode).toBe(0);
    expect(await states(at)).toEqual(["active", "revoked"]);
    expect((await on(at, "revoke", "acme", "--all", "--yes")).exitCode).toBe(0);
    expect(await states(at)).toEqual(["revoked", "revoked"]);
  });

  it("names the command for a certificate that our CA signed", async () => {
    const at = await bench();
    await enrolCsr(at, "acme", "p256.csr.pem");
    const ran = await on(at, "revoke", "acme", "--yes");
    expect(ran.out).toContain(
      `Our CA signed its certificate: pinrelay ca revoke ${join(at.certs, "partners/acme.pem")}`,
    );
  });
});

describe("partner enrol", () => {
  it("takes a bare fingerprint, in words", async () => {
    const at = await bench();
    const ran = await on(at, "enrol", "acme", "--pin", fingerprintForms(key).words, ...rules);
    expect(ran).toMatchObject({ exitCode: 0, out: expect.stringContaining("the certificate is not known") });
    expect((await loaded(at)).pins).toMatchObject([{ kind: "spki", digest: key, state: "pending" }]);
  });

  it("takes what a host shows by STARTTLS, and says that it may send with another", async () => {
    const at = await bench();
    const made = await issue({
      directory: at.certs,
      commonName: "mx.acme.example",
      dnsNames: ["mx.acme.example"],
      ipAddresses: [],
      usages: "both",
      days: 90,
      now,
    });
    const hop = await startScriptedHop({ cert: made.certificatePem, key: made.keyPem });
    onTestFinished(() => hop.close());
    const ran = await on(at, "enrol", "acme", "--from-host", `127.0.0.1:${hop.port}`, ...rules);
    expect(ran).toMatchObject({
      exitCode: 0,
      err: expect.stringContaining("when it sends mail it may show another one"),
    });
    const shown = new X509Certificate(made.certificatePem);
    expect((await loaded(at)).pins).toMatchObject([{ digest: spkiDigest(shown), state: "pending" }]);
    expect((await journal(at))[0]).toMatchObject({ how: `as 127.0.0.1 port ${hop.port} showed it` });
    expect(hop.lines[0]).toBe("EHLO mx.corp.example");
    await hop.close();
    const gone = await on(at, "enrol", "globex", "--from-host", `127.0.0.1:${hop.port}`, ...rules);
    expect(gone).toMatchObject({ exitCode: 1, err: `pinrelay: 127.0.0.1:${hop.port}: nobody listens there\n` });
  });

  it("asks for no key usage where the certificate is not for clients, and says why", async () => {
    const at = await bench();
    const { file } = await certificateFile(at, "public", "server");
    const ran = await on(at, "enrol", "acme", "--cert", file, ...rules);
    expect(ran).toMatchObject({ exitCode: 0, err: expect.stringContaining("public CAs no longer issue") });
    expect((await loaded(at)).extendedKeyUsage).toBe("any");
  });

  it("warns of recipients that are not ours, and of a certificate that runs out", async () => {
    const at = await bench();
    const { file } = await certificateFile(at, "short");
    const args = ["enrol", "acme", "--cert", file, ...rules, "@elsewhere.example", "--config", at.config];
    const ran = await partner(args, inDays(70));
    expect(ran.exitCode).toBe(0);
    expect(ran.err).toContain("can never match: no route of ours has the domain");
    expect(ran.err).toContain("the certificate expires soon, on 2027-04-01");
  });

  it("writes how mail reaches the partner", async () => {
    const at = await bench();
    const deliver = ["--deliver-domain", "acme.example", "--deliver-server", "203.0.113.5:2525", "[2001:db8:1::5]:25"];
    const pinned = ["--deliver-name", "mx.acme.example", "--deliver-pin", key];
    expect((await enrolCert(at, "acme", ...deliver, ...pinned)).exitCode).toBe(0);
    expect((await loaded(at)).deliver).toMatchObject({
      domains: ["acme.example"],
      servers: [
        { address: "203.0.113.5", port: 2525, name: "mx.acme.example", tls: { verification: { digests: [key] } } },
        { address: "2001:db8:1::5", port: 25 },
      ],
    });
  });

  it("shows a QR code where somebody sees it, or asks for it, and never in JSON", async () => {
    const at = await bench();
    expect((await enrolCert(at, "one", "--qr")).out).toContain("▀");
    const seen = ["enrol", "two", "--csr", join(import.meta.dirname, "../certs/fixtures/p384.csr.pem"), ...rules];
    expect((await partner([...seen, "--config", at.config], now, { shows: true })).out).toContain("▀");
    const { file, certificate } = await certificateFile(at, "three");
    const { out } = await on(at, "enrol", "three", "--cert", file, ...rules, "--qr", "--json");
    expect(JSON.parse(out)).toMatchObject({
      partner: "three",
      state: "pending",
      fingerprint: { of: "key", base64: spkiDigest(certificate) },
    });
  });
});

describe("partner show", () => {
  it("draws a rollover on one line of time of 80 columns, with what to do", async () => {
    const at = await confirmedBench();
    const { file, certificate } = await certificateFile(at, "next");
    await seePin(at, await loaded(at), key, selfSigned, host, inDays(-100));
    await on(at, "rollover", "acme", "--cert", file, "--label", "2027");
    await confirmWith(at, "acme", spkiDigest(certificate));
    await seePin(at, await loaded(at), spkiDigest(certificate), certificate, host, inDays(-10));
    await seePin(at, await loaded(at), key, selfSigned, "203.0.113.6", inDays(-1));
    const { out } = await on(at, "show", "acme");
    const drawn = out.slice(out.indexOf("Rollover:"));
    expect(drawn).toContain("the next pin is in use since 2026-12-22, the old one retires on 2027-01-05");
    expect(drawn).toMatch(/^ {2}'enrolled 2027-01-01' active .*F.*L.*R┄*[►╡]$/m);
    expect(drawn).toMatch(/^ {2}'2027' +next .*[FL].*$/m);
    expect(drawn).toContain("▲ now, 2027-01-01");
    expect(drawn).toContain("was used by 203.0.113.6 on 2026-12-31, and retires on 2027-01-05, in 4 days");
    const lines = drawn.split("\n").filter((line) => !line.startsWith("Warning") && !line.startsWith("Rollover"));
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(JSON.parse((await on(at, "show", "acme", "--json")).out)).toMatchObject({
      pins: [{ state: "active", lastAddress: "203.0.113.6" }, { state: "next" }],
      state: {
        kind: "overlapping",
        retiresAt: "2027-01-05T12:00:00.000Z",
        warnings: [expect.stringContaining("203.0.113.6")],
      },
    });
  });
});
