/** Where a rollover stands, as a table over what was seen and what day it is. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Partner } from "../../src/partner/partner.ts";
import { pinKey, type Digest, type Pin, type PinState } from "../../src/partner/pin.ts";
import {
  pinRecord,
  retiresAt,
  rolloverState,
  rolloverWarningText,
  type PinHistory,
  type PinUse,
} from "../../src/partner/rollover.ts";
import { partner, source } from "./partners.ts";

const now = new Date("2027-06-15T12:00:00Z");
const dayMs = 86_400_000;
const inDays = (days: number): Date => new Date(now.getTime() + days * dayMs);
/** Its own end is far off, so that the pins' own dates decide here. */
const certificate = new X509Certificate(readFileSync(join(import.meta.dirname, "fixtures/leaf-a.pem")));

function pin(label: string, state: PinState, more: { notBefore?: Date; notAfter?: Date } = {}): Pin {
  const digest: Digest = `sha256/${label.padEnd(43, "A")}=`;
  return { kind: "spki", digest, label, state, notBefore: undefined, notAfter: undefined, source, ...more };
}

interface Seen {
  readonly pin: Pin;
  /** Days from now; negative ones are past. */
  readonly first: number;
  readonly last: number;
  readonly refused?: number;
}

function use({ pin: of, first, last, refused }: Seen): PinUse {
  return {
    partner: "acme",
    pin: pinKey(of),
    certificate,
    firstSeenMs: inDays(first).getTime(),
    lastSeenMs: inDays(last).getTime(),
    count: 3,
    addresses: ["203.0.113.5", "203.0.113.6"],
    refused: refused === undefined ? undefined : { count: 1, lastMs: inDays(refused).getTime() },
  };
}

function historyOf(seen: readonly Seen[]): PinHistory {
  return {
    firstSeen: (_, of) => {
      const found = seen.find((one) => pinKey(one.pin) === pinKey(of));
      return found === undefined ? undefined : inDays(found.first);
    },
  };
}

function stateOf(pins: readonly Pin[], seen: readonly Seen[] = []): ReturnType<typeof rolloverState> {
  const acme: Partner = partner("acme", { pins });
  return rolloverState(acme, seen.map(use), historyOf(seen), now);
}

const old = pin("old", "active");
const oldFor = (days: number): Pin => pin("old", "active", { notAfter: inDays(days) });
const next = pin("next", "next");
const pending = pin("next", "pending");

