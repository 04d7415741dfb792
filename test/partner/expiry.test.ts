import { describe, expect, it } from "vitest";
import type { X509Certificate } from "node:crypto";
import { expiryItems, expiryState, isUrgent, type ExpirySources } from "../../src/partner/expiry.ts";
import { expiryAdvice, expiryCount, expiryEnd, expiryTitle } from "../../src/partner/expiry-text.ts";
import type { NextHop, Partner } from "../../src/partner/partner.ts";
import { pinKey, type Pin } from "../../src/partner/pin.ts";
import type { RevocationList } from "../../src/partner/revocation.ts";
import { noHistory, type PinHistory, type PinUse } from "../../src/partner/rollover.ts";
import { mint } from "../config/support.ts";
import { partner, route, source } from "./partners.ts";
import { anchorPin, certificatePin, spkiPin } from "./pins.ts";

const now = new Date("2026-06-15T12:00:00Z");
const dayMs = 86_400_000;
const thresholds = { warnMs: 30 * dayMs, criticalMs: 7 * dayMs };
const later = (ms: number): Date => new Date(now.getTime() + ms);

const lasting = mint({});
const acmes = mint({ commonName: "mx.acme.example", notAfter: "2026-06-18" });
const renewed = mint({ commonName: "mx.acme.example", notAfter: "2027-06-18" });
const ca = mint({ commonName: "ACME CA", ca: true, notAfter: "2026-07-01" });
const nextCa = mint({ commonName: "ACME CA 2", ca: true });

function items(different: Partial<ExpirySources>, at: Date = now) {
  const sources: ExpirySources = {
    configFile: "relay.yaml",
    server: { file: "server.pem", chain: [lasting.certificate] },
    routes: [],
    partners: [],
    uses: [],
    history: noHistory,
    authority: undefined,
    signed: [],
    ...different,
  };
  return expiryItems(sources, thresholds, at).filter(({ what }) => what !== "server certificate");
}

/** What is in the list, each as `what partner state`. */
function told(different: Partial<ExpirySources>): string[] {
  return items(different).map(({ what, partner: name, state }) =>
    [what, ...(name === undefined ? [] : [name]), state].join(" "),
  );
}

function used(pin: Pin, certificate: X509Certificate, lastSeenMs: number, name = "acme"): PinUse {
  return {
    partner: name,
    pin: pinKey(pin),
    certificate,
    firstSeenMs: lastSeenMs,
    lastSeenMs,
    count: 1,
    addresses: ["203.0.113.1"],
    refused: undefined,
  };
}

const acme = (...pins: Pin[]): Partner => partner("acme", { pins });
const server = (anchors: readonly X509Certificate[], file = "inside-ca.pem"): NextHop => ({
  address: "10.1.0.10",
  port: 25,
  name: "mail1.corp.example",
  tls: { mode: "required", implicit: false, verification: { kind: "trustAnchor", file, anchors } },
  source,
});

describe("what is left is", () => {
  it.each([
    ["ok", 30 * dayMs + 1],
    ["warning", 30 * dayMs],
    ["warning", 7 * dayMs + 1],
    ["critical", 7 * dayMs],
    ["critical", 0], // at the last instant it still counts
    ["expired", -1],
    ["expired", -400 * dayMs],
  ])("%s with %i ms left", (expected, leftMs) => {
    expect(expiryState(later(leftMs), now, thresholds)).toBe(expected);
  });

  it("critical even where the thresholds stand the wrong way round", () => {
    expect(expiryState(later(6 * dayMs), now, { warnMs: dayMs, criticalMs: 7 * dayMs })).toBe("critical");
  });

  it.each([
    [0, dayMs - 1],
    [1, dayMs],
    [0, 0],
    [-1, -1],
    [-1, -dayMs],
    [-2, -dayMs - 1],
  ])("%i whole days with %i ms", (daysLeft, leftMs) => {
    const pin = spkiPin(lasting.certificate, { notAfter: later(leftMs) });
    expect(items({ partners: [acme(pin)] })[0]?.daysLeft).toBe(daysLeft);
  });
});

