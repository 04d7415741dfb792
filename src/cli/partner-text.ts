/**
 * Partners in words, in a table and in JSON. Reads nothing but the certificates that our CA signed for a partner, if they
 * are there, and never fails. Promises: what is shown is what the relay acts upon; nothing in a file can
 * steer the terminal. The JSON is stable: keys are added, never renamed.
 */
import type { X509Certificate } from "node:crypto";
import { readSignedCertificates, type SignedCertificate } from "../certs/signed.ts";
import type { NextHop, Partner, PartnerLimits } from "../partner/partner.ts";
import { certificateDigest, spkiDigest, type Pin } from "../partner/pin.ts";
import { pinRecord, type PinUse } from "../partner/rollover.ts";
import { dayOf, shown } from "./certificate-text.ts";
import { printable } from "./output.ts";

/**
 * Until when the partner can identify itself, as far as it is known: by the end dates of its pins, and by the certificates
 * as last seen or as our CA signed them. A pinned key alone tells no date, what it will come in is the partner's affair.
 */
export function knownEnd(
  partner: Partner,
  signed: readonly SignedCertificate[],
  uses: readonly PinUse[],
): Date | undefined {
  const counting = partner.pins.filter(({ state }) => state !== "revoked");
  const ends = counting.map((pin) => {
    const ofSigned = signed.find(({ certificate }) => isPinOf(pin, certificate))?.certificate.validToDate;
    const known = [pinRecord(partner, pin, uses).ends, ofSigned].flatMap((end) => end?.getTime() ?? []);
    return known.length === 0 ? undefined : Math.min(...known);
  });
  const known = ends.filter((end) => end !== undefined);
  return known.length < ends.length || known.length === 0 ? undefined : new Date(Math.max(...known));
}

/** The file of the certificate that our CA signed for a pin, if it did and the file is still there. */
export async function signedFileOf(partner: Partner, pin: Pin, caDirectory: string): Promise<string | undefined> {
  const signed = await readSignedCertificates(caDirectory, new Set([partner.name]));
  return signed.find(({ certificate }) => isPinOf(pin, certificate))?.file;
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

export const partnerTableHeader = ["NAME", "HOSTS", "PINS", "VALID UNTIL", "MODE", "FROM", "TO"] as const;

export function partnerRow(partner: Partner, end: Date | undefined): string[] {
  return [
    partner.name,
    partner.hosts.map(({ text }) => text).join(", "),
    partner.pins.map((pin) => `${shortPin(pin)}${pin.state === "active" ? "" : ` (${pin.state})`}`).join(", "),
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
export function describePartner(partner: Partner, end: Date | undefined, uses: readonly PinUse[] = []): string {
  const fields: Array<[string, readonly string[]]> = [
    ["description", partner.description === "" ? [] : [partner.description]],
    ["contact", partner.contact === undefined ? [] : [partner.contact]],
    ["file", [shown(partner.file)]],
    ["mode", [partner.mode]],
    ["hosts", partner.hosts.map(({ text }) => text)],
    ["pins", partner.pins.flatMap((pin) => [pinText(pin), ...usesText(partner, pin, uses)])],
    ["key usage", [partner.extendedKeyUsage === "any" ? "any: the pin alone decides" : "clientAuth"]],
    ["valid until", [endText(partner, end)]],
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

function endText({ pins }: Partner, end: Date | undefined): string {
  if (!pins.some(({ state }) => state === "active" || state === "next")) return "no pin counts";
  return end === undefined ? "not known: a pin of a key or a CA tells no date" : dayOf(end);
}

function pinText(pin: Pin): string {
  const what =
    pin.kind === "trustAnchor"
      ? `any certificate for ${pin.name} of the CA in ${shown(pin.file)}`
      : `${pin.kind === "spki" ? "key" : "certificate"} ${pin.digest}`;
  const more = [
    ...(pin.label === undefined ? [] : [`"${pin.label}"`]),
    ...(pin.state === "active" ? [] : [pin.state]),
    ...(pin.notBefore === undefined ? [] : [`from ${dayOf(pin.notBefore)}`]),
    ...(pin.notAfter === undefined ? [] : [`until ${dayOf(pin.notAfter)}`]),
  ];
  return [what, ...more].join(", ");
}

/** What was seen of a pin, further in than the pin itself. */
function usesText(partner: Partner, pin: Pin, uses: readonly PinUse[]): string[] {
  const { firstSeen, lastSeen, lastAddress, lastRefused, certificate } = pinRecord(partner, pin, uses);
  if (firstSeen === undefined || lastSeen === undefined) return pin.state === "revoked" ? [] : ["  never seen"];
  const from = lastAddress === undefined ? "" : ` from ${lastAddress}`;
  return [
    `  first seen ${dayOf(firstSeen)}, last ${dayOf(lastSeen)}${from}`,
    ...(certificate === undefined ? [] : [`  in a certificate that is valid until ${dayOf(certificate.validToDate)}`]),
    ...(lastRefused === undefined ? [] : [`  refused since, last on ${dayOf(lastRefused)}`]),
  ];
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
export function partnerJson(partner: Partner, end: Date | undefined, uses: readonly PinUse[] = []): object {
  const { name, file, description, contact, mode, limits, deliver } = partner;
  return {
    name,
    file,
    description,
    contact,
    mode,
    hosts: partner.hosts.map(({ text }) => text),
    pins: partner.pins.map((pin) => ({ ...pinJson(pin), ...seenJson(partner, pin, uses) })),
    extendedKeyUsage: partner.extendedKeyUsage,
    rollover: partner.rollover,
    validUntil: end?.toISOString(),
    allow: { from: partner.allow.from.map(({ text }) => text), to: partner.allow.to.map(({ text }) => text) },
    limits,
    deliver: deliver && { domains: deliver.domains, servers: deliver.servers.map(hopJson) },
  };
}

function pinJson(pin: Pin): object {
  const { kind, label, state } = pin;
  const common = { kind, label, state, notBefore: pin.notBefore?.toISOString(), notAfter: pin.notAfter?.toISOString() };
  return pin.kind === "trustAnchor" ? { ...common, file: pin.file, name: pin.name } : { ...common, digest: pin.digest };
}

function seenJson(partner: Partner, pin: Pin, uses: readonly PinUse[]): object {
  const { firstSeen, lastSeen, lastAddress, lastRefused, certificate } = pinRecord(partner, pin, uses);
  return {
    firstSeen: firstSeen?.toISOString(),
    lastSeen: lastSeen?.toISOString(),
    lastAddress,
    lastRefused: lastRefused?.toISOString(),
    certificateNotAfter: certificate?.validToDate.toISOString(),
  };
}

function hopJson({ address, port, name, tls }: NextHop): object {
  return { address, port, name, tls: tls.mode };
}
