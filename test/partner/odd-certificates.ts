/** Certificates that hold what no CA writes: a peer makes them for itself. */
import { X509Certificate } from "node:crypto";
import { sequence } from "../../src/certs/der.ts";
import { makeCertificate } from "../receiver/certificates.ts";

/** Without a name: node:crypto has `undefined` for its subject, whatever the type says. */
export async function namelessCertificate(): Promise<X509Certificate> {
  return (await makeCertificate({ subject: sequence() })).certificate;
}

/** Its end is no date: the bytes are there, and TLS asks nobody to read them. */
export async function endlessCertificate(): Promise<X509Certificate> {
  const { certificate } = await makeCertificate({ to: new Date("2031-01-01T00:00:00Z") });
  const der = Buffer.from(certificate.raw);
  const at = der.indexOf("310101000000Z");
  der.write("319999999999Z", at, "latin1");
  return new X509Certificate(der);
}
