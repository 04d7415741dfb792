/** Revocation lists: ours as openssl sees them, openssl's as we see them, and what is refused. */
import { X509Certificate } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { array, assert, integer, nat, property, tuple } from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { certify, type Authority } from "../../src/certs/authority.ts";
import { createRevocationList, parseRevocationList, serialOf } from "../../src/certs/crl.ts";
import { CertificateFault } from "../../src/certs/fault.ts";
import { generateKey, keyTypes, type KeyType } from "../../src/certs/key.ts";
import { createPublicKey } from "node:crypto";
import { hasOpenssl, openssl } from "./openssl.ts";
import { authoritiesOfEveryType, authorityOf, fixture, leafPlan, required, temporaryFolder } from "./support.ts";

const today = new Date(Math.floor(Date.now() / 1000) * 1000); // openssl looks at the real clock
const dayMs = 86_400_000;
const nextUpdate = new Date(today.getTime() + 30 * dayMs);
let authorities: Map<KeyType, Authority>;

beforeAll(async () => {
  authorities = await authoritiesOfEveryType(today);
});

async function leafOf(authority: Authority): Promise<X509Certificate> {
  const publicKey = createPublicKey(await generateKey("ec-p256"));
  return new X509Certificate(certify(authority, leafPlan({ now: today, usages: "client" }), publicKey));
}

function listOf(authority: Authority, ...revoked: readonly X509Certificate[]): string {
  return createRevocationList(authority, {
    revoked: revoked.map((one) => ({ serial: serialOf(one), at: today, reason: "keyCompromise" })),
    number: 300n,
    now: today,
    nextUpdate,
  });
}

const parse = (content: string | Uint8Array) => parseRevocationList(Buffer.from(content), "ca.crl");

describe.each(keyTypes)("a list of a %s authority", (keyType) => {
  it("is read again as it was meant", async () => {
    const authority = required(authorities.get(keyType));
    const [revoked, other] = [await leafOf(authority), await leafOf(authority)];
    const list = parse(listOf(authority, revoked));
    expect(list).toMatchObject({ file: "ca.crl", thisUpdate: today, nextUpdate, number: 300n });
    expect([list.revokes(revoked), list.revokes(other)]).toEqual([true, false]);
    expect(list.isOf(authority.certificate)).toBe(true);
  });

  it.skipIf(!hasOpenssl)("is verified by openssl, which then refuses the revoked certificate alone", async () => {
    const authority = required(authorities.get(keyType));
    const folder = await temporaryFolder();
    const at = (name: string): string => join(folder, name);
    const [revoked, good] = [await leafOf(authority), await leafOf(authority)];
    await writeFile(at("ca.pem"), authority.certificate.toString());
    await writeFile(at("ca.crl"), listOf(authority, revoked));
    await writeFile(at("revoked.pem"), revoked.toString());
    await writeFile(at("good.pem"), good.toString());
    const shown = openssl("crl", "-in", at("ca.crl"), "-CAfile", at("ca.pem"), "-noout", "-text");
    expect(shown).toContain("Version 2 (0x1)");
    expect(shown).toMatch(/X509v3 CRL Number:\s+300\s/);
    expect(shown).toContain("X509v3 Authority Key Identifier");
    expect(shown).toMatch(/X509v3 CRL Reason Code:\s+Key Compromise/);
    const verify = (file: string): string =>
      openssl("verify", "-x509_strict", "-crl_check", "-CRLfile", at("ca.crl"), "-CAfile", at("ca.pem"), at(file));
    expect(verify("good.pem")).toContain("OK");
    expect(() => verify("revoked.pem")).toThrow("certificate revoked");
  });
});

