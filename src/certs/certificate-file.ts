/**
 * Certificates and signing requests in files that a person was sent: told apart, checked, and refused in one line that
 * names the file and says what to do.
 *
 * Promises: what is returned parses, has a key and a signature that are strong enough, and stands alone or at the head
 * of its chain. PEM with any line ends, byte order mark and text around it is read, and DER. What may pass but should be
 * known (dates) is a warning. Fails with {@link CertificateFault}; reads at most one mebibyte.
 */
import { createReadStream } from "node:fs";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readCertificateParts } from "./certificate.ts";
import { CertificateFault } from "./fault.ts";
import { keyFault } from "./key.ts";
import { decodePem, decodeText, PemError, type PemBlock } from "./pem.ts";
import { parseRequest, requestBytesMax, type CertificateRequest } from "./request.ts";
import { readScheme } from "./signature.ts";

export interface CertificateFile {
  readonly file: string;
  readonly leaf: X509Certificate;
  /** Leaf first; the others as the file has them. */
  readonly chain: readonly X509Certificate[];
  /** Each a sentence that names the file. */
  readonly warnings: readonly string[];
}

const fileBytesMax = 1_048_576;

/**
 * Reads a certificate.
 * @param several what to do about more than one: "refuse", or take a chain whose first is the leaf.
 */
export async function readCertificateFile(
  file: string,
  options: { readonly several: "refuse" | "leafFirst"; readonly now: Date },
): Promise<CertificateFile> {
  const blocks = await readBlocks(file);
  refuseOtherThan("CERTIFICATE", blocks, file);
  const chain = blocks.map((block) => parseCertificate(block, file));
  const [leaf] = chain;
  if (leaf === undefined) throw new CertificateFault(`${file}: holds no certificate`);
  if (chain.length > 1 && options.several === "refuse") {
    throw new CertificateFault(`${file}: holds ${chain.length} certificates: leave only the one that is meant`);
  }
  if (!chain.every((certificate, index) => index === 0 || chain[index - 1]?.checkIssued(certificate) === true)) {
    throw new CertificateFault(
      `${file}: its ${chain.length} certificates are no chain with the leaf first: leave only the one that is meant`,
    );
  }
  return { file, leaf, chain, warnings: checkCertificate(leaf, file, options.now) };
}

/**
 * Refuses a certificate whose key or signature is too weak, wherever it comes from.
 * @param what it is called by in messages: its file.
 * @returns warnings about its dates.
 */
export function checkCertificate(certificate: X509Certificate, what: string, now: Date): string[] {
  refuseWeak(certificate, what);
  return datesWarnings(certificate, what, now);
}

/** Reads a signing request and checks its signature. */
export async function readRequestFile(file: string): Promise<CertificateRequest> {
  const blocks = await readBlocks(file);
  refuseOtherThan("CERTIFICATE REQUEST", blocks, file);
  const [block, ...rest] = blocks;
  if (block === undefined || rest.length > 0) {
    throw new CertificateFault(`${file}: holds ${blocks.length} requests: leave only the one that is meant`);
  }
  try {
    return parseRequest(block.der);
  } catch (error) {
    if (error instanceof CertificateFault) {
      throw new CertificateFault(`${file}: the request ${error.message}`, { cause: error });
    }
    throw error;
  }
}

async function readBlocks(file: string): Promise<PemBlock[]> {
  const bytes = await readBytes(file);
  if (bytes.length === 0) throw new CertificateFault(`${file}: is empty`);
  const text = decodeText(bytes);
  try {
    const blocks = decodePem(text);
    if (blocks.length > 0) return blocks;
  } catch (error) {
    if (error instanceof PemError) throw new CertificateFault(`${file}: ${error.message}`, { cause: error });
    throw error;
  }
  if (bytes[0] === 0x30) return [{ label: derLabel(bytes), der: bytes, line: 1 }];
  throw new CertificateFault(`${file}: ${describeForeign(bytes, text)}`);
}

