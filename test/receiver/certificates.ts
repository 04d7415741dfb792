/** Client certificates of every kind that an attacker or a careless partner may show: names, dates, issuers at will. */
import { createPublicKey, randomBytes, X509Certificate, type KeyObject } from "node:crypto";
import {
  authorityExtensions,
  commonNameSubject,
  leafExtensions,
  readCertificateParts,
  signCertificate,
  type Usages,
} from "../../src/certs/certificate.ts";
import {
  booleanTrue,
  encode,
  integer,
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
  /** What a leaf may be used for: client, unless it says otherwise; "unsaid" leaves the extension out. */
  readonly usages?: Usages | "unsaid";
  /** How many intermediates may stand below a CA. */
  readonly pathLength?: number;
  /** Further extensions, made by {@link extension}. */
  readonly extensions?: readonly DerNode[];
  /** One or more octets. */
  readonly serial?: Uint8Array;
  /** A key of its own, as for a renewal; else a new one. */
  readonly privateKey?: KeyObject;
}

const dayMs = 86_400_000;

/** A certificate under `issuer`, or self-signed; `cert` holds it alone, without its issuers. */
export async function makeCertificate(plan: Plan = {}): Promise<Made> {
  const privateKey = plan.privateKey ?? (await generateKey("ec-p256"));
  const publicKey = createPublicKey(privateKey);
  const subject = plan.subject ?? commonNameSubject("mx.acme.example");
  const issuer = plan.issuer === undefined ? undefined : readCertificateParts(plan.issuer.certificate.raw);
  const ownKeyId = keyIdentifier(publicKeyInfo(publicKey));
  const usages = plan.usages ?? "client";
  const extensions =
    plan.ca === true
      ? [authorityOf(plan.pathLength), ...authorityExtensions(publicKey).slice(1, 3)]
      : leafExtensions(
          publicKey,
          issuer?.keyId ?? ownKeyId,
          { dnsNames: plan.dnsNames ?? ["mx.acme.example"], ipAddresses: [] },
          usages === "unsaid" ? "client" : usages,
        ).filter((_, index) => usages !== "unsaid" || index !== 2); // the third is extKeyUsage
  const der = signCertificate(
    {
      serial: plan.serial ?? randomBytes(8),
      issuer: issuer?.subject ?? subject,
      subject,
      notBefore: plan.from ?? new Date(Date.now() - dayMs),
      notAfter: plan.to ?? new Date(Date.now() + 20 * dayMs),
      publicKey,
      extensions: [...extensions, ...(plan.extensions ?? [])],
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

/** An extension of any kind; `value` is what stands in its OCTET STRING. */
export function extension(oid: string, value: DerNode, criticality: "critical" | "uncritical" = "uncritical"): DerNode {
  const critical = criticality === "critical" ? booleanTrue() : undefined;
  return sequence(objectIdentifier(oid), critical, octetString(encode(value)));
}

function authorityOf(pathLength: number | undefined): DerNode {
  const length = pathLength === undefined ? undefined : integer(Uint8Array.of(pathLength));
  return extension("2.5.29.19", sequence(booleanTrue(), length), "critical");
}
