/**
 * What a partner's postmaster must know of us, taken out of the configuration and of our certificate. Pure; holds no
 * secret of ours.
 */
import { X509Certificate } from "node:crypto";
import type { RelayConfig } from "../../config/relay-config.ts";
import { isSubdomain, type CanonicalDomain } from "../../mail/domain.ts";
import { addressBytes } from "../../partner/address-range.ts";
import type { AddressRule, Partner } from "../../partner/partner.ts";
import { certificateDigest, spkiDigest, type Digest } from "../../partner/pin.ts";
import { probeAddress } from "../../partner/policy.ts";
import { CliError } from "../output.ts";

/** Where we are reached. The address is `ADDRESS` where nothing tells it. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
  readonly implicitTls: boolean;
}

export interface KitFacts {
  readonly partner: string;
  readonly hostname: CanonicalDomain;
  /** The one that the snippets use: with STARTTLS. */
  readonly endpoint: Endpoint;
  readonly endpoints: readonly Endpoint[];
  readonly minimumVersion: "TLSv1.2" | "TLSv1.3";
  readonly certificate: {
    readonly pem: string;
    readonly subject: string;
    readonly validTo: Date;
    readonly digest: Digest;
    readonly spki: Digest;
    /** SHA-256 in hexadecimal with colons, of the whole certificate and of its key. */
    readonly fingerprint: string;
    readonly keyFingerprint: string;
  };
  /**
   * What verifies our certificate: itself, where it is self-signed; our CA; or undefined where that is not here: a CA that
   * is known to the world.
   */
  readonly anchor: { readonly kind: "itself" | "ca"; readonly pem: string; readonly subject: string } | undefined;
  /** Domains whose mail comes to us, the relay's own name, for the probe, last. */
  readonly domains: readonly CanonicalDomain[];
  readonly senders: readonly string[];
  readonly recipients: readonly string[];
  readonly limits: Partner["limits"];
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly probe: string;
  readonly postmaster: string;
  /** A sender that the partner may use, for examples. */
  readonly exampleSender: string;
  readonly notes: readonly string[];
}

/** The placeholder for an address that the configuration does not tell. */
export const addressPlaceholder = "ADDRESS";

export interface KitChoices {
  /** `ADDRESS` or `ADDRESS:PORT`, in place of those in `listen`. */
  readonly addresses: readonly string[];
  readonly certificateFile: string;
  readonly keyFile: string;
  /** PEM of our CA, if it is here. */
  readonly ca: string | undefined;
}

/** Fails with a {@link CliError} where the choices are no addresses or paths, or nothing listens with STARTTLS. */
export function kitFacts(config: RelayConfig, partner: Partner, choices: KitChoices): KitFacts {
  const certificate = new X509Certificate(config.tls.certificate);
  const endpoints = endpointsOf(config, choices.addresses);
  const endpoint = endpoints.find(({ implicitTls }) => !implicitTls);
  if (endpoint === undefined) {
    throw new CliError(1, `${config.file}: the kit needs an entry of listen without implicit-tls: add one`);
  }
  const digest = certificateDigest(certificate);
  const spki = spkiDigest(certificate);
  const domains = config.routes.flatMap(({ domains: routed }) =>
    routed.filter((domain) => partner.allow.to.some((rule) => mayCover(rule, domain))),
  );
  return {
    partner: partner.name,
    hostname: config.hostname,
    endpoint,
    endpoints,
    minimumVersion: config.tls.minimumVersion,
    certificate: {
      pem: certificate.toString(),
      subject: certificate.subject.replaceAll("\n", ", "),
      validTo: certificate.validToDate,
      digest,
      spki,
      fingerprint: colonHex(digest),
      keyFingerprint: colonHex(spki),
    },
    anchor: anchorOf(certificate, choices.ca),
    domains: [...new Set([...domains.toSorted(), config.hostname])],
    senders: partner.allow.from.map(({ text }) => text),
    recipients: partner.allow.to.map(({ text }) => text),
    limits: {
      ...partner.limits,
      messageBytesMax: Math.min(partner.limits.messageBytesMax, config.limits.messageBytesMax),
    },
    certificateFile: checkedPath(choices.certificateFile, "--partner-cert"),
    keyFile: checkedPath(choices.keyFile, "--partner-key"),
    probe: probeAddress(config.hostname),
    postmaster: config.postmaster.address,
    exampleSender: exampleOf(partner.allow.from),
    notes: notesOn(endpoint, partner),
  };
}

