/**
 * Certificates and requests in words, for the commands that make them and enrol their owners. Pure. Promises: names out
 * of files cannot steer the terminal.
 */
import type { X509Certificate } from "node:crypto";
import type { OwnNames } from "../certs/enrolment.ts";
import type { CertificateRequest } from "../certs/request.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { shownPath } from "../config/text.ts";
import { printable } from "./output.ts";

/** The names that no request of others may claim. */
export function ownNamesOf(config: RelayConfig): OwnNames {
  return { hostname: config.hostname, domains: config.routes.flatMap(({ domains }) => domains) };
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
  return `${file}: is not signed\n${reasons.map((reason) => `  it ${reason}`).join("\n")}`;
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
  return date.toISOString().slice(0, 10);
}

/** Node writes an attribute a line. */
function oneLine(name: string): string {
  return name.replaceAll("\n", ", ");
}
