/**
 * A certification authority in memory: what it is, and what it signs. Files are the business of `ca`.
 *
 * Promises: a certificate that leaves here carries a 128-bit random serial number, lies within the authority's own
 * dates, and has been checked against the authority by node:crypto. Fails with {@link CertificateFault}.
 */
import { createPrivateKey, createPublicKey, randomBytes, X509Certificate, type KeyObject } from "node:crypto";
import {
  authorityExtensions,
  commonNameSubject,
  leafExtensions,
  readCertificateParts,
  signCertificate,
  type AlternativeNames,
  type Usages,
} from "./certificate.ts";
import type { DerNode } from "./der.ts";
import { CertificateFault, WrongPlan } from "./fault.ts";
import { generateKey, keyPem, type KeyType } from "./key.ts";
import { encodePem } from "./pem.ts";

/** An authority that can sign. */
export interface Authority {
  readonly certificate: X509Certificate;
  readonly key: KeyObject;
  readonly subject: DerNode;
  readonly keyId: Buffer;
}

/** A certificate with its private key (PKCS #8), both in PEM. */
export interface KeyPair {
  readonly certificatePem: string;
  readonly keyPem: string;
}

const dayMs = 86_400_000;
const daysMax = 36_525; // a century
/** Certificates begin a little in the past: the clocks of two companies differ. */
const backdateMs = 5 * 60_000;

export interface AuthorityPlan {
  readonly commonName: string;
  readonly keyType: KeyType;
  readonly days: number;
  readonly now: Date;
}

/** Makes a self-signed authority that may sign end certificates. */
export async function createAuthority(plan: AuthorityPlan): Promise<KeyPair> {
  const subject = commonNameSubject(plan.commonName);
  const validity = validityOf(plan.days, plan.now);
  const key = await generateKey(plan.keyType);
  const publicKey = createPublicKey(key);
  const extensions = authorityExtensions(publicKey);
  const der = signCertificate(
    { serial: randomSerial(), issuer: subject, subject, ...validity, publicKey, extensions },
    key,
  );
  return { certificatePem: encodePem("CERTIFICATE", der), keyPem: keyPem(key) };
}

/** Puts a certificate and its key together again, and makes sure that they can sign. */
export function openAuthority(pair: KeyPair, now: Date): Authority {
  const certificate = attempt(() => new X509Certificate(pair.certificatePem), "the CA's certificate cannot be read");
  const key = attempt(() => createPrivateKey(pair.keyPem), "the CA's key cannot be read, or needs a passphrase");
  if (!certificate.ca) throw new CertificateFault("the CA's certificate is not that of a CA");
  if (!certificate.checkPrivateKey(key)) throw new CertificateFault("the CA's key does not belong to its certificate");
  if (now > certificate.validToDate) {
    throw new CertificateFault(`the CA expired on ${certificate.validToDate.toISOString()}: make a new one`);
  }
  if (now < certificate.validFromDate) {
    throw new CertificateFault(
      `the CA is not valid before ${certificate.validFromDate.toISOString()}: is the clock of this machine right?`,
    );
  }
  const parts = attempt(() => readCertificateParts(certificate.raw), "the CA's certificate cannot be read");
  return { certificate, key, subject: parts.subject, keyId: parts.keyId };
}

/** What an end certificate shall say. */
export interface LeafPlan extends AlternativeNames {
  readonly commonName: string;
  readonly usages: Usages;
  readonly days: number;
  readonly now: Date;
}

/** Makes a key and a certificate for it. */
export async function issueUnder(authority: Authority, plan: LeafPlan, keyType: KeyType): Promise<KeyPair> {
  const key = await generateKey(keyType);
  return { certificatePem: certify(authority, plan, createPublicKey(key)), keyPem: keyPem(key) };
}

/** Makes a certificate for a key whose owner has proven to have its private half. Ends when the authority ends. */
export function certify(authority: Authority, plan: LeafPlan, publicKey: KeyObject): string {
  const { notBefore, notAfter } = validityOf(plan.days, plan.now);
  const { validFromDate, validToDate } = authority.certificate;
  const der = signCertificate(
    {
      serial: randomSerial(),
      issuer: authority.subject,
      subject: commonNameSubject(plan.commonName),
      notBefore: notBefore < validFromDate ? validFromDate : notBefore,
      notAfter: notAfter > validToDate ? validToDate : notAfter,
      publicKey,
      extensions: leafExtensions(publicKey, authority.keyId, plan, plan.usages),
    },
    authority.key,
  );
  const certificate = new X509Certificate(der);
  if (!certificate.checkIssued(authority.certificate) || !certificate.verify(authority.certificate.publicKey)) {
    throw new CertificateFault("the CA may not sign certificates: its key usage lacks keyCertSign");
  }
  return encodePem("CERTIFICATE", der);
}

function validityOf(days: number, now: Date): { notBefore: Date; notAfter: Date } {
  if (!Number.isInteger(days) || days < 1 || days > daysMax) {
    throw new WrongPlan(`a certificate is valid for 1 to ${daysMax} whole days`);
  }
  return { notBefore: new Date(now.getTime() - backdateMs), notAfter: new Date(now.getTime() + days * dayMs) };
}

/** 128 random bits, never zero (RFC 5280 §4.1.2.2: positive, at most 20 octets). */
function randomSerial(): Uint8Array {
  const serial = randomBytes(16);
  return serial.every((byte) => byte === 0) ? randomSerial() : serial;
}

function attempt<T>(action: () => T, otherwise: string): T {
  try {
    return action();
  } catch (cause) {
    throw new CertificateFault(otherwise, { cause });
  }
}