describe("the list", () => {
  it("has the server's chain, with the file and the key that names it", () => {
    const chain = [lasting.certificate, ca.certificate];
    expect(
      expiryItems(
        {
          configFile: "relay.yaml",
          server: { file: "server.pem", chain },
          routes: [],
          partners: [],
          uses: [],
          history: noHistory,
          authority: undefined,
          signed: [],
        },
        thresholds,
        now,
      ),
    ).toMatchObject([
      { what: "issuer certificate", file: "server.pem", subject: "CN=ACME CA", state: "warning", daysLeft: 15 },
      { what: "server certificate", at: { file: "relay.yaml", path: ["tls", "certificate"] }, state: "ok" },
    ]);
  });

  it("begins with the most urgent", () => {
    const pins = [40, 20, 3, -3, -5].map((days) => spkiPin(mint({}).certificate, { notAfter: later(days * dayMs) }));
    expect(items({ partners: [acme(...pins)] }).map(({ daysLeft }) => daysLeft)).toEqual([-5, -3, 3, 20, 40]);
  });

  it("has the certificate of a pin that was seen last, and not one that it has superseded", () => {
    const pin = spkiPin(acmes.certificate);
    const uses = [used(pin, acmes.certificate, 1_000), used(pin, renewed.certificate, 2_000)];
    expect(told({ partners: [acme(pin)], uses })).toEqual(["partner certificate acme ok"]);
    const back = [used(pin, acmes.certificate, 3_000), used(pin, renewed.certificate, 2_000)];
    expect(told({ partners: [acme(pin)], uses: back })).toEqual(["partner certificate acme critical"]);
  });

  it("has nothing that another partner's pin was seen with, nor a pin that is gone", () => {
    const pin = spkiPin(acmes.certificate);
    const gone = certificatePin(acmes.certificate);
    const uses = [used(pin, acmes.certificate, 1_000, "globex"), used(gone, acmes.certificate, 1_000)];
    expect(told({ partners: [acme(pin), partner("globex")], uses })).toEqual([]);
  });

  it.each(["pending", "revoked"] as const)("has nothing of a pin that is %s", (state) => {
    const pin = anchorPin([ca.certificate], { state, notAfter: later(dayMs), revocationLists: [list(0)] });
    expect(told({ partners: [acme(pin)], uses: [used(pin, acmes.certificate, 1_000)] })).toEqual([]);
  });

  it("has nothing of a pin whose successor is in use, retired already or soon", () => {
    const old = spkiPin(acmes.certificate, { notAfter: later(dayMs) });
    const next = spkiPin(renewed.certificate, { state: "next" });
    const uses = [used(old, acmes.certificate, 1_000)];
    const seen: PinHistory = { firstSeen: (_, pin) => (pin === next ? new Date(now.getTime() - dayMs) : undefined) };
    expect(told({ partners: [acme(old, next)], uses })).toEqual([
      "pin acme critical",
      "partner certificate acme critical",
    ]);
    expect(told({ partners: [acme(old, next)], uses, history: seen })).toEqual([]);
  });

  it("has a pin that is past, and no certificate under it", () => {
    const pin = spkiPin(renewed.certificate, { notAfter: later(-1) });
    expect(told({ partners: [acme(pin)], uses: [used(pin, renewed.certificate, 1_000)] })).toEqual([
      "pin acme expired",
    ]);
  });

  it("has a partner's anchors and their revocation lists", () => {
    const lists = [list(2 * dayMs, ca.certificate), list(40 * dayMs, nextCa.certificate)];
    const pin = anchorPin([ca.certificate, nextCa.certificate], { revocationLists: lists });
    expect(told({ partners: [acme(pin)] })).toEqual([
      "revocation list acme critical",
      "trust anchor acme warning",
      "revocation list acme ok",
      "trust anchor acme ok",
    ]);
  });

  it("has of several revocation lists of one CA the one that lasts longest", () => {
    const pin = anchorPin([nextCa.certificate], { revocationLists: [list(-dayMs), list(2 * dayMs), list(40 * dayMs)] });
    expect(told({ partners: [acme(pin)] })).toEqual(["revocation list acme ok", "trust anchor acme ok"]);
  });

  it("misses only the last of several anchors in one file", () => {
    const soon = mint({ commonName: "ACME CA", ca: true, notAfter: "2026-06-16" });
    const past = mint({ commonName: "ACME CA 0", ca: true, notAfter: "2026-01-01" });
    const pin = anchorPin([past.certificate, soon.certificate, nextCa.certificate]);
    expect(told({ partners: [acme(pin)] })).toEqual([
      "trust anchor acme warning",
      "trust anchor acme warning",
      "trust anchor acme ok",
    ]);
    expect(told({ partners: [acme(anchorPin([past.certificate, soon.certificate]))] })).toEqual([
      "trust anchor acme critical",
      "trust anchor acme warning",
    ]);
  });

  it("has the anchors of next hops once for each file, inside before outside", () => {
    const inside = {
      ...route("internal", "internal", ["corp.example"]),
      servers: [server([ca.certificate]), server([ca.certificate])],
    };
    const deliver = {
      ...route("acme", "partner", ["acme.example"]),
      servers: [server([ca.certificate]), server([ca.certificate], "acme-ca.pem")],
    };
    const found = items({ routes: [inside], partners: [partner("acme", { deliver })] });
    expect(found.map(({ partner: name, file, at }) => [name, file, at?.path.join(".")])).toEqual([
      [undefined, "inside-ca.pem", "routes.internal.servers.0.tls.trust-anchor"],
      ["acme", "acme-ca.pem", "deliver.servers.1.tls.trust-anchor"],
    ]);
  });

  it("has our CA, but not twice where the configuration names it", () => {
    const authority = { file: "certs/ca.pem", certificate: ca.certificate };
    expect(told({ authority })).toEqual(["CA certificate warning"]);
    const pin = anchorPin([ca.certificate], { file: "certs/ca.pem" });
    expect(told({ authority, partners: [acme(pin)] })).toEqual(["trust anchor acme warning"]);
  });

  it("has what our CA signed for a partner until the partner shows a certificate", () => {
    const pin = spkiPin(acmes.certificate);
    const signed = [{ partner: "acme", file: "certs/partners/acme.pem", certificate: acmes.certificate }];
    const partners = [acme(pin)];
    expect(told({ partners, signed })).toEqual(["signed certificate acme critical"]);
    expect(told({ partners, signed, uses: [used(pin, renewed.certificate, 1_000)] })).toEqual([
      "partner certificate acme ok",
    ]);
    expect(told({ partners: [acme(spkiPin(renewed.certificate))], signed })).toEqual([]);
    expect(told({ partners: [acme({ ...pin, state: "revoked" })], signed })).toEqual([]);
    const { certificate } = mint({ notAfter: "2027-01-01" });
    const both = [...signed, { partner: "acme", file: "certs/partners/acme.2026-06-01.pem", certificate }];
    const two = acme(pin, spkiPin(certificate));
    expect(told({ partners: [two], signed: both })).toEqual([
      "signed certificate acme critical",
      "signed certificate acme ok",
    ]);
  });
});

