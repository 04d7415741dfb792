/** Pins: a digest is read however people hand it around, in one meaning, and nothing that is no digest is. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { certificateDigest, digestHex, digestOf, parseDigest, spkiDigest } from "../../src/partner/pin.ts";
import { certificate } from "./certificates.ts";

// SHA-256 of the empty string.
const digest = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const colons = hex.toUpperCase().replaceAll(/(..)(?=.)/g, "$1:");

describe("reads a digest", () => {
  test.each([
    [digest],
    [digest.replace("/", "//")], // curl
    [digest.replace("sha256", "SHA256")],
    [digest.slice("sha256/".length)],
    [` ${digest}\n`],
    [hex],
    [hex.toUpperCase()],
    [colons],
    [`${colons}\n`],
    [`sha256 Fingerprint=${colons}`], // openssl 3
    [`SHA256 Fingerprint=${colons}`], // openssl 1.1
    [`SHA-256: ${hex}`],
    [hex.replaceAll(/(.{32})/g, "$1 ")],
  ])("%j", (text) => {
    expect(parseDigest(text)).toBe(digest);
  });
});

describe("refuses what is no SHA-256 digest", () => {
  test.each([
    [""],
    ["sha256/"],
    [hex.slice(1)],
    [`${hex}0`],
    [`g${hex.slice(1)}`],
    [hex.slice(0, 40)], // SHA-1
    [`sha1/${digest.slice(7)}`],
    [`sha256///${digest.slice(7)}`],
    [digest.slice(0, -1)], // without padding
    [`${digest}=`],
    [digest.replace("+", "-").replace("/T", "_T")], // base64url
    [digest.replace("FU=", "FV=")], // stray bits: the same bytes in another spelling
    [digest.replace("FU=", "F==")],
    [`${digest} ${digest}`],
    ["sha256/AAAA"],
    [`sha512/${"A".repeat(86)}==`],
    ["-----BEGIN CERTIFICATE-----"],
    [`sha256/${hex}`],
  ])("%j", (text) => {
    expect(parseDigest(text)).toBeUndefined();
  });
});

test("a digest whose base64 begins with a slash is read, with one slash before it and with two", () => {
  const slashed = digestOf(Uint8Array.of(86, 117));
  expect(slashed).toMatch(/^sha256\/\//);
  expect(parseDigest(slashed)).toBe(slashed);
  expect(parseDigest(slashed.replace("/", "//"))).toBe(slashed);
  expect(parseDigest(slashed.slice("sha256/".length))).toBe(slashed);
});

test("the digest of bytes is read back from each of its forms", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const it = digestOf(bytes);
      expect(parseDigest(it)).toBe(it);
      expect(parseDigest(it.replace("/", "//"))).toBe(it);
      expect(parseDigest(digestHex(it))).toBe(it);
      expect(parseDigest(digestHex(it).toLowerCase().replaceAll(":", ""))).toBe(it);
    }),
  );
});

test("the digest of nothing is the known one", () => {
  expect(digestOf(new Uint8Array())).toBe(digest);
  expect(digestHex(digest)).toBe(colons);
});

test("a renewal with the same key keeps the pin of the key and not that of the certificate", () => {
  const [old, renewed] = [certificate("leaf-a"), certificate("leaf-a-renewed")];
  expect(spkiDigest(renewed)).toBe(spkiDigest(old));
  expect(certificateDigest(renewed)).not.toBe(certificateDigest(old));
});

test("the pin of a certificate is the fingerprint that everybody prints", () => {
  const leaf = certificate("leaf-a");
  expect(digestHex(certificateDigest(leaf))).toBe(leaf.fingerprint256);
});

test("the pin of a key is that of the SubjectPublicKeyInfo in the certificate, byte for byte", () => {
  // P-256 without surprises: SEQUENCE of 89 octets. It must stand in the certificate as it was digested.
  const leaf = certificate("leaf-a");
  const spki = leaf.publicKey.export({ type: "spki", format: "der" });
  expect(leaf.raw.includes(spki)).toBe(true);
  expect(spkiDigest(leaf)).toBe(digestOf(spki));
});
