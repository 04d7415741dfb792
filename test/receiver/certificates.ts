/** Client certificates of every kind that an attacker or a careless partner may show: names, dates, issuers at will. */
import { createPublicKey, X509Certificate, type KeyObject } from "node:crypto";
import {
  authorityExtensions,
  commonNameSubject,
  leafExtensions,
  readCertificateParts,
  signCertificate,
} from "../../src/certs/certificate.ts";
import {
  booleanTrue,
  encode,
  objectIdentifier,
  octetString,
  sequence,
  set,
  utf8String,
  type DerNode,
} from "../../src/certs/der.ts";
import { generateKey, keyIdentifier, keyPem, publicKeyInfo } from "../../src/certs/key.ts";
import { encodePem } from "../../src/certs/pem.ts";
import type { ClientCertificate } from "../tools/smtp-dialogue.ts";

export interface Made extends ClientCertificate {
  readonly certificate: X509Certificate;
  readonly privateKey: KeyObject;
}

export interface Plan {
  readonly subject?: DerNode;
  readonly dnsNames?: readonly string[];
  readonly issuer?: Made;
  /** May it sign others? Its own issuer's place in the chain is not limited by it. */
  readonly ca?: boolean;
  readonly from?: Date;
  readonly to?: Date;
}

const dayMs = 86_400_000;

/** A certificate under `issuer`, or self-signed; `cert` holds it alone, without its issuers. */
export async function makeCertificate(plan: Plan = {}): Promise<Made> {
  const privateKey = await generateKey("ec-p256");
  const publicKey = createPublicKey(privateKey);
  const subject = plan.subject ?? commonNameSubject("mx.acme.example");
  const issuer = plan.issuer === undefined ? undefined : readCertificateParts(plan.issuer.certificate.raw);
  const ownKeyId = keyIdentifier(publicKeyInfo(publicKey));
  const extensions =
    plan.ca === true
      ? [unlimitedAuthority(), ...authorityExtensions(publicKey).slice(1, 3)]
      : leafExtensions(
          publicKey,
          issuer?.keyId ?? ownKeyId,
          { dnsNames: plan.dnsNames ?? ["mx.acme.example"], ipAddresses: [] },
          "client",
        );
  const der = signCertificate(
    {
      serial: Buffer.from("01020304", "hex"),
      issuer: issuer?.subject ?? subject,
      subject,
      notBefore: plan.from ?? new Date(Date.now() - dayMs),
      notAfter: plan.to ?? new Date(Date.now() + 20 * dayMs),
      publicKey,
      extensions,
    },
    plan.issuer?.privateKey ?? privateKey,
  );
  return {
    cert: encodePem("CERTIFICATE", der),
    key: keyPem(privateKey),
    certificate: new X509Certificate(der),
    privateKey,
  };
}

/** A subject of common names, one attribute each, with any characters in them. */
export function subjectOf(...commonNames: readonly string[]): DerNode {
  return sequence(...commonNames.map((name) => set(sequence(objectIdentifier("2.5.4.3"), utf8String(name)))));
}

/** The certificate with others behind it, as a client sends them. */
export function withIssuers(leaf: Made, ...issuers: readonly Made[]): ClientCertificate {
  return { cert: [leaf, ...issuers].map(({ cert }) => cert).join(""), key: leaf.key };
}

function unlimitedAuthority(): DerNode {
  return sequence(objectIdentifier("2.5.29.19"), booleanTrue(), octetString(encode(sequence(booleanTrue()))));
}
