/**
 * Which names of a partner's request our CA certifies. Pure.
 *
 * Promises: whoever asks for a name of ours (the relay's own, one of our domains or one below them), however it is
 * spelled and wherever in the request it stands, is refused, and so is whoever asks for a name by which another partner is
 * known; so is what is no plain name, such as a wildcard.
 */
import { canonicalDomain, isSubdomain, type CanonicalDomain } from "../mail/domain.ts";
import { rangeHolds, type AddressRange } from "../partner/address-range.ts";
import { isCommonName, type AlternativeNames } from "./certificate.ts";
import type { CertificateRequest } from "./request.ts";

/** What nobody else may claim. */
export interface OwnNames {
  readonly hostname: CanonicalDomain;
  readonly domains: readonly CanonicalDomain[];
  /** Names by which other partners are known: who had one certified could pose as that partner. */
  readonly others: ReadonlyArray<{ readonly name: CanonicalDomain; readonly partner: string }>;
}

export interface GrantedNames extends AlternativeNames {
  /** Undefined where the request has none that can be used. */
  readonly commonName: string | undefined;
}

export type RequestJudgement =
  | { readonly kind: "granted"; readonly names: GrantedNames }
  /** Each reason is a clause that follows "the request …". */
  | { readonly kind: "refused"; readonly reasons: readonly string[] };

/**
 * What of the requested names goes into the certificate?
 * @param own undefined: the operator says that the request is for a host of ours.
 * @param hosts where the partner connects from: an address it claims must lie there. Undefined: not asked.
 */
export function judgeRequest(
  request: CertificateRequest,
  own: OwnNames | undefined,
  hosts: readonly AddressRange[] | undefined,
): RequestJudgement {
  const claims = [...request.subject.map(({ value }) => value), ...request.dnsNames, ...request.otherNames];
  const reasons = [
    ...(own === undefined ? [] : claims.filter((claim) => claimsOneOf(claim, own)).map(ownNameReason)),
    ...(own === undefined ? [] : claims.flatMap((claim) => foreignNameReason(claim, own) ?? [])),
    ...request.dnsNames.flatMap((name) => dnsNameReason(name) ?? []),
    ...request.ipAddresses
      .filter((address) => hosts !== undefined && !hosts.some((range) => rangeHolds(range, address)))
      .map((address) => `claims the address ${address}, which is not among the partner's hosts`),
  ];
  if (reasons.length > 0) return { kind: "refused", reasons: [...new Set(reasons)] };
  const commonName = request.subject.find(({ type }) => type === "CN")?.value;
  return {
    kind: "granted",
    names: {
      commonName: commonName !== undefined && isCommonName(commonName) ? commonName : undefined,
      dnsNames: dnsNamesOf(request, commonName),
      ipAddresses: request.ipAddresses,
    },
  };
}

/** The DNS names asked for; the common name stands in where there is no subjectAltName, as old software makes it. */
function dnsNamesOf(request: CertificateRequest, commonName: string | undefined): CanonicalDomain[] {
  const asked = request.dnsNames.length > 0 || !commonName?.includes(".") ? request.dnsNames : [commonName];
  return asked.flatMap((name) => canonicalDomain(name) ?? []);
}

function ownNameReason(claim: string): string {
  return `claims '${claim}', which is a name of ours`;
}

/** Exactly that name: a host's neighbours are nobody's secret, and a wildcard is refused anyhow. */
function foreignNameReason(claim: string, own: OwnNames): string | undefined {
  const domains = domainsWithin(claim);
  const other = own.others.find(({ name }) => domains.includes(name));
  return other === undefined ? undefined : `claims '${claim}', which is a name of the partner ${other.partner}`;
}

function dnsNameReason(name: string): string | undefined {
  if (name.includes("*")) return `claims the wildcard '${name}': ask for the host's own name`;
  return canonicalDomain(name) === undefined ? `claims '${name}', which is not a domain name` : undefined;
}

/** Does the text hold a name of ours, bare or within a mail address, a URI or a sentence? */
function claimsOneOf(text: string, own: OwnNames): boolean {
  const ours = [own.hostname, ...own.domains];
  return domainsWithin(text).some((domain) => ours.some((name) => domain === name || isSubdomain(domain, name)));
}

/** Runs of what domain names are made of, also in other scripts and with the full stops that IDNA takes for dots. */
const nameLike = /[\p{L}\p{M}\p{N}.\u3002\uff0e\uff61-]+/gu;

function domainsWithin(text: string): CanonicalDomain[] {
  return [...text.matchAll(nameLike)].flatMap(([run]) => {
    const domain = canonicalDomain(run.replaceAll(/^[.-]+|[.-]+$/g, ""));
    // A single label is a name only where it stands alone: "relay" is, the word in "Relay Makers Ltd" is not.
    return domain !== undefined && (domain.includes(".") || run === text.trim()) ? [domain] : [];
  });
}
