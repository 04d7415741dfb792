/** `pinrelay partner enrol` as it is typed: from certificates and requests, and mostly what is refused. */
import { X509Certificate } from "node:crypto";
import { copyFile, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { mintTestCa } from "../../src/certs/mint.ts";
import { loadConfig } from "../../src/config/load.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { fingerprintForms } from "../../src/partner/fingerprint.ts";
import { certificateDigest, spkiDigest } from "../../src/partner/pin.ts";
import { hasOpenssl, openssl } from "../certs/openssl.ts";
import { fixturePath, required } from "../certs/support.ts";
import { bareBench, bench, confirmWith, enrolCert, enrolCsr, now, partner, rules, selfSigned } from "./support.ts";

/** What `openssl dgst` prints of a key. */
function digestOfKey(file: string): string {
  openssl("pkey", "-pubin", "-in", file, "-outform", "DER", "-out", `${file}.der`);
  return required(openssl("dgst", "-sha256", "-c", `${file}.der`).split("= ")[1]).trim();
}

async function loaded(config: string): Promise<readonly Partner[]> {
  const result = await loadConfig(config, now);
  if (result.kind === "invalid") throw new Error(JSON.stringify(result.problems));
  return result.config.partners;
}

describe("partner enrol --cert", () => {
  it("writes the first partner's file, which then loads, with a pin of its key", async () => {
    const at = await bench();
    const ran = await enrolCert(at, "acme", "--contact", "ops@acme.example", "--description", "ACME: #1");
    expect(ran.exitCode).toBe(0);
    const [acme] = await loaded(at.config);
    expect(acme).toMatchObject({ name: "acme", contact: "ops@acme.example", description: "ACME: #1", mode: "enforce" });
    expect(acme?.pins).toMatchObject([
      { kind: "spki", digest: spkiDigest(selfSigned), label: "enrolled 2027-01-01", state: "pending" },
    ]);
    expect(acme?.hosts.map(({ text }) => text)).toEqual(["203.0.113.0/28", "2001:db8:1::/64"]);
    expect(acme?.allow.from.map(({ text }) => text)).toEqual(["@acme.example"]);
    expect(acme?.allow.to.map(({ text }) => text)).toEqual(["orders@corp.example"]);
  });

  it("tells the key's fingerprint in every form, subject, dates and what to do next", async () => {
    const at = await bench();
    const { out } = await enrolCert(at, "acme");
    const { base64, hexGroups, words } = fingerprintForms(spkiDigest(selfSigned));
    const blanks = out.replaceAll(/\s+/g, " ");
    expect(blanks).toContain(
      `Fingerprint of the key, SHA-256: to be compared base64 ${base64} hex ${hexGroups} words ${words} `,
    );
    expect(out).not.toContain(certificateDigest(selfSigned));
    expect(out).toContain(`Enrolled acme, not confirmed yet: ${join(at.partners, "acme.yaml")}`);
    expect(out).toContain("subject  C=DE, O=ACME Supplies, CN=mx.acme.example");
    expect(out).toMatch(/valid {4}2026-11-\d\d to 2126-/);
    expect(out).toContain("pinrelay partner confirm acme FINGERPRINT\n");
    expect(Math.max(...out.split("\n").map((line) => line.length))).toBeLessThanOrEqual(120);
  });

  it.skipIf(!hasOpenssl)("takes as confirmation what the commands that it names print", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const key = join(at.certs, "key.pem");
    await writeFile(key, openssl("x509", "-in", fixturePath("self-signed.pem"), "-noout", "-pubkey"));
    expect(await confirmWith(at, "acme", digestOfKey(key))).toMatchObject({ exitCode: 0 });
    await enrolCsr(at, "beta", "p384.csr.pem");
    await writeFile(key, openssl("req", "-in", fixturePath("p384.csr.pem"), "-noout", "-pubkey"));
    expect(await confirmWith(at, "beta", digestOfKey(key))).toMatchObject({ exitCode: 0 });
  });

  it("pins the one certificate, until its end, where it is told to", async () => {
    const at = await bench();
    await enrolCert(at, "acme", "--pin-certificate");
    const [acme] = await loaded(at.config);
    expect(acme?.pins).toMatchObject([{ kind: "certificate", digest: certificateDigest(selfSigned) }]);
    expect(acme?.pins[0]?.notAfter?.toISOString().slice(0, 10)).toBe(selfSigned.validToDate.toISOString().slice(0, 10));
  });

  it("adds a second partner beside the first", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    expect((await enrolCsr(at, "beta", "p384.csr.pem")).exitCode).toBe(0);
    expect((await loaded(at.config)).map(({ name }) => name)).toEqual(["acme", "beta"]);
  });

  it("warns of a certificate that is marked as a CA, and of one not valid yet, and goes on", async () => {
    const at = await bench();
    const early = new Date("2026-10-01T00:00:00Z");
    await rm(at.certs, { recursive: true });
    await mintTestCa({ directory: at.certs, hostname: "mx.corp.example", now: early });
    const args = ["enrol", "acme", "--cert", fixturePath("self-signed.pem"), ...rules, "--config", at.config];
    const ran = await partner(args, early);
    expect(ran.exitCode).toBe(0);
    expect(ran.err).toContain("warning: ");
    expect(ran.err).toContain("is not valid before 2026-11");
    expect(ran.err).toContain("is marked as a CA");
  });

  it("keeps to the folder that relay.yaml names", async () => {
    const at = await bench();
    await writeFile(at.config, `${await readFile(at.config, "utf8")}partners: .\n`);
    await rm(at.config.replace("relay.yaml", "partners"), { recursive: true });
    // The folder of relay.yaml itself is no folder of partners: relay.yaml would be one.
    expect((await enrolCert(at, "acme")).exitCode).toBe(2);
    await writeFile(at.config, (await readFile(at.config, "utf8")).replace("partners: .", "partners: ../certs"));
    expect((await enrolCert(at, "acme")).exitCode).toBe(0);
    expect(await readdir(at.certs)).toContain("acme.yaml");
  });
});

