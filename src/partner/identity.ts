/**
 * Who is this? From an address and a certificate to a partner, or to the reason why not.
 *
 * Promises: the answer depends on the certificate's own bytes, its dates and the pins alone; the verdict of the TLS
 * library (`authorized`) is never asked, because it is true for sessions that showed no certificate. Partners may share
 * addresses: the certificate decides. Pure: the clock is passed in.
 *
 * The caller has the proof of possession of the private key: TLS gives it in the handshake.
 */
import type { X509Certificate } from "node:crypto";
import { addressBytes, maskBytes, rangeHolds } from "./address-range.ts";
import type { Partner } from "./partner.ts";
import { judgePaths, judgeValidity, mayAuthenticateClients, pathsTo } from "./path.ts";
import { pathRules } from "./path-rules.ts";
import { certificateDigest, spkiDigest, type Pin } from "./pin.ts";
import { noHistory, retiresAt, type PinHistory } from "./rollover.ts";

/** What a peer showed: its address, and its certificate with those it sent along, leaf first. */
export interface PeerCredentials {
  readonly address: string;
  readonly chain: readonly X509Certificate[];
}

/** A peer that has been identified. */
export interface PeerIdentity {
  readonly partner: Partner;
  readonly pin: Pin;
}

export type PeerJudgement =
  | { readonly kind: "partner"; readonly identity: PeerIdentity }
  /** `addressOf` is empty where the address is let in only because some partner lists `any`. */
  | { readonly kind: "noCertificate"; readonly addressOf: readonly Partner[] }
  | { readonly kind: "unknownCertificate"; readonly addressOf: readonly Partner[] }
  | { readonly kind: "wrongAddress"; readonly partner: Partner; readonly pin: Pin }
  | { readonly kind: "expired"; readonly partner: Partner; readonly pin: Pin; readonly since: Date }
  | { readonly kind: "notYetValid"; readonly partner: Partner; readonly pin: Pin; readonly from: Date }
  /** The pin waits for its confirmation. */
  | { readonly kind: "pending"; readonly partner: Partner; readonly pin: Pin }
  /** The operator revoked the pin, or the certificate is on its CA's list. */
  | { readonly kind: "revoked"; readonly partner: Partner; readonly pin: Pin; readonly by: "operator" | "list" }
  /** The next pin has replaced it. */
  | { readonly kind: "retired"; readonly partner: Partner; readonly pin: Pin; readonly since: Date }
  /** The CA's revocation list is out of date, or its CA has none in a file that must have it: nothing is known. */
  | { readonly kind: "revocationUnknown"; readonly partner: Partner; readonly pin: Pin; readonly since: Date }
  | { readonly kind: "wrongKeyUsage"; readonly partner: Partner; readonly pin: Pin }
  | { readonly kind: "unknownAddress" };

interface Anchored {
  readonly partner: Partner;
  readonly pin: Pin & { readonly kind: "trustAnchor" };
  readonly position: number;
}

/** DNS names in a certificate: one with more fits no trust anchor. CAs put in some hundreds at most. */
const namesMax = 500;

/** The partners, indexed: a look-up costs the same with ten partners and with ten thousand. */
export class PartnerIndex {
  readonly partners: readonly Partner[];
  readonly #byDigest = new Map<string, PeerIdentity[]>();
  /** By the pin's name, and by what a wildcard for it would say. */
  readonly #anchored = new Map<string, Anchored[]>();
  #anchors = 0;
  /** Per address length and prefix length: network → partners. */
  readonly #networks = new Map<string, Map<string, Set<Partner>>>();
  readonly #anywhere: boolean;

  constructor(partners: readonly Partner[]) {
    this.partners = partners;
    for (const partner of partners) {
      for (const pin of partner.pins) this.#indexPin(partner, pin);
      for (const host of partner.hosts) {
        if (host.kind === "network") this.#indexNetwork(partner, host.bytes, host.prefixBits);
      }
    }
    this.#anywhere = partners.some((partner) => partner.hosts.some((host) => host.kind === "any"));
  }

  /** The partners that list this address, by a network; those that list `any` are not among them. */
  partnersAt(address: string): Partner[] {
    const bytes = addressBytes(address);
    if (bytes === undefined) return [];
    const found = new Set<Partner>();
    for (const [shape, networks] of this.#networks) {
      const [length, prefixBits] = shape.split("/").map(Number);
      if (length !== bytes.length || prefixBits === undefined) continue;
      for (const partner of networks.get(maskBytes(bytes, prefixBits).join(".")) ?? []) found.add(partner);
    }
    return [...found];
  }

  /** May a peer at this address talk to us at all? */
  isKnownAddress(address: string): boolean {
    return this.#anywhere || this.partnersAt(address).length > 0;
  }

