/**
 * Keys: made, judged and used for signing, all by node:crypto.
 *
 * Promises that a signature and the AlgorithmIdentifier that names it always fit together, and that a key which TLS
 * could not use or which is too weak is told apart in words.
 */
import { createHash, generateKeyPair, sign, type KeyObject } from "node:crypto";
import { promisify } from "node:util";
import {
  bitStringOctets,
  nullValue,
  objectIdentifier,
  parseDer,
  sequence,
  sequenceItems,
  type DerNode,
} from "./der.ts";

/** The kinds of key that we make. */
export const keyTypes = ["ec-p256", "ec-p384", "ed25519", "rsa-3072"] as const;
export type KeyType = (typeof keyTypes)[number];

export function isKeyType(text: string): text is KeyType {
  return keyTypes.some((type) => type === text);
}

/** How a signature is made and what names it. */
export interface SignatureScheme {
  readonly oid: string;
  /** Undefined where the scheme brings its own (RFC 8032). */
  readonly hash: "sha256" | "sha384" | "sha512" | undefined;
  /** RFC 4055 §5: NULL parameters for RSA; RFC 5758 §3.2 and RFC 8410 §3: none for ECDSA and Ed25519. */
  readonly parameters: "null" | "absent";
}

export const signatureSchemes = {
  rsaSha256: { oid: "1.2.840.113549.1.1.11", hash: "sha256", parameters: "null" },
  rsaSha384: { oid: "1.2.840.113549.1.1.12", hash: "sha384", parameters: "null" },
  rsaSha512: { oid: "1.2.840.113549.1.1.13", hash: "sha512", parameters: "null" },
  ecdsaSha256: { oid: "1.2.840.10045.4.3.2", hash: "sha256", parameters: "absent" },
  ecdsaSha384: { oid: "1.2.840.10045.4.3.3", hash: "sha384", parameters: "absent" },
  ecdsaSha512: { oid: "1.2.840.10045.4.3.4", hash: "sha512", parameters: "absent" },
  ed25519: { oid: "1.3.101.112", hash: undefined, parameters: "absent" },
} as const satisfies Record<string, SignatureScheme>;

const generate = promisify(generateKeyPair);

/** Makes a private key. */
export async function generateKey(type: KeyType): Promise<KeyObject> {
  switch (type) {
    case "ec-p256":
      return (await generate("ec", { namedCurve: "prime256v1" })).privateKey;
    case "ec-p384":
      return (await generate("ec", { namedCurve: "secp384r1" })).privateKey;
    case "ed25519":
      return (await generate("ed25519")).privateKey;
    case "rsa-3072":
      return (await generate("rsa", { modulusLength: 3072 })).privateKey;
  }
}

/** The private key as PKCS #8 in PEM. */
export function keyPem(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

/** The scheme that a CA with this key signs by: the hash is as strong as the curve. Undefined: it cannot sign for us. */
export function schemeOf(key: KeyObject): SignatureScheme | undefined {
  const type: string = key.asymmetricKeyType ?? ""; // only a few of the many are of use here
  switch (type) {
    case "rsa":
      return signatureSchemes.rsaSha256;
    case "ed25519":
      return signatureSchemes.ed25519;
    case "ec":
      return ecdsaSchemes.get(key.asymmetricKeyDetails?.namedCurve ?? "");
    default:
      return undefined;
  }
}

const ecdsaSchemes: ReadonlyMap<string, SignatureScheme> = new Map<string, SignatureScheme>([
  ["prime256v1", signatureSchemes.ecdsaSha256],
  ["secp384r1", signatureSchemes.ecdsaSha384],
  ["secp521r1", signatureSchemes.ecdsaSha512],
]);

export function algorithmIdentifier(scheme: SignatureScheme): DerNode {
  return sequence(objectIdentifier(scheme.oid), scheme.parameters === "null" ? nullValue() : undefined);
}

/** The signature over the bytes; for ECDSA in the DER form that certificates carry (RFC 3279 §2.2.3). */
export function signBytes(bytes: Uint8Array, key: KeyObject, scheme: SignatureScheme): Buffer {
  return sign(scheme.hash, bytes, key);
}

/** The SubjectPublicKeyInfo of a public key (RFC 5280 §4.1.2.7). */
export function publicKeyInfo(key: KeyObject): DerNode {
  return parseDer(key.export({ type: "spki", format: "der" }));
}

/** A name for a key: the leftmost 160 bits of the SHA-256 of its bits (RFC 7093 §2, method 1). */
export function keyIdentifier(info: DerNode): Buffer {
  return createHash("sha256")
    .update(bitStringOctets(sequenceItems(info)[1]))
    .digest()
    .subarray(0, 20);
}

/** The key in a few words, as "EC prime256v1" or "RSA 3072". */
export function describeKey(key: KeyObject): string {
  const details = key.asymmetricKeyDetails;
  const type: string = key.asymmetricKeyType ?? "unknown";
  switch (type) {
    case "rsa":
      return `RSA ${details?.modulusLength ?? ""}`;
    case "ec":
      return `EC ${details?.namedCurve ?? ""}`;
    case "ed25519":
      return "Ed25519";
    default:
      return type;
  }
}

const rsaBitsMin = 2048;
const rsaBitsMax = 16_384; // beyond it TLS libraries refuse, and checking one signature takes seconds
const usableKeyTypes = new Set(["rsa", "rsa-pss", "ec", "ed25519", "ed448", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]);
const usableCurves = new Set([
  "prime256v1",
  "secp384r1",
  "secp521r1",
  "brainpoolP256r1", // RFC 8734
  "brainpoolP384r1",
  "brainpoolP512r1",
]);

/** Why a public key must not be trusted to identify anybody; undefined if it may. Ends in what to do. */
export function keyFault(key: KeyObject): string | undefined {
  const type: string = key.asymmetricKeyType ?? "unknown";
  const details = key.asymmetricKeyDetails;
  const advice = "make a new key, best EC P-256 or RSA 3072";
  if (!usableKeyTypes.has(type)) return `its key is of type ${type}, which TLS does not use: ${advice}`;
  if (type === "ec" && !usableCurves.has(details?.namedCurve ?? "")) {
    return `its key is on the curve ${details?.namedCurve ?? "(unnamed)"}, which is weak or not used in TLS: ${advice}`;
  }
  if (type !== "rsa" && type !== "rsa-pss") return undefined;
  const bits = details?.modulusLength ?? 0;
  if (bits < rsaBitsMin) return `its RSA key has only ${bits} bits, ${rsaBitsMin} are needed: ${advice}`;
  if (bits > rsaBitsMax) return `its RSA key has ${bits} bits, more than ${rsaBitsMax}: ${advice}`;
  if ((details?.publicExponent ?? 0n) < 65_537n) return `its RSA key has too small an exponent: ${advice}`;
  return undefined;
}
