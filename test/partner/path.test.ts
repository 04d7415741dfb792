/** Paths to a trust anchor: what a CA may not do, what its list says, and which usage its certificates have. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { array, assert, integer, nat, property, tuple } from "fast-check";
import { describe, expect, test } from "vitest";
import { serialOf } from "../../src/certs/crl.ts";
import {
  contextConstructed,
  contextPrimitive,
  nullValue,
  objectIdentifier,
  sequence,
  type DerNode,
} from "../../src/certs/der.ts";
import { judgePeer, PartnerIndex, type PeerJudgement } from "../../src/partner/identity.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { pathsTo } from "../../src/partner/path.ts";
import type { RevocationList } from "../../src/partner/revocation.ts";
import { extension, makeCertificate, subjectOf, type Made } from "../receiver/certificates.ts";
import { listOf } from "./lists.ts";
import { partner } from "./partners.ts";
import { anchorPin, certificatePin, spkiPin } from "./pins.ts";

const now = new Date();
const dayMs = 86_400_000;
const inDays = (days: number): Date => new Date(now.getTime() + days * dayMs);

function judge(partners: readonly Partner[], ...chain: readonly Made[]): PeerJudgement {
  const certificates = chain.map(({ certificate }) => certificate);
  return judgePeer(new PartnerIndex(partners), { address: "203.0.113.5", chain: certificates }, now);
}

const clientAuth = "1.3.6.1.5.5.7.3.2";
const serverAuth = "1.3.6.1.5.5.7.3.1";
const usage = (...oids: string[]): DerNode => extension("2.5.29.37", sequence(...oids.map(objectIdentifier)));

const root = await makeCertificate({ subject: subjectOf("Root"), ca: true });
const intermediate = await makeCertificate({ subject: subjectOf("Issuing"), ca: true, issuer: root });
const leaf = await makeCertificate({ issuer: intermediate });

describe("revocation lists", () => {
  const under = (anchors: readonly Made[], revocationLists: readonly RevocationList[]): Partner[] => [
    partner("acme", {
      pins: [
        anchorPin(
          anchors.map(({ certificate }) => certificate),
          { revocationLists },
        ),
      ],
    }),
  ];

  test.each<[string, Partner[], object]>([
    ["none is asked where none is named", under([root], []), { kind: "partner" }],
    ["one of the leaf's issuer that does not have it", under([root], [listOf(intermediate)]), { kind: "partner" }],
    ["one that has the leaf", under([root], [listOf(intermediate, [leaf])]), { kind: "revoked", by: "list" }],
    ["a stale one", under([root], [listOf(intermediate, [], 1)]), { kind: "revocationUnknown" }],
    [
      "a stale one that has the leaf",
      under([root], [listOf(intermediate, [leaf], 1)]),
      { kind: "revoked", by: "list" },
    ],
    [
      "a stale one beside a fresh one",
      under([root], [listOf(intermediate, [], 1), listOf(intermediate)]),
      { kind: "partner" },
    ],
    [
      "a stale one that has the leaf, beside a fresh one that has not",
      under([root], [listOf(intermediate, [leaf], 1), listOf(intermediate)]),
      { kind: "revoked" },
    ],
    ["only one of the root's", under([root], [listOf(root)]), { kind: "revocationUnknown", since: now }],
    [
      "one of the root's that has the intermediate",
      under([root], [listOf(root, [intermediate]), listOf(intermediate)]),
      { kind: "revoked", by: "list" },
    ],
    [
      "one of the root's that is stale, and a fresh one of the issuer's",
      under([root], [listOf(root, [], 1), listOf(intermediate)]),
      { kind: "partner" },
    ],
    [
      "one of the root's that has the intermediate, which is an anchor itself",
      under([root, intermediate], [listOf(root, [intermediate]), listOf(intermediate)]),
      { kind: "revoked", by: "list" },
    ],
  ])("%s", (_, partners, expected) => {
    expect(judge(partners, leaf, intermediate)).toMatchObject(expected);
  });

  test("since when nothing is known: the day on which the next one was due", () => {
    const list = listOf(intermediate, [], 1);
    expect(judge(under([root], [list]), leaf, intermediate)).toMatchObject({ since: list.nextUpdate });
  });

  test("one with the same serial number of another CA says nothing", async () => {
    const twin = await makeCertificate({ serial: Buffer.from(serialOf(leaf.certificate), "hex") });
    expect(judge(under([root], [listOf(root, [twin]), listOf(intermediate)]), leaf, intermediate)).toMatchObject({
      kind: "partner",
    });
  });

  test("what one path says is not held against another", async () => {
    // The issuing CA has a second certificate, for the same key and name, under another root.
    const otherRoot = await makeCertificate({ subject: subjectOf("Other root"), ca: true });
    const privateKey = createPrivateKey(intermediate.key);
    const cross = await makeCertificate({ subject: subjectOf("Issuing"), ca: true, issuer: otherRoot, privateKey });
    const lists = [listOf(root, [intermediate]), listOf(otherRoot), listOf(intermediate)];
    const partners = under([root, otherRoot], lists);
    expect(judge(partners, leaf, intermediate)).toMatchObject({ kind: "revoked" });
    expect(judge(partners, leaf, intermediate, cross)).toMatchObject({ kind: "partner" });
  });
});

describe("extended key usage", () => {
  const made = async (extensions: readonly DerNode[], below: readonly DerNode[] = []): Promise<Made[]> => {
    const ca = await makeCertificate({ subject: subjectOf("Issuing"), ca: true, issuer: root, extensions });
    return [await makeCertificate({ issuer: ca, usages: "unsaid", extensions: below }), ca];
  };
  const rows: Array<[string, DerNode[], DerNode[], string, string]> = [
    ["none at all", [], [], "partner", "partner"],
    ["clientAuth in the leaf", [], [usage(clientAuth)], "partner", "partner"],
    ["any in the leaf", [], [usage("2.5.29.37.0")], "partner", "partner"],
    ["serverAuth and clientAuth in the leaf", [], [usage(serverAuth, clientAuth)], "partner", "partner"],
    ["serverAuth only in the leaf", [], [usage(serverAuth)], "wrongKeyUsage", "partner"],
    ["clientAuth in the intermediate", [usage(clientAuth)], [usage(clientAuth)], "partner", "partner"],
    ["serverAuth only in the intermediate", [usage(serverAuth)], [usage(clientAuth)], "wrongKeyUsage", "partner"],
  ];
  test.each(rows)("%s", async (_, above, below, forClients, forAny) => {
    const chain = await made(above, below);
    for (const [extendedKeyUsage, kind] of [
      ["clientAuth", forClients],
      ["any", forAny],
    ] as const) {
      const byCa = partner("acme", { extendedKeyUsage, pins: [anchorPin([root.certificate])] });
      expect(judge([byCa], ...chain).kind).toBe(kind);
    }
  });

  test("is asked of a pinned certificate, too, and there of nothing above it", async () => {
    const [client] = await made([usage(serverAuth)], [usage(clientAuth)]);
    const [server] = await made([], [usage(serverAuth)]);
    if (client === undefined || server === undefined) throw new Error("nothing made");
    expect(judge([partner("acme", { pins: [spkiPin(client.certificate)] })], client).kind).toBe("partner");
    expect(judge([partner("acme", { pins: [certificatePin(server.certificate)] })], server).kind).toBe("wrongKeyUsage");
  });
});

describe("a CA keeps within what it was allowed", () => {
  const pathsOf = (chain: readonly Made[], anchor: X509Certificate, name = "mx.acme.example"): number =>
    pathsTo(
      chain.map(({ certificate }) => certificate),
      [anchor],
      name,
    ).length;
  const ca = (name: string, issuer: Made | undefined, more: object = {}): Promise<Made> =>
    makeCertificate({ subject: subjectOf(name), ca: true, ...(issuer && { issuer }), ...more });

  test("in the length of the path below it", async () => {
    for (const [pathLength, found] of [
      [0, 0],
      [1, 1],
      [2, 1],
    ] as const) {
      const top = await ca("Top", undefined, { pathLength });
      const middle = await ca("Middle", top);
      expect(pathsOf([await makeCertificate({ issuer: middle }), middle], top.certificate)).toBe(found);
      expect(pathsOf([await makeCertificate({ issuer: top })], top.certificate)).toBe(1);
    }
  });

  test("in the length of the path below an intermediate", async () => {
    const first = await ca("First", root, { pathLength: 0 });
    const second = await ca("Second", first);
    expect(pathsOf([await makeCertificate({ issuer: second }), second, first], root.certificate)).toBe(0);
  });

  test("where a CA certifies its own next key, which makes the path no longer", async () => {
    const top = await ca("Top", undefined, { pathLength: 0 });
    const next = await ca("Top", top);
    expect(pathsOf([await makeCertificate({ issuer: next }), next], top.certificate)).toBe(1);
  });

  const subtrees = (tag: number, ...names: string[]): DerNode =>
    contextConstructed(tag, ...names.map((name) => sequence(contextPrimitive(2, Buffer.from(name)))));
  test.each<[string, DerNode[], number]>([
    ["permitted is the name", [subtrees(0, "mx.acme.example")], 1],
    ["permitted is a domain above it", [subtrees(0, "globex.example", "ACME.example")], 1],
    ["permitted is what is below a domain", [subtrees(0, ".acme.example")], 1],
    ["permitted is something else", [subtrees(0, "globex.example")], 0],
    ["permitted is a name that only ends alike", [subtrees(0, "me.example")], 0],
    ["permitted are only names below it", [subtrees(0, ".mx.acme.example")], 0],
    ["excluded is a domain above it", [subtrees(1, "acme.example")], 0],
    ["excluded is everything", [subtrees(1, "")], 0],
    ["excluded is something else", [subtrees(1, "globex.example")], 1],
    ["permitted, but excluded", [subtrees(0, "acme.example"), subtrees(1, "mx.acme.example")], 0],
    ["permitted are some addresses", [contextConstructed(0, sequence(contextPrimitive(7, Buffer.alloc(8))))], 1],
  ])("in names: %s", async (_, constraints, found) => {
    const extensions = [extension("2.5.29.30", sequence(...constraints), "critical")];
    const limited = await ca("Limited", root, { extensions });
    expect(pathsOf([await makeCertificate({ issuer: limited }), limited], root.certificate)).toBe(found);
  });

  test("and says nothing critical that is not understood, nor anything twice", async () => {
    const foreign = (criticality: "critical" | "uncritical"): DerNode => extension("1.2.3.4", nullValue(), criticality);
    const twice = [foreign("uncritical"), foreign("uncritical")];
    for (const [extensions, found] of [
      [[foreign("critical")], 0],
      [[foreign("uncritical")], 1],
      [twice, 0],
    ] as const) {
      const strange = await ca("Strange", root, { extensions });
      expect(pathsOf([await makeCertificate({ issuer: strange }), strange], root.certificate)).toBe(found);
      const below = await makeCertificate({ issuer: intermediate, extensions });
      expect(pathsOf([below, intermediate], root.certificate)).toBe(found);
    }
  });
});

test("an intermediate that is not valid yet keeps its leaf waiting", async () => {
  const early = await makeCertificate({ subject: subjectOf("Early"), ca: true, issuer: root, from: inDays(1) });
  const below = await makeCertificate({ issuer: early });
  const byRoot = partner("acme", { pins: [anchorPin([root.certificate])] });
  expect(judge([byRoot], below, early)).toMatchObject({ kind: "notYetValid", from: early.certificate.validFromDate });
});

describe("what the operator revoked", () => {
  const byCa = anchorPin([root.certificate]);
  test.each([
    ["a key does not come in by its CA", [spkiPin(leaf.certificate, { state: "revoked" }), byCa], "revoked"],
    [
      "a certificate does not come in by its CA",
      [byCa, certificatePin(leaf.certificate, { state: "revoked" })],
      "revoked",
    ],
    [
      "a key does not come in by its certificate",
      [spkiPin(leaf.certificate, { state: "revoked" }), certificatePin(leaf.certificate)],
      "revoked",
    ],
    [
      "a CA speaks for itself: a key that is pinned comes in",
      [{ ...byCa, state: "revoked" as const }, spkiPin(leaf.certificate)],
      "partner",
    ],
    ["a CA lets nobody in", [{ ...byCa, state: "revoked" as const }], "revoked"],
  ])("%s", (_, pins, kind) => {
    expect(judge([partner("acme", { pins })], leaf, intermediate)).toMatchObject({ kind });
  });
});

test("a certificate with any octets changed leads nowhere, and does no harm", () => {
  const der = leaf.certificate.raw;
  const change = tuple(nat(der.length - 1), integer({ min: 1, max: 255 }));
  assert(
    property(array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const changed = Buffer.from(der);
      for (const [at, mask] of changes) changed[at] = (changed[at] ?? 0) ^ mask;
      const certificate = parsed(changed);
      if (certificate === undefined || changed.equals(der)) return;
      expect(pathsTo([certificate, intermediate.certificate], [root.certificate], "mx.acme.example")).toEqual([]);
    }),
    { numRuns: 2000 },
  );
});

function parsed(der: Buffer): X509Certificate | undefined {
  try {
    return new X509Certificate(der);
  } catch {
    return undefined;
  }
}
