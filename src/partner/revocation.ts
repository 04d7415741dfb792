/**
 * Certificate revocation lists as policy sees them (RFC 5280 §5); `certs` reads them from files.
 */
import type { X509Certificate } from "node:crypto";

export interface RevocationList {
  readonly file: string;
  /** When it was made. */
  readonly thisUpdate: Date;
  /** When the next one is due: from then on this one is stale, and tells nothing about what was revoked since. */
  readonly nextUpdate: Date;
  /** Is it this CA's list: the issuer's name is the CA's, and its key made the signature? */
  isOf(authority: X509Certificate): boolean;
  /** Is the certificate, one of that CA, on it? */
  revokes(certificate: X509Certificate): boolean;
}
