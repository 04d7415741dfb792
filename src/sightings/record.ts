/**
 * The files of the sightings: one JSON file for each pin in use and each certificate in quarantine, with certificates as
 * PEM. What a file holds came from peers and may have been damaged or edited since: nothing is believed that does not
 * parse, and names of files are digests, so that no peer's text gets into a path. Pure.
 */
import { createHash, X509Certificate } from "node:crypto";
import { quarantineId, usageKey, type CertificateSighting, type PinSighting, type Quarantined } from "./sightings.ts";

/** Octets of a certificate: of a larger one nothing is kept. */
export const certificateBytesMax = 16 * 1024;
export const addressesMax = 8;
/** Of one pin: a partner with a CA of its own may have a new one every day. The latest are kept. */
export const certificatesPerPinMax = 20;
/** Nothing of ours is as large; nothing of a larger file is read. */
export const recordBytesMax = 1024 * 1024;

export interface CertificateRecord {
  readonly der: Buffer;
  readonly firstSeenMs: number;
  lastSeenMs: number;
  count: number;
  addresses: readonly string[];
}

export interface PinCertificateRecord extends CertificateRecord {
  refused: { readonly count: number; readonly lastMs: number } | undefined;
}

/** A partner's pin, and the certificates that matched it, the latest first. */
export interface PinRecord {
  readonly partner: string;
  readonly pin: string;
  readonly firstSeenMs: number;
  nextSinceMs: number | undefined;
  certificates: PinCertificateRecord[];
}

export interface QuarantineRecord extends CertificateRecord {
  partners: readonly string[];
}

const nameForm = /^[0-9a-f]{64}\.json$/;

export function isRecordName(name: string): boolean {
  return nameForm.test(name);
}

export function pinRecordName({ partner, pin }: Pick<PinRecord, "partner" | "pin">): string {
  return `${createHash("sha256").update(usageKey(partner, pin)).digest("hex")}.json`;
}

export function quarantineRecordName(der: Uint8Array): string {
  return `${createHash("sha256").update(der).digest("hex")}.json`;
}

export function encodePinRecord({ partner, pin, firstSeenMs, nextSinceMs, certificates }: PinRecord): string {
  return toText({
    partner,
    pin,
    firstSeen: timeText(firstSeenMs),
    ...(nextSinceMs === undefined ? {} : { nextSince: timeText(nextSinceMs) }),
    certificates: certificates.map(({ refused, ...certificate }) => ({
      ...certificateJson(certificate),
      ...(refused === undefined ? {} : { refused: { count: refused.count, last: timeText(refused.lastMs) } }),
    })),
  });
}

export function encodeQuarantineRecord({ partners, ...certificate }: QuarantineRecord): string {
  return toText({ partners, ...certificateJson(certificate) });
}

/** Undefined: the file is damaged. */
export function decodePinRecord(text: string): PinRecord | undefined {
  const json = parse(text);
  if (json === undefined) return undefined;
  const { partner, pin } = json;
  const firstSeenMs = timeOf(json.firstSeen);
  const nextSinceMs = json.nextSince === undefined ? undefined : timeOf(json.nextSince);
  if (typeof partner !== "string" || typeof pin !== "string" || firstSeenMs === undefined) return undefined;
  if (json.nextSince !== undefined && nextSinceMs === undefined) return undefined;
  if (!Array.isArray(json.certificates)) return undefined;
  const certificates: PinCertificateRecord[] = [];
  for (const item of json.certificates.slice(0, certificatesPerPinMax) as unknown[]) {
    const certificate = isObject(item) ? certificateOf(item) : undefined;
    if (certificate === undefined || !isObject(item)) return undefined;
    certificates.push({ ...certificate, refused: refusedOf(item.refused) });
  }
  return { partner, pin, firstSeenMs, nextSinceMs, certificates };
}

/** Undefined: the file is damaged. */
export function decodeQuarantineRecord(text: string): QuarantineRecord | undefined {
  const json = parse(text);
  const certificate = json === undefined ? undefined : certificateOf(json);
  const partners = json === undefined ? undefined : textsOf(json.partners);
  return certificate === undefined || partners === undefined ? undefined : { ...certificate, partners };
}

export function pinSightings(record: PinRecord): PinSighting[] {
  const { partner, pin, firstSeenMs, nextSinceMs } = record;
  return record.certificates.map(({ refused, ...certificate }) => ({
    ...sighting(certificate),
    partner,
    pin,
    pinFirstSeenMs: firstSeenMs,
    pinNextSinceMs: nextSinceMs,
    refused,
  }));
}

export function quarantined({ partners, ...certificate }: QuarantineRecord): Quarantined {
  return { ...sighting(certificate), partners };
}

function sighting({ der, ...seen }: CertificateRecord): CertificateSighting {
  const certificate = new X509Certificate(der);
  return { ...seen, id: quarantineId(certificate), certificate };
}

function certificateJson({ der, firstSeenMs, lastSeenMs, count, addresses }: CertificateRecord) {
  return {
    firstSeen: timeText(firstSeenMs),
    lastSeen: timeText(lastSeenMs),
    count,
    addresses,
    certificate: new X509Certificate(der).toString(),
  };
}

function certificateOf(json: Readonly<Record<string, unknown>>): CertificateRecord | undefined {
  const firstSeenMs = timeOf(json.firstSeen);
  const lastSeenMs = timeOf(json.lastSeen);
  const addresses = textsOf(json.addresses);
  const { count, certificate: pem } = json;
  if (firstSeenMs === undefined || lastSeenMs === undefined || addresses === undefined) return undefined;
  if (!isCount(count) || typeof pem !== "string") return undefined;
  try {
    const der = new X509Certificate(pem).raw;
    return { der, firstSeenMs, lastSeenMs, count, addresses: addresses.slice(0, addressesMax) };
  } catch {
    return undefined; // no certificate
  }
}

function refusedOf(json: unknown): PinCertificateRecord["refused"] {
  if (!isObject(json) || !isCount(json.count)) return undefined;
  const lastMs = timeOf(json.last);
  return lastMs === undefined ? undefined : { count: json.count, lastMs };
}

function toText(json: object): string {
  return `${JSON.stringify(json, null, 2)}\n`;
}

function parse(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined; // torn, or not ours
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function textsOf(value: unknown): string[] | undefined {
  const texts: unknown[] | undefined = Array.isArray(value) ? value : undefined;
  return texts?.every((text): text is string => typeof text === "string") === true ? texts : undefined;
}

function timeText(ms: number): string {
  return new Date(ms).toISOString();
}

function timeOf(value: unknown): number | undefined {
  const ms = typeof value === "string" ? Date.parse(value) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}
