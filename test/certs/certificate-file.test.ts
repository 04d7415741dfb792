/** Files as operators are sent them: each bad input is a row, and each row says in what words it is refused. */
import { X509Certificate } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { certify, createAuthority, issueUnder, openAuthority } from "../../src/certs/authority.ts";
import { readCertificateFile, readRequestFile } from "../../src/certs/certificate-file.ts";
import { CertificateFault } from "../../src/certs/fault.ts";
import { generateKey } from "../../src/certs/key.ts";
import { hasOpenssl, openssl } from "./openssl.ts";
import { authorityOf, fixture, fixtureDer, fixturePath, leafPlan, temporaryFolder } from "./support.ts";

const now = new Date("2027-01-01T00:00:00Z"); // the fixtures are valid from November 2026 on
const good = fixture("self-signed.pem").toString("latin1");
const expected = new X509Certificate(good).fingerprint256;
const key = await generateKey("ec-p256");
const rsa = await generateKey("rsa-3072");

async function fileOf(content: string | Uint8Array, name = "acme.pem"): Promise<string> {
  const file = join(await temporaryFolder(), name);
  await writeFile(file, content);
  return file;
}

async function chain(): Promise<{ leaf: string; ca: string }> {
  const authority = await authorityOf("ec-p256", now);
  const { certificatePem } = await issueUnder(authority, leafPlan({ now }), "ec-p256");
  return { leaf: certificatePem, ca: authority.certificate.toString() };
}

describe("a certificate is read", () => {
  const bytes = Buffer.from(good, "latin1");
  it.each([
    { form: "as PEM", content: bytes },
    { form: "as DER", content: fixtureDer("self-signed.pem") },
    { form: "with CRLF line ends", content: Buffer.from(good.replaceAll("\n", "\r\n")) },
    { form: "with CR line ends", content: Buffer.from(good.replaceAll("\n", "\r")) },
    { form: "with a byte order mark", content: Buffer.concat([Buffer.from("efbbbf", "hex"), bytes]) },
    { form: "as UTF-16, little end first", content: Buffer.from(`\ufeff${good}`, "utf16le") },
    { form: "as UTF-16, big end first", content: Buffer.from(`\ufeff${good}`, "utf16le").swap16() },
    { form: "without the last line end", content: Buffer.from(good.trimEnd()) },
    {
      form: "with blanks around the lines",
      content: Buffer.from(good.replaceAll(/^/gm, "  ").replaceAll("\n", " \n")),
    },
    { form: "with text around it", content: Buffer.from(`Dear postmaster,\n\n${good}\nRegards`) },
    { form: "in one line of base64", content: Buffer.from(good.replaceAll(/(?<!-)\n(?!-)/g, "")) },
    { form: "under its older label", content: Buffer.from(good.replaceAll(" CERTIFICATE", " X509 CERTIFICATE")) },
  ])("$form", async ({ content }) => {
    const read = await readCertificateFile(await fileOf(content), { several: "refuse", now });
    expect(read.leaf.fingerprint256).toBe(expected);
    expect(read.chain).toHaveLength(1);
    expect(read.warnings).toEqual([]);
  });

  it("signed by RSASSA-PSS with SHA-256", async () => {
    const read = await readCertificateFile(fixturePath("pss-sha256.pem"), { several: "refuse", now });
    expect(read.leaf.subject).toContain("CN=mx.acme.example");
  });

  it("at the head of its chain, where a chain is fine", async () => {
    const { leaf, ca } = await chain();
    const read = await readCertificateFile(await fileOf(leaf + ca), { several: "leafFirst", now });
    expect(read.leaf.subject).toBe("CN=mx.corp.example");
    expect(read.chain).toHaveLength(2);
  });

  it.each([
    { at: "2026-03-04T05:01:06Z", says: "is not valid before 2026-03-04T05:01:07Z" },
    { at: "2026-06-03T00:00:00Z", says: "expired on 2026-06-02T05:06:07Z" },
  ])("with a warning at $at, because it $says", async ({ at, says }) => {
    const authority = await authorityOf("ed25519");
    const file = await fileOf((await issueUnder(authority, leafPlan(), "ed25519")).certificatePem);
    const { warnings } = await readCertificateFile(file, { several: "refuse", now: new Date(at) });
    expect(warnings).toEqual([`${file}: the certificate ${says}`]);
  });
});

const pkcs12 = Buffer.from(fixture("pkcs12.base64").toString("latin1"), "base64");
const pkcs7 = Buffer.from(fixture("pkcs7.base64").toString("latin1"), "base64");
const keyPems = {
  pkcs8: key.export({ type: "pkcs8", format: "pem" }).toString(),
  sec1: key.export({ type: "sec1", format: "pem" }).toString(),
  pkcs1: rsa.export({ type: "pkcs1", format: "pem" }).toString(),
  encrypted: key.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" }).toString(),
  traditional: rsa.export({ type: "pkcs1", format: "pem", cipher: "aes-256-cbc", passphrase: "x" }).toString(),
};
const privateKey = "holds a private key, which must never leave its owner";

