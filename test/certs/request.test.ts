/** Signing requests, all made by openssl (`fixtures/make.sh`), and what is done to them on their way. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { assert, property, uint8Array } from "fast-check";
import { describe, expect, it } from "vitest";
import { certify } from "../../src/certs/authority.ts";
import { CertificateFault } from "../../src/certs/fault.ts";
import { parseRequest } from "../../src/certs/request.ts";
import { hasOpenssl, openssl } from "./openssl.ts";
import { authorityOf, fixtureDer, leafPlan, temporaryFolder, x509 } from "./support.ts";

const acme = [
  { type: "C", value: "DE" },
  { type: "O", value: "ACME Supplies" },
  { type: "CN", value: "mx.acme.example" },
];

describe("a request that is well signed", () => {
  it.each([
    { name: "p256", key: "ec" },
    { name: "p384", key: "ec" },
    { name: "ed25519", key: "ed25519" },
    { name: "rsa3072", key: "rsa" },
  ])("with $name gives its subject, its names as claimed, and its key", ({ name, key }) => {
    const request = parseRequest(fixtureDer(`${name}.csr.pem`));
    expect(request.subject).toEqual(acme);
    expect(request.dnsNames).toEqual(["mx.acme.example", "MX2.Acme.Example"]);
    expect(request.ipAddresses).toEqual(["203.0.113.5", "2001:db8:1::5"]);
    expect(request.otherNames).toEqual(["email:ops@acme.example"]);
    expect(request.publicKey.asymmetricKeyType).toBe(key);
  });

  it("may have no subjectAltName", () => {
    expect(parseRequest(fixtureDer("name-only.csr.pem"))).toMatchObject({
      dnsNames: [],
      ipAddresses: [],
      otherNames: [],
    });
  });

  it("may have a subject in any script", () => {
    expect(parseRequest(fixtureDer("utf8.csr.pem")).subject).toEqual([
      { type: "O", value: "Bücher & Söhne" },
      { type: "CN", value: "mx.bücher.example" },
    ]);
  });

  it.skipIf(!hasOpenssl).each(["p256", "p384", "ed25519", "rsa3072", "pss", "no-names"])(
    "with %s is certified, and openssl verifies it strictly",
    async (name) => {
      const folder = await temporaryFolder();
      const today = new Date();
      const authority = await authorityOf("ec-p256", today);
      const request = parseRequest(fixtureDer(`${name}.csr.pem`));
      const pem = certify(authority, leafPlan({ usages: "client", now: today }), request.publicKey);
      expect(x509(pem).publicKey.equals(request.publicKey)).toBe(true);
      const [anchor, file] = [join(folder, "ca.pem"), join(folder, "leaf.pem")];
      await writeFile(anchor, authority.certificate.toString());
      await writeFile(file, pem);
      expect(openssl("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", anchor, file)).toContain("OK");
    },
  );
});

describe("a request is refused", () => {
  it.each([
    { name: "broken-signature", says: "has a signature that does not fit" },
    { name: "rsa1024", says: "only 1024 bits" },
    { name: "rsa-exponent-3", says: "too small an exponent" },
    { name: "secp256k1", says: "curve secp256k1" },
    { name: "sha1", says: "signed with SHA-1" },
    { name: "md5", says: "signed with MD5" },
  ])("$name, because it $says", ({ name, says }) => {
    expect(() => parseRequest(fixtureDer(`${name}.csr.pem`))).toThrow(CertificateFault);
    expect(() => parseRequest(fixtureDer(`${name}.csr.pem`))).toThrow(says);
  });

  it("where it is larger than 64 KiB", () => {
    expect(() => parseRequest(Buffer.alloc(65_537, 0x30))).toThrow("larger than 65536 bytes");
  });

  it("where it is a certificate", () => {
    expect(() => parseRequest(fixtureDer("self-signed.pem"))).toThrow("no PKCS #10 request");
  });

  it("where something follows it", () => {
    expect(() => parseRequest(Buffer.concat([fixtureDer("p256.csr.pem"), Buffer.of(0)]))).toThrow("is damaged");
  });

  it("where its outer length is padded, which is BER but not DER", () => {
    const der = fixtureDer("p256.csr.pem");
    expect(der.subarray(0, 2).toString("hex")).toBe("3082");
    const padded = Buffer.concat([Buffer.from("308300", "hex"), der.subarray(2)]);
    expect(() => parseRequest(padded)).toThrow("not in DER");
  });

  it("where its length is indefinite, which is BER but not DER", () => {
    const der = fixtureDer("p256.csr.pem");
    const indefinite = Buffer.concat([Buffer.from("3080", "hex"), der.subarray(4), Buffer.of(0, 0)]);
    expect(() => parseRequest(indefinite)).toThrow("not in DER");
  });

  const whole = fixtureDer("ed25519.csr.pem");

  it("wherever it is cut off", () => {
    for (let length = 0; length < whole.length; length++) {
      expect(() => parseRequest(whole.subarray(0, length)), `cut at ${length}`).toThrow(CertificateFault);
    }
  });

  it("whichever bit of it is flipped", () => {
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const flipped = Buffer.from(whole);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(() => parseRequest(flipped), `bit ${bit}`).toThrow(CertificateFault);
    }
  });

  it("whatever else the bytes are, and never with another error", () => {
    assert(
      property(uint8Array({ maxLength: 300 }), (bytes) => {
        expect(() => parseRequest(bytes)).toThrow(CertificateFault);
      }),
    );
  });
});
