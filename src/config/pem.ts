/**
 * Certificates in PEM files (RFC 7468): the server's own chain, and trust anchors.
 *
 * Promises: every certificate in the file parses, and nothing else is in it that matters: a private key beside a
 * certificate is refused, because what is read here is handed around. Faults are one line that says what to do.
 */
import { X509Certificate } from "node:crypto";
import { readBounded } from "./source.ts";

export type PemCertificates =
  /** `pem` holds the certificates alone, in the file's order. */
  | { readonly kind: "certificates"; readonly pem: string; readonly certificates: readonly X509Certificate[] }
  /** In words that follow the file's name: `is a private key: …`. */
  | { readonly kind: "fault"; readonly fault: string };

const certificatesMax = 1000;

/** Reads files once each and remembers their bytes, by which a version is made. */
export class PemFiles {
  readonly #read = new Map<string, Promise<{ bytes: Uint8Array; result: PemCertificates }>>();

  async read(file: string): Promise<PemCertificates> {
    const known = this.#read.get(file);
    if (known !== undefined) return (await known).result;
    const reading = readPem(file);
    this.#read.set(file, reading);
    return (await reading).result;
  }

  /** All files that were read, in the order of their names. */
  async files(): Promise<Array<{ file: string; bytes: Uint8Array }>> {
    const files = [...this.#read.keys()].toSorted();
    return Promise.all(
      files.map(async (file) => ({ file, bytes: (await this.#read.get(file))?.bytes ?? Buffer.of() })),
    );
  }
}

/** Parses the text of a PEM file. */
export function parsePem(bytes: Uint8Array): PemCertificates {
  const text = Buffer.from(bytes).toString("latin1");
  if (text.trim() === "") return fault("is empty");
  if (!text.includes("-----BEGIN ")) {
    return bytes[0] === 0x30
      ? fault("is DER, not PEM: convert it with `openssl x509 -inform DER -in FILE -out FILE.pem`")
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

async function readPem(file: string): Promise<{ bytes: Uint8Array; result: PemCertificates }> {
  const bytes = await readBounded(file);
  return "fault" in bytes ? { bytes: Buffer.of(), result: fault(bytes.fault) } : { bytes, result: parsePem(bytes) };
}

function fault(words: string): PemCertificates {
  return { kind: "fault", fault: words };
}
