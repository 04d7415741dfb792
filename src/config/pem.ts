/**
 * Certificates in PEM files (RFC 7468): the server's own chain, and trust anchors.
 *
 * Promises: every certificate in the file parses, and nothing else is in it that matters: a private key beside a
 * certificate is refused, because what is read here is handed around. Faults are one line that says what to do.
 */
import { X509Certificate } from "node:crypto";
import { derLabel } from "../certs/certificate-file.ts";
import { diskFiles, type FileFault, type FileSource } from "./file-source.ts";

export type PemCertificates =
  /** `pem` holds the certificates alone, in the file's order. */
  | { readonly kind: "certificates"; readonly pem: string; readonly certificates: readonly X509Certificate[] }
  /** In words that follow the file's name: `is a private key: …`. */
  | { readonly kind: "fault"; readonly fault: string };

const certificatesMax = 1000;

/** Reads files beside the YAML ones, once each, and remembers their bytes, by which a version is made. */
export class PemFiles {
  readonly #source: FileSource;
  readonly #bytes = new Map<string, Promise<Buffer | FileFault>>();
  readonly #parsed = new Map<string, Promise<PemCertificates>>();
  /** Files that the policy depends on. */
  readonly #counted = new Set<string>();

  constructor(source: FileSource = diskFiles) {
    this.#source = source;
  }

  /** Certificates on which policy depends. */
  read(file: string): Promise<PemCertificates> {
    this.#counted.add(file);
    return this.readOwn(file);
  }

  /** The relay's own certificate: whom it takes mail from does not depend on it, so it is no part of the version. */
  readOwn(file: string): Promise<PemCertificates> {
    const known = this.#parsed.get(file);
    if (known !== undefined) return known;
    const reading = this.#readPem(file);
    this.#parsed.set(file, reading);
    return reading;
  }

  /** The bytes of a file on which policy depends and which holds no certificates, as a revocation list. */
  readBytes(file: string): Promise<Buffer | FileFault> {
    this.#counted.add(file);
    return this.#readOnce(file);
  }

  /** All files on which policy depends, in the order of their names. */
  files(): Promise<Array<{ file: string; bytes: Uint8Array }>> {
    return Promise.all(
      [...this.#counted].toSorted().map(async (file) => {
        const bytes = await this.#readOnce(file);
        return { file, bytes: "fault" in bytes ? Buffer.of() : bytes };
      }),
    );
  }

  #readOnce(file: string): Promise<Buffer | FileFault> {
    const known = this.#bytes.get(file);
    if (known !== undefined) return known;
    const reading = this.#source.read(file);
    this.#bytes.set(file, reading);
    return reading;
  }

  async #readPem(file: string): Promise<PemCertificates> {
    const bytes = await this.#readOnce(file);
    return "fault" in bytes ? fault(bytes.fault) : parsePem(bytes);
  }
}

/** Parses the text of a PEM file. */
export function parsePem(bytes: Uint8Array): PemCertificates {
  const text = Buffer.from(bytes).toString("latin1");
  if (text.trim() === "") return fault("is empty");
  if (!text.includes("-----BEGIN ")) {
    return bytes[0] === 0x30
      ? fault(derFault(Buffer.from(bytes)))
      : fault("is no PEM file: it must hold lines as -----BEGIN CERTIFICATE-----");
  }
  const labels = [...text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----/g)].map((match) => match[1] ?? "");
  const certificateCount = labels.filter((label) => label === "CERTIFICATE").length;
  if (labels.some((label) => label.endsWith("PRIVATE KEY"))) {
    return certificateCount === 0
      ? fault("is a private key: name the certificate here, and the key under `tls.key`")
      : fault("holds a private key beside the certificate: move the key to a file of its own");
  }
  if (certificateCount === 0) {
    return labels.includes("CERTIFICATE REQUEST")
      ? fault("is a certificate request: have it signed, and name the certificate")
      : fault(`holds no certificate but ${labels.join(", ")}`);
  }
  if (certificateCount > certificatesMax) return fault(`holds more than ${certificatesMax} certificates`);
  return parseBlocks(text, certificateCount);
}

function derFault(der: Buffer): string {
  const label = derLabel(der);
  if (label === "PKCS12") return "is PKCS #12: convert it with `openssl pkcs12 -in FILE -nokeys -out FILE.pem`";
  if (label === "PKCS7")
    return "is PKCS #7: convert it with `openssl pkcs7 -inform DER -in FILE -print_certs -out FILE.pem`";
  if (label === "PRIVATE KEY") return "is a private key: name the certificate here, and the key under `tls.key`";
  return "is DER, not PEM: convert it with `openssl x509 -inform DER -in FILE -out FILE.pem`";
}

function parseBlocks(text: string, expected: number): PemCertificates {
  const pattern = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----/g;
  const blocks = [...text.matchAll(pattern)].map((match) => match[0]);
  const broken = "is broken: copy the file again, whole, from -----BEGIN to END-----";
  if (blocks.length !== expected) return fault(broken);
  const certificates: X509Certificate[] = [];
  for (const [index, block] of blocks.entries()) {
    try {
      certificates.push(new X509Certificate(block));
    } catch {
      // The library's words ("asn1 encoding routines::…") help nobody.
      return fault(expected === 1 ? broken : `certificate ${index + 1} of ${expected} ${broken}`);
    }
  }
  return { kind: "certificates", pem: `${blocks.join("\n")}\n`, certificates };
}

function fault(words: string): PemCertificates {
  return { kind: "fault", fault: words };
}