describe("in words", () => {
  const [item] = items({ partners: [acme(spkiPin(lasting.certificate, { notAfter: later(5 * dayMs) }))] });
  if (item === undefined) throw new Error("no item");

  it("an end is told with how long it is until then, or since", () => {
    expect(expiryEnd(item)).toBe("ends on 2026-06-20, in 5 days");
    expect(expiryEnd({ ...item, daysLeft: 1 })).toContain("in 1 day");
    expect(expiryEnd({ ...item, daysLeft: 0 })).toContain("in less than a day");
    expect(expiryEnd({ ...item, daysLeft: -1 })).toBe("expired on 2026-06-20, less than a day ago");
    expect(expiryEnd({ ...item, daysLeft: -2 })).toContain("1 day ago");
  });

  it("a thing is told with whose it is, and what to do", () => {
    expect(expiryTitle(item)).toBe("acme: pin");
    expect(expiryAdvice(item)).toContain("pinrelay partner rollover acme");
    // With the same key a renewed certificate fits the pin of a key as it stands.
    const seen = { ...item, what: "partner certificate" } as const;
    expect(expiryAdvice(seen)).toContain("unless it keeps its key");
    expect(expiryAdvice({ ...seen, pin: "certificate sha256/x" })).not.toContain("unless");
  });

  it("many things are counted, the urgent ones apart", () => {
    const ok = { ...item, state: "ok" } as const;
    const warning = { ...item, state: "warning" } as const;
    expect(expiryCount([ok])).toBeUndefined();
    expect(expiryCount([warning, ok])).toBe("1 item runs out soon");
    expect(expiryCount([{ ...item, state: "expired" }, item, warning])).toBe(
      "3 items run out soon (1 expired, 1 critical)",
    );
    expect([ok, warning, item].map(isUrgent)).toEqual([false, false, true]);
  });
});

function list(leftMs: number, issuer: X509Certificate = nextCa.certificate): RevocationList {
  const isOf = (authority: X509Certificate): boolean => authority === issuer;
  return { file: "acme.crl", thisUpdate: now, nextUpdate: later(leftMs), isOf, revokes: () => false };
}