it.skipIf(!hasOpenssl)("an empty list is one, too", async () => {
  const authority = required(authorities.get("ec-p256"));
  const folder = await temporaryFolder();
  await writeFile(join(folder, "ca.pem"), authority.certificate.toString());
  await writeFile(join(folder, "ca.crl"), listOf(authority));
  await writeFile(join(folder, "leaf.pem"), (await leafOf(authority)).toString());
  const files = ["-CRLfile", join(folder, "ca.crl"), "-CAfile", join(folder, "ca.pem"), join(folder, "leaf.pem")];
  expect(openssl("verify", "-x509_strict", "-crl_check", ...files)).toContain("OK");
  expect(parse(listOf(authority)).serials.size).toBe(0);
});

describe("whose a list is", () => {
  it("is not decided by the name alone", async () => {
    const authority = required(authorities.get("ec-p256"));
    const impostor = await authorityOf("ec-p256", today);
    expect(impostor.certificate.subject).toBe(authority.certificate.subject);
    expect(parse(listOf(impostor)).isOf(authority.certificate)).toBe(false);
  });

  it("is not decided by a list that was changed", () => {
    const authority = required(authorities.get("ec-p256"));
    const der = Buffer.from(listOf(authority).replaceAll(/-----.*-----/g, ""), "base64");
    const number = der.indexOf(Buffer.from("0202012c", "hex")); // 300
    der[number + 3] = 0x2d;
    expect(parse(der)).toMatchObject({ number: 301n });
    expect(parse(der).isOf(authority.certificate)).toBe(false);
  });
});

describe("a list is refused", () => {
  const list = (): string => listOf(required(authorities.get("ec-p256")));
  it.each<{ what: string; content: () => string | Uint8Array; says: string }>([
    { what: "that is empty", content: () => "", says: "is empty" },
    {
      what: "that is a certificate",
      content: () => fixture("self-signed.pem"),
      says: "holds a CERTIFICATE, not a revocation list",
    },
    { what: "that is text", content: () => "revoked: none", says: "holds neither PEM nor DER" },
    { what: "cut short", content: () => list().slice(0, 200), says: "has no END line" },
    {
      what: "with damaged base64",
      content: () => list().replace("MII", "M*I").replace("MIH", "M*H"),
      says: "is damaged",
    },
    {
      what: "that is other DER",
      content: () => Buffer.from("3003020101", "hex"),
      says: "is damaged or no revocation list",
    },
    { what: "given twice in a file", content: () => list() + list(), says: "holds several revocation lists" },
    { what: "beyond all size", content: () => Buffer.alloc(5 * 1024 ** 2, 0x30), says: "is larger than 1 MiB" },
  ])("$what", ({ content, says }) => {
    expect(() => parse(content())).toThrow(CertificateFault);
    expect(() => parse(content())).toThrow(says);
  });
});

it("a list is read from DER, and from PEM with the line ends of Windows and text around it", () => {
  const pem = listOf(required(authorities.get("ec-p256")));
  const der = Buffer.from(pem.replaceAll(/-----.*-----/g, ""), "base64");
  for (const content of [der, `Our list:\r\n${pem.replaceAll("\n", "\r\n")}`]) {
    expect(parse(content).number).toBe(300n);
  }
});

