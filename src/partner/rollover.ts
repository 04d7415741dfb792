/**
 * Rollover: from the pins in use to the next one. While a partner has a `next` pin, both count; once the next has been in
 * use for `retireAfterMs` the active ones retire by themselves. Pure: what was seen when, and the clock, are passed in.
 */
import type { X509Certificate } from "node:crypto";
import type { Partner } from "./partner.ts";
import { pinKey, type Pin } from "./pin.ts";

/** What the receiver has seen of pins in use, as far as it remembers. */
export interface PinHistory {
  /** When the partner was first let in by this pin; undefined: never yet. */
  firstSeen(partner: Partner, pin: Pin): Date | undefined;
}

/** For whoever knows nothing of the past. */
export const noHistory: PinHistory = { firstSeen: () => undefined };

/** When the pin gives way to the partner's next one; undefined: no next one has been seen yet, or this is the next one. */
export function retiresAt(partner: Partner, pin: Pin, history: PinHistory): Date | undefined {
  if (pin.state !== "active") return undefined;
  const seen = partner.pins
    .filter(({ state }) => state === "next")
    .flatMap((next) => history.firstSeen(partner, next)?.getTime() ?? []);
  return seen.length === 0 ? undefined : new Date(Math.min(...seen) + partner.rollover.retireAfterMs);
}

/** One certificate by which a partner was let in under one pin. */
export interface PinUse {
  /** The partner's name. */
  readonly partner: string;
  /** {@link pinKey}. */
  readonly pin: string;
  readonly certificate: X509Certificate;
  readonly firstSeenMs: number;
  readonly lastSeenMs: number;
  readonly count: number;
  /** The last few it came from, the latest first. */
  readonly addresses: readonly string[];
  /** Uses since the pin no longer counts; undefined: none. */
  readonly refused: { readonly count: number; readonly lastMs: number } | undefined;
}

/** What is known of one pin in use, over all certificates that it let in. */
export interface PinRecord {
  readonly firstSeen: Date | undefined;
  readonly lastSeen: Date | undefined;
  readonly lastAddress: string | undefined;
  /** The last try after it no longer counted. */
  readonly lastRefused: Date | undefined;
  /** The certificate as last seen. */
  readonly certificate: X509Certificate | undefined;
  /** When it stops being of use: by its own `not-after` or the end of that certificate, whichever is earlier. */
  readonly ends: Date | undefined;
}

/** Where a partner stands between its old pins and the next. */
export type RolloverPhase =
  | { readonly kind: "none" }
  /** A pin is to come, and nobody has confirmed it yet. */
  | { readonly kind: "unconfirmed"; readonly old: readonly Pin[]; readonly pending: readonly Pin[] }
  /** The next pin counts, and has not been seen yet. */
  | { readonly kind: "waiting"; readonly old: readonly Pin[]; readonly next: readonly Pin[] }
  | {
      readonly kind: "overlapping";
      readonly old: readonly Pin[];
      readonly next: readonly Pin[];
      readonly nextFirstSeen: Date;
      readonly retiresAt: Date;
    }
  | { readonly kind: "retired"; readonly old: readonly Pin[]; readonly next: readonly Pin[]; readonly since: Date };

export type RolloverWarning =
  /** Its old one ends soon, or did: then the partner's mail stops unless somebody compares fingerprints. */
  | { readonly kind: "unconfirmed"; readonly pending: Pin; readonly ends: Date }
  /** The next one has not been used yet; `ends`: when the old one does, where that is soon, or past. */
  | { readonly kind: "nextUnseen"; readonly next: Pin; readonly ends: Date | undefined }
  | {
      readonly kind: "oldInUse";
      readonly old: Pin;
      readonly lastSeen: Date;
      readonly address: string | undefined;
      readonly stops: Date;
      readonly because: "end" | "retirement";
    }
  /** The file still has pins that no longer count. */
  | { readonly kind: "retiredPins"; readonly old: readonly Pin[] }
  /** Some host of the partner still tries with the old one: its mail waits there. */
  | {
      readonly kind: "retiredInUse";
      readonly old: Pin;
      readonly lastRefused: Date;
      readonly address: string | undefined;
    };

export type RolloverState = RolloverPhase & { readonly warnings: readonly RolloverWarning[] };

