/**
 * Certification paths: from a peer's certificate over those that it sent along to an anchor of the operator's, and what
 * may be wrong with one (RFC 5280 §6.1). The verdict of the TLS library is not asked: it knows neither partner nor pin.
 *
 * Promises: a path is found only where every issuer is a CA whose name, key usage, path length and name constraints fit
 * and whose key made the signature, over a hash that is not broken. Work is bounded, whatever the peer sends: at most
 * {@link chainLengthMax} of its certificates are looked at, and no signature is checked twice. Pure: the clock is passed
 * in.
 */
import type { X509Certificate } from "node:crypto";
import { mayVouchFor, pathRules } from "./path-rules.ts";
import type { Pin } from "./pin.ts";

/** From the leaf to the anchor, both included. */
export type Path = readonly X509Certificate[];

export const chainLengthMax = 6;

/**
 * All paths from the leaf, which stands first, to one of the anchors; dates are not looked at. There may be several:
 * CAs sign each other, and what is wrong with one path is not wrong with every other.
 * @param name the DNS name that the leaf is asked for: each CA must be one that may vouch for it.
 */
export function pathsTo(chain: readonly X509Certificate[], anchors: readonly X509Certificate[], name: string): Path[] {
  const [leaf, ...issuers] = chain.slice(0, chainLengthMax);
  if (leaf === undefined) return [];
  const found: Path[] = [];
  const follow = (path: Path, last: X509Certificate): void => {
    for (const anchor of anchors) if (isIssuedBy(last, anchor)) found.push([...path, anchor]);
    for (const issuer of issuers) {
      // An anchor ends a path; what the peer sends of it once more does not lead on.
      if (path.some((one) => isSame(one, issuer)) || anchors.some((one) => isSame(one, issuer))) continue;
      if (isIssuedBy(last, issuer)) follow([...path, issuer], issuer);
    }
  };
  follow([leaf], leaf);
  return found.filter((path) => keepsRules(path, name));
}

/** Key usages, path lengths and name constraints along the path, and nothing critical that is not understood. */
function keepsRules(path: Path, name: string): boolean {
  let intermediates = 0;
  for (const [index, certificate] of path.entries()) {
    const rules = pathRules(certificate);
    if (rules === undefined || rules.foreignCritical.length > 0) return false;
    if (index === 0) continue;
    if (rules.pathLengthMax !== undefined && intermediates > rules.pathLengthMax) return false;
    if (!mayVouchFor(rules, name)) return false;
    // A CA that signs its own next key makes the path no longer (RFC 5280 §4.2.1.9).
    if (!rules.subject.equals(rules.issuer)) intermediates += 1;
  }
  return true;
}

export type PathFault =
  | { readonly kind: "revoked"; readonly by: "list" }
  | { readonly kind: "expired"; readonly since: Date }
  | { readonly kind: "notYetValid"; readonly from: Date }
  | { readonly kind: "wrongKeyUsage" }
  | { readonly kind: "revocationUnknown"; readonly since: Date };

/** The most telling first: what a new path would not mend. */
const byWeight: ReadonlyArray<PathFault["kind"]> = [
  "revoked",
  "expired",
  "notYetValid",
  "wrongKeyUsage",
  "revocationUnknown",
];

/** What is wrong with all of the paths; undefined where one of them holds. */
export function judgePaths(
  paths: readonly Path[],
  pin: Pin & { readonly kind: "trustAnchor" },
  extendedKeyUsage: "clientAuth" | "any",
  now: Date,
): PathFault | undefined {
  const faults = paths.map((path) => judgePath(path, pin, extendedKeyUsage, now));
  if (faults.includes(undefined)) return undefined;
  return byWeight.map((kind) => faults.find((fault) => fault?.kind === kind)).find((fault) => fault !== undefined);
}

