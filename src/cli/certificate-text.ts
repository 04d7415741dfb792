/**
 * Certificates and requests in words, for the commands that make them and enrol their owners. Pure. Promises: names out
 * of files cannot steer the terminal.
 */
import type { X509Certificate } from "node:crypto";
import type { OwnNames } from "../certs/enrolment.ts";
import type { CertificateRequest } from "../certs/request.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { shownPath } from "../config/text.ts";
import type { Partner } from "../partner/partner.ts";
import { printable } from "./output.ts";

/**
 * The names that no request of others may claim: ours, and those by which partners are known.
 * @param partner whose request it is; its own names are not among them.
 */
export function ownNamesOf(config: RelayConfig, partner: string | undefined): OwnNames {
  const others = config.partners
    .filter(({ name }) => name !== partner)
    .flatMap((other) => knownNames(other).map((name) => ({ name, partner: other.name })));
  return { hostname: config.hostname, domains: config.routes.flatMap(({ domains }) => domains), others };
}

/** The names that a pin or a next hop asks certificates for. */
function knownNames({ pins, deliver }: Partner): string[] {
  const anchored = pins.flatMap((pin) => (pin.kind === "trustAnchor" ? pin.name : []));
  return [...anchored, ...(deliver?.servers ?? []).flatMap(({ name }) => name ?? [])];
}

/** What a request asks for, for a person to compare with what was agreed. */
export function describeRequest(request: CertificateRequest): string {
  const names = [
    ...request.subject.map(({ type, value }) => `${type}=${value}`),
    ...request.dnsNames.map((name) => `DNS:${name}`),
    ...request.ipAddresses.map((address) => `IP:${address}`),
    ...request.otherNames,
  ];
  return ["The request names", ...(names.length === 0 ? ["nobody"] : names)].map(printable).join("\n  ").concat("\n");
}

export function refusalText(file: string, reasons: readonly string[]): string {
  return `${file}: is not signed: ${reasons.map((reason) => `it ${reason}`).join("; ")}`;
}

/** Subject, issuer and dates, an indented line each. */
export function describeCertificate(certificate: X509Certificate): string {
  const { validFromDate, validToDate, subjectAltName } = certificate;
  const lines = [
    `subject  ${oneLine(certificate.subject)}`,
    ...(subjectAltName === undefined ? [] : [`names    ${subjectAltName}`]),
    `issuer   ${oneLine(certificate.issuer)}`,
    `valid    ${dayOf(validFromDate)} to ${dayOf(validToDate)}`,
  ];
  return lines.map((line) => `  ${printable(line)}\n`).join("");
}

export function shown(file: string): string {
  return shownPath(file, process.cwd());
}

export function dayOf(date: Date): string {
  if (Number.isNaN(date.getTime())) return "no date"; // certificates of peers may say anything
  return date.toISOString().slice(0, 10);
}

/** Node writes an attribute a line, and undefined, whatever its type says, for a name without any. */
function oneLine(name: string | undefined): string {
  return name?.replaceAll("\n", ", ") ?? "(no name)";
}
