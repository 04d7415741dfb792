/** What a batch may say of the session that a message came in: nothing that is out of bounds, and less where it is old. */
import { describe, expect, it } from "vitest";
import { isMessageMeta } from "../../src/spool/directory/meta.ts";
import { envelope } from "./tools.ts";

const tls = {
  version: "TLSv1.3",
  cipher: "TLS_AES_256_GCM_SHA384",
  group: "x25519",
  certificate: `sha256/${"A".repeat(43)}=`,
  spki: `sha256/${"B".repeat(43)}=`,
  subject: "CN=mx.acme.example",
  issuer: "CN=test CA",
  validFrom: "2026-11-24T00:00:00.000Z",
  validTo: "2027-11-24T00:00:00.000Z",
  keyUsage: ["1.3.6.1.5.5.7.3.2"],
  pin: "spki sha256/…",
};

function metaWith(session: unknown): unknown {
  return {
    id: "0mabcdefg0123456ab",
    receivedAtMs: 1,
    partner: "acme",
    toPartner: null,
    envelope: envelope(),
    sizeBytes: 1,
    wireBytes: 1,
    headerBytes: 0,
    sha256: "0".repeat(64),
    session,
    eightBit: false,
  };
}

const session = { id: "s", address: "192.0.2.1", helo: "mx" };
const without = (name: keyof typeof tls) => Object.fromEntries(Object.entries(tls).filter(([key]) => key !== name));

describe("the session of a message", () => {
  it.each<[string, unknown]>([
    ["with what was seen of TLS", { ...session, tls }],
    ["of an older version, without it", session],
    ["whose key exchange was not seen", { ...session, tls: without("group") }],
    ["whose certificate has no extended key usage", { ...session, tls: without("keyUsage") }],
    ["of a report of ours: none", null],
  ])("is taken %s", (_, value) => {
    expect(isMessageMeta(metaWith(value))).toBe(true);
  });

  it.each<[string, unknown]>([
    ["that is no object", "TLSv1.3"],
    ["that is null", null],
    ["without a version", without("version")],
    ["without a pin", without("pin")],
    ["with a number for a date", { ...tls, validTo: 5 }],
    ["with a subject that is too long", { ...tls, subject: "x".repeat(2049) }],
    ["with a group that is none", { ...tls, group: { name: "x25519" } }],
    ["with a key usage that is no list", { ...tls, keyUsage: "1.2.3" }],
    ["with too many key usages", { ...tls, keyUsage: Array.from({ length: 21 }, () => "1.2.3") }],
    ["with a key usage that is no text", { ...tls, keyUsage: [1] }],
  ])("is refused with TLS %s", (_, value) => {
    expect(isMessageMeta(metaWith({ ...session, tls: value }))).toBe(false);
  });
});