async function readBytes(file: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  try {
    // Reads one byte more than is allowed, and so stops at what never ends.
    for await (const chunk of createReadStream(file, { end: fileBytesMax })) {
      if (chunk instanceof Buffer) chunks.push(chunk);
    }
  } catch (cause) {
    throw new CertificateFault(`${file}: ${readFailure(cause)}`, { cause });
  }
  const bytes = Buffer.concat(chunks);
  if (bytes.length > fileBytesMax) throw new CertificateFault(`${file}: is larger than 1 MiB: it is no certificate`);
  return bytes;
}

function readFailure(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT") return "no such file";
  if (code === "EISDIR") return "is a folder: name the file in it";
  if (code === "EACCES") return "may not be read: check its permissions";
  return `cannot be read: ${error instanceof Error ? error.message : String(error)}`;
}

/** What a DER file is, as a PEM file's label would say it. */
export function derLabel(der: Buffer): string {
  const head = der.subarray(0, 64).toString("hex");
  // PFX (RFC 7292 §4): version 3, then a ContentInfo of data (…7.1) or signedData (…7.2).
  if (/^30(..){1,5}?02010330(..){1,5}?06092a864886f70d01070[12]/.test(head)) {
    return "PKCS12";
  }
  if (/^30(..){1,5}?06092a864886f70d010702/.test(head)) return "PKCS7";
  if (isPrivateKey(der)) return "PRIVATE KEY";
  return isRequest(der) ? "CERTIFICATE REQUEST" : "CERTIFICATE";
}

function isPrivateKey(der: Buffer): boolean {
  return (["pkcs8", "pkcs1", "sec1"] as const).some((type) => {
    try {
      createPrivateKey({ key: der, format: "der", type });
      return true;
    } catch (error) {
      return error instanceof Error && "code" in error && error.code === "ERR_MISSING_PASSPHRASE";
    }
  });
}

function isRequest(der: Buffer): boolean {
  if (der.length > requestBytesMax) return false;
  try {
    parseRequest(der);
    return true;
  } catch (error) {
    // Every other fault of a request is found after its structure.
    return error instanceof CertificateFault && !error.message.startsWith("is damaged");
  }
}

function refuseOtherThan(
  wanted: "CERTIFICATE" | "CERTIFICATE REQUEST",
  blocks: readonly PemBlock[],
  file: string,
): void {
  const labels = blocks.map((block) => canonicalLabel(block.label));
  // A private key weighs more than whatever stands beside it.
  const wrong = labels.find((label) => label === "PRIVATE KEY") ?? labels.find((label) => label !== wanted);
  if (wrong !== undefined) throw new CertificateFault(`${file}: ${describeLabel(wrong, file)}`);
}

function canonicalLabel(label: string): string {
  if (label.endsWith("PRIVATE KEY")) return "PRIVATE KEY";
  if (label === "X509 CERTIFICATE") return "CERTIFICATE"; // RFC 7468 §5.1
  if (label === "NEW CERTIFICATE REQUEST") return "CERTIFICATE REQUEST"; // RFC 7468 §7
  return label === "CMS" ? "PKCS7" : label;
}

/** What the file is instead, and what to do about it. */
function describeLabel(label: string, file: string): string {
  switch (label) {
    case "PRIVATE KEY":
      return "holds a private key, which must never leave its owner: if it was sent to you, ask for a new key; a certificate is enough";
    case "CERTIFICATE REQUEST":
      return "is a signing request, not a certificate: give it as --csr";
    case "CERTIFICATE":
      return "is a certificate, not a signing request: give it as --cert";
    case "PKCS12":
      return `is PKCS #12: convert it with openssl pkcs12 -in ${quoted(file)} -clcerts -nokeys -out certificate.pem`;
    case "PKCS7":
      return `is PKCS #7: convert it with openssl pkcs7 -in ${quoted(file)} -print_certs -out certificate.pem (DER: add -inform DER)`;
    case "X509 CRL":
      return "is a revocation list (CRL), not a certificate: it is named as revocation-list beside a trust anchor";
    case "PUBLIC KEY":
      return "is a bare public key: ask for the certificate";
    case "TRUSTED CERTIFICATE":
      return `is in openssl's own form: convert it with openssl x509 -in ${quoted(file)} -out certificate.pem`;
    default:
      return `holds '${label}', not what was asked for: ask for a certificate in PEM`;
  }
}