function endpointsOf(config: RelayConfig, written: readonly string[]): Endpoint[] {
  const listening = config.listen.map(({ address, port, implicitTls }) => ({
    address: isWildcard(address) ? addressPlaceholder : address,
    port,
    implicitTls,
  }));
  const endpoints = written.length === 0 ? listening : written.flatMap((text) => atAddress(text, listening));
  const unique = new Map(endpoints.map((endpoint) => [JSON.stringify(endpoint), endpoint]));
  if ([...unique.values()].some(({ port }) => port === 0)) {
    throw new CliError(2, `${config.file}: listen leaves the port to the system: name it with --address ADDRESS:PORT`);
  }
  return [...unique.values()];
}

/** With a port it is one with STARTTLS; without one it takes the place of the addresses that are listened on. */
function atAddress(text: string, listening: readonly Endpoint[]): Endpoint[] {
  const { bracketed, plain, port } =
    /^(?:\[(?<bracketed>[^\]]+)\]|(?<plain>[^:]+|[^:]*:[^:]*:.*?))(?::(?<port>\d{1,5}))?$/.exec(text)?.groups ?? {};
  const isWhole = addressBytes(text) !== undefined;
  const address = isWhole ? text : (bracketed ?? plain ?? "");
  const number = isWhole || port === undefined ? undefined : Number(port);
  if (
    addressBytes(address) === undefined ||
    isWildcard(address) ||
    (number !== undefined && (number < 1 || number > 65_535))
  ) {
    throw new CliError(
      2,
      `--address '${text}' is none: write an address, as 203.0.113.1, [2001:db8::1]:25 or 203.0.113.1:25`,
    );
  }
  return number === undefined
    ? listening.map((endpoint) => ({ ...endpoint, address }))
    : [{ address, port: number, implicitTls: false }];
}

function isWildcard(address: string): boolean {
  return addressBytes(address)?.every((octet) => octet === 0) ?? true;
}

/** Can any mailbox of the domain be covered by the rule? */
function mayCover(rule: AddressRule, domain: CanonicalDomain): boolean {
  switch (rule.kind) {
    case "mailbox":
      return rule.mailbox.domain === domain;
    case "domain":
      return rule.domain === domain;
    case "subdomains":
      return isSubdomain(domain, rule.domain);
  }
}

function anchorOf(certificate: X509Certificate, ca: string | undefined): KitFacts["anchor"] {
  const subject = (of: X509Certificate) => of.subject.replaceAll("\n", ", ");
  if (certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey)) {
    return { kind: "itself", pem: certificate.toString(), subject: subject(certificate) };
  }
  if (ca === undefined) return undefined;
  const authority = new X509Certificate(ca);
  if (!certificate.checkIssued(authority) || !certificate.verify(authority.publicKey)) return undefined;
  return { kind: "ca", pem: authority.toString(), subject: subject(authority) };
}

/** It stands in snippets of four servers, none of which is to read anything else out of it. */
function checkedPath(path: string, option: string): string {
  if (/^\/[A-Za-z0-9._/@+-]+$/.test(path)) return path;
  throw new CliError(2, `${option} '${path}' must be an absolute path of letters, digits and ._/@+- there`);
}

function exampleOf(senders: readonly AddressRule[]): string {
  const [first] = senders;
  if (first === undefined) return "SENDER";
  return first.kind === "mailbox"
    ? first.mailbox.address
    : `postmaster@${first.kind === "domain" ? "" : "mail."}${first.domain}`;
}

function notesOn(endpoint: Endpoint, partner: Partner): string[] {
  const notes: string[] = [];
  if (endpoint.address === addressPlaceholder) {
    notes.push(
      `The relay listens on all its addresses, so the configuration does not tell which one partners connect to: put it ` +
        `in place of ${addressPlaceholder} everywhere, or make the kit with --address.`,
    );
  }
  if (partner.allow.from.length === 0) {
    notes.push("You may send with the null reverse-path only, so a probe cannot be answered.");
  }
  if (partner.deliver === undefined) {
    notes.push("No servers of yours are configured for mail from us, so the probe is answered to our postmaster.");
  }
  return notes;
}

function colonHex(digest: Digest): string {
  const hex = Buffer.from(digest.slice("sha256/".length), "base64").toString("hex").toUpperCase();
  return (hex.match(/../g) ?? []).join(":");
}

/** A name for what belongs to us in the partner's configuration: letters, digits and hyphens. */
export function tag({ hostname }: KitFacts): string {
  return `to-${hostname.replaceAll(".", "-")}`;
}
