/** Identity: a certificate is a partner's by its own bytes, dates and address, or it is nobody's. */
import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "vitest";
import { carriesName, chainsTo, judgePeer, PartnerIndex, type PeerJudgement } from "../../src/partner/identity.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { certificateDigest, spkiDigest, type Pin } from "../../src/partner/pin.ts";
import { certificate } from "./certificates.ts";
import { partner, range } from "./partners.ts";

const now = new Date("2026-11-24T03:00:00Z");
const here = "203.0.113.5";
const elsewhere = "198.51.100.5";
const nowhere = "192.0.2.5";

type PinOptions = { label?: string; notAfter?: Date };

function spki(name: string, { label, notAfter }: PinOptions = {}): Pin {
  return { kind: "spki", digest: spkiDigest(certificate(name)), label, notAfter };
}

function whole(name: string, { label, notAfter }: PinOptions = {}): Pin {
  return { kind: "certificate", digest: certificateDigest(certificate(name)), label, notAfter };
}

function anchor(names: readonly string[], name = "mx.acme.example"): Pin {
  return {
    kind: "trustAnchor",
    file: "ca.pem",
    anchors: names.map(certificate),
    name,
    label: undefined,
    notAfter: undefined,
  };
}

function chain(...names: string[]): X509Certificate[] {
  return names.map(certificate);
}

/** The judgement in one word, with the partner's name if one was found. */
function judge(partners: readonly Partner[], names: readonly string[], address = here, at = now): string {
  const judgement = judgePeer(new PartnerIndex(partners), { address, chain: chain(...names) }, at);
  switch (judgement.kind) {
    case "partner":
      return judgement.identity.partner.name;
    case "wrongAddress":
    case "expired":
    case "notYetValid":
      return `${judgement.kind} ${judgement.partner.name}`;
    case "noCertificate":
    case "unknownCertificate":
      return [judgement.kind, ...judgement.addressOf.map((one) => one.name)].join(" ");
    case "unknownAddress":
      return judgement.kind;
  }
}

const acme = partner("acme", { pins: [spki("leaf-a")] });
const bolt = partner("bolt", { pins: [whole("leaf-b")], hosts: [range("198.51.100.0/24"), range("203.0.113.0/28")] });

describe("identifies a partner", () => {
  test.each<[string, Partner[], string[], string]>([
    ["by the pin of its key", [acme, bolt], ["leaf-a"], "acme"],
    ["by the pin of its key after a renewal", [acme, bolt], ["leaf-a-renewed"], "acme"],
    ["by the pin of its certificate", [acme, bolt], ["leaf-b"], "bolt"],
    [
      "by one of two pins, during a rollover",
      [partner("acme", { pins: [spki("leaf-b"), spki("leaf-a")] })],
      ["leaf-a"],
      "acme",
    ],
    ["whatever it sends along", [acme], ["leaf-a", "leaf-b", "root", "impostor-root"], "acme"],
    ["by a CA", [partner("acme", { pins: [anchor(["root"])] })], ["chained", "intermediate"], "acme"],
    [
      "by a CA and a chain in any order",
      [partner("acme", { pins: [anchor(["root"])] })],
      ["chained", "leaf-b", "root", "intermediate"],
      "acme",
    ],
    ["by an intermediate as the anchor", [partner("acme", { pins: [anchor(["intermediate"])] })], ["chained"], "acme"],
    [
      "by one of two anchors",
      [partner("acme", { pins: [anchor(["impostor-root", "root"])] })],
      ["chained", "intermediate"],
      "acme",
    ],
    ["by a CA and a wildcard", [partner("acme", { pins: [anchor(["intermediate"])] })], ["chained-wildcard"], "acme"],
  ])("%s", (_, partners, names, name) => {
    expect(judge(partners, names)).toBe(name);
  });

  test("by certificate where two share an address", () => {
    expect(judge([acme, bolt], ["leaf-a"], here)).toBe("acme");
    expect(judge([acme, bolt], ["leaf-b"], here)).toBe("bolt");
  });

  test("by address where two share a key", () => {
    const twin = partner("twin", { pins: [spki("leaf-a")], hosts: [range("198.51.100.0/24")] });
    expect(judge([acme, twin], ["leaf-a"], here)).toBe("acme");
    expect(judge([acme, twin], ["leaf-a"], elsewhere)).toBe("twin");
  });

  test("at an IPv4 address that a dual-stack socket reports as IPv6", () => {
    expect(judge([acme], ["leaf-a"], `::ffff:${here}`)).toBe("acme");
  });

  test("anywhere, if its file says so", () => {
    expect(judge([partner("acme", { pins: [spki("leaf-a")], hosts: [range("any")] })], ["leaf-a"], nowhere)).toBe(
      "acme",
    );
  });

  test("and names the pin that it was known by", () => {
    const rollover = partner("acme", { pins: [spki("leaf-b"), spki("leaf-a", { label: "2026" })] });
    const judgement = judgePeer(new PartnerIndex([rollover]), { address: here, chain: chain("leaf-a") }, now);
    expect(judgement).toMatchObject({ kind: "partner", identity: { pin: { label: "2026" } } });
  });
});