const refusals: Array<{ what: string; content: string | Uint8Array; says: string }> = [
  { what: "nothing", content: "", says: "is empty" },
  { what: "text", content: "hello\n", says: "holds neither PEM nor DER" },
  { what: "one octet", content: "x", says: "holds neither PEM nor DER" },
  { what: "a private key (PKCS #8)", content: keyPems.pkcs8, says: privateKey },
  { what: "a private key (SEC 1)", content: keyPems.sec1, says: privateKey },
  { what: "a private key (PKCS #1)", content: keyPems.pkcs1, says: privateKey },
  { what: "an encrypted private key", content: keyPems.encrypted, says: privateKey },
  { what: "an encrypted private key of the old form", content: keyPems.traditional, says: privateKey },
  { what: "a private key in DER (PKCS #8)", content: key.export({ type: "pkcs8", format: "der" }), says: privateKey },
  { what: "a private key in DER (SEC 1)", content: key.export({ type: "sec1", format: "der" }), says: privateKey },
  { what: "a private key in DER (PKCS #1)", content: rsa.export({ type: "pkcs1", format: "der" }), says: privateKey },
  {
    what: "an encrypted private key in DER",
    content: key.export({ type: "pkcs8", format: "der", cipher: "aes-256-cbc", passphrase: "x" }),
    says: privateKey,
  },
  { what: "a private key behind the certificate", content: good + keyPems.pkcs8, says: privateKey },
  {
    what: "a request",
    content: fixture("p256.csr.pem"),
    says: "is a signing request, not a certificate: give it as --csr",
  },
  {
    what: "a request under its older label",
    content: fixture("p256.csr.pem").toString().replaceAll("CERTIFICATE REQ", "NEW CERTIFICATE REQ"),
    says: "give it as --csr",
  },
  { what: "a request in DER", content: fixtureDer("p256.csr.pem"), says: "give it as --csr" },
  { what: "a weak request in DER", content: fixtureDer("rsa1024.csr.pem"), says: "give it as --csr" },
  {
    what: "a public key",
    content: key.export({ type: "pkcs8", format: "pem" }).toString().replaceAll("PRIVATE", "PUBLIC"),
    says: "bare public key",
  },
  { what: "PKCS #12", content: pkcs12, says: "convert it with openssl pkcs12 -in" },
  { what: "PKCS #7", content: fixture("pkcs7.pem"), says: "convert it with openssl pkcs7 -in" },
  { what: "PKCS #7 in DER", content: pkcs7, says: "convert it with openssl pkcs7 -in" },
  { what: "openssl's own form", content: fixture("trusted.pem"), says: "convert it with openssl x509 -in" },
  {
    what: "a revocation list",
    content: "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n",
    says: "is a revocation list (CRL), not a certificate",
  },
  {
    what: "a Java key store",
    content: Buffer.from("feedfeed0000000200000001", "hex"),
    says: "keytool -exportcert -rfc",
  },
  {
    what: "a PGP key",
    content: "-----BEGIN PGP PUBLIC KEY BLOCK-----\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
    says: "holds 'PGP PUBLIC KEY BLOCK'",
  },
  {
    what: "base64 alone",
    content: good.replaceAll(/-----.*-----\n/g, ""),
    says: "is base64 without its first and last line",
  },
  {
    what: "a first line that a word processor changed",
    content: good.replaceAll("-----BEGIN", "—–BEGIN"),
    says: "its BEGIN line is not as it should be",
  },
  { what: "no END line", content: good.replaceAll(/-----END.*\n/g, ""), says: "begins in line 1 has no END line" },
  {
    what: "the END line of something else",
    content: good.replaceAll("END CERT", "END X CERT"),
    says: "has no END line",
  },
  {
    what: "half of it, and then another",
    content: good.slice(0, 300) + "\n" + good,
    says: "begins in line 1 has no END line",
  },
  {
    what: "an empty block",
    content: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    says: "base64 does not decode",
  },
  { what: "a character that is no base64", content: good.replace("MII", "M*I"), says: "base64 does not decode" },
  { what: "a line lost", content: good.replace(/\n.{64}\n/, "\n"), says: "in line 1 is damaged" },
  {
    what: "something behind the DER",
    content: Buffer.concat([fixtureDer("self-signed.pem"), Buffer.of(0)]),
    says: "is damaged",
  },
  { what: "DER cut short", content: fixtureDer("self-signed.pem").subarray(0, 200), says: "is damaged" },
  { what: "two certificates", content: good + good, says: "holds 2 certificates: leave only the one that is meant" },
  { what: "more than 1 MiB", content: good + " ".repeat(1_048_576), says: "is larger than 1 MiB" },
  { what: "an RSA key of 1024 bits", content: fixture("rsa1024.pem"), says: "only 1024 bits, 2048 are needed" },
  { what: "a key on a curve that TLS does not use", content: fixture("secp256k1.pem"), says: "curve secp256k1" },
  { what: "a SHA-1 signature", content: fixture("sha1.pem"), says: "signed with SHA-1" },
  { what: "an MD5 signature", content: fixture("md5.pem"), says: "signed with MD5" },
  { what: "an RSASSA-PSS signature with SHA-1", content: fixture("pss-sha1.pem"), says: "signed with SHA-1" },
];

