/**
 * What the CA in a folder has revoked, and its list: `revoked/SERIAL.json`, one file for each certificate, and `ca.crl`,
 * which is made of them.
 *
 * Promises: a revocation is on stable storage before the list is made; two at a time do not lose one, neither in the
 * records nor in the list; numbers of lists grow; a damaged record stops the making of lists, because one left out would
 * let its certificate in again. Fails with {@link CertificateFault} and with the system's errors.
 */
import type { X509Certificate } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { makeFolderDurably, writeFileDurably } from "../files/durable.ts";
import type { Authority } from "./authority.ts";
import { isCode, loadCa } from "./ca.ts";
import {
  createRevocationList,
  parseRevocationList,
  revocationReasons,
  serialOf,
  type ReadRevocationList,
  type RevocationReason,
  type RevokedCertificate,
} from "./crl.ts";
import { CertificateFault } from "./fault.ts";

export const revocationListFileName = "ca.crl";
export const revocationsFolderName = "revoked";

export interface Revocation extends RevokedCertificate {
  /** Who revoked it: a person's name on this host. */
  readonly by: string;
  /** The certificate's subject; undefined where only the serial number was given. */
  readonly subject: string | undefined;
}

export interface WrittenList {
  readonly file: string;
  readonly list: ReadRevocationList;
}

/** What is to be revoked: a certificate of this CA, or the serial number of one (hexadecimal, also with colons). */
export type Revoked =
  | { readonly kind: "certificate"; readonly certificate: X509Certificate; readonly file: string }
  | { readonly kind: "serial"; readonly serial: string };

/** Records that a certificate is revoked. What was revoked before stays as it was recorded then. */
export async function revoke(
  directory: string,
  revoked: Revoked,
  plan: { readonly reason: RevocationReason; readonly by: string; readonly now: Date },
): Promise<{ readonly kind: "revoked" | "before"; readonly revocation: Revocation }> {
  const authority = await loadCa(directory, plan.now);
  const named = nameRevoked(authority, revoked);
  const revocation = { ...named, at: wholeSecond(plan.now), reason: plan.reason, by: plan.by };
  await makeFolderDurably(join(directory, revocationsFolderName));
  const file = recordFile(directory, revocation.serial);
  try {
    await writeFileDurably(file, recordText(revocation), 0o600, "refuse");
    return { kind: "revoked", revocation };
  } catch (error) {
    if (!isCode(error, "EEXIST")) throw error;
    return { kind: "before", revocation: await readRecord(file) };
  }
}

function nameRevoked(authority: Authority, revoked: Revoked): Pick<Revocation, "serial" | "subject"> {
  switch (revoked.kind) {
    case "serial":
      return { serial: parseSerial(revoked.serial), subject: undefined };
    case "certificate": {
      const { certificate, file } = revoked;
      if (!certificate.checkIssued(authority.certificate) || !certificate.verify(authority.certificate.publicKey)) {
        throw new CertificateFault(`${file}: is not of this CA: only what it signed can stand on its list`);
      }
      if (certificate.raw.equals(authority.certificate.raw)) {
        throw new CertificateFault(`${file}: is the CA itself: take it out of the trust anchors instead`);
      }
      return { serial: serialOf(certificate), subject: certificate.subject.replaceAll("\n", ", ") };
    }
  }
}

/** Is the text a serial number rather than the name of a file? */
export function looksLikeSerial(text: string): boolean {
  return /^(?:0x)?[0-9a-f]+(?::[0-9a-f]{2})*$/i.test(text);
}

function parseSerial(text: string): string {
  const digits = text.replace(/^0x/i, "").replaceAll(":", "").replace(/^0+/, "").toUpperCase();
  // RFC 5280 §4.1.2.2: positive, at most 20 octets.
  if (!looksLikeSerial(text) || digits === "" || digits.length > 40) {
    throw new CertificateFault(
      `'${text}' is no serial number: 1 to 40 hexadecimal digits, as openssl x509 -serial shows it`,
    );
  }
  return digits;
}