function describeForeign(bytes: Buffer, text: string): string {
  if (bytes.subarray(0, 4).toString("hex") === "feedfeed") {
    return "is a Java key store: export the certificate with keytool -exportcert -rfc";
  }
  if (/^\s*MI[A-Za-z0-9+/=\s]+$/.test(text)) {
    return "is base64 without its first and last line: put -----BEGIN CERTIFICATE----- before and -----END CERTIFICATE----- behind";
  }
  return text.includes("BEGIN CERTIFICATE")
    ? "is damaged: its BEGIN line is not as it should be, -----BEGIN CERTIFICATE----- and nothing else"
    : "holds neither PEM nor DER: ask for a certificate in PEM";
}

function parseCertificate(block: PemBlock, file: string): X509Certificate {
  let certificate: X509Certificate | undefined;
  try {
    certificate = new X509Certificate(block.der);
  } catch {
    // The library's reason ("wrong tag") helps nobody; what to do is the same for all of them.
  }
  if (certificate === undefined || !certificate.raw.equals(block.der)) {
    throw new CertificateFault(`${file}: the certificate in line ${block.line} is damaged: ask for it again`);
  }
  return certificate;
}

function refuseWeak(certificate: X509Certificate, file: string): void {
  let fault: string | undefined;
  try {
    fault = keyFault(certificate.publicKey) ?? signatureFault(certificate);
  } catch (cause) {
    throw new CertificateFault(`${file}: its key is of a kind that cannot be read here: ask for one with EC P-256`, {
      cause,
    });
  }
  if (fault !== undefined) throw new CertificateFault(`${file}: is refused: ${fault}`);
}

function signatureFault(certificate: X509Certificate): string | undefined {
  const name = certificate.signatureAlgorithm ?? certificate.signatureAlgorithmOid;
  // The name of RSASSA-PSS does not tell the hash.
  const scheme = /pss/i.test(name) ? readScheme(readCertificateParts(certificate.raw).signatureAlgorithm) : undefined;
  const weak = scheme?.kind === "weak" ? scheme.hash : /md[245](?![0-9])|sha-?1(?![0-9])/i.exec(name)?.[0];
  if (weak === undefined) return undefined;
  return `it is signed with ${weak.toUpperCase().replace(/^SHA-?1$/, "SHA-1")}: have it signed with SHA-256`;
}

function datesWarnings(certificate: X509Certificate, file: string, now: Date): string[] {
  const { validFromDate, validToDate } = certificate;
  if (Number.isNaN(validFromDate.getTime()) || Number.isNaN(validToDate.getTime())) {
    throw new CertificateFault(`${file}: is refused: the dates in the certificate cannot be read: ask for another one`);
  }
  if (now > validToDate) return [`${file}: the certificate expired on ${instantText(validToDate)}`];
  if (now < validFromDate) return [`${file}: the certificate is not valid before ${instantText(validFromDate)}`];
  return [];
}

/** A certificate's dates have no fractions of seconds. */
function instantText(date: Date): string {
  return date.toISOString().replace(/\.\d+/, "");
}

/** A file name for a command that will be pasted into a shell. */
function quoted(file: string): string {
  return /^[\w./-]+$/.test(file) ? file : `'${file.replaceAll("'", String.raw`'\''`)}'`;
}
