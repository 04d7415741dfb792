/** What authorities sign: every field against node:crypto, the encoding octet by octet where it matters. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { certify, createAuthority, issueUnder, openAuthority, type Authority } from "../../src/certs/authority.ts";
import { readCertificateParts } from "../../src/certs/certificate.ts";
import { encode, integerOctets, parseDer, sequenceItems } from "../../src/certs/der.ts";
import { CertificateFault } from "../../src/certs/fault.ts";
import { generateKey, keyPem, keyTypes, type KeyType } from "../../src/certs/key.ts";
import { authoritiesOfEveryType, authorityOf, keysOfEveryType, leafPlan, now, required, x509 } from "./support.ts";

let authorities: Map<KeyType, Authority>;
let keys: Map<KeyType, { key: KeyObject; publicKey: KeyObject }>;
let authority: Authority;
let publicKey: KeyObject;

beforeAll(async () => {
  [authorities, keys] = await Promise.all([authoritiesOfEveryType(), keysOfEveryType()]);
  authority = required(authorities.get("ec-p256"));
  publicKey = required(keys.get("ec-p256")).publicKey;
});

const everyPair = keyTypes.flatMap((ca) => keyTypes.map((leaf) => ({ ca, leaf })));

/** AlgorithmIdentifier of the signature, RFC 4055 §5, RFC 5758 §3.2, RFC 8410 §3: NULL for RSA, nothing for the others. */
const algorithmOf: Record<KeyType, string> = {
  "ec-p256": "300a06082a8648ce3d040302",
  "ec-p384": "300a06082a8648ce3d040303",
  ed25519: "300506032b6570",
  "rsa-3072": "300d06092a864886f70d01010b0500",
};

