/**
 * Partners in words, in a table and in JSON. Reads nothing but the certificate that our CA signed for a partner, if it
 * is there, and never fails. Promises: what is shown is what the relay acts upon; nothing in a file can
 * steer the terminal. The JSON is stable: keys are added, never renamed.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { X509Certificate } from "node:crypto";
import type { NextHop, Partner, PartnerLimits } from "../partner/partner.ts";
import { certificateDigest, spkiDigest, type Pin } from "../partner/pin.ts";
import { dayOf, shown } from "./certificate-text.ts";
import { printable } from "./output.ts";

/** Where the certificate lies that our CA signed for a partner. */
export function partnerCertificateFile(caDirectory: string, name: string): string {
  return join(caDirectory, "partners", `${name}.pem`);
}

/**
 * Until when the partner can identify itself, as far as it is known: by the end dates of its pins, or by the certificate
 * that our CA signed. A pinned key alone tells no date, the certificate that it will come in is the partner's affair.
 */
export async function knownEnd(partner: Partner, caDirectory: string): Promise<Date | undefined> {
  const signed = await readSigned(partnerCertificateFile(caDirectory, partner.name));
  const ends = partner.pins.map((pin) => {
    const ofSigned = signed !== undefined && isPinOf(pin, signed) ? signed.validToDate : undefined;
    return pin.notAfter !== undefined && ofSigned !== undefined && ofSigned < pin.notAfter
      ? ofSigned
      : (pin.notAfter ?? ofSigned);
  });
  const known = ends.filter((end) => end !== undefined).map((end) => end.getTime());
  return known.length < ends.length || known.length === 0 ? undefined : new Date(Math.max(...known));
}

function isPinOf(pin: Pin, certificate: X509Certificate): boolean {
  switch (pin.kind) {
    case "spki":
      return pin.digest === spkiDigest(certificate);
    case "certificate":
      return pin.digest === certificateDigest(certificate);
    case "trustAnchor":
      return false;
  }
}

/** It is an extra: where it is missing, unreadable or something else, the date is not known. */
async function readSigned(file: string): Promise<X509Certificate | undefined> {
  try {
    return new X509Certificate(await readFile(file));
  } catch {
    return undefined;
  }
}

export const partnerTableHeader = ["NAME", "HOSTS", "PINS", "VALID UNTIL", "MODE", "FROM", "TO"] as const;

export function partnerRow(partner: Partner, end: Date | undefined): string[] {
  return [
    partner.name,
    partner.hosts.map(({ text }) => text).join(", "),
    partner.pins.map(shortPin).join(", "),
    end === undefined ? "-" : dayOf(end),
    partner.mode,
    String(partner.allow.from.length),
    String(partner.allow.to.length),
  ];
}

/** Enough of a digest to tell two apart. */
function shortPin(pin: Pin): string {
  switch (pin.kind) {
    case "spki":
      return `key ${pin.digest.slice(7, 15)}`;
    case "certificate":
      return `cert ${pin.digest.slice(7, 15)}`;
    case "trustAnchor":
      return `CA for ${pin.name}`;
  }
}

/** Everything about a partner, for a person. */
export function describePartner(partner: Partner, end: Date | undefined): string {
  const fields: Array<[string, readonly string[]]> = [
    ["description", partner.description === "" ? [] : [partner.description]],
    ["contact", partner.contact === undefined ? [] : [partner.contact]],
    ["file", [shown(partner.file)]],
    ["mode", [partner.mode]],
    ["hosts", partner.hosts.map(({ text }) => text)],
    ["pins", partner.pins.map(pinText)],
    ["valid until", [end === undefined ? "not known: a pin of a key or a CA tells no date" : dayOf(end)]],
    ["from", partner.allow.from.length === 0 ? ["nobody, reports only"] : partner.allow.from.map(({ text }) => text)],
    ["to", partner.allow.to.map(({ text }) => text)],
    ["limits", limitsText(partner.limits)],
    ["deliver", deliverText(partner)],
  ];
  const lines = fields.flatMap(([name, values]) =>
    values.map((value, index) => `  ${(index === 0 ? name : "").padEnd(13)}${printable(value)}`),
  );
  return `${[partner.name, ...lines].join("\n")}\n`;
}

function pinText(pin: Pin): string {
  const what =
    pin.kind === "trustAnchor"
      ? `any certificate for ${pin.name} of the CA in ${shown(pin.file)}`
      : `${pin.kind === "spki" ? "key" : "certificate"} ${pin.digest}`;
  const label = pin.label === undefined ? "" : `, "${pin.label}"`;
  return `${what}${label}${pin.notAfter === undefined ? "" : `, until ${dayOf(pin.notAfter)}`}`;
}

function limitsText(limits: PartnerLimits): string[] {
  return [
    `${bytesText(limits.messageBytesMax)} a message, ${limits.recipientsMax} recipients a message`,
    `${limits.messagesPerMinute} messages a minute, ${limits.connectionsMax} connections at a time`,
    `${bytesText(limits.queueBytesMax)} waiting for delivery`,
  ];
}

function deliverText({ deliver }: Partner): string[] {
  if (deliver === undefined) return ["no mail goes to this partner"];
  return [deliver.domains.join(", "), ...deliver.servers.map((server) => `by ${hopText(server)}`)];
}

function hopText(hop: NextHop): string {
  const address = hop.address.includes(":") ? `[${hop.address}]` : hop.address;
  const name = hop.name === undefined ? "" : ` (${hop.name})`;
  return `${address}:${hop.port}${name}, TLS ${hop.tls.mode}`;
}

function bytesText(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes === 0 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${Number((bytes / 2 ** (10 * power)).toFixed(1))} ${units[power]}`;
}

/** The same for programs. */
export function partnerJson(partner: Partner, end: Date | undefined): object {
  const { name, file, description, contact, mode, limits, deliver } = partner;
  return {
    name,
    file,
    description,
    contact,
    mode,
    hosts: partner.hosts.map(({ text }) => text),
    pins: partner.pins.map(pinJson),
    validUntil: end?.toISOString(),
    allow: { from: partner.allow.from.map(({ text }) => text), to: partner.allow.to.map(({ text }) => text) },
    limits,
    deliver: deliver && { domains: deliver.domains, servers: deliver.servers.map(hopJson) },
  };
}

function pinJson(pin: Pin): object {
  const common = { kind: pin.kind, label: pin.label, notAfter: pin.notAfter?.toISOString() };
  return pin.kind === "trustAnchor" ? { ...common, file: pin.file, name: pin.name } : { ...common, digest: pin.digest };
}

function hopJson({ address, port, name, tls }: NextHop): object {
  return { address, port, name, tls: tls.mode };
}
