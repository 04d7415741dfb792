/**
 * Certificate revocation lists (RFC 5280 §5): read from a CA's file, and made by our own CA.
 *
 * Promises: a list that is returned is a complete one (neither delta nor indirect nor of a part only), names the day of
 * the next one, and holds nothing critical that is not understood here; whose it is, `isOf` tells by name and signature.
 * Pure; fails with {@link CertificateFault}, whose message follows the file's name.
 */
import type { X509Certificate } from "node:crypto";
import { pathRules } from "../partner/path-rules.ts";
import type { RevocationList } from "../partner/revocation.ts";
import type { Authority } from "./authority.ts";
import {
  bitString,
  bitStringOctets,
  contextConstructed,
  contextItems,
  contextPrimitive,
  contextTag,
  DerError,
  encode,
  enumerated,
  integer,
  integerOctets,
  isInteger,
  isTrue,
  objectIdentifier,
  octetString,
  octetStringOctets,
  oidText,
  parseDer,
  sequence,
  sequenceItems,
  time,
  timeOf,
  type DerNode,
} from "./der.ts";
import { CertificateFault } from "./fault.ts";
import { algorithmIdentifier, schemeOf, signBytes } from "./key.ts";
import { decodePem, decodeText, encodePem, PemError } from "./pem.ts";
import { isSignedBy, readScheme, type ReadScheme } from "./signature.ts";

/** The largest list that is read: some 25 000 certificates. */
export const revocationListBytesMax = 1024 * 1024;

/** Why a certificate was revoked (RFC 5280 §5.3.1); those that make sense for one that our CA issued. */
export const revocationReasons = [
  "unspecified",
  "keyCompromise",
  "affiliationChanged",
  "superseded",
  "cessationOfOperation",
  "privilegeWithdrawn",
] as const;
export type RevocationReason = (typeof revocationReasons)[number];

const reasonCodes: Readonly<Record<RevocationReason, number>> = {
  unspecified: 0,
  keyCompromise: 1,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  privilegeWithdrawn: 9,
};

export interface RevokedCertificate {
  /** Hexadecimal, upper case, without leading zeros: as {@link serialOf} tells it. */
  readonly serial: string;
  readonly at: Date;
  readonly reason: RevocationReason;
}

/** A list as its file has it. */
export interface ReadRevocationList extends RevocationList {
  /** Undefined where the list has none. */
  readonly number: bigint | undefined;
  readonly serials: ReadonlySet<string>;
}

/**
 * Reads a list, PEM or DER.
 * @param file stands in the result; it is not opened.
 */
