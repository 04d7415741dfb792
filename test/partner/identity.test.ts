/** Identity: a certificate is a partner's by its own bytes, dates and address, or it is nobody's. */
import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "vitest";
import { carriesName, judgePeer, PartnerIndex, type PeerJudgement } from "../../src/partner/identity.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { pathsTo } from "../../src/partner/path.ts";
import { spkiDigest, type Pin } from "../../src/partner/pin.ts";
import { contextPrimitive, sequence, type DerNode } from "../../src/certs/der.ts";
import type { PinHistory } from "../../src/partner/rollover.ts";
import { extension, makeCertificate } from "../receiver/certificates.ts";
import { certificate } from "./certificates.ts";
import { partner, range } from "./partners.ts";
import { anchorPin, certificatePin, spkiPin } from "./pins.ts";

const now = new Date("2026-11-24T03:00:00Z");
const here = "203.0.113.5";
const elsewhere = "198.51.100.5";
const nowhere = "192.0.2.5";

type PinOptions = Parameters<typeof spkiPin>[1];

function spki(name: string, different?: PinOptions): Pin {
  return spkiPin(certificate(name), different);
}

function whole(name: string, different?: PinOptions): Pin {
  return certificatePin(certificate(name), different);
}

function anchor(names: readonly string[], name = "mx.acme.example"): Pin {
  return anchorPin(names.map(certificate), { name });
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
    case "pending":
    case "revoked":
    case "retired":
    case "revocationUnknown":
    case "wrongKeyUsage":
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
      [partner("acme", { pins: [certificatePin(spkiDigest(certificate("leaf-a")))] })],
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

  const pathsOf = (from: readonly X509Certificate[], anchors: readonly X509Certificate[]): number =>
    pathsTo(from, anchors, "mx.acme.example").length;

  test("and is not stopped by an issuer whose key cannot be read", () => {
    const unreadable = withUnreadableKey("intermediate");
    expect(() => unreadable.publicKey).toThrow();
    expect(pathsOf([certificate("chained"), unreadable], chain("root"))).toBe(0);
    expect(pathsOf([certificate("chained"), unreadable, certificate("intermediate")], chain("root"))).toBe(1);
  });

  test("not beyond a length that nobody needs", () => {
    const padding = Array.from({ length: 5 }, () => "leaf-b");
    expect(pathsOf(chain("chained", ...padding, "intermediate"), chain("root"))).toBe(0);
  });

  test("not in circles", () => {
    const circle = chain("under-impostor", "impostor-root", "impostor-root", "impostor-root", "impostor-root");
    expect(pathsOf(circle, chain("root"))).toBe(0);
  });

  test("not from nothing, nor to nothing", () => {
    expect(pathsOf([], chain("root"))).toBe(0);
    expect(pathsOf(chain("chained", "intermediate"), [])).toBe(0);
  });

  test("not to an anchor outside its dates", () => {
    const partners = [partner("acme", { pins: [anchor(["intermediate-expired"])] })];
    expect(judge(partners, ["under-expired"])).toBe("expired acme");
    expect(judge(partners, ["under-expired"], here, new Date("2020-06-01T00:00:00Z"))).toBe("notYetValid acme"); // the leaf
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

describe("compares names as RFC 9525 wants it", async () => {
  const dns = (text: string): DerNode => contextPrimitive(2, Buffer.from(text, "latin1"));
  const made = async (...names: readonly DerNode[]): Promise<X509Certificate> => {
    const extensions = names.length === 0 ? [] : [extension("2.5.29.17", sequence(...names))];
    return (await makeCertificate({ dnsNames: [], extensions })).certificate; // its common name is mx.acme.example
  };
  const rows: Array<[string, DerNode[], boolean]> = [
    ["the name", [dns("mx.acme.example")], true],
    ["the name in capitals", [dns("MX.ACME.EXAMPLE")], true],
    ["the name behind others", [dns("a.example"), dns("mx.acme.example")], true],
    ["the common name alone", [], false],
    ["the common name beside another DNS name", [dns("mx2.acme.example")], false],
    ["a wildcard for the left-most label", [dns("*.acme.example")], true],
    ["a wildcard for two labels", [dns("*.example")], false],
    ["a wildcard for everything", [dns("*")], false],
    ["a part of a label before the wildcard", [dns("m*.acme.example")], false],
    ["a part of a label behind the wildcard", [dns("*x.acme.example")], false],
    ["a wildcard in the second label", [dns("mx.*.example")], false],
    ["two wildcards", [dns("*.*.example")], false],
    ["all that is below a domain", [dns(".acme.example")], false],
    ["a domain above it", [dns("acme.example")], false],
    ["the name before a NUL", [dns("mx.acme.example\0.evil.example")], false],
    ["the name with a blank", [dns("mx.acme.example ")], false],
    ["the name as a mail address", [contextPrimitive(1, Buffer.from("mx.acme.example"))], false],
    ["the name as a URI", [contextPrimitive(6, Buffer.from("https://mx.acme.example/"))], false],
    ["an address", [contextPrimitive(7, Uint8Array.of(203, 0, 113, 5))], false],
  ];
  test.each(rows)("%s", async (_, names, isCarried) => {
    expect(carriesName(await made(...names), "mx.acme.example")).toBe(isCarried);
  });

  test("internationalised labels as A-labels, to the letter", async () => {
    const name = "mx.xn--bcher-kva.example";
    expect(carriesName(await made(dns(name)), name)).toBe(true);
    expect(carriesName(await made(dns("*.xn--bcher-kva.example")), name)).toBe(true);
    expect(carriesName(await made(dns("mx.b\u00fccher.example")), name)).toBe(false);
    expect(carriesName(await made(dns("xn--*.example")), "xn--bcher-kva.example")).toBe(false);
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

describe("of several things that are wrong, says the one that must be mended first", () => {
  const day = 86_400_000;
  const seen = new Date(now.getTime() - 20 * day);
  const next = whole("leaf-b", { state: "next" });
  /** The next pin was first seen 20 days ago; pins retire 14 days later. */
  const history: PinHistory = { firstSeen: (_, pin) => (pin === next ? seen : undefined) };
  const past = new Date(now.getTime() - day);
  const future = new Date(now.getTime() + day);
  const retired = new Date(seen.getTime() + 14 * day);

  test.each<[string, Partial<Partner>, string, object]>([
    ["nothing", { pins: [spki("leaf-a")] }, "leaf-a", { kind: "partner" }],
    [
      "the address, before all else",
      { pins: [spki("leaf-expired", { state: "revoked" })], hosts: [range("192.0.2.0/24")] },
      "leaf-expired",
      { kind: "wrongAddress" },
    ],
    [
      "revoked, before its dates",
      { pins: [spki("leaf-expired", { state: "revoked" })] },
      "leaf-expired",
      { kind: "revoked", by: "operator" },
    ],
    [
      "pending, before its dates",
      { pins: [spki("leaf-expired", { state: "pending" })] },
      "leaf-expired",
      { kind: "pending" },
    ],
    [
      "pending, in a future of its own",
      { pins: [spki("leaf-a", { state: "pending", notBefore: future })] },
      "leaf-a",
      { kind: "pending" },
    ],
    [
      "expired, before retired",
      { pins: [spki("leaf-expired"), next] },
      "leaf-expired",
      { kind: "expired", since: new Date("2021-01-01T00:00:00Z") },
    ],
    [
      "its pin not valid yet",
      { pins: [spki("leaf-a", { notBefore: future })] },
      "leaf-a",
      { kind: "notYetValid", from: future },
    ],
    ["its pin valid from now on", { pins: [spki("leaf-a", { notBefore: now })] }, "leaf-a", { kind: "partner" }],
    [
      "its pin out of date, before retired",
      { pins: [spki("leaf-a", { notAfter: past }), next] },
      "leaf-a",
      { kind: "expired", since: past },
    ],
    ["retired by the next pin", { pins: [spki("leaf-a"), next] }, "leaf-a", { kind: "retired", since: retired }],
    [
      "retired in a moment, which is not yet",
      { pins: [spki("leaf-a"), next], rollover: { retireAfterMs: 20 * day + 1 } },
      "leaf-a",
      { kind: "partner" },
    ],
    [
      "retired in this moment",
      { pins: [spki("leaf-a"), next], rollover: { retireAfterMs: 20 * day } },
      "leaf-a",
      { kind: "retired", since: now },
    ],
    ["the next pin itself never retires", { pins: [spki("leaf-a"), next] }, "leaf-b", { kind: "partner" }],
    [
      "a next pin that nobody has seen retires nothing",
      { pins: [spki("leaf-a"), whole("chained", { state: "next" })] },
      "leaf-a",
      { kind: "partner" },
    ],
    [
      "a pending next pin retires nothing",
      { pins: [spki("leaf-a"), { ...next, state: "pending" }] },
      "leaf-a",
      { kind: "partner" },
    ],
  ])("%s", (_, different, name, expected) => {
    const others = partner("bolt", { hosts: [range("203.0.113.0/28")] }); // the address is known in any case
    const index = new PartnerIndex([partner("acme", different), others]);
    expect(judgePeer(index, { address: here, chain: chain(name) }, now, history)).toMatchObject(expected);
  });
});

test("a judgement says since when a certificate is invalid", () => {
  const index = new PartnerIndex([partner("acme", { pins: [spki("leaf-expired"), spki("leaf-future")] })]);
  const ask = (name: string): PeerJudgement => judgePeer(index, { address: here, chain: chain(name) }, now);
  expect(ask("leaf-expired")).toMatchObject({ kind: "expired", since: new Date("2021-01-01T00:00:00Z") });
  expect(ask("leaf-future")).toMatchObject({ kind: "notYetValid", from: new Date("2090-01-01T00:00:00Z") });
});