describe("partner enrol --csr", () => {
  it("signs the request, keeps the certificate under the partner's name, and pins its key", async () => {
    const at = await bench();
    const ran = await enrolCsr(at, "acme", "p256.csr.pem");
    expect(ran.exitCode).toBe(0);
    expect(ran.out).toContain("The request names\n  C=DE\n  O=ACME Supplies\n  CN=mx.acme.example\n");
    const signed = new X509Certificate(await readFile(join(at.certs, "partners", "acme.pem")));
    expect(signed.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    expect(signed.validToDate).toEqual(new Date("2028-02-02T12:00:00Z")); // 397 days
    expect(signed.verify(new X509Certificate(await readFile(join(at.certs, "ca.pem"))).publicKey)).toBe(true);
    const [acme] = await loaded(at.config);
    expect(acme?.pins).toMatchObject([{ kind: "spki", digest: spkiDigest(signed) }]);
    expect(ran.out).toContain(
      `Send the partner ${join(at.certs, "partners", "acme.pem")} and ${join(at.certs, "ca.pem")}`,
    );
  });

  it("calls the certificate by the partner's name where the request has no common name", async () => {
    const at = await bench();
    await enrolCsr(at, "acme", "no-names.csr.pem", "--days", "30");
    const signed = new X509Certificate(await readFile(join(at.certs, "partners", "acme.pem")));
    expect(signed.subject).toBe("CN=acme");
    expect(signed.validToDate).toEqual(new Date("2027-01-31T12:00:00Z"));
  });

  it.each([
    { csr: "own-hostname.csr.pem", says: "claims 'MX.Corp.Example', which is a name of ours" },
    { csr: "own-common-name.csr.pem", says: "which is a name of ours" },
    { csr: "own-email.csr.pem", says: "which is a name of ours" },
    { csr: "own-uri.csr.pem", says: "which is a name of ours" },
    { csr: "wildcard.csr.pem", says: "the wildcard" },
    { csr: "broken-signature.csr.pem", says: "has a signature that does not fit" },
    { csr: "rsa1024.csr.pem", says: "only 1024 bits" },
    { csr: "sha1.csr.pem", says: "signed with SHA-1" },
    { csr: "self-signed.pem", says: "give it as --cert" },
  ])("ends with 1 for $csr, and leaves nothing behind", async ({ csr, says }) => {
    const at = await bench();
    expect(await enrolCsr(at, "acme", csr)).toMatchObject({ exitCode: 1, err: expect.stringContaining(says) });
    expect(await readdir(at.partners)).toEqual([]);
    expect(await readdir(at.certs)).not.toContain("partners");
  });

  it("refuses an address in the request that is not among the partner's hosts", async () => {
    const at = await bench();
    const args = ["enrol", "acme", "--csr", fixturePath("p256.csr.pem"), "--host", "198.51.100.1", ...rules.slice(3)];
    const ran = await partner([...args, "--config", at.config]);
    expect(ran).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("the address 203.0.113.5, which is not among"),
    });
  });

  it("takes the certificate away again where the partner's file is refused", async () => {
    const at = await bench();
    const ran = await enrolCsr(at, "acme", "p256.csr.pem", "--to", "not a rule");
    expect(ran).toMatchObject({ exitCode: 2, err: expect.stringContaining("allow.to") });
    expect(await readdir(join(at.certs, "partners"))).toEqual([]);
    expect(await readdir(at.partners)).toEqual([]);
  });

  it("never overwrites a certificate of that name", async () => {
    const at = await bench();
    await enrolCsr(at, "acme", "p256.csr.pem");
    const before = await readFile(join(at.certs, "partners", "acme.pem"), "utf8");
    await rm(join(at.partners, "acme.yaml"));
    expect(await enrolCsr(at, "acme", "p384.csr.pem")).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("acme.pem: exists"),
    });
    expect(await readFile(join(at.certs, "partners", "acme.pem"), "utf8")).toBe(before);
    expect(await readdir(at.partners)).toEqual([]);
  });

  it("says how to make a CA where there is none", async () => {
    const at = await bench();
    await rm(join(at.certs, "ca.pem"));
    expect(await enrolCsr(at, "acme", "p256.csr.pem")).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("pinrelay ca init"),
    });
  });
});