const dayMs = 86_400_000;
const warnByDefaultMs = 30 * dayMs;

/**
 * Where the partner's rollover stands at `now`, and what somebody should do something about.
 * @param uses of all partners or of this one; `history` knows when each pin came into use, as the receiver does.
 * @param warnMs how long before the end of a pin the warnings begin.
 */
export function rolloverState(
  partner: Partner,
  uses: readonly PinUse[],
  history: PinHistory,
  now: Date,
  warnMs: number = warnByDefaultMs,
): RolloverState {
  const phase = rolloverPhase(partner, history, now);
  return { ...phase, warnings: warningsOf(phase, partner, uses, now, warnMs) };
}

function rolloverPhase(partner: Partner, history: PinHistory, now: Date): RolloverPhase {
  const inState = (wanted: Pin["state"]): Pin[] => partner.pins.filter(({ state }) => state === wanted);
  const [old, next, pending] = [inState("active"), inState("next"), inState("pending")];
  const [first] = old;
  if (first === undefined) return { kind: "none" }; // one pin to begin with is no rollover
  if (next.length === 0) return pending.length === 0 ? { kind: "none" } : { kind: "unconfirmed", old, pending };
  const at = retiresAt(partner, first, history);
  if (at === undefined) return { kind: "waiting", old, next };
  if (now >= at) return { kind: "retired", old, next, since: at };
  const nextFirstSeen = new Date(at.getTime() - partner.rollover.retireAfterMs);
  return { kind: "overlapping", old, next, nextFirstSeen, retiresAt: at };
}

function warningsOf(
  phase: RolloverPhase,
  partner: Partner,
  uses: readonly PinUse[],
  now: Date,
  warnMs: number,
): RolloverWarning[] {
  const isSoon = (date: Date): boolean => date.getTime() - now.getTime() <= warnMs;
  switch (phase.kind) {
    case "none":
      return [];
    case "unconfirmed": {
      const ends = lastEnd(partner, phase.old, uses);
      if (ends === undefined || !isSoon(ends)) return [];
      return phase.pending.map((pending) => ({ kind: "unconfirmed", pending, ends }));
    }
    case "waiting": {
      const ends = lastEnd(partner, phase.old, uses);
      const soon = ends !== undefined && isSoon(ends) ? ends : undefined;
      // Before its day the next one is not expected, and on the day itself it need not come.
      const overdue = phase.next.filter(
        ({ notBefore }) =>
          notBefore !== undefined && now.getTime() - notBefore.getTime() > partner.rollover.retireAfterMs,
      );
      return (soon === undefined ? overdue : phase.next).map((next) => ({ kind: "nextUnseen", next, ends: soon }));
    }
    case "overlapping":
      return phase.old.flatMap((old) => oldInUse(partner, old, phase.retiresAt, uses, now, isSoon) ?? []);
    case "retired":
      return [
        { kind: "retiredPins", old: phase.old },
        ...phase.old.flatMap((old): RolloverWarning[] => {
          const { lastRefused, lastAddress: address } = pinRecord(partner, old, uses);
          return lastRefused === undefined ? [] : [{ kind: "retiredInUse", old, lastRefused, address }];
        }),
      ];
  }
}

/** Half the time of the overlap has gone, and in that half the old one was used: somebody has forgotten a host. */
function oldInUse(
  partner: Partner,
  old: Pin,
  retires: Date,
  uses: readonly PinUse[],
  now: Date,
  isSoon: (date: Date) => boolean,
): RolloverWarning | undefined {
  const { lastSeen, lastAddress: address, ends } = pinRecord(partner, old, uses);
  const halfMs = partner.rollover.retireAfterMs / 2;
  if (lastSeen === undefined || lastSeen.getTime() <= retires.getTime() - 2 * halfMs) return undefined;
  if (now.getTime() - lastSeen.getTime() > halfMs) return undefined;
  if (ends !== undefined && ends < retires) {
    return isSoon(ends) ? { kind: "oldInUse", old, lastSeen, address, stops: ends, because: "end" } : undefined;
  }
  if (retires.getTime() - now.getTime() > halfMs) return undefined;
  return { kind: "oldInUse", old, lastSeen, address, stops: retires, because: "retirement" };
}

