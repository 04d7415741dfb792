/** What our CA has signed for partners, as far as the files are still there. */
import { X509Certificate } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { partnerCertificateFile } from "./places.ts";

export interface SignedCertificate {
  readonly partner: string;
  readonly file: string;
  readonly certificate: X509Certificate;
}

/**
 * `NAME.pem`, and what was signed later, as `NAME.2027-01-31.pem`. Never fails: nothing depends on these files, and one
 * that is missing, unreadable or something else is left out.
 * @param names of the partners asked for; those of others are not opened.
 */
export async function readSignedCertificates(
  caDirectory: string,
  names: ReadonlySet<string>,
): Promise<SignedCertificate[]> {
  const folder = dirname(partnerCertificateFile(caDirectory, "any"));
  const signed: SignedCertificate[] = [];
  for (const entry of await readdir(folder).catch(() => [])) {
    const partner = /^([^.]+)(?:\.[^/]+)?\.pem$/.exec(entry)?.[1];
    if (partner === undefined || !names.has(partner)) continue;
    const file = join(folder, entry);
    const certificate = await readCertificateIfThere(file);
    if (certificate !== undefined) signed.push({ partner, file, certificate });
  }
  return signed;
}

export async function readCertificateIfThere(file: string): Promise<X509Certificate | undefined> {
  try {
    return new X509Certificate(await readFile(file));
  } catch {
    return undefined;
  }
}