describe("refuses a peer", () => {
  const byRoot = [partner("acme", { pins: [anchor(["root"])] })];
  test.each<[string, Partner[], string[], string]>([
    ["without a certificate", [acme, bolt], [], "noCertificate acme bolt"],
    ["with the certificate of nobody", [acme], ["leaf-b"], "unknownCertificate acme"],
    [
      "with another certificate of a key whose certificate is pinned",
      [partner("acme", { pins: [whole("leaf-a")] })],
      ["leaf-a-renewed"],
      "unknownCertificate acme",
    ],
    ["that sends a pinned certificate along, but is another", [acme], ["leaf-b", "leaf-a"], "unknownCertificate acme"],
    [
      "with the digest of a key pinned as that of a certificate",
      [partner("acme", { pins: [{ ...whole("leaf-a"), digest: spkiDigest(certificate("leaf-a")) } as Pin] })],
      ["leaf-a"],
      "unknownCertificate acme",
    ],
    ["of a partner without pins", [partner("acme")], ["leaf-a"], "unknownCertificate acme"],
    ["without the intermediate", byRoot, ["chained"], "unknownCertificate acme"],
    ["below a CA of the same name", byRoot, ["under-impostor"], "unknownCertificate acme"],
    [
      "below a CA of the same name that it sends along",
      byRoot,
      ["under-impostor", "impostor-root"],
      "unknownCertificate acme",
    ],
    [
      "below a leaf that plays CA and does not say what its key is for",
      byRoot,
      ["under-leaf-without-usage", "chained-no-san", "intermediate"],
      "unknownCertificate acme",
    ],
    ["below a leaf that plays CA", byRoot, ["under-leaf", "chained", "intermediate"], "unknownCertificate acme"],
    [
      "below a CA, but for another name",
      [partner("acme", { pins: [anchor(["root"], "mx.bolt.example")] })],
      ["chained", "intermediate"],
      "unknownCertificate acme",
    ],
    ["below a CA, its name in the subject only", byRoot, ["chained-no-san", "intermediate"], "unknownCertificate acme"],
    [
      "below a CA, its wildcard for a deeper name",
      [partner("acme", { pins: [anchor(["root"], "a.mx.acme.example")] })],
      ["chained-wildcard", "intermediate"],
      "unknownCertificate acme",
    ],
    ["that is the CA's own certificate", byRoot, ["root"], "unknownCertificate acme"],
    ["that is the intermediate", byRoot, ["intermediate"], "unknownCertificate acme"],
    [
      "with a self-signed leaf that is its own anchor",
      [partner("acme", { pins: [anchor(["leaf-a"])] })],
      ["leaf-a"],
      "unknownCertificate acme",
    ],
    ["that has expired", [partner("acme", { pins: [spki("leaf-expired")] })], ["leaf-expired"], "expired acme"],
    ["that is not valid yet", [partner("acme", { pins: [spki("leaf-future")] })], ["leaf-future"], "notYetValid acme"],
    ["below a CA that has expired itself", byRoot, ["chained-expired", "intermediate"], "expired acme"],
    ["below an intermediate that has expired", byRoot, ["under-expired", "intermediate-expired"], "expired acme"],
  ])("%s", (_, partners, names, judgement) => {
    expect(judge(partners, names)).toBe(judgement);
  });

  test("at an address of no partner, whatever it shows", () => {
    expect(judge([acme], ["leaf-a"], nowhere)).toBe("unknownAddress");
    expect(judge([acme], [], nowhere)).toBe("unknownAddress");
    expect(judge([], ["leaf-a"])).toBe("unknownAddress");
    expect(judge([acme], ["leaf-a"], "not an address")).toBe("unknownAddress");
  });

  test("at an address of another partner", () => {
    expect(judge([acme, bolt], ["leaf-a"], elsewhere)).toBe("wrongAddress acme");
  });

  test("let in by the 'any' of some partner, as one that nobody knows by address", () => {
    const open = partner("open", { pins: [spki("leaf-b")], hosts: [range("any")] });
    expect(judge([acme, open], ["leaf-expired"], nowhere)).toBe("unknownCertificate");
    expect(judge([acme, open], [], nowhere)).toBe("noCertificate");
    expect(judge([acme, open], ["leaf-a"], nowhere)).toBe("wrongAddress acme");
  });

  test("after the end date of its pin, and not at it", () => {
    const partners = [partner("acme", { pins: [spki("leaf-a", { notAfter: now })] })];
    expect(judge(partners, ["leaf-a"], here, now)).toBe("acme");
    expect(judge(partners, ["leaf-a"], here, new Date(now.getTime() + 1))).toBe("expired acme");
  });

  test("outside the dates of its certificate, to the second", () => {
    const { validFromDate, validToDate } = certificate("leaf-a");
    expect(judge([acme], ["leaf-a"], here, validFromDate)).toBe("acme");
    expect(judge([acme], ["leaf-a"], here, validToDate)).toBe("acme");
    expect(judge([acme], ["leaf-a"], here, new Date(validFromDate.getTime() - 1))).toBe("notYetValid acme");
    expect(judge([acme], ["leaf-a"], here, new Date(validToDate.getTime() + 1))).toBe("expired acme");
  });

  test("for the most telling of several reasons", () => {
    const twin = partner("twin", { pins: [spki("leaf-expired")], hosts: [range("198.51.100.0/24")] });
    const both = [twin, partner("acme", { pins: [spki("leaf-expired")] })];
    expect(judge(both, ["leaf-expired"], here)).toBe("expired acme");
  });

  test("but not where another pin holds up", () => {
    const pins = [spki("leaf-a", { notAfter: new Date(0) }), whole("leaf-a")];
    expect(judge([partner("acme", { pins })], ["leaf-a"])).toBe("acme");
  });
});

