/**
 * Certificates for the interop tests, made at test time by the openssl command line, so that neither the relay's own
 * certificate code nor a committed key stands behind them. Fails with openssl's own message.
 */

import { createHash, X509Certificate } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { output } from "./processes.ts";

/** What a mail server is configured with. */
export interface KeyPair {
  certificateFile: string;
  keyFile: string;
}

export interface Certificate extends KeyPair {
  /** `sha256/BASE64` of the SubjectPublicKeyInfo (the form of RFC 7469), as a partner file has it. */
  spkiPin: string;
  /** `sha256/BASE64` of the whole DER certificate. */
  certificatePin: string;
  /** SHA-256 of the certificate in hexadecimal with colons, as `openssl x509 -fingerprint -sha256` and Postfix print it. */
  fingerprint: string;
  /** The same of the public key: Postfix's `smtp_tls_fingerprint_cert_match` takes either. */
  keyFingerprint: string;
}

export interface Authority extends Certificate {
  issue(name: string, options?: IssueOptions): Promise<Certificate>;
}

export interface IssueOptions {
  /** DNS names and e-mail addresses of the subjectAltName; default: the name itself as DNS name. */
  altNames?: string[];
  key?: KeyKind;
  /** Validity from now, in days; negative: already expired. */
  days?: number;
}

export type KeyKind = "ec" | "rsa";

/** A test CA whose files and those of all it issues are in `directory`. */
export async function createAuthority(directory: string, name: string): Promise<Authority> {
  const certificate = await selfSigned(directory, name, {
    extensions: ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"],
  });
  return {
    ...certificate,
    issue: async (subject, options = {}) => issue(directory, certificate, subject, options),
  };
}

/** A certificate that signs itself: what a partner who has no CA sends us. */
export async function selfSigned(
  directory: string,
  name: string,
  options: { key?: KeyKind; days?: number; extensions?: string[] } = {},
): Promise<Certificate> {
  const files = filesOf(directory, name);
  const extensions = options.extensions ?? [`subjectAltName=DNS:${name}`];
  await openssl([
    ["req", "-x509", "-batch", "-sha256", "-subj", `/CN=${name}`, "-days", String(options.days ?? 30)],
    newKey(options.key ?? "ec", files.keyFile),
    extensions.flatMap((extension) => ["-addext", extension]),
    ["-out", files.certificateFile],
  ]);
  return describeCertificate(files);
}

async function issue(directory: string, ca: KeyPair, name: string, options: IssueOptions): Promise<Certificate> {
  const files = filesOf(directory, name);
  const request = `${files.certificateFile}.csr`;
  const extensionsFile = `${files.certificateFile}.ext`;
  const altNames = (options.altNames ?? [name]).map((alt) => (alt.includes("@") ? `email:${alt}` : `DNS:${alt}`));
  await writeFile(
    extensionsFile,
    [
      "basicConstraints=critical,CA:FALSE",
      "keyUsage=critical,digitalSignature",
      "extendedKeyUsage=serverAuth,clientAuth,emailProtection",
      `subjectAltName=${altNames.join(",")}`,
    ].join("\n"),
  );
  await openssl([
    ["req", "-new", "-batch", "-subj", `/CN=${name}`, "-out", request],
    newKey(options.key ?? "ec", files.keyFile),
  ]);
  await openssl([
    ["x509", "-req", "-in", request, "-CA", ca.certificateFile, "-CAkey", ca.keyFile, "-sha256"],
    ["-days", String(options.days ?? 30), "-extfile", extensionsFile, "-out", files.certificateFile],
  ]);
  return describeCertificate(files);
}

/** Fingerprints and pins of the certificate in these files. */
export async function describeCertificate(files: KeyPair): Promise<Certificate> {
  const { raw, publicKey } = new X509Certificate(await readFile(files.certificateFile));
  const spki = publicKey.export({ type: "spki", format: "der" });
  return {
    ...files,
    spkiPin: `sha256/${sha256(spki, "base64")}`,
    certificatePin: `sha256/${sha256(raw, "base64")}`,
    fingerprint: withColons(sha256(raw, "hex")),
    keyFingerprint: withColons(sha256(spki, "hex")),
  };
}

function filesOf(directory: string, name: string): KeyPair {
  return { certificateFile: join(directory, `${name}.pem`), keyFile: join(directory, `${name}.key`) };
}

async function openssl(args: string[][]): Promise<void> {
  await output("openssl", args.flat());
}

function newKey(kind: KeyKind, keyFile: string): string[] {
  const algorithm = { ec: ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], rsa: ["rsa:2048"] }[kind];
  return ["-newkey", ...algorithm, "-nodes", "-keyout", keyFile];
}

function sha256(bytes: Buffer, encoding: "base64" | "hex"): string {
  return createHash("sha256").update(bytes).digest(encoding);
}

function withColons(hex: string): string {
  return (hex.toUpperCase().match(/../g) ?? []).join(":");
}