describe("a certificate", () => {
  it.each(everyPair)("of a $leaf key is issued by a $ca authority, and node agrees", ({ ca, leaf }) => {
    const issuer = required(authorities.get(ca));
    const { key, publicKey: leafKey } = required(keys.get(leaf));
    const certificate = x509(certify(issuer, leafPlan(), leafKey));
    expect(certificate.checkIssued(issuer.certificate)).toBe(true);
    expect(certificate.verify(issuer.certificate.publicKey)).toBe(true);
    expect(certificate.checkPrivateKey(key)).toBe(true);
    expect(certificate.ca).toBe(false);
    const { signatureAlgorithm } = readCertificateParts(certificate.raw);
    expect(encode(signatureAlgorithm).toString("hex")).toBe(algorithmOf[ca]);
    const signed = sequenceItems(sequenceItems(parseDer(certificate.raw))[0]);
    expect(encode(required(signed[2])).toString("hex")).toBe(algorithmOf[ca]); // RFC 5280 §4.1.1.2: both the same
  });

  it("carries its names as A-labels and addresses, each once", () => {
    const plan = leafPlan({
      dnsNames: ["MX.Corp.Example.", "bücher.example", "mx.corp.example"],
      ipAddresses: ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.2"],
    });
    const certificate = x509(certify(authority, plan, publicKey));
    expect(certificate.subjectAltName).toBe(
      "DNS:mx.corp.example, DNS:xn--bcher-kva.example, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1, IP Address:192.0.2.2",
    );
    expect(certificate.checkHost("xn--bcher-kva.example")).toBe("xn--bcher-kva.example");
    expect(certificate.checkIP("2001:db8::1")).toBe("2001:db8::1");
  });

  it.each([
    { usages: "server", oids: ["1.3.6.1.5.5.7.3.1"] },
    { usages: "client", oids: ["1.3.6.1.5.5.7.3.2"] },
    { usages: "both", oids: ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"] },
  ] as const)("for $usages says so in its extended key usage", ({ usages, oids }) => {
    expect(x509(certify(authority, leafPlan({ usages }), publicKey)).keyUsage).toEqual(oids);
  });

  it("has a subject of one common name, whatever script it is in", () => {
    expect(x509(certify(authority, leafPlan({ commonName: "Bücher & Söhne" }), publicKey)).subject).toBe(
      "CN=Bücher & Söhne",
    );
  });

  it("of a client needs no names", () => {
    const certificate = x509(certify(authority, leafPlan({ usages: "client", dnsNames: [] }), publicKey));
    expect(certificate.subjectAltName).toBeUndefined();
  });

  const criticalUsage = "0603551d0f0101ff"; // OID 2.5.29.15, critical
  it.each([
    { of: "ec-p256", what: "digitalSignature", hex: `${criticalUsage}040403020780` },
    { of: "ed25519", what: "digitalSignature", hex: `${criticalUsage}040403020780` },
    { of: "rsa-3072", what: "digitalSignature and keyEncipherment", hex: `${criticalUsage}0404030205a0` },
  ] as const)("of a $of key allows $what, and that is critical", ({ of, hex }) => {
    const leafKey = required(keys.get(of)).publicKey;
    expect(x509(certify(authority, leafPlan(), leafKey)).raw.toString("hex")).toContain(hex);
  });

  it("is marked as no CA, and that is critical", () => {
    expect(x509(certify(authority, leafPlan(), publicKey)).raw.toString("hex")).toContain("0603551d130101ff04023000");
  });

  it("names the authority's key as the authority names it itself", () => {
    const certificate = x509(certify(authority, leafPlan(), publicKey));
    expect(authority.keyId).toHaveLength(20);
    expect(certificate.raw.toString("hex")).toContain(
      `0603551d230418301680 14${authority.keyId.toString("hex")}`.replace(" ", ""),
    );
  });
});

describe("a serial number", () => {
  it("is positive, at most 17 octets with its sign, and never the same twice", () => {
    const serials = Array.from({ length: 300 }, () => {
      const signed = sequenceItems(sequenceItems(parseDer(x509(certify(authority, leafPlan(), publicKey)).raw))[0]);
      return integerOctets(signed[1]);
    });
    for (const serial of serials) {
      expect(serial[0]).toBeLessThan(0x80);
      expect(serial.length).toBeLessThanOrEqual(17);
    }
    expect(new Set(serials.map((serial) => serial.toString("hex"))).size).toBe(serials.length);
    // 128 bits are used: about half of them need the octet that keeps them positive.
    expect(serials.some((serial) => serial.length === 17)).toBe(true);
  });
});

describe("dates", () => {
  it("begin five minutes in the past and end after the days asked for, to the second", async () => {
    const issuer = await authorityOf("ed25519", new Date("2026-01-01T00:00:00Z"));
    const at = new Date("2026-02-01T12:00:00.987Z");
    const certificate = x509(certify(issuer, leafPlan({ now: at, days: 30 }), publicKey));
    expect(certificate.validFromDate).toEqual(new Date("2026-02-01T11:55:00Z"));
    expect(certificate.validToDate).toEqual(new Date("2026-03-03T12:00:00Z"));
  });

  it("lie within the authority's own", async () => {
    const issuer = await authorityOf("ed25519");
    const certificate = x509(certify(issuer, leafPlan({ days: 9999 }), publicKey));
    expect(certificate.validFromDate).toEqual(issuer.certificate.validFromDate);
    expect(certificate.validToDate).toEqual(issuer.certificate.validToDate);
  });

  // RFC 5280 §4.1.2.5: UTCTime (17) through 2049, GeneralizedTime (18) from 2050 on.
  it.each([
    { days: 1, end: "2049-12-31T23:59:59Z", hex: "170d3439313233313233353935395a" },
    { days: 2, end: "2050-01-01T23:59:59Z", hex: "180f32303530303130313233353935395a" },
  ])("that end on $end are written in the form for their year", async ({ days, end, hex }) => {
    const at = new Date("2049-12-30T23:59:59Z");
    const { certificatePem } = await createAuthority({ commonName: "Test CA", keyType: "ed25519", days, now: at });
    expect(x509(certificatePem).validToDate).toEqual(new Date(end));
    expect(x509(certificatePem).raw.toString("hex")).toContain(hex);
  });

  it("beyond the year 9999 are refused", async () => {
    const plan = {
      commonName: "Test CA",
      keyType: "ed25519",
      days: 36_525,
      now: new Date("9990-01-01T00:00:00Z"),
    } as const;
    await expect(createAuthority(plan)).rejects.toThrow(RangeError);
  });
});

describe("an authority", () => {
  it.each(keyTypes)("with a %s key is a CA for end certificates only, signed by itself", (type) => {
    const { certificate, keyId } = required(authorities.get(type));
    expect(certificate.ca).toBe(true);
    expect(certificate.checkIssued(certificate)).toBe(true);
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    const hex = certificate.raw.toString("hex");
    expect(hex).toContain("0603551d130101ff040830060101ff020100"); // basicConstraints, critical: cA, pathLen 0
    expect(hex).toContain("0603551d0f0101ff040403020106"); // keyUsage, critical: keyCertSign and cRLSign
    expect(hex).toContain(`0603551d0e04160414${keyId.toString("hex")}`);
  });

  it("makes a key of its own for each certificate it issues", async () => {
    const pair = await issueUnder(authority, leafPlan(), "ec-p256");
    const other = await issueUnder(authority, leafPlan(), "ec-p256");
    expect(pair.keyPem).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    expect(x509(pair.certificatePem).checkPrivateKey(required(keys.get("ec-p256")).key)).toBe(false);
    expect(pair.keyPem).not.toBe(other.keyPem);
  });

  const openings: Array<{
    what: string;
    pair: () => Promise<{ certificatePem: string; keyPem: string }>;
    at?: Date;
    says: string;
  }> = [
    {
      what: "with the key of another",
      pair: async () => ({
        certificatePem: authority.certificate.toString(),
        keyPem: keyPem(await generateKey("ec-p256")),
      }),
      says: "does not belong",
    },
    { what: "that is no CA", pair: () => issueUnder(authority, leafPlan(), "ec-p256"), says: "not that of a CA" },
    {
      what: "whose key is broken",
      pair: async () => ({ certificatePem: authority.certificate.toString(), keyPem: "broken" }),
      says: "key cannot be read",
    },
    {
      what: "whose key needs a passphrase",
      pair: async () => ({
        certificatePem: authority.certificate.toString(),
        keyPem: authority.key
          .export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" })
          .toString(),
      }),
      says: "passphrase",
    },
    {
      what: "whose certificate is broken",
      pair: async () => ({ certificatePem: "broken", keyPem: keyPem(authority.key) }),
      says: "cannot be read",
    },
    { what: "that has expired", pair: ownPair, at: new Date("2027-06-01T00:00:00Z"), says: "expired on 2027-03-04" },
    { what: "that is not valid yet", pair: ownPair, at: new Date("2026-03-04T05:01:06Z"), says: "not valid before" },
  ];
  it.each(openings)("$what is refused", async ({ pair, at, says }) => {
    const given = await pair();
    expect(() => openAuthority(given, at ?? now)).toThrow(CertificateFault);
    expect(() => openAuthority(given, at ?? now)).toThrow(says);
  });
});

describe("a plan is refused", () => {
  it.each([
    { why: "a server without a name", changes: { dnsNames: [], usages: "server" }, says: "needs the DNS name" },
    { why: "both uses without a name", changes: { dnsNames: [], usages: "both" }, says: "needs the DNS name" },
    { why: "a name with a space", changes: { dnsNames: ["mx corp.example"] }, says: "not a domain name" },
    { why: "an empty name", changes: { dnsNames: [""] }, says: "not a domain name" },
    { why: "a wildcard", changes: { dnsNames: ["*.corp.example"] }, says: "not a domain name" },
    { why: "an address as a name", changes: { dnsNames: ["192.0.2.1"] }, says: "not a domain name" },
    {
      why: "a name with a NUL in it",
      changes: { dnsNames: ["mx.corp.example\0.evil.example"] },
      says: "not a domain name",
    },
    { why: "a name as an address", changes: { ipAddresses: ["mx.corp.example"] }, says: "not an IP address" },
    { why: "a network", changes: { ipAddresses: ["192.0.2.0/24"] }, says: "not an IP address" },
    { why: "an address with a zone", changes: { ipAddresses: ["fe80::1%eth0"] }, says: "not an IP address" },
    { why: "an octal address", changes: { ipAddresses: ["192.0.2.010"] }, says: "not an IP address" },
    { why: "an empty common name", changes: { commonName: " " }, says: "common name" },
    { why: "a common name of 65 characters", changes: { commonName: "x".repeat(65) }, says: "common name" },
    { why: "a common name of two lines", changes: { commonName: "mx\nadmin" }, says: "common name" },
    { why: "no days", changes: { days: 0 }, says: "whole days" },
    { why: "half a day", changes: { days: 0.5 }, says: "whole days" },
    { why: "days without number", changes: { days: Number.NaN }, says: "whole days" },
    { why: "more days than a century has", changes: { days: 36_526 }, says: "whole days" },
  ] as const)("with $why", ({ changes, says }) => {
    expect(() => certify(authority, leafPlan(changes), publicKey)).toThrow(CertificateFault);
    expect(() => certify(authority, leafPlan(changes), publicKey)).toThrow(says);
  });

  it("where the authority's key cannot sign certificates", () => {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "brainpoolP256r1" });
    const other = { ...authority, key: privateKey };
    expect(() => certify(other, leafPlan(), createPublicKey(privateKey))).toThrow("of a kind that cannot sign");
  });

  it("where the authority's key is not the one of its certificate", () => {
    const other = { ...authority, key: required(keys.get("ec-p256")).key };
    expect(() => certify(other, leafPlan(), publicKey)).toThrow(CertificateFault);
  });
});

async function ownPair(): Promise<{ certificatePem: string; keyPem: string }> {
  return { certificatePem: authority.certificate.toString(), keyPem: keyPem(authority.key) };
}