describe("partner enrol is refused", () => {
  const cert = ["--cert", fixturePath("self-signed.pem")];
  const csr = ["--csr", fixturePath("p256.csr.pem")];
  it.each([
    { what: "a name in capitals", args: ["ACME", ...cert, ...rules], says: "is no name for a partner" },
    { what: "a name that leads elsewhere", args: ["../acme", ...cert, ...rules], says: "is no name for a partner" },
    { what: "no name", args: [...cert, ...rules], says: "missing required argument" },
    {
      what: "neither certificate nor request",
      args: ["acme", ...rules],
      says: "give exactly one of --cert, --csr, --pin",
    },
    { what: "both of them", args: ["acme", ...cert, ...csr, ...rules], says: "not --cert and --csr" },
    { what: "no host", args: ["acme", ...cert, ...rules.slice(3)], says: "required option '--host" },
    {
      what: "no sender",
      args: ["acme", ...cert, ...rules.slice(0, 3), "--to", "a@corp.example"],
      says: "required option '--from",
    },
    { what: "no recipient", args: ["acme", ...cert, ...rules.slice(0, 5)], says: "required option '--to" },
    {
      what: "a host that is a name",
      args: ["acme", ...cert, ...rules, "--host", "mx.acme.example"],
      says: "--host mx.acme.example: not an IP address",
    },
    {
      what: "a network with host bits",
      args: ["acme", ...cert, ...rules, "--host", "203.0.113.5/28"],
      says: "the network is 203.0.113.0/28",
    },
    { what: "a sender that is no rule", args: ["acme", ...cert, ...rules, "--from", "acme"], says: "allow.from" },
    { what: "days that are no number", args: ["acme", ...csr, ...rules, "--days", "x"], says: "whole number of days" },
  ])("with 2 for $what", async ({ args, says }) => {
    const at = await bench();
    const ran = await partner(["enrol", ...args, "--config", at.config]);
    expect(ran).toMatchObject({ exitCode: 2, err: expect.stringContaining(says) });
    expect(await readdir(at.partners)).toEqual([]);
  });

  it.each([
    { what: "a missing file", file: "none.pem", says: "no such file" },
    { what: "a request in place of a certificate", file: "p256.csr.pem", says: "give it as --csr" },
    { what: "a weak key", file: "rsa1024.pem", says: "only 1024 bits" },
    { what: "a SHA-1 signature", file: "sha1.pem", says: "signed with SHA-1" },
  ])("with 1 for $what", async ({ file, says }) => {
    const at = await bench();
    const ran = await partner(["enrol", "acme", "--cert", fixturePath(file), ...rules, "--config", at.config]);
    expect(ran).toMatchObject({ exitCode: 1, err: expect.stringContaining(says) });
    expect(await readdir(at.partners)).toEqual([]);
  });

  it("with 1 where the partner exists, and its file stays as it is", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const before = await readFile(join(at.partners, "acme.yaml"), "utf8");
    const ran = await enrolCsr(at, "acme", "p384.csr.pem");
    expect(ran).toMatchObject({ exitCode: 1, err: expect.stringContaining("acme.yaml: exists and is left as it is") });
    expect(await readFile(join(at.partners, "acme.yaml"), "utf8")).toBe(before);
  });

  it.each([[], ["--pin-certificate"]])("with 1 where another partner has the key (%s)", async (...more) => {
    const at = await bench();
    await enrolCert(at, "acme", ...more);
    const ran = await enrolCert(at, "beta", ...more);
    expect(ran).toMatchObject({ exitCode: 1, err: expect.stringContaining("already identifies the partner 'acme'") });
    expect(await readdir(at.partners)).toEqual(["acme.yaml"]);
  });

  it("with 1 for the relay's own certificate", async () => {
    const at = await bench();
    const args = ["enrol", "acme", "--cert", join(at.certs, "server.pem"), ...rules, "--config", at.config];
    expect(await partner(args)).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("certificate of our own relay"),
    });
  });

  it("with 2 where the configuration is invalid, and all that is wrong with it", async () => {
    const at = await bareBench("hostname: mx.corp.example\nlsiten: []\n");
    await copyFile(fixturePath("self-signed.pem"), join(at.partners, "beta.yaml"));
    const ran = await enrolCert(at, "acme");
    expect(ran.exitCode).toBe(2);
    expect(ran.err).toContain("lsiten");
    expect(ran.err).toContain("beta.yaml");
    expect(ran.err).toMatch(/pinrelay: the configuration is invalid: correct what is listed above\n$/);
  });
});