export function parseRevocationList(bytes: Uint8Array, file: string): ReadRevocationList {
  if (bytes.length > revocationListBytesMax) {
    throw new CertificateFault(
      `is larger than ${revocationListBytesMax / 1024 ** 2} MiB: ask the CA for a shorter list`,
    );
  }
  try {
    return readList(listDer(bytes), file);
  } catch (error) {
    if (error instanceof DerError) {
      throw new CertificateFault(`is damaged or no revocation list: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

/** A certificate's serial number in the form of {@link RevokedCertificate}. */
export function serialOf(certificate: X509Certificate): string {
  return plainSerial(certificate.serialNumber);
}

/** The list of an authority of ours, in PEM: complete, from `now` for `days`. */
export function createRevocationList(
  authority: Authority,
  plan: {
    readonly revoked: readonly RevokedCertificate[];
    /** Larger than that of every earlier list (RFC 5280 §5.2.3). */
    readonly number: bigint;
    readonly now: Date;
    readonly nextUpdate: Date;
  },
): string {
  const scheme = schemeOf(authority.key);
  if (scheme === undefined) throw new CertificateFault("the CA's key is of a kind that cannot sign lists here");
  if (pathRules(authority.certificate)?.maySignLists !== true) {
    throw new CertificateFault("the CA may not sign revocation lists: its key usage lacks cRLSign");
  }
  const algorithm = algorithmIdentifier(scheme);
  const revoked = plan.revoked.map(({ serial, at, reason }) =>
    sequence(
      integer(serialOctets(serial)),
      time(at),
      // RFC 5280 §5.3.1: unspecified is said by saying nothing.
      reason === "unspecified"
        ? undefined
        : sequence(extension("2.5.29.21", enumerated(Uint8Array.of(reasonCodes[reason])))),
    ),
  );
  const signed = sequence(
    integer(Uint8Array.of(1)), // v2
    algorithm,
    authority.subject,
    time(plan.now),
    time(plan.nextUpdate),
    revoked.length === 0 ? undefined : sequence(...revoked), // RFC 5280 §5.1.2.6: absent, never empty
    contextConstructed(
      0,
      sequence(
        extension("2.5.29.35", sequence(contextPrimitive(0, authority.keyId))),
        extension("2.5.29.20", integer(serialOctets(plan.number.toString(16)))),
      ),
    ),
  );
  const der = encode(sequence(signed, algorithm, bitString(signBytes(encode(signed), authority.key, scheme))));
  return encodePem("X509 CRL", der);
}

function extension(oid: string, value: DerNode): DerNode {
  return sequence(objectIdentifier(oid), octetString(encode(value)));
}

function listDer(bytes: Uint8Array): Buffer {
  if (bytes.length === 0) throw new CertificateFault("is empty");
  // Of DER the first octet is that of a SEQUENCE, which no text begins with: its digit zero would stand alone.
  const text = bytes[0] === 0x30 && bytes[1] !== 0x30 ? "" : decodeText(bytes);
  if (!text.includes("-----BEGIN ")) {
    if (bytes[0] === 0x30) return Buffer.from(bytes);
    throw new CertificateFault("holds neither PEM nor DER: ask the CA for its revocation list (CRL)");
  }
  const blocks = readBlocks(text);
  const [first, ...rest] = blocks.filter(({ label }) => label === "X509 CRL"); // RFC 7468 §6
  if (first === undefined) {
    const what = blocks[0] === undefined ? "no whole block" : `a ${blocks[0].label}`;
    throw new CertificateFault(`holds ${what}, not a revocation list: it begins with -----BEGIN X509 CRL-----`);
  }
  if (rest.length > 0) throw new CertificateFault("holds several revocation lists: give each a file of its own");
  return first.der;
}

function readBlocks(text: string): ReturnType<typeof decodePem> {
  try {
    return decodePem(text);
  } catch (error) {
    if (error instanceof PemError) throw new CertificateFault(`is damaged: ${error.message}`, { cause: error });
    throw error;
  }
}

function readList(der: Buffer, file: string): ReadRevocationList {
  const [list, algorithm, signature, ...rest] = sequenceItems(parseDer(der));
  const items = [...sequenceItems(list)];
  if (list === undefined || algorithm === undefined || rest.length > 0)
    throw new DerError("it has parts too few or too many");
  if (isInteger(items[0])) {
    const version = integerOctets(items.shift()).toString("hex");
    if (version !== "01") throw new DerError("its version is neither 1 nor 2"); // RFC 5280 §5.1.2.1
  }
  const [innerAlgorithm, issuer, thisUpdate, ...more] = items;
  if (innerAlgorithm === undefined || issuer === undefined || !encode(innerAlgorithm).equals(encode(algorithm))) {
    throw new DerError("its two signature algorithms differ"); // RFC 5280 §5.1.1.2
  }
  const scheme = readStrongScheme(algorithm);
  const nextUpdate = more[0] === undefined ? undefined : timeOf(more[0]);
  if (nextUpdate === undefined) {
    throw new CertificateFault(
      "does not say when the next list is due (nextUpdate), so nobody can tell whether it is stale",
    );
  }
  more.shift();
  const entries = contextTag(more[0]) === undefined && more.length > 0 ? sequenceItems(more.shift()) : [];
  const extensions = more.length === 0 ? [] : sequenceItems(contextItems(more.shift(), 0)[0]);
  if (more.length > 0) throw new DerError("it has parts too few or too many");
  const serials = new Set(entries.map(readEntry));
  const [issuerDer, signed, signatureBytes] = [encode(issuer), encode(list), bitStringOctets(signature)];
  return {
    file,
    thisUpdate: requiredTime(thisUpdate),
    nextUpdate,
    number: readExtensions(extensions),
    serials,
    revokes: (certificate) => serials.has(serialOf(certificate)),
    isOf: memoised((authority) => {
      const rules = pathRules(authority);
      return (
        rules?.maySignLists === true &&
        rules.subject.equals(issuerDer) &&
        isSignedByAuthority(signed, authority, scheme, signatureBytes)
      );
    }),
  };
}

function isSignedByAuthority(
  signed: Buffer,
  authority: X509Certificate,
  scheme: StrongScheme,
  signature: Buffer,
): boolean {
  try {
    return isSignedBy(signed, authority.publicKey, scheme, signature);
  } catch {
    return false; // a key that cannot be read
  }
}

type StrongScheme = ReadScheme & { readonly kind: "plain" | "pss" };

function readStrongScheme(algorithm: DerNode): StrongScheme {
  const scheme = readScheme(algorithm);
  switch (scheme.kind) {
    case "plain":
    case "pss":
      return scheme;
    case "weak":
      throw new CertificateFault(`is signed with ${scheme.hash}: ask the CA for a list signed with SHA-256`);
    case "unknown":
      throw new CertificateFault(`is signed by an algorithm not known here (${scheme.oid})`);
  }
}

/** The serial number of an entry. What its reason is makes no difference: also a certificate on hold is not to be used. */
function readEntry(entry: DerNode): string {
  const [serial, , extensions] = sequenceItems(entry);
  for (const one of extensions === undefined ? [] : sequenceItems(extensions)) {
    const { oid, isCritical } = readExtension(one);
    // certificateIssuer (RFC 5280 §5.3.3), of indirect lists, is critical.
    if (isCritical) throw new CertificateFault(`has a critical extension in an entry that is not known here (${oid})`);
  }
  return serialText(integerOctets(serial));
}

const deltaIndicator = "2.5.29.27";
const issuingDistributionPoint = "2.5.29.28";
const listNumber = "2.5.29.20";

/** The list's number; extensions that would make it something else than a complete list are refused. */
function readExtensions(extensions: readonly DerNode[]): bigint | undefined {
  let number: bigint | undefined;
  for (const one of extensions) {
    const { oid, isCritical, value } = readExtension(one);
    if (oid === deltaIndicator) {
      throw new CertificateFault("is a delta list, which tells changes only: ask the CA for the complete one");
    }
    if (oid === issuingDistributionPoint) {
      throw new CertificateFault(
        "tells of a part of the CA's certificates only, or of several CAs (issuingDistributionPoint): ask the CA for its complete list",
      );
    }
    if (oid === listNumber) number = signedValue(integerOctets(parseDer(value)));
    else if (isCritical) throw new CertificateFault(`has a critical extension that is not known here (${oid})`);
  }
  return number;
}

function readExtension(node: DerNode): { oid: string; isCritical: boolean; value: Buffer } {
  const items = sequenceItems(node);
  const value = octetStringOctets(items.at(-1));
  return { oid: oidText(items[0]), isCritical: items.length === 3 && isTrue(items[1]), value };
}

function requiredTime(node: DerNode | undefined): Date {
  const date = node === undefined ? undefined : timeOf(node);
  if (date === undefined) throw new DerError("it does not say when it was made");
  return date;
}

/** Negative numbers, which a few old CAs gave, as node:crypto writes them: with their sign. */
function serialText(octets: Buffer): string {
  return plainSerial(signedValue(octets).toString(16));
}

function signedValue(octets: Buffer): bigint {
  if (octets.length === 0) throw new DerError("an INTEGER is empty");
  return BigInt.asIntN(octets.length * 8, BigInt(`0x${octets.toString("hex")}`));
}

function plainSerial(text: string): string {
  return text.toUpperCase().replace(/^(-?)0+(?=.)/, "$1");
}

function serialOctets(hex: string): Buffer {
  return Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex");
}

/** Signatures cost; whose list it is does not change. */
function memoised(ask: (authority: X509Certificate) => boolean): (authority: X509Certificate) => boolean {
  const answers = new WeakMap<X509Certificate, boolean>();
  return (authority) => {
    const answer = answers.get(authority) ?? ask(authority);
    answers.set(authority, answer);
    return answer;
  };
}
