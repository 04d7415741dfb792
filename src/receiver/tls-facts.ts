/**
 * What the spool keeps of TLS and of the client's certificate, for the audit and for the answer to a probe. Bounded: what
 * a certificate says of itself is its owner's affair, and may be long. Pure.
 */
import type { X509Certificate } from "node:crypto";
import { certificateDigest, pinKey, spkiDigest, type Pin } from "../partner/pin.ts";
import type { TlsFacts } from "../spool/spool.ts";
import type { SecuredBy } from "./session.ts";

const nameCharactersMax = 500;
const pinCharactersMax = 2000;
const keyUsagesMax = 20;
const oidCharactersMax = 100;

/** Undefined where no certificate was shown. */
export function tlsFacts({ chain, version, cipher, group }: SecuredBy, pin: Pin): TlsFacts | undefined {
  const [leaf] = chain;
  if (leaf === undefined) return undefined;
  const certificate = known.get(leaf) ?? certificateFacts(leaf);
  known.set(leaf, certificate);
  return {
    version,
    cipher,
    ...(group === undefined ? {} : { group }),
    ...certificate,
    pin: pinKey(pin).slice(0, pinCharactersMax),
  };
}

/** A session may send many messages under one certificate. */
const known = new WeakMap<X509Certificate, CertificateFacts>();

type CertificateFacts = Omit<TlsFacts, "version" | "cipher" | "group" | "pin">;

function certificateFacts(leaf: X509Certificate): CertificateFacts {
  // Typed as a list, and undefined in a certificate without the extension.
  const usages = leaf.keyUsage as string[] | undefined;
  return {
    certificate: certificateDigest(leaf),
    spki: spkiDigest(leaf),
    subject: nameText(leaf.subject),
    issuer: nameText(leaf.issuer),
    validFrom: timeText(leaf.validFromDate),
    validTo: timeText(leaf.validToDate),
    ...(usages === undefined
      ? {}
      : { keyUsage: usages.slice(0, keyUsagesMax).map((oid) => oid.slice(0, oidCharactersMax)) }),
  };
}

/** Node writes an attribute a line; of a certificate without a subject it gives none. */
function nameText(name: string | undefined): string {
  return (name ?? "").replaceAll("\n", ", ").slice(0, nameCharactersMax).toWellFormed();
}

function timeText(time: Date): string {
  return Number.isNaN(time.getTime()) ? "unknown" : time.toISOString();
}
