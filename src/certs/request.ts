/**
 * Certificate signing requests (PKCS #10, RFC 2986), as a partner's postmaster sends them in a file.
 *
 * Promises: what {@link parseRequest} returns was signed with the private half of the key in it (proof of possession),
 * over exactly the bytes that were read; key and signature are strong enough; the names are told as they are claimed,
 * and nothing of it is trusted. Pure; fails with {@link CertificateFault}, whose message follows "the request …".
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import { SocketAddress } from "node:net";
import {
  bitStringOctets,
  contentOf,
  contextItems,
  contextTag,
  DerError,
  encode,
  integerOctets,
  octetStringOctets,
  oidText,
  parseDer,
  sequenceItems,
  setItems,
  stringText,
  type DerNode,
} from "./der.ts";
import { CertificateFault } from "./fault.ts";
import { keyFault } from "./key.ts";
import { isSignedBy, readScheme, type ReadScheme } from "./signature.ts";

/** One attribute of a subject, as `{ type: "CN", value: "mx.acme.example" }`. */
export interface SubjectAttribute {
  readonly type: string;
  readonly value: string;
}

export interface CertificateRequest {
  readonly subject: readonly SubjectAttribute[];
  /** subjectAltName as claimed, neither checked nor canonical. */
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  /** Mail addresses, URIs and other kinds, which we never certify; as `email:ops@acme.example`. */
  readonly otherNames: readonly string[];
  readonly publicKey: KeyObject;
}

export const requestBytesMax = 65_536;

/** Parses a request and checks its signature. */
export function parseRequest(der: Uint8Array): CertificateRequest {
  if (der.length > requestBytesMax) throw new CertificateFault(`is larger than ${requestBytesMax} bytes`);
  try {
    return readRequest(der);
  } catch (error) {
    if (error instanceof DerError) {
      throw new CertificateFault(`is damaged or no PKCS #10 request: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

function readRequest(der: Uint8Array): CertificateRequest {
  const [info, algorithm, signature, ...rest] = sequenceItems(parseDer(der));
  const [version, subject, keyInfo, attributes, ...more] = sequenceItems(info);
  if (info === undefined || keyInfo === undefined || rest.length > 0 || more.length > 0) {
    throw new DerError("it has parts too few or too many");
  }
  if (integerOctets(version).toString("hex") !== "00") throw new DerError("its version is not 1");
  const publicKey = readPublicKey(keyInfo);
  // The bytes of `info` are those of the file: parseDer makes sure that encoding gives back what was parsed.
  checkPossession(encode(info), publicKey, readRequestScheme(algorithm), bitStringOctets(signature));
  return { subject: readSubject(subject), ...readNames(attributes), publicKey };
}

function readPublicKey(info: DerNode): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey({ key: encode(info), format: "der", type: "spki" });
  } catch (cause) {
    throw new CertificateFault("has a key that cannot be read: make the request again with openssl", { cause });
  }
  const fault = keyFault(key);
  if (fault !== undefined) throw new CertificateFault(`is refused: ${fault}`);
  return key;
}

function readRequestScheme(algorithm: DerNode | undefined): ReadScheme & { readonly kind: "plain" | "pss" } {
  const scheme = readScheme(algorithm);
  switch (scheme.kind) {
    case "plain":
    case "pss":
      return scheme;
    case "weak":
      throw new CertificateFault(`is signed with ${scheme.hash}: make it again with openssl req -sha256`);
    case "unknown":
      throw new CertificateFault(
        `is signed by an algorithm not known here (${scheme.oid}): make it again with openssl req and an EC P-256 key`,
      );
  }
}

function checkPossession(
  signed: Buffer,
  key: KeyObject,
  scheme: ReadScheme & { readonly kind: "plain" | "pss" },
  signature: Buffer,
): void {
  if (isSignedBy(signed, key, scheme, signature)) return;
  throw new CertificateFault(
    "has a signature that does not fit: it was changed on its way, or not made by the owner of the key; ask for it again",
  );
}

const attributeTypes: ReadonlyMap<string, string> = new Map([
  ["2.5.4.3", "CN"],
  ["2.5.4.5", "serialNumber"],
  ["2.5.4.6", "C"],
  ["2.5.4.7", "L"],
  ["2.5.4.8", "ST"],
  ["2.5.4.9", "street"],
  ["2.5.4.10", "O"],
  ["2.5.4.11", "OU"],
  ["0.9.2342.19200300.100.1.25", "DC"],
  ["1.2.840.113549.1.9.1", "emailAddress"],
]);

function readSubject(name: DerNode | undefined): SubjectAttribute[] {
  return sequenceItems(name)
    .flatMap(setItems)
    .map((attribute) => {
      const [type, value] = sequenceItems(attribute);
      const oid = oidText(type);
      return { type: attributeTypes.get(oid) ?? oid, value: stringText(value) };
    });
}

type Names = Pick<CertificateRequest, "dnsNames" | "ipAddresses" | "otherNames">;

const extensionRequest = "1.2.840.113549.1.9.14"; // RFC 2985 §5.4.2
const subjectAltName = "2.5.29.17";

function readNames(attributes: DerNode | undefined): Names {
  const requests = (attributes === undefined ? [] : contextItems(attributes, 0))
    .map(sequenceItems)
    .filter(([type]) => oidText(type) === extensionRequest);
  const extensions = requests.flatMap(([, values]) => setItems(values)).flatMap(sequenceItems);
  const found = extensions.map(sequenceItems).filter(([type]) => oidText(type) === subjectAltName);
  if (found.length > 1) throw new DerError("it has several subjectAltNames");
  const names = found.flatMap((items) => sequenceItems(parseDer(octetStringOctets(items.at(-1)))));
  return {
    dnsNames: names.filter((name) => contextTag(name) === 2).map(latin1Text),
    ipAddresses: names.filter((name) => contextTag(name) === 7).map(addressText),
    otherNames: names.flatMap(otherName),
  };
}

/** GeneralName by its tag (RFC 5280 §4.2.1.6). */
function otherName(name: DerNode): string[] {
  switch (contextTag(name) ?? -1) {
    case 1:
      return [`email:${latin1Text(name)}`];
    case 6:
      return [`URI:${latin1Text(name)}`];
    case 2:
    case 7:
      return [];
    default:
      return ["a name of a kind not shown here"];
  }
}

function latin1Text(node: DerNode): string {
  return contentOf(node).toString("latin1");
}

function addressText(node: DerNode): string {
  const bytes = contentOf(node);
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16) throw new DerError("an iPAddress has neither 4 nor 16 octets");
  const groups = bytes.toString("hex").match(/.{4}/g) ?? [];
  return new SocketAddress({ family: "ipv6", address: groups.join(":") }).address;
}
