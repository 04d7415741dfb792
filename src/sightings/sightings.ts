/**
 * Sightings: what the receiver remembers of the certificates that it was shown. Those that let a partner in, by the pin
 * that they matched: they say when a rollover's next pin came into use, and what a partner uses before it runs out. And
 * the quarantine: certificates that nobody knows, from a partner's own address, for the operator to confirm. Pure.
 */
import { createHash, type X509Certificate } from "node:crypto";
import type { PeerIdentity } from "../partner/identity.ts";
import type { Partner } from "../partner/partner.ts";
import { pinKey, type Pin } from "../partner/pin.ts";
import type { PinHistory } from "../partner/rollover.ts";

export interface CertificateSighting {
  /** As the reply to the peer names it: see {@link quarantineId}. */
  readonly id: string;
  readonly certificate: X509Certificate;
  readonly firstSeenMs: number;
  readonly lastSeenMs: number;
  /** In how many sessions. */
  readonly count: number;
  /** The last few, the latest first. */
  readonly addresses: readonly string[];
}

/** A certificate that let a partner in. A pin of a key or of a trust anchor may have several. */
export interface PinSighting extends CertificateSighting {
  readonly partner: string;
  /** The {@link pinKey} of the pin that it matched. */
  readonly pin: string;
  /** When the pin let the partner in first, by this or by another certificate. */
  readonly pinFirstSeenMs: number;
  /** When the pin let the partner in first while it was the `next` one; undefined: it has not, or it is no longer. */
  readonly pinNextSinceMs: number | undefined;
  /** Uses since the pin no longer counts, because it is revoked or retired; undefined: none. */
  readonly refused: { readonly count: number; readonly lastMs: number } | undefined;
}

/** A certificate that nobody knows, shown from the address of a partner. */
export interface Quarantined extends CertificateSighting {
  /** The names of those whose hosts the address is among. */
  readonly partners: readonly string[];
}

/** Who is told of what the receiver sees, and knows what it saw. Costs next to nothing, and never fails. */
export interface Witness extends PinHistory {
  noteIdentified(identity: PeerIdentity, chain: readonly X509Certificate[], address: string, now: Date): void;
  /** A certificate of a revoked or retired pin was refused. */
  noteRefused(identity: PeerIdentity, chain: readonly X509Certificate[], now: Date): void;
  /** @returns the id to be told to the peer. */
  noteUnknown(chain: readonly X509Certificate[], addressOf: readonly Partner[], address: string, now: Date): string;
}

/** Remembers nothing: for whoever asks what the receiver would say, and is no peer. */
export function onlooker(history: PinHistory): Witness {
  return {
    firstSeen: (partner, pin) => history.firstSeen(partner, pin),
    noteIdentified: () => undefined,
    noteRefused: () => undefined,
    noteUnknown: ([leaf]) => (leaf === undefined ? "" : quarantineId(leaf)),
  };
}

/**
 * The first 12 hexadecimal digits of the SHA-256 of the certificate: enough to say over the phone which one is meant, not
 * enough to confirm it. Whoever makes certificates can make two with one id.
 */
export function quarantineId(certificate: X509Certificate): string {
  return createHash("sha256").update(certificate.raw).digest("hex").slice(0, 12);
}

/** When the partner was let in by a pin, for judgements: of a `next` pin, while it was the next one. */
export function historyOf(sightings: readonly PinSighting[]): PinHistory {
  const seen = new Map<string, PinSighting>();
  for (const sighting of sightings) seen.set(usageKey(sighting.partner, sighting.pin), sighting);
  return {
    firstSeen(partner, pin) {
      const sighting = seen.get(usageKey(partner.name, pinKey(pin)));
      return sighting === undefined ? undefined : firstSeenAs(pin, sighting.pinFirstSeenMs, sighting.pinNextSinceMs);
    },
  };
}

/**
 * A pin that was in use once, and is now to be the next one, has not been seen as such: the time until the others retire
 * begins with its first use as the next one.
 */
export function firstSeenAs(pin: Pin, firstSeenMs: number, nextSinceMs: number | undefined): Date | undefined {
  if (pin.state !== "next") return new Date(firstSeenMs);
  return nextSinceMs === undefined ? undefined : new Date(nextSinceMs);
}

/** A partner's pin as the key of a map. */
export function usageKey(partner: string, pin: string): string {
  return `${partner} ${pin}`; // a partner's name has no space
}
