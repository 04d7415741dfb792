/** The certificates under fixtures/, by the name of their file. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";

export function certificate(name: string): X509Certificate {
  return new X509Certificate(readFileSync(new URL(`fixtures/${name}.pem`, import.meta.url)));
}
