/** What an operator did or has that keeps a certificate from being made or signed; the message says what to do. */
export class CertificateFault extends Error {
  override readonly name = "CertificateFault";
}
