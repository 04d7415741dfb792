/**
 * Signatures as certificates, requests and revocation lists carry them: the AlgorithmIdentifier read, the bytes verified
 * by node:crypto. Pure.
 *
 * Promises: what is broken (MD5, SHA-1) is told apart from what is not known; a scheme is never used with a key of
 * another kind. Fails with {@link DerError} where the identifier is no such thing.
 */
import { constants, verify, type KeyObject } from "node:crypto";
import {
  contextItems,
  contextTag,
  DerError,
  integerOctets,
  isNull,
  oidText,
  sequenceItems,
  type DerNode,
} from "./der.ts";
import { signatureSchemes, type SignatureScheme } from "./key.ts";

export type ReadScheme =
  | { readonly kind: "plain"; readonly scheme: SignatureScheme }
  /** RSASSA-PSS (RFC 4055 §3.1), whose parameters say how. */
  | { readonly kind: "pss"; readonly hash: Sha2; readonly saltLength: number }
  | { readonly kind: "weak"; readonly hash: "MD5" | "SHA-1" }
  | { readonly kind: "unknown"; readonly oid: string };

type Sha2 = "sha256" | "sha384" | "sha512";

const weakSignatures: ReadonlyMap<string, "MD5" | "SHA-1"> = new Map([
  ["1.2.840.113549.1.1.4", "MD5"],
  ["1.2.840.113549.1.1.5", "SHA-1"],
  ["1.2.840.10045.4.1", "SHA-1"],
]);
const rsassaPss = "1.2.840.113549.1.1.10";

/** Reads an AlgorithmIdentifier of a signature. */
export function readScheme(algorithm: DerNode | undefined): ReadScheme {
  const [id, parameters, ...rest] = sequenceItems(algorithm);
  const oid = oidText(id);
  const weak = weakSignatures.get(oid);
  if (weak !== undefined) return { kind: "weak", hash: weak };
  if (oid === rsassaPss) return readPss(parameters);
  const scheme = Object.values(signatureSchemes).find((known) => known.oid === oid);
  if (scheme === undefined) return { kind: "unknown", oid };
  // RFC 4055 §5: readers take RSA's parameters both absent and NULL.
  const fits = parameters === undefined || (scheme.parameters === "null" && isNull(parameters));
  if (!fits || rest.length > 0) throw new DerError("its signature algorithm has parameters that do not belong to it");
  return { kind: "plain", scheme };
}

const sha2: ReadonlyMap<string, Sha2> = new Map([
  ["2.16.840.1.101.3.4.2.1", "sha256"],
  ["2.16.840.1.101.3.4.2.2", "sha384"],
  ["2.16.840.1.101.3.4.2.3", "sha512"],
]);

/** What is absent has its default: SHA-1, and a salt of 20 octets. */
function readPss(parameters: DerNode | undefined): ReadScheme {
  const fields = parameters === undefined ? [] : sequenceItems(parameters);
  const field = (tag: number): DerNode | undefined => {
    const found = fields.find((item) => contextTag(item) === tag);
    return found === undefined ? undefined : contextItems(found, tag)[0];
  };
  const named = field(0);
  const hash = named === undefined ? undefined : sha2.get(oidText(sequenceItems(named)[0]));
  const salt = field(2);
  const octets = salt === undefined ? Buffer.of(20) : integerOctets(salt);
  if (octets.length === 0 || octets.length > 4)
    throw new DerError("its signature algorithm has parameters that do not belong to it");
  const saltLength = octets.readIntBE(0, octets.length);
  return hash === undefined ? { kind: "weak", hash: "SHA-1" } : { kind: "pss", hash, saltLength };
}

/** Was the signature made over these bytes by the owner of the key? */
export function isSignedBy(
  signed: Uint8Array,
  key: KeyObject,
  scheme: ReadScheme & { readonly kind: "plain" | "pss" },
  signature: Uint8Array,
): boolean {
  const keyType: string = key.asymmetricKeyType ?? "";
  if (scheme.kind === "pss") {
    if (keyType !== "rsa" && keyType !== "rsa-pss") return false;
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    return verify(scheme.hash, signed, { key, padding, saltLength: scheme.saltLength }, signature);
  }
  const { hash, parameters } = scheme.scheme;
  const fits = hash === undefined ? keyType === "ed25519" : keyType === (parameters === "null" ? "rsa" : "ec");
  return fits && verify(hash, signed, key, signature);
}