describe("follows a chain", () => {
  /** The certificate with the algorithm of its key changed to one that does not exist. */
  function withUnreadableKey(name: string): X509Certificate {
    const der = Buffer.from(certificate(name).raw);
    const ecPublicKey = Buffer.from("2a8648ce3d0201", "hex"); // OID 1.2.840.10045.2.1
    der[der.indexOf(ecPublicKey) + ecPublicKey.length - 1] = 0x7f;
    return new X509Certificate(der);
  }

  test("and is not stopped by an issuer whose key cannot be read", () => {
    const unreadable = withUnreadableKey("intermediate");
    expect(() => unreadable.publicKey).toThrow();
    expect(chainsTo([certificate("chained"), unreadable], chain("root"), now)).toBe(false);
    expect(chainsTo([certificate("chained"), unreadable, certificate("intermediate")], chain("root"), now)).toBe(true);
  });

  test("not beyond a length that nobody needs", () => {
    const padding = Array.from({ length: 5 }, () => "leaf-b");
    expect(chainsTo(chain("chained", ...padding, "intermediate"), chain("root"), now)).toBe(false);
  });

  test("not in circles", () => {
    const circle = chain("under-impostor", "impostor-root", "impostor-root", "impostor-root", "impostor-root");
    expect(chainsTo(circle, chain("root"), now)).toBe(false);
  });

  test("not from nothing, nor to nothing", () => {
    expect(chainsTo([], chain("root"), now)).toBe(false);
    expect(chainsTo(chain("chained", "intermediate"), [], now)).toBe(false);
  });

  test("not to an anchor outside its dates", () => {
    expect(chainsTo(chain("under-expired"), chain("intermediate-expired"), now)).toBe(false);
    expect(chainsTo(chain("under-expired"), chain("intermediate-expired"), undefined)).toBe(true);
  });
});

describe("reads names in the subjectAltName only", () => {
  test.each([
    ["leaf-a", "mx.acme.example", true],
    ["leaf-a", "MX.ACME.example", true],
    ["leaf-a", "acme.example", false],
    ["leaf-a", "a.mx.acme.example", false],
    ["chained", "ignored.example", false],
    ["chained-no-san", "mx.acme.example", false],
    ["chained-wildcard", "mx.acme.example", true],
    ["chained-wildcard", "acme.example", false],
    ["chained-wildcard", "a.b.acme.example", false],
    ["leaf-a", "", false],
  ])("%s for %s: %s", (name, host, isCarried) => {
    expect(carriesName(certificate(name), host)).toBe(isCarried);
  });
});

describe("finds partners by address", () => {
  const wide = partner("wide", { hosts: [range("203.0.112.0/20")] });
  const six = partner("six", { hosts: [range("2001:db8:1::/64")] });
  const open = partner("open", { hosts: [range("any")] });
  const index = new PartnerIndex([acme, wide, six, open]);

  test.each<[string, string[]]>([
    ["203.0.113.5", ["acme", "wide"]],
    ["203.0.113.16", ["wide"]],
    ["::ffff:203.0.113.16", ["wide"]],
    ["2001:db8:1::25", ["six"]],
    ["2001:db8:2::25", []],
    ["192.0.2.1", []], // those that list `any` are not found by address
    ["nonsense", []],
  ])("%s", (address, names) => {
    expect(
      index
        .partnersAt(address)
        .map((one) => one.name)
        .toSorted(),
    ).toEqual(names);
  });

  test("and lets everybody talk if one of them lists any", () => {
    expect(index.isKnownAddress("192.0.2.1")).toBe(true);
    expect(new PartnerIndex([acme]).isKnownAddress("192.0.2.1")).toBe(false);
  });
});

test("a judgement says since when a certificate is invalid", () => {
  const index = new PartnerIndex([partner("acme", { pins: [spki("leaf-expired"), spki("leaf-future")] })]);
  const ask = (name: string): PeerJudgement => judgePeer(index, { address: here, chain: chain(name) }, now);
  expect(ask("leaf-expired")).toMatchObject({ kind: "expired", since: new Date("2021-01-01T00:00:00Z") });
  expect(ask("leaf-future")).toMatchObject({ kind: "notYetValid", from: new Date("2090-01-01T00:00:00Z") });
});
