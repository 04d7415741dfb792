/**
 * X.509 v3 certificates (RFC 5280): their parts, made as DER. What goes in is what the authority decided; nothing is
 * copied out of a request.
 *
 * Promises: the extensions are those of RFC 5280 §4.2 with their right criticality, times and key usages fit, names
 * are in canonical form. Pure: key, serial number and dates are passed in. Fails with {@link CertificateFault} for
 * names that a certificate cannot carry.
 */
import type { KeyObject } from "node:crypto";
import { canonicalDomain } from "../mail/domain.ts";
import { addressBytes } from "../partner/address-range.ts";
import {
  bitString,
  booleanTrue,
  contextConstructed,
  contextItems,
  contextPrimitive,
  contextTag,
  encode,
  integer,
  objectIdentifier,
  octetString,
  octetStringOctets,
  oidText,
  parseDer,
  sequence,
  sequenceItems,
  set,
  time,
  utf8String,
  type DerNode,
} from "./der.ts";
import { CertificateFault, WrongPlan } from "./fault.ts";
import { algorithmIdentifier, keyIdentifier, publicKeyInfo, schemeOf, signBytes } from "./key.ts";

/** What the holder of a certificate may be in TLS (RFC 5280 §4.2.1.12). */
export type Usages = "server" | "client" | "both";

/** Everything that is signed (TBSCertificate, RFC 5280 §4.1.2). */
export interface CertificateContent {
  /** Big-endian, up to 20 octets, not zero (RFC 5280 §4.1.2.2). */
  readonly serial: Uint8Array;
  readonly issuer: DerNode;
  readonly subject: DerNode;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly publicKey: KeyObject;
  readonly extensions: readonly DerNode[];
}

/** The certificate in DER, signed by the issuer's private key. */
export function signCertificate(content: CertificateContent, issuerKey: KeyObject): Buffer {
  const scheme = schemeOf(issuerKey);
  if (scheme === undefined) throw new CertificateFault("the CA's key is of a kind that cannot sign certificates here");
  const algorithm = algorithmIdentifier(scheme);
  const signed = sequence(
    contextConstructed(0, integer(Uint8Array.of(2))), // v3
    integer(content.serial),
    algorithm,
    content.issuer,
    sequence(time(content.notBefore), time(content.notAfter)),
    content.subject,
    publicKeyInfo(content.publicKey),
    contextConstructed(3, sequence(...content.extensions)),
  );
  return encode(sequence(signed, algorithm, bitString(signBytes(encode(signed), issuerKey, scheme))));
}

const commonNameCharactersMax = 64; // RFC 5280 appendix A.1, ub-common-name
// eslint-disable-next-line no-control-regex -- it is about control characters
const unprintable = /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/u;

/** May the text be a common name: something, not too long, nothing invisible that turns a display around? */
export function isCommonName(text: string): boolean {
  return text.trim() !== "" && text.length <= commonNameCharactersMax && !unprintable.test(text);
}

/** A subject of one common name. */
export function commonNameSubject(commonName: string): DerNode {
  if (!isCommonName(commonName)) {
    throw new WrongPlan(`a common name has 1 to ${commonNameCharactersMax} printable characters: choose another`);
  }
  return sequence(set(sequence(objectIdentifier("2.5.4.3"), utf8String(commonName))));
}

/** The extensions of a CA that signs end certificates only. */
export function authorityExtensions(publicKey: KeyObject): DerNode[] {
  const id = keyIdentifier(publicKeyInfo(publicKey));
  return [
    critical("2.5.29.19", sequence(booleanTrue(), integer(Uint8Array.of(0)))), // basicConstraints: cA, pathLen 0
    critical("2.5.29.15", bitString(Uint8Array.of(0x06), 1)), // keyUsage: keyCertSign, cRLSign
    extension("2.5.29.14", octetString(id)),
    extension("2.5.29.35", sequence(contextPrimitive(0, id))),
  ];
}

/** Names that the holder of a certificate may be checked by, as an operator wrote them. */
export interface AlternativeNames {
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
}