  /** The pins that the chain satisfies by key, certificate or anchor and name; dates are not looked at. */
  matches(chain: readonly X509Certificate[]): PeerIdentity[] {
    const leaf = chain[0];
    if (leaf === undefined) return [];
    const byDigest = [spkiDigest(leaf), `cert ${certificateDigest(leaf)}`].flatMap(
      (key) => this.#byDigest.get(key) ?? [],
    );
    // To ask for each pinned name would take seconds, where a peer's certificate has thousands of names and so have we.
    const names = [...new Set(pathRules(leaf)?.dnsNames)];
    const candidates = names.length > namesMax ? [] : names.flatMap((name) => this.#anchored.get(name) ?? []);
    const byAnchor = [...new Set(candidates)]
      .filter(({ pin }) => carriesName(leaf, pin.name) && pathsTo(chain, pin.anchors, pin.name).length > 0)
      .toSorted((a, b) => a.position - b.position) // the order is the files', not the peer's
      .map(({ partner, pin }) => ({ partner, pin }));
    return [...byDigest, ...byAnchor];
  }

  #indexPin(partner: Partner, pin: Pin): void {
    switch (pin.kind) {
      case "spki":
        append(this.#byDigest, pin.digest, { partner, pin });
        break;
      case "certificate":
        append(this.#byDigest, `cert ${pin.digest}`, { partner, pin });
        break;
      case "trustAnchor": {
        const anchored = { partner, pin, position: (this.#anchors += 1) };
        append(this.#anchored, pin.name, anchored);
        append(this.#anchored, pin.name.replace(/^[^.]+/, "*"), anchored);
        break;
      }
    }
  }

  #indexNetwork(partner: Partner, bytes: readonly number[], prefixBits: number): void {
    const shape = `${bytes.length}/${prefixBits}`;
    const networks = this.#networks.get(shape) ?? new Map<string, Set<Partner>>();
    this.#networks.set(shape, networks);
    const key = bytes.join(".");
    networks.set(key, (networks.get(key) ?? new Set()).add(partner));
  }
}

/**
 * Which partner is this peer? A pin with dates counts between them; a certificate counts within its own validity. Where
 * several pins match, any one that holds up suffices, and of the failures the most telling is given.
 */
export function judgePeer(
  index: PartnerIndex,
  peer: PeerCredentials,
  now: Date,
  history: PinHistory = noHistory,
): PeerJudgement {
  if (!index.isKnownAddress(peer.address)) return { kind: "unknownAddress" };
  const leaf = peer.chain[0];
  if (leaf === undefined) return { kind: "noCertificate", addressOf: index.partnersAt(peer.address) };
  const judged = inForce(index.matches(peer.chain)).map((match) => judgeMatch(match, peer, leaf, now, history));
  return (
    judged.find((judgement) => judgement.kind === "partner") ??
    judged.find((judgement) => judgement.kind !== "wrongAddress") ??
    judged[0] ?? { kind: "unknownCertificate", addressOf: index.partnersAt(peer.address) }
  );
}

/**
 * Without the matches that a revoked key or certificate takes along: what the operator revoked does not come in by its
 * CA, nor by another pin of the same key. A revoked trust anchor speaks for itself only.
 */
function inForce(matches: readonly PeerIdentity[]): PeerIdentity[] {
  const revoked = matches.filter(({ pin }) => pin.state === "revoked" && pin.kind !== "trustAnchor");
  const vetoed = new Set(revoked.map(({ partner }) => partner));
  return matches.filter((match) => !vetoed.has(match.partner) || revoked.includes(match));
}

function judgeMatch(
  match: PeerIdentity,
  peer: PeerCredentials,
  leaf: X509Certificate,
  now: Date,
  history: PinHistory,
): PeerJudgement {
  const { partner, pin } = match;
  if (!partner.hosts.some((range) => rangeHolds(range, peer.address))) return { kind: "wrongAddress", partner, pin };
  if (pin.state === "revoked") return { kind: "revoked", partner, pin, by: "operator" };
  if (pin.state === "pending") return { kind: "pending", partner, pin };
  const outside = judgeValidity(leaf, now);
  if (outside?.kind === "notYetValid") return { ...outside, partner, pin };
  if (pin.notBefore !== undefined && now < pin.notBefore)
    return { kind: "notYetValid", partner, pin, from: pin.notBefore };
  if (outside !== undefined) return { ...outside, partner, pin };
  if (pin.notAfter !== undefined && now > pin.notAfter) return { kind: "expired", partner, pin, since: pin.notAfter };
  const retired = retiresAt(partner, pin, history);
  if (retired !== undefined && now >= retired) return { kind: "retired", partner, pin, since: retired };
  if (partner.extendedKeyUsage === "clientAuth" && !mayAuthenticateClients(leaf)) {
    return { kind: "wrongKeyUsage", partner, pin };
  }
  if (pin.kind === "trustAnchor") {
    const paths = pathsTo(peer.chain, pin.anchors, pin.name);
    const fault = judgePaths(paths, pin, partner.extendedKeyUsage, now);
    if (fault !== undefined) return { ...fault, partner, pin };
  }
  return { kind: "partner", identity: match };
}

/** Does the certificate carry the DNS name as a subjectAltName (RFC 9525 §6.3: the subject is not looked at)? */
export function carriesName(certificate: X509Certificate, name: string): boolean {
  return certificate.checkHost(name, { subject: "never", partialWildcards: false }) !== undefined;
}

function append<V>(map: Map<string, V[]>, key: string, value: V): void {
  const values = map.get(key);
  if (values === undefined) map.set(key, [value]);
  else values.push(value);
}