function judgePath(
  path: Path,
  pin: Pin & { readonly kind: "trustAnchor" },
  extendedKeyUsage: "clientAuth" | "any",
  now: Date,
): PathFault | undefined {
  // A stale list still tells what was revoked while it was fresh.
  if (path.some((certificate, index) => isListed(certificate, path[index + 1], pin)))
    return { kind: "revoked", by: "list" };
  const outside = path.slice(1).flatMap((issuer) => judgeValidity(issuer, now) ?? []);
  const [worst] = outside.toSorted((a, b) => byWeight.indexOf(a.kind) - byWeight.indexOf(b.kind));
  if (worst !== undefined) return worst;
  // The anchor is the operator's choice; those below it may be meant for something else.
  if (extendedKeyUsage === "clientAuth" && !path.slice(0, -1).every(mayAuthenticateClients)) {
    return { kind: "wrongKeyUsage" };
  }
  return judgeFreshness(path[1], pin, now);
}

/**
 * Is the certificate outside of its dates? One whose dates cannot be read has none within which it would count: it is
 * taken for one that ended long ago.
 */
export function judgeValidity(
  { validFromDate, validToDate }: X509Certificate,
  now: Date,
): Extract<PathFault, { readonly kind: "expired" | "notYetValid" }> | undefined {
  if (Number.isNaN(validFromDate.getTime()) || Number.isNaN(validToDate.getTime())) {
    return { kind: "expired", since: new Date(0) };
  }
  if (now < validFromDate) return { kind: "notYetValid", from: validFromDate };
  return now > validToDate ? { kind: "expired", since: validToDate } : undefined;
}

/** Is the certificate on a list of its issuer's? That of an anchor is looked for among the anchors. */
function isListed(
  certificate: X509Certificate,
  issuer: X509Certificate | undefined,
  pin: Pin & { readonly kind: "trustAnchor" },
): boolean {
  const lists = pin.revocationLists.filter((list) => list.revokes(certificate));
  if (lists.length === 0) return false;
  const issuers = issuer === undefined ? pin.anchors.filter((anchor) => isIssuedBy(certificate, anchor)) : [issuer];
  return issuers.some((one) => lists.some((list) => list.isOf(one)));
}

/** Where lists are kept, the leaf's issuer must have one that is not out of date. */
function judgeFreshness(
  issuer: X509Certificate | undefined,
  pin: Pin & { readonly kind: "trustAnchor" },
  now: Date,
): PathFault | undefined {
  if (pin.revocationLists.length === 0 || issuer === undefined) return undefined;
  const due = pin.revocationLists.filter((list) => list.isOf(issuer)).map((list) => list.nextUpdate.getTime());
  if (due.length === 0) return { kind: "revocationUnknown", since: now };
  const last = new Date(Math.max(...due));
  return now > last ? { kind: "revocationUnknown", since: last } : undefined;
}

const clientAuthOids = new Set(["1.3.6.1.5.5.7.3.2", "2.5.29.37.0"]); // id-kp-clientAuth, anyExtendedKeyUsage

/** Without the extension a certificate may be used for anything (RFC 5280 §4.2.1.12). */
export function mayAuthenticateClients(certificate: X509Certificate): boolean {
  // Typed as a list, and undefined in a certificate without the extension.
  const usages = certificate.keyUsage as string[] | undefined;
  return usages === undefined || usages.some((oid) => clientAuthOids.has(oid));
}

/** A peer's certificates are judged at every MAIL; who signed whom does not change. */
const issuance = new WeakMap<X509Certificate, WeakMap<X509Certificate, boolean>>();

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  const issuers = issuance.get(certificate) ?? new WeakMap<X509Certificate, boolean>();
  issuance.set(certificate, issuers);
  const isIssued = issuers.get(issuer) ?? checkIssuedBy(certificate, issuer);
  issuers.set(issuer, isIssued);
  return isIssued;
}

function checkIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  // `checkIssued` compares names and key identifiers, and asks the key usage of the issuer for keyCertSign.
  if (!issuer.ca || !certificate.checkIssued(issuer) || pathRules(certificate)?.isSignedStrongly !== true) return false;
  try {
    return certificate.verify(issuer.publicKey);
  } catch {
    return false; // a key that cannot be read has signed nothing that we could know of
  }
}

function isSame(one: X509Certificate, other: X509Certificate): boolean {
  return one === other || one.raw.equals(other.raw);
}