/** The extensions of an end certificate. */
export function leafExtensions(
  publicKey: KeyObject,
  issuerKeyId: Uint8Array,
  names: AlternativeNames,
  usages: Usages,
): DerNode[] {
  const generalNames = generalNamesOf(names);
  if (usages !== "client" && generalNames.length === 0) {
    // RFC 9525 §6.3: clients look at subjectAltName alone.
    throw new WrongPlan("a server's certificate needs the DNS name or the address that clients connect to");
  }
  return [
    critical("2.5.29.19", sequence()), // basicConstraints: not a CA
    critical("2.5.29.15", leafKeyUsage(publicKey)),
    extension("2.5.29.37", sequence(...extendedUsages[usages].map(objectIdentifier))),
    extension("2.5.29.14", octetString(keyIdentifier(publicKeyInfo(publicKey)))),
    extension("2.5.29.35", sequence(contextPrimitive(0, issuerKeyId))),
    ...(generalNames.length === 0 ? [] : [extension("2.5.29.17", sequence(...generalNames))]),
  ];
}

const serverAuth = "1.3.6.1.5.5.7.3.1";
const clientAuth = "1.3.6.1.5.5.7.3.2";
const extendedUsages: Readonly<Record<Usages, readonly string[]>> = {
  server: [serverAuth],
  client: [clientAuth],
  both: [serverAuth, clientAuth],
};

/** digitalSignature; for RSA also keyEncipherment, which the RSA key exchange of TLS 1.2 asks for (RFC 5246 §7.4.2). */
function leafKeyUsage(publicKey: KeyObject): DerNode {
  return publicKey.asymmetricKeyType === "rsa" ? bitString(Uint8Array.of(0xa0), 5) : bitString(Uint8Array.of(0x80), 7);
}

function generalNamesOf(names: AlternativeNames): DerNode[] {
  const dns = names.dnsNames.map((name) => {
    const canonical = canonicalDomain(name);
    if (canonical === undefined) throw new WrongPlan(`'${name}' is not a domain name: write it as mx.corp.example`);
    return canonical;
  });
  const addresses = names.ipAddresses.map((address) => {
    const bytes = address.includes("%") ? undefined : addressBytes(address);
    if (bytes === undefined) throw new WrongPlan(`'${address}' is not an IP address: write it as 192.0.2.1`);
    return bytes;
  });
  return [
    ...[...new Set(dns)].map((name) => contextPrimitive(2, Buffer.from(name, "latin1"))), // dNSName
    ...addresses.map((bytes) => contextPrimitive(7, Uint8Array.from(bytes))), // iPAddress
  ];
}

function extension(oid: string, value: DerNode): DerNode {
  return sequence(objectIdentifier(oid), octetString(encode(value)));
}

function critical(oid: string, value: DerNode): DerNode {
  return sequence(objectIdentifier(oid), booleanTrue(), octetString(encode(value)));
}

/** What of a certificate its issuer's work needs and node:crypto does not tell. */
export interface CertificateParts {
  readonly subject: DerNode;
  /** From the extension, or else computed as we would. */
  readonly keyId: Buffer;
  /** AlgorithmIdentifier of the signature. */
  readonly signatureAlgorithm: DerNode;
}

/** Takes a certificate apart. For files of the operator's only: what peers send is left to node:crypto. */
export function readCertificateParts(der: Uint8Array): CertificateParts {
  const [signed, signatureAlgorithm] = sequenceItems(parseDer(der));
  const items = sequenceItems(signed);
  const first = contextTag(items[0]) === 0 ? 1 : 0; // the version, absent in v1
  const subject = items[first + 4];
  const info = items[first + 5];
  if (subject === undefined || info === undefined || signatureAlgorithm === undefined) {
    throw new CertificateFault("the certificate is incomplete");
  }
  const extensions = items.find((item) => contextTag(item) === 3);
  const keyId = extensions === undefined ? undefined : subjectKeyIdentifier(contextItems(extensions, 3)[0]);
  return { subject, keyId: keyId ?? keyIdentifier(info), signatureAlgorithm };
}

function subjectKeyIdentifier(extensions: DerNode | undefined): Buffer | undefined {
  const found = sequenceItems(extensions)
    .map(sequenceItems)
    .find((items) => oidText(items[0]) === "2.5.29.14");
  return found === undefined ? undefined : octetStringOctets(parseDer(octetStringOctets(found.at(-1))));
}