/** What is known of a pin from its uses. */
export function pinRecord(partner: Partner, pin: Pin, uses: readonly PinUse[]): PinRecord {
  const key = pinKey(pin);
  const own = uses
    .filter((use) => use.partner === partner.name && use.pin === key)
    .toSorted((a, b) => a.lastSeenMs - b.lastSeenMs);
  const last = own.at(-1);
  const refused = own.flatMap(({ refused: tries }) => tries?.lastMs ?? []);
  const ends = [pin.notAfter, last?.certificate.validToDate].flatMap((date) => date?.getTime() ?? []);
  return {
    firstSeen: own.length === 0 ? undefined : new Date(Math.min(...own.map(({ firstSeenMs }) => firstSeenMs))),
    lastSeen: last === undefined ? undefined : new Date(last.lastSeenMs),
    lastAddress: last?.addresses[0],
    lastRefused: refused.length === 0 ? undefined : new Date(Math.max(...refused)),
    certificate: last?.certificate,
    ends: ends.length === 0 ? undefined : new Date(Math.min(...ends)),
  };
}

/** When the last of them ends; undefined where one of them is not known to end. */
function lastEnd(partner: Partner, pins: readonly Pin[], uses: readonly PinUse[]): Date | undefined {
  const ends = pins.map((pin) => pinRecord(partner, pin, uses).ends?.getTime());
  const known = ends.filter((end) => end !== undefined);
  return known.length < ends.length || known.length === 0 ? undefined : new Date(Math.max(...known));
}

/** A pin in a few words: its label, or enough of its digest to tell two apart. */
export function pinTitle(pin: Pin): string {
  if (pin.label !== undefined && pin.label !== "") return `'${pin.label}'`;
  switch (pin.kind) {
    case "spki":
      return `key ${pin.digest.slice(7, 15)}`;
    case "certificate":
      return `certificate ${pin.digest.slice(7, 15)}`;
    case "trustAnchor":
      return `CA for ${pin.name}`;
  }
}

/** A warning as a clause after the partner's name; it says what to do. */
export function rolloverWarningText(warning: RolloverWarning, partner: Partner, now: Date): string {
  switch (warning.kind) {
    case "unconfirmed":
      return `the new pin ${pinTitle(warning.pending)} is not confirmed, and the old one ${endText(warning.ends, now)}: compare fingerprints and run pinrelay partner confirm ${partner.name} FINGERPRINT`;
    case "nextUnseen": {
      const { next, ends } = warning;
      const why =
        ends === undefined
          ? `though it was expected from ${dayText(next.notBefore ?? now)}`
          : `and the old one ${endText(ends, now)}`;
      return `the next pin ${pinTitle(next)} has never been used, ${why}: ask the partner when it changes over`;
    }
    case "oldInUse": {
      const { old, lastSeen, address, stops, because } = warning;
      const from = address === undefined ? "" : ` by ${address}`;
      const stop = because === "end" ? endText(stops, now) : `retires on ${dayText(stops)}, ${inDays(stops, now)}`;
      return `the old pin ${pinTitle(old)} was used${from} on ${dayText(lastSeen)}, and ${stop}: tell the partner which host still has the old certificate`;
    }
    case "retiredPins":
      return `the old pin ${warning.old.map(pinTitle).join(", ")} has retired and no longer counts: tidy the file with pinrelay partner rollover ${partner.name} --finish`;
    case "retiredInUse": {
      const from = warning.address === undefined ? "" : ` from ${warning.address}`;
      return `the old pin ${pinTitle(warning.old)} has retired, and was tried${from} on ${dayText(warning.lastRefused)}: tell the partner which host still has the old certificate`;
    }
  }
}

function endText(date: Date, now: Date): string {
  return date < now ? `ended on ${dayText(date)}` : `ends on ${dayText(date)}, ${inDays(date, now)}`;
}

function inDays(date: Date, now: Date): string {
  const days = Math.floor((date.getTime() - now.getTime()) / dayMs);
  return days < 1 ? "today or tomorrow" : `in ${days} ${days === 1 ? "day" : "days"}`;
}

function dayText(date: Date): string {
  return date.toISOString().slice(0, 10);
}