describe("rolloverState", () => {
  it.each<{ what: string; pins: Pin[]; seen?: Seen[]; kind: string; warnings?: string[] }>([
    { what: "one pin", pins: [old], kind: "none" },
    { what: "a first pin that is not confirmed", pins: [pending], kind: "none" },
    { what: "a next pin alone", pins: [next], kind: "none" },
    { what: "a revoked pin and a next one", pins: [pin("old", "revoked"), next], kind: "none" },
    { what: "a pending pin", pins: [old, pending], kind: "unconfirmed" },
    {
      what: "a pending pin, and the old one ends soon",
      pins: [oldFor(9), pending],
      kind: "unconfirmed",
      warnings: ["unconfirmed"],
    },
    { what: "a next pin that was never seen", pins: [old, next], kind: "waiting" },
    { what: "the same, and the old one ends later", pins: [oldFor(40), next], kind: "waiting" },
    { what: "the same, and the old one ends soon", pins: [oldFor(9), next], kind: "waiting", warnings: ["nextUnseen"] },
    { what: "the same, and the old one ended", pins: [oldFor(-1), next], kind: "waiting", warnings: ["nextUnseen"] },
    {
      what: "the same, and one of two old ones has no end",
      pins: [oldFor(9), pin("older", "active"), next],
      kind: "waiting",
    },
    {
      what: "a next pin that was expected long ago",
      pins: [old, pin("next", "next", { notBefore: inDays(-20) })],
      kind: "waiting",
      warnings: ["nextUnseen"],
    },
    {
      what: "a next pin of the other day",
      pins: [old, pin("next", "next", { notBefore: inDays(-2) })],
      kind: "waiting",
    },
    { what: "a next pin in use", pins: [old, next], seen: [{ pin: next, first: -3, last: 0 }], kind: "overlapping" },
    {
      what: "a next pin in use, and the old one early in the overlap",
      pins: [old, next],
      seen: [
        { pin: next, first: -3, last: 0 },
        { pin: old, first: -300, last: 0 },
      ],
      kind: "overlapping",
    },
    {
      what: "the old one in use close to its retirement",
      pins: [old, next],
      seen: [
        { pin: next, first: -10, last: 0 },
        { pin: old, first: -300, last: -1 },
      ],
      kind: "overlapping",
      warnings: ["oldInUse"],
    },
    {
      what: "the old one last used before the next",
      pins: [old, next],
      seen: [
        { pin: next, first: -10, last: 0 },
        { pin: old, first: -300, last: -11 },
      ],
      kind: "overlapping",
    },
    {
      what: "the old one in use close to its end",
      pins: [oldFor(5), next],
      seen: [
        { pin: next, first: -2, last: 0 },
        { pin: old, first: -300, last: 0 },
      ],
      kind: "overlapping",
      warnings: ["oldInUse"],
    },
    {
      what: "an old one that has retired",
      pins: [old, next],
      seen: [{ pin: next, first: -14, last: 0 }],
      kind: "retired",
      warnings: ["retiredPins"],
    },
    {
      what: "a retired one that is still tried",
      pins: [old, next],
      seen: [
        { pin: next, first: -20, last: 0 },
        { pin: old, first: -300, last: -7, refused: -1 },
      ],
      kind: "retired",
      warnings: ["retiredPins", "retiredInUse"],
    },
  ])("is $kind, and warns of $warnings, with $what", ({ pins, seen = [], kind, warnings = [] }) => {
    const state = stateOf(pins, seen);
    expect(state.kind).toBe(kind);
    expect(state.warnings.map((warning) => warning.kind)).toEqual(warnings);
  });

  it("tells when the old one retires, as judgements do", () => {
    const seen = [{ pin: next, first: -3, last: 0 }];
    expect(stateOf([old, next], seen)).toMatchObject({ nextFirstSeen: inDays(-3), retiresAt: inDays(11) });
    expect(retiresAt(partner("acme", { pins: [old, next] }), old, historyOf(seen))).toEqual(inDays(11));
  });

  it("knows nothing from another partner's uses", () => {
    const others = { ...use({ pin: old, first: -9, last: 0 }), partner: "globex" };
    expect(pinRecord(partner("acme", { pins: [old] }), old, [others])).toMatchObject({ firstSeen: undefined });
  });
});

describe("rolloverWarningText", () => {
  const acme = (pins: readonly Pin[]): Partner => partner("acme", { pins });
  it.each<{ pins: Pin[]; seen?: Seen[]; says: RegExp }>([
    {
      pins: [oldFor(9), pending],
      says: /'next' is not confirmed, and the old one ends on 2027-06-24, in 9 days: .* confirm acme FINGERPRINT/,
    },
    { pins: [oldFor(9), next], says: /'next' has never been used, and the old one ends on 2027-06-24, in 9 days/ },
    { pins: [oldFor(-1), next], says: /and the old one ended on 2027-06-14/ },
    { pins: [old, pin("next", "next", { notBefore: inDays(-20) })], says: /though it was expected from 2027-05-26/ },
    {
      pins: [old, next],
      seen: [
        { pin: next, first: -10, last: 0 },
        { pin: old, first: -300, last: -1 },
      ],
      says: /'old' was used by 203\.0\.113\.5 on 2027-06-14, and retires on 2027-06-19, in 4 days/,
    },
    {
      pins: [old, next],
      seen: [{ pin: next, first: -15, last: 0 }],
      says: /'old' has retired .* rollover acme --finish/,
    },
  ])("says what to do: $says", ({ pins, seen = [], says }) => {
    const text = stateOf(pins, seen).warnings.map((warning) => rolloverWarningText(warning, acme(pins), now));
    expect(text).toHaveLength(1);
    expect(text[0]).toMatch(says);
  });
});