/** A CA of openssl's making that revoked one certificate; `gencrl` makes its list. */
async function opensslCa(): Promise<{
  certificate: X509Certificate;
  revoked: X509Certificate;
  gencrl: (options?: readonly string[], extensions?: readonly string[]) => Promise<Buffer>;
}> {
  const folder = await temporaryFolder();
  const at = (name: string): string => join(folder, name);
  const settings = (extensions: readonly string[]): string =>
    [
      "[ca]\ndefault_ca = it\n[it]",
      `database = ${at("index")}\nserial = ${at("serial")}\ncrlnumber = ${at("number")}\nnew_certs_dir = ${folder}`,
      `certificate = ${at("ca.pem")}\nprivate_key = ${at("ca.key")}\ndefault_md = sha256\npolicy = any`,
      "default_days = 30\ndefault_crl_days = 7",
      ...(extensions.length === 0 ? [] : ["crl_extensions = list"]),
      "[any]\ncommonName = supplied",
      "[list]",
      ...extensions,
      "[part]\nfullname = URI:http://crl.example/1.crl\n[userpart]\nonlyuser = TRUE\n[indirect]\nindirectCRL = TRUE\n",
    ].join("\n");
  await writeFile(at("index"), "");
  await writeFile(at("serial"), "00C1\n");
  await writeFile(at("number"), "07\n");
  await writeFile(at("ca.cnf"), settings([]));
  const key = ["-newkey", "rsa:2048", "-nodes", "-keyout", at("ca.key")];
  openssl("req", "-x509", ...key, "-subj", "/C=DE/CN=Open CA", "-out", at("ca.pem"), "-days", "30");
  openssl("req", "-new", "-key", at("ca.key"), "-subj", "/CN=x", "-out", at("leaf.csr"));
  openssl("ca", "-batch", "-config", at("ca.cnf"), "-in", at("leaf.csr"), "-out", at("leaf.pem"), "-notext");
  openssl("ca", "-config", at("ca.cnf"), "-revoke", at("leaf.pem"), "-crl_reason", "certificateHold");
  return {
    certificate: new X509Certificate(await readFile(at("ca.pem"))),
    revoked: new X509Certificate(await readFile(at("leaf.pem"))),
    gencrl: async (options = [], extensions = []) => {
      await writeFile(at("ca.cnf"), settings(extensions));
      openssl("ca", "-config", at("ca.cnf"), "-gencrl", "-out", at("ca.crl"), ...options);
      return readFile(at("ca.crl"));
    },
  };
}

describe.skipIf(!hasOpenssl)("a list that openssl made", () => {
  it.each<{ what: string; options: string[] }>([
    { what: "by default", options: [] },
    { what: "with RSASSA-PSS", options: ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"] },
    { what: "with SHA-512", options: ["-md", "sha512"] },
  ])("is read: $what", async ({ options }) => {
    const { certificate, revoked, gencrl } = await opensslCa();
    const list = parse(await gencrl(options));
    expect(list.isOf(certificate)).toBe(true);
    expect(list.revokes(revoked)).toBe(true);
    expect([...list.serials]).toEqual(["C1"]);
    expect(list.number).toBe(7n);
  });

  it.each<{ what: string; options?: string[]; extensions?: string[]; says: string }>([
    { what: "a delta list", extensions: ["2.5.29.27 = critical,DER:020105"], says: "is a delta list" },
    {
      what: "an indirect one",
      extensions: ["issuingDistributionPoint = critical,@indirect"],
      says: "or of several CAs",
    },
    {
      what: "one of a part",
      extensions: ["issuingDistributionPoint = critical,@userpart"],
      says: "a part of the CA's certificates",
    },
    {
      what: "something critical",
      extensions: ["1.2.3.4 = critical,DER:0500"],
      says: "a critical extension that is not known here (1.2.3.4)",
    },
    {
      what: "SHA-1",
      options: ["-md", "sha1"],
      says: "is signed with SHA-1: ask the CA for a list signed with SHA-256",
    },
  ])("is refused: $what", async ({ options, extensions, says }) => {
    const { gencrl } = await opensslCa();
    const bytes = await gencrl(options, extensions);
    expect(() => parse(bytes)).toThrow(says);
  });
});

it("a list with any octets changed is a fault or a list, and never ours", () => {
  const authority = required(authorities.get("ec-p256"));
  const der = Buffer.from(listOf(authority).replaceAll(/-----.*-----/g, ""), "base64");
  const change = tuple(nat(der.length - 1), integer({ min: 1, max: 255 }));
  assert(
    property(array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const changed = Buffer.from(der);
      for (const [at, mask] of changes) changed[at] = (changed[at] ?? 0) ^ mask;
      if (changed.equals(der)) return;
      try {
        expect(parse(changed).isOf(authority.certificate)).toBe(false);
      } catch (error) {
        if (!(error instanceof CertificateFault)) throw error;
      }
    }),
    { numRuns: 2000 },
  );
});
