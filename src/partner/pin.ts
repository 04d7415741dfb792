/**
 * Pins: what a partner's certificate must match. The digest forms are those of RFC 7469 §2.4: `sha256/` and the base64
 * of the SHA-256 of the DER SubjectPublicKeyInfo, or of the whole DER certificate. Pure.
 */
import { createHash, type X509Certificate } from "node:crypto";
import type { RevocationList } from "./revocation.ts";
import type { SourceRef } from "./partner.ts";

/** `sha256/` and 44 characters of base64. */
export type Digest = `sha256/${string}`;

/**
 * Where a pin is in its life. `pending`: enrolled, and not yet confirmed from a second channel: it lets nobody in.
 * `active`: in use. `next`: confirmed, and to replace the active ones: it counts as they do, and they retire some time
 * after it was first seen. `revoked`: lets nobody in any more, and is kept so that it is not enrolled again by mistake.
 */
export type PinState = "pending" | "active" | "next" | "revoked";

interface PinLife {
  readonly label: string | undefined;
  readonly state: PinState;
  /** The pin counts from here on; undefined: always has. */
  readonly notBefore: Date | undefined;
  /** The pin counts up to here; undefined: without end. */
  readonly notAfter: Date | undefined;
  readonly source: SourceRef;
}

export type Pin = PinLife &
  (
    | { readonly kind: "spki"; readonly digest: Digest }
    | { readonly kind: "certificate"; readonly digest: Digest }
    | {
        readonly kind: "trustAnchor";
        readonly file: string;
        readonly anchors: readonly X509Certificate[];
        /** DNS name that the leaf must carry as a subjectAltName. */
        readonly name: string;
        /** The revocation lists of its CAs; empty: none is asked. */
        readonly revocationLists: readonly RevocationList[];
      }
  );

/** A pin's name in records: what it pins, not where it stands. Unique among all pins of a configuration. */
export function pinKey(pin: Pin): string {
  switch (pin.kind) {
    case "spki":
    case "certificate":
      return `${pin.kind} ${pin.digest}`;
    case "trustAnchor":
      return `trust-anchor ${pin.anchors.map(certificateDigest).toSorted().join(" ")} for ${pin.name}`;
  }
}

/** The pin of a certificate's key: it survives renewal with the same key. */
export function spkiDigest(certificate: X509Certificate): Digest {
  const known = spkiDigests.get(certificate);
  if (known !== undefined) return known;
  const digest = digestOf(certificate.publicKey.export({ type: "spki", format: "der" }));
  spkiDigests.set(certificate, digest);
  return digest;
}

/** A peer's certificate is judged at every MAIL; its key does not change. */
const spkiDigests = new WeakMap<X509Certificate, Digest>();

/** The pin of one certificate as a whole. */
export function certificateDigest(certificate: X509Certificate): Digest {
  return digestOf(certificate.raw);
}

/** The digest of DER bytes, in the form of a pin. */
export function digestOf(der: Uint8Array): Digest {
  return `sha256/${createHash("sha256").update(der).digest("base64")}`;
}

/**
 * Reads a digest as people hand it around: `sha256/BASE64`, `sha256//BASE64` as curl writes it, bare base64, or 64
 * hexadecimal digits with or without colons or spaces, as openssl prints them. Undefined for anything else.
 */
export function parseDigest(text: string): Digest | undefined {
  const hex = text.replace(/^sha-?256[ =:]*(fingerprint=)?/i, "").replaceAll(/[:\s]/g, "");
  if (/^[0-9a-f]{64}$/i.test(hex)) return `sha256/${Buffer.from(hex, "hex").toString("base64")}`;
  // One slash or two: base64 may begin with a slash itself, so the length decides which of them are its own.
  const base64 = /^(?:sha256\/\/?)?([A-Za-z0-9+/]{43}=)$/i.exec(text.trim())?.[1];
  if (base64 === undefined) return undefined;
  const bytes = Buffer.from(base64, "base64");
  // Base64 whose last digit has stray bits decodes to the same bytes: accept the one canonical spelling only.
  return bytes.length === 32 && bytes.toString("base64") === base64 ? `sha256/${base64}` : undefined;
}

/** A digest as openssl prints fingerprints: upper-case hexadecimal with colons. */
export function digestHex(digest: Digest): string {
  const hex = Buffer.from(digest.slice("sha256/".length), "base64").toString("hex").toUpperCase();
  return hex.replaceAll(/(..)(?=.)/g, "$1:");
}
