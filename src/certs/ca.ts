/**
 * The certification authority in a folder: `ca.pem` and `ca.key`, and what it issues.
 *
 * Promises: a private key is readable by its owner alone from the first byte on; files are on stable storage when a
 * function returns; nothing that exists is overwritten. Fails with {@link CertificateFault}, which says what to do, and
 * with the system's errors. It is a CA for tests and for partners without their own, of one level;
 * what it revokes is the business of `revocations`.
 */
import { X509Certificate } from "node:crypto";
import { mkdir, open, stat, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { writeFileDurably } from "../files/durable.ts";
import { certify, createAuthority, issueUnder, openAuthority, type Authority, type KeyPair } from "./authority.ts";
import type { LeafPlan } from "./authority.ts";
import { CertificateFault } from "./fault.ts";
import type { KeyType } from "./key.ts";
import type { CertificateRequest } from "./request.ts";

export const authorityFileName = "ca.pem";
export const authorityKeyFileName = "ca.key";

/** Where a certificate and its key lie. */
export interface KeyPairFiles {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly certificate: X509Certificate;
}

/** Makes a CA in a folder, which is created where it is missing. */
export async function initCa(plan: {
  readonly directory: string;
  readonly commonName: string;
  readonly keyType?: KeyType;
  readonly days: number;
  readonly now: Date;
}): Promise<KeyPairFiles> {
  const pair = await createAuthority({ ...plan, keyType: plan.keyType ?? "ec-p256" });
  return writeKeyPair(join(plan.directory, "ca"), pair);
}

/** Reads the CA of a folder. */
export async function loadCa(directory: string, now: Date): Promise<Authority> {
  const keyFile = join(directory, authorityKeyFileName);
  const certificatePem = await readOwn(join(directory, authorityFileName));
  const keyPem = await readOwn(keyFile, "secret");
  try {
    return openAuthority({ certificatePem, keyPem }, now);
  } catch (error) {
    if (error instanceof CertificateFault) {
      throw new CertificateFault(`${directory}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

/** Makes a key and a certificate under the CA of a folder, in memory. */
export async function issue(
  plan: LeafPlan & { readonly directory: string; readonly keyType?: KeyType },
): Promise<KeyPair> {
  return issueUnder(await loadCa(plan.directory, plan.now), plan, plan.keyType ?? "ec-p256");
}

/** Certifies the key of a request. The names are the plan's: the request's own are for the caller to judge. */
export async function signRequest(
  plan: LeafPlan & { readonly directory: string; readonly request: CertificateRequest },
): Promise<{ certificatePem: string; certificate: X509Certificate }> {
  const certificatePem = certify(await loadCa(plan.directory, plan.now), plan, plan.request.publicKey);
  return { certificatePem, certificate: new X509Certificate(certificatePem) };
}

/** Writes `BASE.pem` and `BASE.key`; neither may exist. Their folder is created. */
export async function writeKeyPair(base: string, pair: KeyPair): Promise<KeyPairFiles> {
  const certificateFile = `${base}.pem`;
  const keyFile = `${base}.key`;
  await mkdir(dirname(base), { recursive: true });
  if (await exists(certificateFile)) throw existing(certificateFile);
  // The key first: a certificate without its key would be kept by everybody as if it were of use.
  await writeNew(keyFile, pair.keyPem, 0o600);
  try {
    await writeNew(certificateFile, pair.certificatePem, 0o644);
  } catch (error) {
    // It is ours: written a moment ago, and it was not there before. The first error is the one that tells.
    await unlink(keyFile).catch(() => undefined);
    throw error;
  }
  return { certificateFile, keyFile, certificate: new X509Certificate(pair.certificatePem) };
}

/** Writes a certificate where none is yet; its folder is created. */
export async function writeCertificate(file: string, certificatePem: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeNew(file, certificatePem, 0o644);
}

export async function exists(file: string): Promise<boolean> {
  try {
    await stat(file);
    return true;
  } catch (error) {
    if (isCode(error, "ENOENT")) return false;
    throw error;
  }
}

async function writeNew(file: string, text: string, mode: number): Promise<void> {
  try {
    await writeFileDurably(file, text, mode, "refuse");
  } catch (error) {
    throw isCode(error, "EEXIST") ? existing(file) : error;
  }
}

async function readOwn(file: string, secrecy: "public" | "secret" = "public"): Promise<string> {
  try {
    const handle = await open(file, "r");
    try {
      const { mode } = await handle.stat();
      if (secrecy === "secret" && (mode & 0o077) !== 0) {
        throw new CertificateFault(`${file}: others than its owner may read it: run chmod 600 on it`);
      }
      return await handle.readFile("utf8");
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (!isCode(error, "ENOENT")) throw error;
    throw new CertificateFault(`${file}: no such file: make a CA with pinrelay ca init, or name its folder with --ca`, {
      cause: error,
    });
  }
}

function existing(file: string): CertificateFault {
  return new CertificateFault(`${file}: exists and is left as it is: move ${basename(file)} away to make a new one`);
}

export function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