describe("in place of a certificate is refused", () => {
  it.each(refusals)("$what", async ({ content, says }) => {
    const file = await fileOf(content);
    const reading = readCertificateFile(file, { several: "refuse", now });
    await expect(reading).rejects.toThrow(CertificateFault);
    await expect(reading).rejects.toThrow(says);
    await reading.catch((error: unknown) => {
      const message = error instanceof Error ? error.message : "";
      expect(message).toMatch(/^\/.*acme\.pem: [^\n]+$/); // one line that names the file
    });
  });

  it("a missing file", async () => {
    const file = join(await temporaryFolder(), "none.pem");
    await expect(readCertificateFile(file, { several: "refuse", now })).rejects.toThrow(`${file}: no such file`);
  });

  it("a folder", async () => {
    const file = join(await temporaryFolder(), "acme.pem");
    await mkdir(file);
    await expect(readCertificateFile(file, { several: "refuse", now })).rejects.toThrow("is a folder");
  });

  it("a file that never ends", async () => {
    await expect(readCertificateFile("/dev/zero", { several: "refuse", now })).rejects.toThrow("larger than 1 MiB");
  });

  it("a chain with the leaf last", async () => {
    const { leaf, ca } = await chain();
    const file = await fileOf(ca + leaf);
    await expect(readCertificateFile(file, { several: "leafFirst", now })).rejects.toThrow(
      "no chain with the leaf first",
    );
  });

  it("a heap of certificates that do not belong together", async () => {
    const file = await fileOf(good + (await chain()).leaf);
    await expect(readCertificateFile(file, { several: "leafFirst", now })).rejects.toThrow("no chain");
  });

  it.skipIf(!hasOpenssl)("PKCS #12 with a command that really converts it, even from a strange file name", async () => {
    const file = await fileOf(pkcs12, "it's acme.p12");
    const message = await readCertificateFile(file, { several: "refuse", now }).then(
      () => "",
      (error: unknown) => String(error),
    );
    const quoted = /pkcs12 -in '(.*)' -clcerts -nokeys -out/.exec(message)?.[1]?.replaceAll(String.raw`'\''`, "'");
    expect(quoted).toBe(file);
    const converted = `${file}.pem`;
    openssl("pkcs12", "-in", file, "-clcerts", "-nokeys", "-out", converted, "-passin", "pass:secret");
    const read = await readCertificateFile(converted, { several: "refuse", now });
    expect(read.leaf.fingerprint256).toBe(expected);
  });
});

describe("a request is read", () => {
  it.each([
    { form: "as PEM", content: fixture("p256.csr.pem") },
    { form: "as DER", content: fixtureDer("p256.csr.pem") },
    {
      form: "with CRLF and a byte order mark",
      content: `\ufeff${fixture("p256.csr.pem").toString().replaceAll("\n", "\r\n")}`,
    },
  ])("$form", async ({ content }) => {
    expect((await readRequestFile(await fileOf(content, "acme.csr"))).dnsNames).toContain("mx.acme.example");
  });
});

describe("in place of a request is refused", () => {
  it.each([
    { what: "a certificate", content: good, says: "is a certificate, not a signing request: give it as --cert" },
    { what: "a certificate in DER", content: fixtureDer("self-signed.pem"), says: "give it as --cert" },
    { what: "a private key", content: keyPems.pkcs8, says: privateKey },
    {
      what: "the private key that openssl req -keyout wrote beside it",
      content: keyPems.pkcs8 + fixture("p256.csr.pem").toString(),
      says: privateKey,
    },
    { what: "two requests", content: fixture("p256.csr.pem").toString().repeat(2), says: "holds 2 requests" },
    {
      what: "a damaged one",
      content: fixture("broken-signature.csr.pem"),
      says: "the request has a signature that does not fit",
    },
    {
      what: "a weak one",
      content: fixture("rsa1024.csr.pem"),
      says: "the request is refused: its RSA key has only 1024 bits",
    },
    { what: "PKCS #12", content: pkcs12, says: "openssl pkcs12" },
  ])("$what", async ({ content, says }) => {
    await expect(readRequestFile(await fileOf(content, "acme.csr"))).rejects.toThrow(says);
  });
});

describe("what our own CA signs", () => {
  it("is read without a warning, for every kind of use", async () => {
    const authority = openAuthority(
      await createAuthority({ commonName: "CA", keyType: "ec-p384", days: 30, now }),
      now,
    );
    for (const usages of ["server", "client", "both"] as const) {
      const { publicKey } = new X509Certificate(good);
      const file = await fileOf(certify(authority, leafPlan({ usages, now }), publicKey));
      expect((await readCertificateFile(file, { several: "refuse", now })).warnings).toEqual([]);
    }
  });
});
