/**
 * Is the private key the certificate's, and nobody else's? Can the spool's folder be used? Opens and changes nothing;
 * faults are words that follow the name of what they are about.
 */
import { createPrivateKey, type KeyObject } from "node:crypto";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { parsePem } from "../config/pem.ts";
import { readBounded } from "../config/source.ts";
import { systemFault } from "../config/text.ts";

/** What is wrong with the private key, in words that follow its name; undefined if nothing is. */
export async function keyFault(keyFile: string, certificatePem: string): Promise<string | undefined> {
  try {
    const { mode } = await stat(keyFile);
    if ((mode & 0o077) !== 0) {
      const digits = (mode & 0o777).toString(8);
      return `is open to others (mode ${digits}): chmod 600, and let the relay's user own it`;
    }
  } catch (error) {
    const fault = systemFault(error);
    return fault === "does not exist" ? `${fault}: the key of \`tls.certificate\` belongs there` : fault;
  }
  const bytes = await readBounded(keyFile);
  if ("fault" in bytes) return `${bytes.fault}; check as the user that the relay runs as`;
  const key = parseKey(bytes);
  if (typeof key === "string") return key;
  const read = parsePem(Buffer.from(certificatePem));
  const matches = read.kind === "certificates" && read.certificates[0]?.checkPrivateKey(key) === true;
  return matches ? undefined : "is not the key of `tls.certificate`: the two must be made together";
}

function parseKey(pem: Buffer): KeyObject | string {
  if (/^(-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: *4,ENCRYPTED)/m.test(pem.toString("latin1"))) {
    return "is encrypted, and a relay has nobody to ask: `openssl pkey -in FILE -out NEW` takes the passphrase off";
  }
  try {
    return createPrivateKey(pem);
  } catch {
    // The library's words ("DECODER routines::unsupported") help nobody.
    return "holds no private key in PEM: it must begin with -----BEGIN PRIVATE KEY----- or the like";
  }
}

/** What is wrong with a folder that must be there, or be possible to make. */
export async function folderFault(folder: string): Promise<string | undefined> {
  const found = await stat(folder).catch((error: unknown) => systemFault(error));
  if (typeof found === "string") return found === "does not exist" ? parentFault(folder) : `${folder} ${found}`;
  if (!found.isDirectory()) return `${folder} is no folder: remove it, or name another`;
  if ((found.mode & 0o002) !== 0) return `${folder} may be written by everybody: chmod o-w`;
  return (await mayWrite(folder)) ? undefined : `${folder} may not be written by this user: check as the relay's user`;
}

async function parentFault(folder: string): Promise<string | undefined> {
  const parent = dirname(folder);
  const found = await stat(parent).catch((error: unknown) => systemFault(error));
  if (found === "does not exist" && parent !== folder) return parentFault(parent);
  if (typeof found === "string" || !found.isDirectory()) return `cannot be made: ${parent} is no folder`;
  return (await mayWrite(parent)) ? undefined : `cannot be made: ${parent} may not be written by this user`;
}

async function mayWrite(folder: string): Promise<boolean> {
  return access(folder, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
}
