/**
 * Everything that a relay needs to start on a test bench: a CA, and a certificate for the relay itself.
 *
 * Promises: running it again changes nothing; what exists is kept, looked at, and said so. Fails like `ca`.
 */
import { join } from "node:path";
import { canonicalDomain } from "../mail/domain.ts";
import { authorityFileName, exists, initCa, issue, loadCa, writeKeyPair } from "./ca.ts";
import { readCertificateFile } from "./certificate-file.ts";
import { isCommonName, type Usages } from "./certificate.ts";
import { CertificateFault } from "./fault.ts";

export interface MintStep {
  readonly kind: "made" | "kept";
  readonly files: readonly string[];
  /** What they are, in a few words. */
  readonly what: string;
  /** What is wrong with something that was kept, and what to do. */
  readonly warnings: readonly string[];
}

export const testCaDays = 3650;
export const testServerDays = 825;

/**
 * Mints what is missing of `ca.pem`, `ca.key`, `server.pem` and `server.key`. The relay's certificate serves both ways:
 * it is the server's for partners who come in, and the client's towards partners' hosts.
 */
export async function mintTestCa(plan: {
  readonly directory: string;
  readonly hostname: string;
  readonly now: Date;
}): Promise<MintStep[]> {
  const hostname = canonicalDomain(plan.hostname);
  if (hostname === undefined) {
    throw new CertificateFault(`'${plan.hostname}' is not a host name: write it as mx.corp.example`);
  }
  return [await mintAuthority(plan.directory, plan.now), await mintServer(plan.directory, hostname, plan.now)];
}

async function mintAuthority(directory: string, now: Date): Promise<MintStep> {
  const files = pairFiles(directory, "ca");
  const what = "test CA";
  if (await exists(join(directory, authorityFileName))) {
    await loadCa(directory, now); // a CA that cannot sign must not be kept in silence
    return { kind: "kept", files, what, warnings: [] };
  }
  await initCa({ directory, commonName: "pinrelay test CA", days: testCaDays, now });
  return { kind: "made", files, what, warnings: [] };
}

async function mintServer(directory: string, hostname: string, now: Date): Promise<MintStep> {
  const files = pairFiles(directory, "server");
  const [certificateFile = "", keyFile = ""] = files;
  const what = "certificate of the relay";
  if (await exists(certificateFile)) {
    if (!(await exists(keyFile))) {
      throw new CertificateFault(`${certificateFile}: its key ${keyFile} is missing: move the certificate away`);
    }
    const { leaf, warnings } = await readCertificateFile(certificateFile, { several: "leafFirst", now });
    const fits = leaf.checkHost(hostname, { subject: "never" }) !== undefined;
    const misfit = `${certificateFile}: is not for ${hostname}: move it and its key away, and run this again`;
    return { kind: "kept", files, what, warnings: fits ? warnings : [...warnings, misfit] };
  }
  const usages: Usages = "both";
  const commonName = isCommonName(hostname) ? hostname : "pinrelay";
  const plan = { directory, commonName, dnsNames: [hostname], ipAddresses: [], usages, days: testServerDays, now };
  await writeKeyPair(join(directory, "server"), await issue(plan));
  return { kind: "made", files, what, warnings: [] };
}

function pairFiles(directory: string, name: string): readonly string[] {
  return [join(directory, `${name}.pem`), join(directory, `${name}.key`)];
}
