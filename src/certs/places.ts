/** Where a CA of ours and what it signed lie, unless the operator says otherwise. Pure. */
import { dirname, join } from "node:path";

/** `certs` beside the folder of the configuration. */
export function defaultCaDirectory(configFile: string): string {
  return join(dirname(configFile), "..", "certs");
}

/** Where the certificate lies that our CA signed for a partner. */
export function partnerCertificateFile(caDirectory: string, name: string): string {
  return join(caDirectory, "partners", `${name}.pem`);
}