/** Everything that the CA has revoked, the oldest first. */
export async function readRevocations(directory: string): Promise<Revocation[]> {
  const folder = join(directory, revocationsFolderName);
  const names = await readdir(folder).catch((error: unknown): string[] => {
    if (isCode(error, "ENOENT")) return [];
    throw error;
  });
  const records: Revocation[] = [];
  for (const name of names.toSorted()) {
    if (name.startsWith(".") || !name.endsWith(".json")) continue; // drafts that a crash left
    records.push(await readRecord(join(folder, name)));
  }
  return records.toSorted((a, b) => a.at.getTime() - b.at.getTime());
}

/** Makes the CA's list of all that is revoked and puts it in the place of the one before. */
export async function writeRevocationList(
  directory: string,
  plan: { readonly days: number; readonly now: Date },
): Promise<WrittenList> {
  const authority = await loadCa(directory, plan.now);
  const file = join(directory, revocationListFileName);
  const now = wholeSecond(plan.now);
  const nextUpdate = new Date(now.getTime() + plan.days * 86_400_000);
  for (;;) {
    const revoked = await readRevocations(directory);
    const text = createRevocationList(authority, {
      revoked,
      number: await nextNumber(file, authority, now),
      now,
      nextUpdate,
    });
    await writeFileDurably(file, text, 0o644, "replace");
    // Somebody else may have revoked in the meantime, and have written a list before ours: ours must not hide it.
    const count = (await readRevocations(directory)).length;
    if (count === revoked.length) return { file, list: parseRevocationList(Buffer.from(text), file) };
  }
}

/** Above that of the list in force; and where that was lost, still above it, as long as the clock goes forward. */
async function nextNumber(file: string, authority: Authority, now: Date): Promise<bigint> {
  const seconds = BigInt(Math.floor(now.getTime() / 1000));
  const bytes = await readFile(file).catch((error: unknown) => {
    if (isCode(error, "ENOENT")) return undefined;
    throw error;
  });
  if (bytes === undefined) return seconds;
  const last = ownList(bytes, file, authority).number ?? 0n;
  return last >= seconds ? last + 1n : seconds;
}

function ownList(bytes: Buffer, file: string, authority: Authority): ReadRevocationList {
  let list: ReadRevocationList;
  try {
    list = parseRevocationList(bytes, file);
  } catch (error) {
    if (!(error instanceof CertificateFault)) throw error;
    throw new CertificateFault(`${file}: ${error.message}: move it away, and a new one is made`, { cause: error });
  }
  if (!list.isOf(authority.certificate)) throw new CertificateFault(`${file}: is the list of another CA: move it away`);
  return list;
}

function recordFile(directory: string, serial: string): string {
  return join(directory, revocationsFolderName, `${serial}.json`);
}

function recordText({ serial, subject, at, reason, by }: Revocation): string {
  return `${JSON.stringify({ serial, subject, at: at.toISOString(), reason, by })}\n`;
}

async function readRecord(file: string): Promise<Revocation> {
  const record = parseRecord(await readFile(file, "utf8"));
  if (record === undefined || record.serial !== basename(file, ".json")) {
    throw new CertificateFault(`${file}: is damaged: without it the certificate would count again; restore it`);
  }
  return record;
}

function parseRecord(text: string): Revocation | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { serial, subject, at, reason, by }: Record<string, unknown> = { ...value };
  const known = revocationReasons.find((one) => one === reason);
  const date = typeof at === "string" ? new Date(at) : undefined;
  if (typeof serial !== "string" || typeof by !== "string" || known === undefined || date === undefined)
    return undefined;
  if (!/^[0-9A-F]{1,40}$/.test(serial) || Number.isNaN(date.getTime())) return undefined;
  return { serial, subject: typeof subject === "string" ? subject : undefined, at: date, reason: known, by };
}

/** The times of certificates have no fractions of seconds. */
function wholeSecond(date: Date): Date {
  return new Date(Math.floor(date.getTime() / 1000) * 1000);
}
