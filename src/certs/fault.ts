/** What an operator did or has that keeps a certificate from being made or signed; the message says what to do. */
export class CertificateFault extends Error {
  override readonly name: string = "CertificateFault";
}

/** What was asked for can be made by no CA, whatever there is: it was typed wrong. */
export class WrongPlan extends CertificateFault {
  override readonly name = "WrongPlan";
}
